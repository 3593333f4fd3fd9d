// The explorer of the kernel size: its numbers, which equal those of eca_lab.kernel_size, and its
// picture. kit.js stands before this text. C: channels; t: what psi rounds to the nearest odd k.

const OCTAVES = 13; // the axis of channels ends at 2^13
const MOST = 2 ** OCTAVES;
const K_AXES = [9, 19, 37]; // upper ends of the axis of k
const SIDE = 32; // channels: the corner of the interaction matrix that is shown
const CELL = 6; // pixels of an entry of it
const REACH = 12; // pixels from a mark within which it is meant

// --- Numbers ---

// A decimal as it is written: 0.25 is 25 with 2 places.
function decimal(number) {
  const [digits, exponent = "0"] = String(number).split("e");
  const [whole, part = ""] = digits.split(".");
  return [BigInt(whole + part), part.length - Number(exponent)];
}

// (octaves + b) / gamma as an exact fraction, for whole octaves.
function fraction(octaves, gamma, b) {
  const [[slope, slopePlaces], [offset, offsetPlaces]] = [decimal(gamma), decimal(b)];
  const places = Math.max(slopePlaces, offsetPlaces);
  const scaled = (integer, power) => integer * 10n ** BigInt(power);
  const above = scaled(BigInt(octaves), places) + scaled(offset, places - offsetPlaces);
  return [above, scaled(slope, places - slopePlaces)];
}

// floor(|t|), and whether |t| is that integer: possible only at powers of two, where it is exact.
function rounded(C, gamma, b) {
  const octaves = Math.log2(C); // exact at powers of two, unlike Math.log(C) / Math.LN2
  if (!Number.isInteger(octaves)) return [Math.floor(Math.abs((octaves + b) / gamma)), false];
  const [above, below] = fraction(octaves, gamma, b);
  const size = above < 0n ? -above : above;
  return [Number(size / below), size % below === 0n];
}

export function psi(C, gamma, b, ties) {
  const [lower, whole] = rounded(C, gamma, b);
  if (lower % 2) return lower;
  return whole && ties === "down" && lower > 0 ? lower - 1 : lower + 1;
}

// The runs of equal k over C = 1, 2, ..., each {first, last, k}. The last run goes on to its end.
export function runs(gamma, b, ties) {
  const at = (C) => psi(C, gamma, b, ties);
  const found = [{ first: 1, k: at(1) }];
  for (let C = 2; C <= MOST; C++) {
    const [k, run] = [at(C), found.at(-1)];
    if (k === run.k) continue;
    run.last = C - 1;
    found.push({ first: C, k });
  }
  const run = found.at(-1);
  run.last = Math.max(MOST, Math.floor(2 ** (gamma * (run.k + 1) - b))); // but for rounding
  while (at(run.last) !== run.k) run.last--;
  while (at(run.last + 1) === run.k) run.last++;
  return found;
}

let latest = {};
function mapping({ gamma, b, ties }) {
  const key = `${gamma} ${b} ${ties}`;
  if (latest.key !== key) latest = { key, runs: runs(gamma, b, ties) };
  return latest.runs;
}

// All numbers that a state shows.
export function numbers(state, given) {
  const { channels: C, gamma, b, ties } = state;
  const { stages, released } = given.networks[state.network];
  const steps = mapping(state);
  const run = steps.findLast(({ first }) => first <= C);
  const [lower, whole] = rounded(C, gamma, b);
  return {
    ...{ k: run.k, first: run.first, last: run.last, steps, se: (2 * C ** 2) / given.reduction },
    tie: whole && lower % 2 === 0 ? lower : null,
    stages: stages.map((width, i) => [width, psi(width, gamma, b, ties), released[i]]),
  };
}

// What row i of the C x C matrix holds: [first column, last column, the weight that stands first].
export function row(i, C, k) {
  const half = (k - 1) / 2;
  const first = Math.max(1, i - half);
  return [first, Math.min(C, i + half), first - i + half + 1];
}

// --- Words ---

const grouped = (number) => number.toLocaleString("en-US", { maximumFractionDigits: 3 });
const signed = (text) => String(text).replace("-", "−");

// A number behind its sign of equality; exact says whether two digits behind the point suffice.
const equals = (number, exact) =>
  signed(exact ? `= ${Number(number.toFixed(2))}` : `≈ ${number.toFixed(3)}`);

