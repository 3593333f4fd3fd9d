// The explorer of the reduction: three matrices whose rows are there to be pointed at, their
// singular values and what they cost. kit.js stands before this text. The kernel gives a matrix as
// integers, FULL for its largest absolute entry, 0 only for what counts as zero.

const FULL = 2 ** 15 - 1;
const NAMES = ["SE", "SE-GC", "ECA"];
const KINDS = ["se", "gc", "eca"];
const TRAITS = ["channels", "reduction", "kernel_size", "groups", "seed", "weights"];
const OCTAVES = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];
const KERNELS = [...Array.from({ length: 16 }, (_, i) => 2 * i + 1), 63, 127, 255];

// --- Numbers ---

const divisors = (C) => Array.from({ length: C }, (_, i) => i + 1).filter((d) => C % d === 0);
const odd = (C) => C - 1 + (C % 2);

// The state with r, k and groups lowered to what C has room for.
const lowered = (state) => ({
  ...state,
  reduction: Math.min(state.reduction, state.channels),
  kernel_size: Math.min(state.kernel_size, odd(state.channels)),
  groups: divisors(state.channels).findLast((d) => d <= state.groups),
});

// The state after changes: a trained layer gives sizes, and other sizes make the weights random.
export function settled(state, changes, layers) {
  const next = { ...state, ...changes };
  const layer = layers[next.weights] ?? {};
  if ("weights" in changes) Object.assign(next, layer);
  if (Object.entries(layer).some(([name, size]) => next[name] !== size)) next.weights = "random";
  return lowered(next);
}

// Hidden units of SE, channels in a block of SE-GC; of all three, parameters and multiply-adds.
export function costs({ channels: C, reduction: r, kernel_size: k, groups: g }) {
  const [hidden, width] = [Math.floor(C / r), C / g];
  const [se, gc] = [2 * C * hidden, C * width];
  return { hidden, width, parameters: [se, gc, k], multiplyAdds: [se, gc, k * C] };
}

// What a row of entries hears: how many channels, and the strongest, each [channel, entry].
export function hears(row) {
  const heard = Array.from(row, (entry, j) => [j + 1, entry]).filter(([, entry]) => entry);
  return [heard.length, heard.sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, 3)];
}

// Bytes of the kernel as numbers: copied, because they need not begin at a multiple of 4.
export const numbers = (Type, { buffer, byteOffset, byteLength }) =>
  new Type(buffer.slice(byteOffset, byteOffset + byteLength));

// --- Words ---

const grouped = (number) => number.toLocaleString("en-US");
const some = (number, noun) => `${grouped(number)} ${noun}${number === 1 ? "" : "s"}`;
const signed = (number) => (number < 0 ? "−" : "+") + Math.abs(number).toPrecision(2);

const tell = ({ channels: C, reduction: r, kernel_size: k, groups: g }, { hidden, width, parameters }) => [
  `W₂ ReLU(W₁ y), C // r = ${C} // ${r} = ${some(hidden, "hidden unit")}: rank at most ${hidden}, ` +
    `less where y switches some off. 2C (C // r) = ${some(parameters[0], "parameter")}.`,
  `${some(g, "block")} of C/g = ${C}/${g} = ${some(width, "channel")}. C²/g = ${some(parameters[1], "parameter")}.`,
  `a channel hears those up to k // 2 = ${(k - 1) / 2} away. k = ${some(k, "parameter")}.`,
];

// The rows of the table: costs, which the page knows, then what the kernel measured.
const ROWS = [
  ["parameters", (i, { parameters }) => grouped(parameters[i])],
  ["multiply-adds", (i, { multiplyAdds }) => grouped(multiplyAdds[i])],
  ["rank", (i, _, modules) => String(modules[i].rank)],
  ["effective rank", (i, _, modules) => modules[i].effective_rank?.toFixed(1) ?? "–"],
  ["diagonal share", (i, _, modules) => modules[i].diagonal_share?.toFixed(3) ?? "–"],
  ["bandwidth", (i, _, modules) => String(modules[i].bandwidth)],
];

// --- Pictures ---

