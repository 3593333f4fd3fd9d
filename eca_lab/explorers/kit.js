// The kit of the explorers: elements, a state shared with Python, controls, axes, and the theme.
// Python puts it before an explorer's own text, in one ES module, because a page can fetch nothing.
// What people name (classes, networks, errors) becomes text nodes and never markup.

const build = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === null || value === false) node.removeAttribute(name);
    else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
  }
  node.append(...children.flat());
  return node;
};
const html = (tag, attributes = {}, ...children) =>
  build(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  build(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
const set = (node, attributes) => build(node, attributes, []);
const write = (node, text) => {
  if (node.textContent !== text) node.textContent = text;
};

let ids = 0;
const newId = () => `eca-lab-${++ids}`;

// --- State ---

// The state of a model, drawn by draw(state) at most once a frame. `names` are its traits;
// `look` is the explorer's own style.
function connect({ model, el }, names, draw, look) {
  const root = html("div", { class: "eca-lab" });
  el.append(html("style", {}, STYLE + look), root);
  // JupyterLab takes arrows and letters as commands; shortcuts with Ctrl or Cmd stay its own.
  root.addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey) event.stopPropagation();
  });
  let frame = 0;
  let unsent = false;
  const view = { root, given: model.get("given"), shows: [], link: () => model.get("link") };
  view.state = () => Object.fromEntries(names.map((name) => [name, model.get(name)]));
  // What the kernel said last. It is fresh if it was asked for this state; else draw it, but for
  // what the page knows better, until the answer is there: .eca-lab.waiting tells the reader.
  view.answer = (state) => {
    const answer = model.get("answer");
    const fresh = Object.entries(answer.asked).every(([name, value]) => state[name] === value);
    root.classList.toggle("waiting", !fresh);
    return { ...answer, fresh };
  };
  view.redraw = () => {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      const state = view.state();
      view.shows.forEach((show) => show(state));
      draw(state);
      if (unsent) model.save_changes(); // all changes of a frame in one message
      unsent = false;
    });
  };
  view.change = (changes) => {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    unsent = true;
    view.redraw();
  };
  for (const name of [...names, "answer"]) model.on(`change:${name}`, view.redraw);
  const resized = new ResizeObserver(() => {
    view.width = root.clientWidth; // a size that is read while drawing costs a layout
    view.redraw();
  });
  resized.observe(root);
  view.close = () => {
    cancelAnimationFrame(frame);
    resized.disconnect();
    for (const name of [...names, "answer"]) model.off(`change:${name}`, view.redraw);
  };
  return view;
}