function tellRounding({ channels: C, gamma, b, ties }, { k, tie }) {
  const octaves = Math.log2(C);
  const whole = Number.isInteger(octaves);
  const [above, below] = whole ? fraction(octaves, gamma, b) : [1n, 0n];
  const exact = whole && (100n * above) % below === 0n;
  const t = (octaves + b) / gamma;
  const offset = b < 0 ? `− ${-b}` : `+ ${b}`;
  const [sign, written] = equals(octaves, whole).split(" ");
  const log = () => ["(log", html("sub", {}, "2")];
  const rule = tie ? `ties go ${ties}` : "and a kernel size is positive";
  const last =
    tie === null
      ? [`Nearest odd integer to ${equals(Math.abs(t), exact).slice(2)}: `]
      : [html("b", {}, "A tie"), `: ${tie} is midway between ${signed(tie - 1)} and ${tie + 1}; ${rule}: `];
  return [
    ["k = |t|", html("sub", {}, "odd"), " with t = ", ...log(), " C + b) / γ"],
    ["t = ", ...log(), ` ${C} ${offset}) / ${gamma} ${sign} (${written} ${offset}) / ${gamma} ${equals(t, exact)}`],
    [...last, html("b", {}, `k = ${k}`)],
  ];
}

const tellStage = ([C, k, released], i) =>
  `Stage ${i + 1}: C = ${C}, k = ${k} by Equation 12, ` +
  (k === released ? "as released" : `but released with ${released}`);

function tellRow(i, C, k) {
  const [first, last, weight] = row(i, C, k);
  const w = (number) => "w" + String(number).replace(/\d/g, (digit) => "₀₁₂₃₄₅₆₇₈₉"[digit]);
  if (first === last) return `Channel ${i} hears itself alone, by ${w(weight)} of ${k}.`;
  const weights = `${w(weight)} to ${w(weight + last - first)} of ${k}`;
  return `Channel ${i} hears channels ${first} to ${last}, by ${weights}.`;
}

// --- Pictures ---

