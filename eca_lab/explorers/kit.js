// The kit of the explorers: elements, a state shared with Python, controls, pictures, and the theme.
// Python puts it before an explorer's own text, in one ES module, because a page can fetch nothing.
// What people name (classes, networks, errors) becomes text nodes and never markup.

const build = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === null || value === false) node.removeAttribute(name);
    else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity));
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
const block = (name, ...children) => html("div", { class: name }, ...children);
const marks = (tag, names) => names.map((name) => svg(tag, { class: name }));
const button = (words, onclick, attributes = {}) =>
  html("button", { type: "button", onclick, ...attributes }, words);
const tableRow = (tag, cells) => html("tr", {}, cells.map((cell) => html(tag, {}, cell)));

let ids = 0;
const newId = () => `eca-lab-${++ids}`;

// --- Numbers and words ---

const upTo = (count) => Array.from({ length: count }, (_, i) => i);
const bounded = (value, low, high) => Math.min(Math.max(value, low), high);
const nearest = (stops, value, by = (number) => number) => {
  const far = stops.map((stop) => Math.abs(by(stop) - by(value)));
  return stops[far.indexOf(Math.min(...far))];
};
const grouped = (number) => number.toLocaleString("en-US", { maximumFractionDigits: 3 });
const minus = (text) => String(text).replace(/(^|[ (])-(?=\d)/g, "$1−");
// Bytes of Python as numbers: copied, because they need not begin at a multiple of 4.
const typed = (Type, { buffer, byteOffset, byteLength }) =>
  new Type(buffer.slice(byteOffset, byteOffset + byteLength));

// --- State ---

// What anywidget renders: make(view) gives the nodes of the picture, the controls and the readout,
// and draw(state), which is called at most once a frame; `look` is the explorer's own style.
const explorer = (look, make) => ({ render: ({ model, el }) => connect(model, el, look, make) });

function connect(model, el, look, make) {
  const root = block("eca-lab");
  el.append(html("style", {}, STYLE + look), root);
  // JupyterLab takes arrows and letters as commands; shortcuts with Ctrl or Cmd stay its own.
  root.addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey) event.stopPropagation();
  });
  const given = model.get("given");
  const names = Object.keys(given.initial);
  const [need, widths] = [block("bad"), new Map()];
  let [frame, unshown, unsent] = [0, true, false];
  // `shows` are called with every state that is set, by whomever, even if it is the same again.
  const view = { root, given, shows: [], alone: model.get("alone"), link: () => model.get("link") };
  view.state = () => Object.fromEntries(names.map((name) => [name, model.get(name)]));
  // What the kernel said last. It is fresh if it was asked for this state; else draw it, but for
  // what the page knows better, until the answer is there: .eca-lab.waiting tells the reader.
  view.answer = (state) => {
    const answer = model.get("answer");
    const fresh = Object.entries(answer.asked).every(([name, value]) => state[name] === value);
    root.classList.toggle("waiting", !fresh);
    write(need, view.alone && !fresh ? "This needs a kernel: open the notebook." : "");
    return { ...answer, fresh };
  };
  view.redraw = () => {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      const state = view.state();
      if (unshown) view.shows.forEach((show) => show(state));
      unshown = false;
      draw(state);
      if (unsent) model.save_changes(); // all changes of a frame in one message
      unsent = false;
    });
  };
  const changed = () => {
    unshown = true;
    view.redraw();
  };
  view.change = (changes) => {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    unsent = true;
    changed();
  };
  // The width of a node, 0 until it is known: a size that is read while drawing costs a layout.
  view.width = (node) => {
    if (!widths.has(node)) resized.observe(node);
    return widths.get(node) ?? 0;
  };
  const resized = new ResizeObserver((entries) => {
    for (const { target, contentRect } of entries) widths.set(target, Math.floor(contentRect.width));
    view.redraw();
  });
  const { picture, controls, readout, draw } = make(view);
  root.append(block("columns", block("picture", picture), block("controls", controls),
    block("readout", need, readout, stateLine(view))));
  const heard = [...names.map((name) => [`change:${name}`, changed]), ["change:answer", view.redraw]];
  heard.forEach((each) => model.on(...each));
  view.redraw();
  return () => {
    cancelAnimationFrame(frame);
    resized.disconnect();
    heard.forEach((each) => model.off(...each));
  };
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

// --- Keys and pointers ---