// A colour for each of 1024 steps: blue, white, red, as in ColorBrewer's RdBu.
const RDBU = [[5, 48, 97], [67, 147, 195], [247, 247, 247], [214, 96, 77], [103, 0, 31]];
const COLORS = Array.from({ length: 1024 }, (_, n) => {
  const [step, part] = [Math.floor(n / 256), (n % 256) / 256];
  const [r, g, b] = RDBU[step].map((value, i) => value + (RDBU[step + 1][i] - value) * part);
  return (255 << 24) | (b << 16) | (g << 8) | r;
});

function bitmap(entries, n) {
  const canvas = html("canvas", { width: n, height: n });
  const pixels = new Uint32Array(n * n);
  entries.forEach((entry, i) => (pixels[i] = COLORS[(entry + FULL + 1) >> 6]));
  const data = new ImageData(new Uint8ClampedArray(pixels.buffer), n, n);
  canvas.getContext("2d").putImageData(data, 0, 0);
  return canvas;
}

// A matrix, and below it the lit row: bars, and what it hears.
function map(name) {
  const [title, canvas, told] = [html("div"), html("canvas"), html("div", { class: "told" })];
  const [zero, up, down] = ["axis", "up", "down"].map((each) => svg("path", { class: each }));
  const bars = svg("svg", { height: 56, "aria-hidden": "true" }, zero, up, down);
  const ink = canvas.getContext("2d");
  function draw({ image, entries, largest, rank }, n, lit, side) {
    const [row, cell, high] = [entries.subarray(lit * n, (lit + 1) * n), side / n, Math.max(side / n, 5)];
    const pixels = Math.round(side * (window.devicePixelRatio || 1));
    if (canvas.width !== pixels) {
      canvas.width = canvas.height = pixels;
      canvas.style.width = canvas.style.height = `${side}px`;
      set(bars, { width: side });
      set(zero, { d: `M0 30H${side}` });
    }
    write(title, `${name}: rank ${rank}`);
    ink.setTransform(pixels / side, 0, 0, pixels / side, 0, 0);
    ink.imageSmoothingEnabled = n > pixels;
    ink.drawImage(image, 0, 0, side, side);
    // The lit row, no thinner than 5 pixels, between two lines.
    const top = Math.min(Math.max((lit + 0.5) * cell - high / 2, 1.5), side - high - 1.5);
    ink.drawImage(image, 0, lit, n, 1, 0, top, side, high);
    for (const y of [top - 1.5, top + high]) ink.fillRect(0, y, side, 1.5);
    const bar = (entry, j) => `M${(j + 0.5) * cell} 30v${(-25 * entry) / FULL}`;
    const path = (sign) => Array.from(row, (entry, j) => (sign * entry > 0 ? bar(entry, j) : "")).join("");
    set(up, { d: path(1), "stroke-width": Math.max(0.8 * cell, 1) });
    set(down, { d: path(-1), "stroke-width": Math.max(0.8 * cell, 1) });
    const [count, strongest] = hears(row);
    const words = strongest.map(([j, entry]) => `\n${j} by ${signed((entry / FULL) * largest)}`);
    write(told, `hears ${count} of ${n}${words.join("")}`);
    return `${name} ${told.textContent}`;
  }
  return { node: html("div", {}, title, canvas, bars, told), draw };
}

// Singular values as shares of the largest; a line ends at the rank.
function spectrum() {
  const grid = svg("g");
  const lines = KINDS.map((kind) => svg("path", { class: `line ${kind}` }));
  const ends = KINDS.map((kind) => svg("circle", { class: kind, r: 4.5 }));
  const node = svg("svg", { role: "img", class: "spectrum" }, grid, ...lines, ...ends);
  let size = "";
  function draw(modules, n, width) {
    const [last, height] = [Math.ceil(Math.log2(n)), width > 450 ? 270 : 200];
    const [x, y] = [scale(0, last, 40, width - 10), scale(-5, 0, height - 42, 10)];
    if (size !== (size = `${last} ${width}`)) {
      const decades = ["1", "10⁻¹", "10⁻²", "10⁻³", "10⁻⁴", "10⁻⁵"].map((text, i) => [-i, text]);
      const octaves = OCTAVES.slice(0, last + 1).map((number, i) => [i, number]);
      axes(grid, x, y, octaves, decades, "number of the singular value", "");
      set(node, { width, height });
    }
    modules.forEach(({ shares, rank }, i) => {
      const at = Array.from(shares.subarray(0, rank), (part, j) => [x(Math.log2(j + 1)), y(Math.log10(part))]);
      const [cx, cy] = at.at(-1) ?? [x(0), y(-5)];
      set(lines[i], { d: `M${at.length ? at.join("L") : [cx, cy]}${rank < n ? `V${y(-5)}` : ""}` });
      set(ends[i], { cx, cy });
    });
    const ranks = NAMES.map((name, i) => `${name} ${modules[i].rank}`).join(", ");
    set(node, { "aria-label": `Singular values. Ranks: ${ranks} of ${n}.` });
  }
  return { node, draw };
}