// k over C. The point, the stages and the line of t are there to be taken.
function staircase(view) {
  const clip = newId();
  const [grid, stages, ties] = [svg("g"), svg("g"), svg("g")];
  const [span, area] = [svg("rect", { class: "span" }), svg("rect")];
  const [stairs, line, cross] = ["stairs", "line", "cross"].map((name) => svg("path", { class: name }));
  const point = svg("circle", { class: "point", r: 6 });
  const handle = (word) =>
    svg("g", { class: "handle" }, svg("circle", { r: 9 }), svg("text", { y: 4 }, word));
  const [slope, offset] = [handle("γ"), handle("b")];
  const clipped = svg("g", { "clip-path": `url(#${clip})` }, span, line, stairs, cross);
  const definition = svg("clipPath", { id: clip }, area);
  const picture = svg("svg", { role: "img", class: "staircase", height: 290 });
  picture.append(definition, grid, clipped, ties, point, stages, slope, offset);
  const tip = html("div", { class: "tip", hidden: "" });
  let [x, y, top, size, held, now] = [null, null, K_AXES[0], "", null, null];
  let foot = 2; // octaves: where the handle of b stands on the line

  const t = (octaves) => Math.abs((octaves + now.state.b) / now.state.gamma);
  const nearest = (name, value, by = (number) => number) =>
    view.given.stops[name].reduce((best, stop) =>
      Math.abs(by(stop) - by(value)) < Math.abs(by(best) - by(value)) ? stop : best,
    );

  // What a press at this place takes.
  function taken(px, py) {
    const near = (octaves, k) => Math.hypot(x(octaves) - px, y(k) - py) < REACH;
    if (near(12, t(12))) return { kind: "gamma" };
    if (near(foot, t(foot))) return { kind: "b" };
    const stage = now.stages.findIndex(([C, ...ks]) => ks.some((k) => near(Math.log2(C), k)));
    if (stage >= 0) return { kind: "channels", stage };
    if (near(Math.log2(now.state.channels), now.k)) return { kind: "channels", point: true };
    const octaves = x.invert(px);
    return { kind: octaves > 0 && Math.abs(y(t(octaves)) - py) < 8 ? "b" : "channels" };
  }

  function move(px, py) {
    held ??= { ...taken(px, py), px, py, folded: x.invert(px) + now.state.b < 0 ? -1 : 1 };
    const octaves = Math.min(Math.max(x.invert(px), 0), OCTAVES);
    const k = y.invert(py);
    if (held.kind === "gamma") {
      const slopes = (12 + now.state.b) / Math.max(k, 0.1); // the line turns about its foot
      view.change({ gamma: nearest("gamma", slopes) });
    } else if (held.kind === "b") {
      foot = Math.min(octaves, 11);
      view.change({ b: nearest("b", held.folded * now.state.gamma * k - octaves) });
    } else {
      const jump = held.stage >= 0 && Math.abs(px - held.px) < 4;
      const channels = jump ? now.stages[held.stage][0] : nearest("channels", 2 ** octaves, Math.log2);
      view.change({ channels });
    }
    hover(px, py);
  }

  function hover(px, py) {
    const { kind, stage, point } = held ?? taken(px, py);
    set(picture, { "data-cursor": kind === "channels" ? (stage >= 0 ? "stage" : point && "point") : kind });
    set(tip, { hidden: stage >= 0 ? false : "" });
    if (!(stage >= 0)) return;
    write(tip, tellStage(now.stages[stage], stage));
    const [C, ...ks] = now.stages[stage];
    tip.style.left = `${Math.min(x(Math.log2(C)), x.range[1] - 120)}px`;
    tip.style.top = `${y(Math.max(...ks)) - 14}px`;
  }

  const release = () => {
    held = null;
    view.redraw(); // with an axis that fits
  };
  drag(picture, picture, move, release);
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    if (now && !held) hover(event.clientX - box.left, event.clientY - box.top);
  });
  picture.addEventListener("pointerleave", () => set(tip, { hidden: "" }));

  function draw(state, shown, width) {
    now = { ...shown, state };
    const { k, first, last, steps } = shown;
    // While the line is held its axis stays, or it would run away from the pointer.
    const highest = Math.max(...steps.map((step) => step.k));
    if (!held) top = K_AXES.find((end) => end >= highest);
    x = scale(-0.25, OCTAVES + 0.25, 44, width - 8);
    y = scale(0, top, 246, 12);
    if (size !== (size = `${width} ${top}`)) {
      const every = width < 560 ? 2 : 1;
      const powers = Array.from({ length: OCTAVES + 1 }, (_, n) => [n, n % every ? "" : 2 ** n]);
      const odd = Array.from({ length: (top + 1) / 2 }, (_, i) => [2 * i + 1, 2 * i + 1]);
      const few = odd.filter((_, i) => top < 20 || i % 2 === 0);
      axes(grid, x, y, powers, few, "channels C", "kernel size k");
      set(picture, { width });
      set(area, { x: x.range[0], y: y.range[1], width: x.range[1] - x.range[0], height: 234 });
    }
    set(picture, { "aria-label": `Kernel size over channels. C = ${state.channels}, k = ${k}.` });
    const at = (C) => x(Math.log2(C));
    const end = Math.min(at(last + 1), x.range[1]);
    set(span, { x: at(first), y: y.range[1], width: end - at(first), height: 234 });
    const path = steps.map((step) => `H${at(step.first)}V${y(step.k)}`).join("");
    set(stairs, { d: `M${x.range[0]} ${y(steps[0].k)}${path}H${x.range[1]}` });
    const bends = [0, ...[-state.b].filter((bend) => bend > 0 && bend < OCTAVES), OCTAVES];
    set(line, { d: `M${bends.map((octaves) => `${x(octaves)} ${y(t(octaves))}`).join("L")}` });
    set(cross, { d: `M${at(state.channels)} ${y(0)}V${y(k)}H${x.range[0]}` });
    set(point, { cx: at(state.channels), cy: y(k) });
    set(slope, { transform: `translate(${x(12)} ${y(t(12))})` });
    set(offset, { transform: `translate(${x(foot)} ${y(t(foot))})` });
    stages.replaceChildren(
      ...shown.stages.flatMap(([C, formula, released]) => [
        svg("path", { class: "apart", d: `M${at(C)} ${y(formula)}V${y(released)}` }),
        svg("circle", { class: "formula", r: 8, cx: at(C), cy: y(formula) }),
        svg("path", { class: "released", d: `M${at(C)} ${y(released) - 5}l5 5l-5 5l-5 -5z` }),
      ]),
    );
    // At a tie, a full dot on the step that is taken, an empty one on the other.
    const { gamma, b } = state;
    const even = Array.from({ length: OCTAVES + 1 }, (_, n) => [2 ** n, ...rounded(2 ** n, gamma, b)]);
    ties.replaceChildren(
      ...even
        .filter(([, lower, whole]) => whole && lower > 0 && lower % 2 === 0)
        .flatMap(([C, lower]) => [lower - 1, lower + 1].map((here) => {
          const mark = here === psi(C, gamma, b, state.ties) ? "full" : "empty";
          return svg("circle", { class: `tie ${mark}`, r: 3.5, cx: at(C), cy: y(here) });
        })),
    );
  }
  return { nodes: [picture, tip], draw };
}