// Calls act with what the table has for a key that is pressed.
const onKeys = (node, table, act) =>
  node.addEventListener("keydown", (event) => {
    if (!(event.key in table)) return;
    event.preventDefault();
    act(table[event.key]);
  });
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

// Calls act(x, y, event), in pixels of the node or the svg it lies in, at these events.
function onPointer(node, names, act) {
  const listen = (event) => {
    const box = (node.ownerSVGElement ?? node).getBoundingClientRect();
    act(event.clientX - box.left, event.clientY - box.top, event);
  };
  for (const name of names) node.addEventListener(name, listen);
}

// Calls move(x, y, event) from a press until the release, by any pointer, then end().
function drag(node, move, end = () => {}) {
  onPointer(node, ["pointerdown", "pointermove"], (x, y, event) => {
    if (event.type === "pointerdown" && event.button === 0) {
      event.preventDefault();
      node.setPointerCapture(event.pointerId);
    }
    if (node.hasPointerCapture(event.pointerId)) move(x, y, event);
  });
  node.addEventListener("lostpointercapture", end);
}

// Makes the node a slider of the rows of the square matrices in it, that are pointed at or stepped
// to by keys. Its place is the share of the rows above the middle of that one; null is none.
function rowSlider(view, node, label, matrices, place) {
  const slider = { place, count: 1, row: () => slider.place && Math.floor(slider.place * slider.count) };
  slider.light = (row) => {
    slider.place = (bounded(Math.floor(row), 0, slider.count - 1) + 0.5) / slider.count;
    view.redraw();
  };
  const steps = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1, PageUp: -8, PageDown: 8 };
  onKeys(node, { ...steps, Home: -512, End: 512 }, (step) => slider.light((slider.row() ?? -1) + step));
  for (const matrix of matrices)
    onPointer(matrix, ["pointerdown", "pointermove"], (_, y) =>
      slider.light((y / matrix.clientHeight) * slider.count));
  slider.tell = (text) => set(node, {
    ...{ tabindex: 0, role: "slider", "aria-label": label, "aria-orientation": "vertical", "aria-valuemin": 1 },
    ...{ "aria-valuemax": slider.count, "aria-valuenow": (slider.row() ?? 0) + 1, "aria-valuetext": text },
  });
  return slider;
}

// --- Controls: each shows the state and changes it ---

const of = (state, value) => (typeof value === "function" ? value(state) : value);

// A slider that halts at stops, beside a box that takes every number from the first to the last,
// integers only if `integer`; a wrong entry is answered below, until the state is set. The stops may
// be a function of the state; refused(value, state) tells what is accepted where a number within the
// limits is not.
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
    ...{ "aria-label": `${label}, any value`, "aria-describedby": whyId, onchange: take },
  });
  onKeys(box, { ArrowUp: 1, ArrowDown: -1 }, (step) =>
    view.change({ [name]: halts[bounded(+range.value + step, 0, halts.length - 1)] }));
  function take() {
    const text = box.value.trim();
    const value = text === "" ? NaN : Number(text);
    const [least, most] = [halts[0], halts.at(-1)];
    const within = value >= least && value <= most && (!integer || Number.isInteger(value));
    const limits = `${integer ? "an integer" : "a finite number"} from ${least} to ${most}`;
    const accepted = within ? refused(value, view.state()) : limits;
    if (!accepted) return view.change({ [name]: value });
    write(why, `${name}=${Number.isNaN(value) ? python(text) : text}: accepted is ${accepted}`);
    set(box, { "aria-invalid": true });
  }
  view.shows.push((state) => {
    const value = state[name];
    halts = of(state, stops);
    write(why, "");
    set(box, { "aria-invalid": false });
    box.value = value;
    set(range, { max: halts.length - 1, "aria-valuetext": `${label} = ${value}` });
    range.value = halts.indexOf(nearest(halts, value));
  });
  return block("row", html("label", { for: id }, label), range, box, why);
}

// A list of [value, text] to choose from, which may be a function of the state.
function choice(view, name, label, options) {
  const select = html("select", { onchange: () => view.change({ [name]: select.value }) });
  let listed;
  view.shows.push((state) => {
    const now = of(state, options);
    if (listed !== (listed = String(now)))
      select.replaceChildren(...now.map(([value, text]) => html("option", { value }, text)));
    select.value = state[name];
  });
  return html("label", { class: "choice" }, html("span", {}, label), select);
}