// A value as Python writes it.
function python(value) {
  if (typeof value === "string")
    return /^[^'\\\p{C}]*$/u.test(value) ? `'${value}'` : JSON.stringify(value);
  return { true: "True", false: "False", null: "None" }[value] ?? String(value);
}

// The constructor call that gives this state, after the arguments that are no state.
function call({ name, usual, arguments: others }, state) {
  const shown = Object.entries(state).filter(([key, value]) => usual[key] !== value);
  const named = shown.map(([key, value]) => `${key}=${python(value)}`);
  return `${name}(${[...others, ...named].join(", ")})`;
}

// --- Controls: each shows the state and changes it ---

// A slider that halts at stops, beside a box that takes every number from the first to the last,
// integers only if `integer`; a wrong entry is answered below. The stops may be a function of the
// state; refused(value, state) tells what is accepted where a number within the limits is not.
function numberRow(view, name, label, stops, integer = false, refused = () => "") {
  let halts = [0];
  const [id, whyId] = [newId(), newId()];
  const why = html("div", { class: "why", id: whyId, role: "alert" });
  const range = html("input", {
    ...{ type: "range", id, min: 0, step: 1 },
    oninput: () => view.change({ [name]: halts[range.value] }),
  });
  const box = html("input", {
    ...{ type: "text", inputmode: "decimal", autocomplete: "off", spellcheck: "false" },
    ...{ "aria-label": `${label}, any value`, "aria-describedby": whyId },
    onchange: take,
    onkeydown: (event) => {
      const step = { ArrowUp: 1, ArrowDown: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const index = Math.min(Math.max(+range.value + step, 0), halts.length - 1);
      view.change({ [name]: halts[index] });
    },
  });
  let shown;
  function answer(text) {
    write(why, text);
    set(box, { "aria-invalid": text !== "" });
  }
  function take() {
    const text = box.value.trim();
    const value = text === "" ? NaN : Number(text);
    const [least, most] = [halts[0], halts.at(-1)];
    const within = value >= least && value <= most && (!integer || Number.isInteger(value));
    const limits = `${integer ? "an integer" : "a finite number"} from ${least} to ${most}`;
    const accepted = within ? refused(value, view.state()) : limits;
    shown = accepted ? shown : undefined; // what was typed stays until the state changes
    answer(accepted ? `${name}=${Number.isNaN(value) ? python(text) : text}: accepted is ${accepted}` : "");
    if (!accepted) view.change({ [name]: value });
  }
  view.shows.push((state) => {
    const value = state[name];
    const now = typeof stops === "function" ? stops(state) : stops;
    if (value === shown && String(now) === String(halts)) return;
    [shown, halts] = [value, now];
    answer("");
    box.value = value;
    const distances = halts.map((stop) => Math.abs(stop - value));
    set(range, { max: halts.length - 1 });
    range.value = distances.indexOf(Math.min(...distances));
    set(range, { "aria-valuetext": `${label} = ${value}` });
  });
  return html("div", { class: "row" }, html("label", { for: id }, label), range, box, why);
}

// A list of [value, text] to choose from.
function choice(view, name, label, options) {
  const select = html(
    "select",
    { onchange: () => view.change({ [name]: select.value }) },
    options.map(([value, text]) => html("option", { value }, text)),
  );
  view.shows.push((state) => {
    if (select.value !== state[name]) select.value = state[name];
  });
  return html("label", { class: "choice" }, html("span", {}, label), select);
}

// A button for each preset, and one that goes back to the first state.
function presets(view) {
  const all = { ...view.given.presets, Reset: view.given.initial };
  const buttons = Object.entries(all).map(([text, changes]) =>
    html("button", { type: "button", onclick: () => view.change(changes) }, text),
  );
  return html("div", { class: "buttons" }, buttons);
}

// The state as a line of Python, to copy; on a page without a kernel also as a link.
function stateLine(view) {
  const code = html("code");
  const copier = (words, text) => {
    const button = html("button", { type: "button" }, words);
    button.addEventListener("click", async () => {
      getSelection().selectAllChildren(code); // where the page may not copy, the reader can
      await navigator.clipboard?.writeText(text()).then(() => write(button, "Copied"));
    });
    view.shows.push(() => write(button, words));
    return button;
  };
  view.shows.push((state) => write(code, call(view.given, state)));
  const copy = copier("Copy", () => code.textContent);
  const buttons = view.link() ? [copy, copier("Copy link", view.link)] : [copy];
  return html("div", { class: "state" }, code, buttons);
}

// --- Pictures ---

// A linear scale from values a0..a1 to pixels p0..p1.
function scale(a0, a1, p0, p1) {
  const at = (value) => p0 + ((value - a0) * (p1 - p0)) / (a1 - a0);
  at.invert = (pixel) => a0 + ((pixel - p0) * (a1 - a0)) / (p1 - p0);
  at.range = [p0, p1];
  return at;
}

// viridis without its darkest end, from 0 to 1
const RAMP = [[71, 47, 125], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
function ramp(share) {
  const place = Math.min(share, 0.9999) * (RAMP.length - 1);
  const [from, to] = [RAMP[Math.floor(place)], RAMP[Math.floor(place) + 1]];
  return `rgb(${from.map((value, i) => Math.round(value + (to[i] - value) * (place % 1)))})`;
}

// Grid, ticks ([value, text]) and titles, drawn anew into a group.
function axes(group, x, y, xTicks, yTicks, xTitle, yTitle) {
  const [[left, right], [bottom, top]] = [x.range, y.range];
  const text = (words, attributes) => svg("text", attributes, words);
  const middle = { "text-anchor": "middle" };
  group.replaceChildren(
    ...xTicks.map(([value]) => svg("path", { class: "grid", d: `M${x(value)} ${bottom}V${top}` })),
    ...yTicks.map(([value]) => svg("path", { class: "grid", d: `M${left} ${y(value)}H${right}` })),
    svg("path", { class: "axis", d: `M${left} ${top}V${bottom}H${right}` }),
    ...xTicks.map(([value, words]) => text(words, { ...middle, x: x(value), y: bottom + 16 })),
    ...yTicks.map(([value, words]) =>
      text(words, { "text-anchor": "end", x: left - 7, y: y(value) + 4 }),
    ),
    text(xTitle, { ...middle, x: (left + right) / 2, y: bottom + 34 }),
    text(yTitle, { ...middle, transform: `translate(${left - 32} ${(top + bottom) / 2})rotate(-90)` }),
  );
}

// Calls move(x, y, event), in pixels of the picture, from a press until the release, by any pointer.
function drag(picture, node, move, end = () => {}) {
  const moved = (event) => {
    const box = picture.getBoundingClientRect();
    move(event.clientX - box.left, event.clientY - box.top, event);
  };
  node.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    event.stopPropagation();
    node.setPointerCapture(event.pointerId);
    moved(event);
  });
  node.addEventListener("pointermove", (event) => {
    if (node.hasPointerCapture(event.pointerId)) moved(event);
  });
  node.addEventListener("lostpointercapture", end);
}

// Okabe and Ito's colours, on a dark page the lighter ones; text stands out by 4.5:1, marks by 3:1.
const STYLE = `
.eca-lab {
  --ink: var(--jp-ui-font-color1, #212121); --soft: var(--jp-ui-font-color2, #616161);
  --page: var(--jp-layout-color0, #fff); --edge: var(--jp-border-color1, #9e9e9e);
  --grid: var(--jp-border-color2, #e0e0e0);
  --blue: #0072b2; --orange: #b87400; --red: #c24a00; --sky: #56b4e9; --bad: #b3261e;
  container-type: inline-size; color: var(--ink); background: var(--page);
  font: 13px/1.5 var(--jp-ui-font-family, system-ui, sans-serif);
}
[data-jp-theme-light="false"] .eca-lab {
  --blue: #56b4e9; --orange: #e69f00; --red: #ff8c42; --sky: #2f7fae; --bad: #ff8a80;
}
.eca-lab > .columns { display: grid; gap: 8px 20px; padding: 4px; }
@container (min-width: 780px) {
  .eca-lab > .columns { grid-template-columns: minmax(0, 1fr) 300px; }
  .eca-lab .picture { grid-row: span 2; }
}
.eca-lab .picture { position: relative; min-width: 0; }
.eca-lab svg { display: block; overflow: visible; }
.eca-lab svg text { font-size: 12px; fill: var(--ink); }
.eca-lab .grid { stroke: var(--grid); fill: none; }
.eca-lab .axis { stroke: var(--edge); fill: none; }
.eca-lab .row { display: grid; grid-template-columns: 84px minmax(0, 1fr) 64px; align-items: center;
  gap: 0 8px; min-height: 32px; }
.eca-lab .why { grid-column: 1 / -1; }
.eca-lab .why, .eca-lab .bad { color: var(--bad); font-weight: 600; }
.eca-lab .choice { display: grid; grid-template-columns: 84px minmax(0, 1fr); gap: 8px;
  align-items: center; min-height: 32px; }
.eca-lab input[type="range"] { width: 100%; margin: 0; accent-color: var(--blue); }
.eca-lab input[type="text"], .eca-lab select, .eca-lab button { box-sizing: border-box; font: inherit;
  color: var(--ink); background: var(--page); border: 1px solid var(--edge); border-radius: 3px;
  padding: 2px 6px; min-height: 26px; min-width: 0; }
.eca-lab [aria-invalid="true"] { border: 2px solid var(--bad); }
.eca-lab button { cursor: pointer; }
.eca-lab button:hover { border-color: var(--ink); }
.eca-lab :focus-visible { outline: 2px solid var(--blue); outline-offset: 2px; }
.eca-lab .buttons { display: flex; flex-wrap: wrap; gap: 6px; margin-top: 6px; }
.eca-lab .state { display: flex; flex-wrap: wrap; gap: 4px 8px; align-items: start; margin-top: 6px; }
.eca-lab code { font: 12px/1.5 var(--jp-code-font-family, monospace); color: inherit;
  background: none; padding: 2px 0; overflow-wrap: anywhere; flex: 1 1 200px; }
.eca-lab table { border-collapse: collapse; margin: 6px 0; font: inherit; color: inherit; }
.eca-lab caption { text-align: left; color: inherit; padding: 0; }
.eca-lab th { text-align: right; font-weight: 600; padding: 1px 10px 1px 0; }
.eca-lab td { text-align: right; padding: 1px 4px; }
.eca-lab td button { padding: 0 5px; min-height: 22px; }
`;