// --- The explorer ---

const LOOK = `
.eca-lab { --green: #00795a; .maps { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr));
    gap: 0 16px; cursor: crosshair; white-space: nowrap; } .maps canvas { display: block; touch-action: none; }
  .told { font-size: 12px; height: 76px; white-space: pre; } .note { min-height: 20px; font-weight: 600; }
  .hint { display: flex; flex-wrap: wrap; gap: 0 14px; margin-bottom: 4px; }
  .hint span { display: inline-flex; align-items: center; gap: 5px; }
  .ramp { width: 80px; height: 10px; background: linear-gradient(90deg, ${RDBU.map((c) => `rgb(${c})`)}); }
  .up { stroke: var(--red); } .down { stroke: var(--blue); } .line { fill: none; stroke-width: 2; }
  .line.se { stroke: var(--orange); } circle.se { fill: var(--orange); }
  .line.gc { stroke: var(--green); stroke-dasharray: 7 4; } circle.gc { fill: var(--green); }
  .line.eca { stroke: var(--blue); stroke-dasharray: 2 3; } circle.eca { fill: var(--blue); }
  &.waiting :is(.maps, .spectrum, .measured) { opacity: 0.45; transition: opacity 0.1s 0.15s; }
  @media (prefers-reduced-motion: reduce) { &.waiting * { transition-duration: 0s; } } }
[data-jp-theme-light="false"] .eca-lab { --green: #2dbb93; }
`;
const STEPS = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1, PageUp: -8, PageDown: 8, Home: -512, End: 512 };