// The corner of the C x C matrix: the band of k weights, and the row under the pointer.
function band(view) {
  const canvas = html("canvas", {
    ...{ class: "band", tabindex: 0, role: "slider", "aria-label": "row of the matrix" },
    ...{ "aria-valuemin": 1, "aria-orientation": "vertical" },
  });
  const ink = canvas.getContext("2d");
  const told = html("div", { class: "told" });
  let [lit, side] = [null, SIDE];
  const light = (i) => {
    lit = i === null ? null : Math.min(Math.max(i, 1), side);
    view.redraw();
  };
  const under = (event) => light(Math.floor(event.offsetY / CELL) + 1);
  for (const name of ["pointermove", "pointerdown"]) canvas.addEventListener(name, under);
  for (const name of ["pointerleave", "blur"]) canvas.addEventListener(name, () => light(null));
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1 }[event.key];
    if (step) event.preventDefault();
    if (step) light((lit ?? 0) + step);
  });

  function draw({ channels: C }, { k }) {
    side = Math.min(C, SIDE);
    if (lit > side) lit = side;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [SIDE * CELL + 22, SIDE * CELL];
    if (canvas.width !== Math.round(width * ratio)) {
      [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
      [canvas.style.width, canvas.style.height] = [`${width}px`, `${height}px`];
    }
    ink.setTransform(ratio, 0, 0, ratio, 0, 0);
    ink.clearRect(0, 0, width, height);
    const color = (weight) => ramp(k === 1 ? 0.5 : (weight - 1) / (k - 1));
    ink.fillStyle = "rgb(128 128 128 / 0.35)"; // what lies beyond the matrix of a narrower layer
    ink.fillRect(side * CELL, 0, (SIDE - side) * CELL, height);
    ink.fillRect(0, side * CELL, side * CELL, height - side * CELL);
    for (let i = 1; i <= side; i++) {
      const [first, last, weight] = row(i, C, k);
      ink.globalAlpha = lit === null || lit === i ? 1 : 0.3;
      for (let j = first; j <= Math.min(last, side); j++) {
        ink.fillStyle = color(weight + j - first);
        ink.fillRect((j - 1) * CELL, (i - 1) * CELL, CELL, CELL);
      }
    }
    ink.globalAlpha = 1;
    for (let weight = 1; weight <= k; weight++) {
      ink.fillStyle = color(weight);
      ink.fillRect(SIDE * CELL + 8, ((weight - 1) * height) / k, 14, height / k + 0.5);
    }
    ink.strokeStyle = "rgb(128 128 128)";
    ink.strokeRect(0.5, 0.5, side * CELL - 1, side * CELL - 1);
    write(told, lit ? tellRow(lit, C, k) : "Point at a row to see which channels it hears.");
    set(canvas, { "aria-valuenow": lit ?? 1, "aria-valuemax": side, "aria-valuetext": told.textContent });
  }
  const key = html("div", { class: "key" }, html("span", {}, "w₁"), html("span", {}, "wₖ"));
  const title = html("div", { class: "title" }, `C × C interactions, ${SIDE} × ${SIDE} corner`);
  return { node: html("div", { class: "matrix" }, title, html("div", { class: "pair" }, canvas, key), told), draw };
}