// A button for each preset, and one that goes back to the first state.
function presets(view, ...before) {
  const all = { ...view.given.presets, Reset: view.given.initial };
  return block("buttons", before,
    Object.entries(all).map(([words, changes]) => button(words, () => view.change(changes))));
}

// The state as a line of Python, to copy; on a page without a kernel also as a link.
function stateLine(view) {
  const code = html("code");
  const copier = (words, text) => {
    const copy = button(words, async () => {
      getSelection().selectAllChildren(code); // where the page may not copy, the reader can
      await navigator.clipboard?.writeText(text()).then(() => write(copy, "Copied"));
    });
    view.shows.push(() => write(copy, words));
    return copy;
  };
  view.shows.push((state) => write(code, call(view.given, state)));
  const copy = copier("Copy", () => code.textContent);
  return block("state", code, copy, view.link() ? copier("Copy link", view.link) : []);
}

// --- Pictures ---

// A linear scale from values a0..a1 to pixels p0..p1.
function scale(a0, a1, p0, p1) {
  const at = (value) => p0 + ((value - a0) * (p1 - p0)) / (a1 - a0);
  at.invert = (pixel) => a0 + ((pixel - p0) * (a1 - a0)) / (p1 - p0);
  at.range = [p0, p1];
  return at;
}

const pixel = ([r, g, b]) => (255 << 24) | (b << 16) | (g << 8) | r;
// A function from shares, 0 to 1, to pixels: their color between stops [r, g, b].
function palette(stops) {
  const colors = upTo(1025).map((n) => {
    const place = (n / 1024) * (stops.length - 1);
    const [from, to] = [stops[Math.floor(place)], stops[Math.ceil(place)]];
    return pixel(from.map((value, i) => value + (to[i] - value) * (place % 1)));
  });
  return (share) => colors[Math.round(1024 * bounded(share, 0, 1))];
}
// viridis without its darkest end
const viridis = palette([[71, 47, 125], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]]);

// Draws color(i) for each of w x h cells, as a pixel each, which the page then enlarges.
function paint(canvas, w, h, color) {
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  const image = new ImageData(w, h);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < w * h; i++) pixels[i] = color(i);
  canvas.getContext("2d").putImageData(image, 0, 0);
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

// Shows lines above a place of the picture that holds the tip, none without a line.
function showTip(tip, lines, x = 0, y = 0) {
  tip.replaceChildren(...lines.map((line) => html("div", {}, line)));
  tip.style.cssText = `left: clamp(134px, ${x}px, 100% - 134px); top: ${y}px`;
}

// What marks mean: [mark, words].
const legend = (entries) => block("legend", entries.map(([mark, words]) =>
  html("span", {}, svg("svg", { width: 20, height: 18, "aria-hidden": "true" }, mark), words)));

// Okabe and Ito's colours, on a dark page the lighter ones; text stands out by 4.5:1, marks by 3:1.
const STYLE = `
.eca-lab {
  --ink: var(--jp-ui-font-color1, #212121); --soft: var(--jp-ui-font-color2, #616161);
  --page: var(--jp-layout-color0, #fff); --edge: var(--jp-border-color1, #9e9e9e);
  --grid: var(--jp-border-color2, #e0e0e0);
  --blue: #0072b2; --orange: #b87400; --red: #c24a00; --sky: #56b4e9; --green: #00795a; --bad: #b3261e;
  container-type: inline-size; color: var(--ink); background: var(--page);
  font: 13px/1.5 var(--jp-ui-font-family, system-ui, sans-serif);
}
[data-jp-theme-light="false"] .eca-lab {
  --blue: #56b4e9; --orange: #e69f00; --red: #ff8c42; --sky: #2f7fae; --green: #2fc39b; --bad: #ff8a80;
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
.eca-lab canvas { display: block; image-rendering: pixelated; }
.eca-lab .headline { font-size: 15px; font-weight: 700; }
.eca-lab .legend { display: flex; flex-wrap: wrap; gap: 0 14px; font-size: 12px; }
.eca-lab .legend span { display: inline-flex; align-items: center; gap: 4px; }
.eca-lab .tip { position: absolute; z-index: 2; transform: translate(-50%, -100%); width: 250px;
  padding: 3px 8px; font-size: 12px; pointer-events: none; background: var(--page); border: 1px solid var(--edge); }
.eca-lab .tip:empty { display: none; }
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