function render({ model, el }) {
  const view = connect({ model, el }, TRAITS, draw, LOOK);
  const { layers, limits, recorded } = view.given;
  const [alone, change] = [model.get("alone"), view.change];
  view.change = (changes) => change(settled(view.state(), changes, layers));

  const [matrices, values] = [NAMES.map(map), spectrum()];
  let [place, n, side] = [0.5, 1, 0]; // the lit row as a part of all n; pixels of a matrix
  const light = (row) => {
    place = (Math.min(Math.max(Math.floor(row), 0), n - 1) + 0.5) / n;
    view.redraw();
  };
  const under = ({ target, offsetY }) => target.matches("canvas") && light((offsetY / side) * n);
  const step = (event) => {
    if (event.key in STEPS) event.preventDefault();
    if (event.key in STEPS) light(place * n + STEPS[event.key]);
  };
  const maps = html("div", {
    ...{ class: "maps", tabindex: 0, role: "slider", "aria-label": "row of the matrices", "aria-valuemin": 1 },
    ...{ "aria-orientation": "vertical", onpointermove: under, onpointerdown: under, onkeydown: step },
  }, matrices.map(({ node }) => node));
  const dash = (kind) => svg("svg", { width: 28, height: 10 }, svg("path", { class: `line ${kind}`, d: "M0 5H28" }));
  const legend = NAMES.map((name, i) => html("span", {}, dash(KINDS[i]), name));
  const heading = html("span");
  const picture = html("div", { class: "picture" },
    html("div", { class: "hint" }, heading, html("span", {}, "−", html("i", { class: "ramp" }), "+")), maps,
    html("div", { class: "hint" }, html("span", {}, "Singular values, shares of the largest"), legend), values.node,
  );

  // Without a kernel, sliders halt at what was recorded.
  const row = (name, label, stops, refused) =>
    numberRow(view, name, label, alone ? recorded[name] : stops, true, refused);
  const upTo = (C, stops) => [...stops.filter((stop) => stop < C), C];
  const seeds = alone ? recorded.seed : Array.from({ length: limits.seed[1] + 1 }, (_, seed) => seed);
  const again = () => view.change({ seed: seeds[(seeds.indexOf(view.state().seed) + 1) % seeds.length] });
  const trained = Object.keys(layers).map((layer) => [layer, `trained, ${layer}`]);
  const buttons = presets(view);
  buttons.prepend(html("button", { type: "button", onclick: again }, "Draw again"));
  const controls = html("div", { class: "controls" },
    row("channels", "channels C", OCTAVES.filter((C) => C >= limits.channels[0])),
    row("reduction", "reduction r", ({ channels: C }) => upTo(C, OCTAVES)),
    row("kernel_size", "kernel k", ({ channels: C }) => upTo(odd(C), KERNELS), (k) => k % 2 === 0 && "an odd integer"),
    row("groups", "groups g", ({ channels: C }) => divisors(C), (g, { channels: C }) => C % g !== 0 && `one of ${divisors(C).join(", ")}`),
    row("seed", "seed", seeds),
    trained.length ? choice(view, "weights", "weights", [["random", "random"], ...trained]) : [],
    buttons,
  );

  const note = html("div", { class: "note", role: "status" });
  const lines = NAMES.map(() => html("span"));
  const cells = ROWS.map(() => NAMES.map(() => html("td")));
  const table = html("table", {}, html("tr", {}, ["", ...NAMES].map((name) => html("th", {}, name))),
    ROWS.map(([name], i) => html("tr", { class: i < 2 ? "cost" : "measured" }, html("th", {}, name), cells[i])));
  const told = NAMES.map((name, i) => html("div", {}, html("b", {}, `${name}: `), lines[i]));
  const readout = html("div", { class: "readout" }, note, told, table, stateLine(view));
  view.root.append(html("div", { class: "columns" }, picture, controls, readout));

  let [shown, modules, before, said, width] = [null, [], view.state(), "", 0];
  // New channels lower what they have no room for, whoever sets them.
  function tellLowered(state) {
    if (TRAITS.every((name) => state[name] === before[name])) return said;
    const fitted = lowered({ ...before, channels: state.channels });
    const less = TRAITS.slice(1, 4).filter((name) => fitted[name] < before[name] && fitted[name] === state[name]);
    const words = less.map((name) => `${name} to ${state[name]}`).join(", ");
    before = state;
    return (said = words && `Lowered to fit C = ${state.channels}: ${words}`);
  }

  function draw(state) {
    const answer = view.answer(state);
    if (shown !== answer.modules) {
      [shown, n] = [answer.modules, answer.asked.channels];
      modules = shown.map(({ matrix, spectrum, largest, measures }) => {
        const entries = numbers(Int16Array, matrix);
        return { ...measures, entries, largest, image: bitmap(entries, n), shares: numbers(Float32Array, spectrum) };
      });
    }
    const cost = costs(state);
    tell(state, cost).forEach((text, i) => write(lines[i], text));
    ROWS.forEach(([, text], i) => cells[i].forEach((cell, j) => write(cell, text(j, cost, modules))));
    const lost = alone && !answer.fresh;
    write(note, lost ? "This needs a kernel: open the notebook." : tellLowered(state));
    if (width !== view.width) [width, side] = [view.width, Math.floor((maps.clientWidth - 32) / 3)];
    if (!(side > 0)) return;
    const lit = Math.floor(place * n);
    const words = matrices.map((matrix, i) => matrix.draw(modules[i], n, lit, side));
    write(heading, `Row ${lit + 1}: what channel ${lit + 1} hears. Point at another.`);
    set(maps, { "aria-valuenow": lit + 1, "aria-valuemax": n, "aria-valuetext": `Channel ${lit + 1}: ${words.join("; ")}` });
    values.draw(modules, n, 3 * side + 32);
  }

  view.redraw();
  return view.close;
}

export default { render };