// Parameters of an ECA and of an SE module, on a logarithmic axis.
function parameters(reduction) {
  const [grid, bars] = [svg("g"), svg("g")];
  const picture = svg("svg", { role: "img", height: 190 }, grid, bars);
  const node = html("div", { class: "parameters" });
  node.append(html("div", { class: "title" }, "Parameters of one module"), picture);
  const raise = (power) => (power < 0 ? "⁻" : "") + "⁰¹²³⁴⁵⁶⁷⁸"[Math.abs(power)];
  let size = 0;
  function draw({ k, se }, width) {
    const x = scale(-1, 8, 68, width - 12);
    if (size !== (size = width)) {
      const every = width < 300 ? 3 : 2;
      const powers = [0, 1, 2, 3, 4, 5, 6, 7].filter((power) => power % every === 0);
      const ticks = powers.map((power) => [power, `10${raise(power)}`]);
      axes(grid, x, scale(0, 1, 150, 4), ticks, [], "number of parameters", "");
      set(picture, { width });
    }
    const rows = [["ECA", k, "eca"], [`SE, r = ${reduction}`, se, "se"]];
    set(picture, { "aria-label": rows.map(([name, number]) => `${name}: ${grouped(number)}`).join("; ") });
    bars.replaceChildren(
      ...rows.flatMap(([name, number, kind], i) => {
        const [y, end] = [22 + 66 * i, x(Math.log10(number))];
        const outside = end < width - 90;
        const place = { x: outside ? end + 6 : end - 6, y: y + 22, "text-anchor": outside ? "start" : "end" };
        return [
          svg("text", { x: 62, y: y + 22, "text-anchor": "end" }, name),
          svg("rect", { class: kind, x: x(-1), y, width: end - x(-1), height: 34 }),
          svg("text", { class: outside ? "count" : "count inside", ...place }, grouped(number)),
        ];
      }),
    );
  }
  return { node, draw };
}

// --- The explorer ---

const LOOK = `
.eca-lab { .span { fill: var(--sky); opacity: 0.3; } .stairs { stroke: var(--soft); stroke-width: 2; }
  .line { stroke: var(--orange); stroke-width: 2; stroke-dasharray: 7 4; }
  .cross { stroke: var(--ink); stroke-dasharray: 2 3; } .stairs, .line, .cross { fill: none; }
  .point { fill: var(--ink); } .apart { stroke: var(--red); stroke-width: 1.5; }
  .formula { fill: none; stroke: var(--blue); stroke-width: 2; }
  .released { fill: var(--red); stroke: var(--page); stroke-width: 0.8; }
  .tie { stroke: var(--soft); stroke-width: 1.5; } .full { fill: var(--soft); } .empty { fill: var(--page); }
  .handle circle { fill: var(--page); stroke: var(--orange); stroke-width: 2; touch-action: none; }
  .handle text { text-anchor: middle; font-style: italic; }
  .eca { fill: var(--blue); } .se { fill: var(--orange); } .count { font-weight: 600; }
  .chart { position: relative; } .staircase { touch-action: pan-y; user-select: none; cursor: ew-resize; }
  [data-cursor="gamma"], [data-cursor="b"] { cursor: grab; } [data-cursor="stage"] { cursor: pointer; }
  .tip { position: absolute; transform: translate(-50%, -100%); width: 230px; padding: 3px 8px; z-index: 1;
    pointer-events: none; color: var(--ink); background: var(--page); border: 1px solid var(--edge); }
  .headline { font-size: 15px; font-weight: 700; } .title { font-weight: 600; margin-bottom: 4px; }
  .legend { display: flex; flex-wrap: wrap; gap: 0 14px; font-size: 12px; }
  .legend span { display: inline-flex; align-items: center; gap: 4px; }
  .lower { display: flex; flex-wrap: wrap; gap: 8px 24px; margin-top: 6px; }
  .parameters { flex: 1 1 220px; min-width: 0; } .told { width: 250px; min-height: 39px; font-size: 12px; }
  .pair { display: flex; gap: 4px; } .band { touch-action: pan-y; cursor: crosshair; }
  .key { display: flex; flex-direction: column; justify-content: space-between; font-size: 12px; } }
`;

function legend() {
  const mark = (node) => svg("svg", { width: 20, height: 18, "aria-hidden": "true" }, node);
  return html("div", { class: "legend" }, ...[
    [svg("circle", { class: "point", cx: 10, cy: 9, r: 6 }), "chosen C, its k"],
    [svg("path", { class: "line", d: "M0 13L20 5" }), "t, before rounding"],
    [svg("circle", { class: "formula", cx: 10, cy: 9, r: 7 }), "stage: Eq. 12"],
    [svg("path", { class: "released", d: "M10 4l5 5l-5 5l-5 -5z" }), "stage: released"],
    [svg("rect", { class: "span", x: 2, y: 3, width: 16, height: 12 }), "C with this k"],
  ].map(([node, words]) => html("span", {}, mark(node), words)));
}

function render({ model, el }) {
  const view = connect({ model, el }, ["channels", "gamma", "b", "ties", "network"], draw, LOOK);
  const { given } = view;
  const [steps, matrix, counts] = [staircase(view), band(view), parameters(given.reduction)];
  const headline = html("div", { class: "headline" });
  const head = html("div", { class: "head" }, headline, legend());
  const lower = html("div", { class: "lower" }, matrix.node, counts.node);
  const chart = html("div", { class: "chart" }, ...steps.nodes);
  const picture = html("div", { class: "picture" }, head, chart, lower);

  const names = Object.entries(given.networks).map(([value, { label }]) => [value, label]);
  const controls = html("div", { class: "controls" },
    numberRow(view, "channels", "channels C", given.stops.channels, true),
    numberRow(view, "gamma", "slope γ", given.stops.gamma),
    numberRow(view, "b", "offset b", given.stops.b),
    choice(view, "ties", "ties go", [["up", "up, as in Figure 3"], ["down", "down"]]),
    choice(view, "network", "network", names),
    presets(view),
  );

  const lines = [1, 2, 3, 4, 5, 6].map(() => html("div"));
  set(lines[2], { role: "status" });
  set(lines[3], { class: "bad" });
  const table = html("table");
  const readout = html("div", { class: "readout" }, lines, table, stateLine(view));
  view.root.append(html("div", { class: "columns" }, picture, controls, readout));

  function draw(state) {
    const { channels: C, network } = state;
    const shown = numbers(state, given);
    const { k, first, last, se, stages } = shown;
    const unbuildable = k > C;
    write(headline, `C = ${grouped(C)}, k = ${k}${unbuildable ? " > C: cannot be built" : ""}`);
    set(headline, { class: unbuildable ? "headline bad" : "headline" });
    tellRounding(state, shown).forEach((parts, i) => lines[i].replaceChildren(...parts));
    write(lines[3], unbuildable ? `Cannot be built: k = ${k} is larger than C = ${C}, so some weights would only ever meet padding.` : "");
    write(lines[4], `Every C from ${grouped(first)} to ${grouped(last)} shares k = ${k}.`);
    write(lines[5], `Parameters of a module: ECA ${k}; SE with r = ${given.reduction}, 2C²/r = ${grouped(se)}.`);
    fillTable(network, stages, C);
    if (widths[0] !== view.width) widths = [view.width, chart.clientWidth, counts.node.clientWidth];
    if (widths[1]) steps.draw(state, shown, widths[1]);
    if (widths[1]) counts.draw(shown, widths[2]);
    matrix.draw(state, shown);
  }

  let widths = []; // of all, of the staircase, of the parameters
  // Rebuilt only where it changes, so that a button that was pressed keeps the focus.
  let filled = "";
  function fillTable(network, stages, C) {
    if (filled === (filled = JSON.stringify([network, stages]))) {
      table.querySelectorAll("button").forEach((each) => set(each, { "aria-pressed": String(+each.value === C) }));
      return;
    }
    const cells = (tag, texts) => html("tr", {}, texts.map((text) => html(tag, {}, text)));
    table.replaceChildren(
      html("caption", {}, `Stages of ${given.networks[network].label}`),
      cells("th", ["channels C", "k by Eq. 12", "k released"]),
      ...stages.map(([width, formula, released]) => {
        const jump = () => view.change({ channels: width });
        const attributes = { type: "button", value: width, onclick: jump, "aria-pressed": String(width === C) };
        const button = html("button", { ...attributes, "aria-label": `C = ${width}` }, String(width));
        return cells("td", [button, String(formula),
          formula === released ? String(released) : html("b", {}, `≠ ${released}`)]);
      }),
    );
  }

  view.redraw();
  return view.close;
}

export default { render };
