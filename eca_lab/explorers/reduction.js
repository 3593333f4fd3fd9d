// The explorer of the reduction: three matrices whose rows are there to be pointed at, their
// singular values and what they cost. kit.js stands before this text. The matrices come from the
// kernel, entries as integers in units of the largest / FULL; 0 is what counts as zero.

const FULL = 2 ** 15 - 1;
const NAMES = ["SE", "SE-GC", "ECA"];
const KINDS = ["se", "gc", "eca"];
const OCTAVES = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];
const KERNELS = [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31, 63, 127, 255];

// --- Numbers ---

export const divisors = (C) => Array.from({ length: C }, (_, i) => i + 1).filter((d) => C % d === 0);
const odd = (C) => C - 1 + (C % 2);

// The sizes with r, k and groups lowered to what C has room for.
export const lowered = (state) => ({
  ...state,
  reduction: Math.min(state.reduction, state.channels),
  kernel_size: Math.min(state.kernel_size, odd(state.channels)),
  groups: divisors(state.channels).findLast((d) => d <= state.groups),
});

// The state after some changes: a trained layer gives sizes, other sizes make the weights random.
export function settled(state, changes, layers) {
  const next = { ...state, ...changes };
  const layer = Object.entries(layers[next.weights] ?? {});
  if ("weights" in changes) Object.assign(next, Object.fromEntries(layer));
  if (layer.some(([name, size]) => next[name] !== size)) next.weights = "random";
  return lowered(next);
}

// Hidden units of SE, channels in a block of SE-GC; of all three, parameters and multiply-adds.
export function costs({ channels: C, reduction: r, kernel_size: k, groups: g }) {
  const [hidden, width] = [Math.floor(C / r), C / g];
  const [se, gc] = [2 * C * hidden, C * width];
  return { hidden, width, parameters: [se, gc, k], multiplyAdds: [se, gc, k * C] };
}

// What row i of a matrix of n x n entries hears: how many channels, and the strongest, [j, entry].
export function hears(entries, n, i, most = 3) {
  const heard = [];
  for (let j = 0; j < n; j++) if (entries[i * n + j]) heard.push([j, entries[i * n + j]]);
  const strongest = heard.sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, most);
  return { count: heard.length, strongest };
}

// Bytes of the kernel as numbers. They are copied, because they need not begin at a multiple of 4.
export const numbers = (Type, { buffer, byteOffset, byteLength }) =>
  new Type(buffer.slice(byteOffset, byteOffset + byteLength));

const grouped = (number) => number.toLocaleString("en-US");
const signed = (number) => (number < 0 ? "−" : "+") + Math.abs(number).toPrecision(2);

// --- Pictures ---

// A colour for each entry: blue, white, red, as RdBu of ColorBrewer, backwards.
const RDBU = [[5, 48, 97], [67, 147, 195], [247, 247, 247], [214, 96, 77], [103, 0, 31]];
const COLORS = Uint32Array.from({ length: 1024 }, (_, n) => {
  const place = Math.min(n / 1023, 0.9999) * 4;
  const [from, to] = [RDBU[Math.floor(place)], RDBU[Math.floor(place) + 1]];
  const [red, green, blue] = from.map((value, i) => value + (to[i] - value) * (place % 1));
  return (255 << 24) | (blue << 16) | (green << 8) | red;
});

function bitmap(entries, n) {
  const canvas = html("canvas", { width: n, height: n });
  const pixels = new Uint32Array(n * n);
  for (let i = 0; i < pixels.length; i++) pixels[i] = COLORS[(entries[i] + FULL + 1) >> 6];
  const data = new ImageData(new Uint8ClampedArray(pixels.buffer), n, n);
  canvas.getContext("2d").putImageData(data, 0, 0);
  return canvas;
}

// One of the matrices, with what its lit row says below.
function map(name, kind) {
  const [title, canvas, told] = [html("div"), html("canvas"), html("div", { class: "told" })];
  const [zero, up, down] = ["axis", "up", "down"].map((each) => svg("path", { class: each }));
  const profile = svg("svg", { class: "profile", height: 52, "aria-hidden": "true" }, zero, up, down);
  const node = html("div", { class: kind }, title, canvas, profile, told);
  const ink = canvas.getContext("2d");

  function draw({ image, entries, largest, rank }, n, lit, side) {
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(side * ratio)) {
      canvas.width = canvas.height = Math.round(side * ratio);
      canvas.style.width = canvas.style.height = `${side}px`;
      set(profile, { width: side });
    }
    title.replaceChildren(html("b", {}, name), ` rank ${rank} of ${n}`);
    ink.setTransform(ratio, 0, 0, ratio, 0, 0);
    ink.imageSmoothingEnabled = n > side * ratio;
    ink.drawImage(image, 0, 0, side, side);
    // The lit row, at least 5 pixels high, between two lines.
    const [cell, high] = [side / n, Math.max(side / n, 5)];
    const top = Math.min(Math.max((lit + 0.5) * cell - high / 2, 1), side - high - 1);
    ink.drawImage(image, 0, lit, n, 1, 0, top, side, high);
    ink.fillStyle = "#000";
    ink.fillRect(0, top - 1.5, side, 1.5);
    ink.fillRect(0, top + high, side, 1.5);
    const bars = ["", ""];
    for (let j = 0; j < n; j++) {
      const entry = entries[lit * n + j];
      if (entry) bars[+(entry < 0)] += `M${(j + 0.5) * cell} 26v${(-25 * entry) / FULL}`;
    }
    const width = Math.max(cell * 0.8, 1);
    set(up, { d: bars[0], "stroke-width": width });
    set(down, { d: bars[1], "stroke-width": width });
    set(zero, { d: `M0 26H${side}` });
    const { count, strongest } = hears(entries, n, lit);
    const words = strongest.map(([j, entry]) => `${j + 1} (${signed((entry / FULL) * largest)})`);
    write(told, `hears ${count} of ${n}` + (count ? `: ${words.join(", ")}${count > 3 ? ", …" : ""}` : ""));
    return `${name} ${told.textContent}`;
  }
  return { node, draw };
}

// Singular values as shares of the largest.
function spectrum() {
  const [clip, grid, area] = [newId(), svg("g"), svg("rect", { y: 8, height: 166 })];
  const lines = KINDS.map((kind) => svg("path", { class: `line ${kind}` }));
  const ends = KINDS.map((kind) => svg("circle", { class: kind, r: 4.5 }));
  const picture = svg("svg", { role: "img", class: "spectrum", height: 214 });
  picture.append(svg("clipPath", { id: clip }, area), grid, svg("g", { "clip-path": `url(#${clip})` }, ...lines), ...ends);
  const raise = (power) => (power ? `10⁻${"⁰¹²³⁴⁵"[-power]}` : "1");
  let size = "";
  function draw(modules, n, width) {
    const last = Math.ceil(Math.log2(n));
    const x = scale(0, last, 52, width - 12);
    const y = scale(-5, 0, 172, 14);
    if (size !== (size = `${last} ${width}`)) {
      const octaves = OCTAVES.slice(0, last + 1).map((C, power) => [power, C]);
      const decades = [-5, -4, -3, -2, -1, 0].map((power) => [power, raise(power)]);
      axes(grid, x, y, octaves, decades, "number of the singular value", "share of largest");
      set(picture, { width });
      set(area, { x: x.range[0], width: x.range[1] - x.range[0] + 4 });
    }
    modules.forEach(({ shares, rank }, i) => {
      const place = (number) => `${x(Math.log2(number + 1))} ${y(Math.max(Math.log10(shares[number]), -9))}`;
      set(lines[i], { d: rank ? `M${Array.from(shares, (_, number) => place(number)).join("L")}` : "" });
      const [cx, cy] = rank ? place(rank - 1).split(" ") : [-99, 0];
      set(ends[i], { cx, cy });
    });
    set(picture, { "aria-label": `Singular values; ranks ${NAMES.map((name, i) => `${name} ${modules[i].rank}`).join(", ")}` });
  }
  return { picture, draw };
}

// --- The explorer ---

const LOOK = `
.eca-lab { --green: #00795a; .maps { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr));
    gap: 0 16px; cursor: crosshair; } .maps canvas { display: block; touch-action: none; }
  .told { font-size: 12px; min-height: 54px; } .profile { margin-top: 4px; }
  .hint { display: flex; flex-wrap: wrap; gap: 0 14px; align-items: center; margin-bottom: 4px; }
  .hint span { display: inline-flex; align-items: center; gap: 5px; }
  .ramp { width: 80px; height: 10px; background: linear-gradient(90deg, ${RDBU.map((color) => `rgb(${color})`)}); }
  .up { stroke: var(--red); } .down { stroke: var(--blue); } .line { fill: none; stroke-width: 2; }
  .line.se { stroke: var(--orange); } .line.gc { stroke: var(--green); stroke-dasharray: 7 4; }
  .line.eca { stroke: var(--blue); stroke-dasharray: 2 3; } circle.se { fill: var(--orange); }
  circle.gc { fill: var(--green); } circle.eca { fill: var(--blue); } .note { min-height: 20px; font-weight: 600; }
  .maps, .spectrum { transition: opacity 0.1s; }
  &.waiting .maps, &.waiting .spectrum, &.waiting .measured { opacity: 0.45; transition-delay: 0.15s; }
  @media (prefers-reduced-motion: reduce) { .maps, .spectrum { transition: none; } } }
[data-jp-theme-light="false"] .eca-lab { --green: #2dbb93; }
`;

// The rows of the table: of the costs, which the page knows, and of what the kernel measured.
const ROWS = [
  ["parameters", (i, { parameters }) => grouped(parameters[i])],
  ["multiply-adds", (i, { multiplyAdds }) => grouped(multiplyAdds[i])],
  ["rank", (i, _, modules) => String(modules[i].rank)],
  ["effective rank", (i, _, modules) => modules[i].effective_rank?.toFixed(1) ?? "–"],
  ["diagonal share", (i, _, modules) => modules[i].diagonal_share?.toLocaleString("en-US", PERCENT) ?? "–"],
  ["bandwidth", (i, _, modules) => String(modules[i].bandwidth)],
];
const PERCENT = { style: "percent", minimumFractionDigits: 1 };

function tell({ channels: C, reduction: r, kernel_size: k, groups: g }, { hidden, width, parameters }) {
  const some = (number, noun) => `${grouped(number)} ${noun}${number === 1 ? "" : "s"}`;
  return [
    `W₂ ReLU(W₁ y), C // r = ${C} // ${r} = ${some(hidden, "hidden unit")}: rank at most ${hidden}, less ` +
      `where y switches some off. 2C (C // r) = ${some(parameters[0], "parameter")}.`,
    `${some(g, "block")} of C/g = ${C}/${g} = ${some(width, "channel")}. C²/g = ${some(parameters[1], "parameter")}.`,
    `a channel hears those up to k // 2 = ${(k - 1) / 2} away. k = ${some(k, "parameter")}.`,
  ];
}

function render({ model, el }) {
  const traits = ["channels", "reduction", "kernel_size", "groups", "seed", "weights"];
  const view = connect({ model, el }, traits, draw, LOOK);
  const { layers, limits, recorded } = view.given;
  const alone = model.get("alone");
  const { change } = view;
  view.change = (changes) => change(settled(view.state(), changes, layers));

  const [matrices, values] = [NAMES.map((name, i) => map(name, KINDS[i])), spectrum()];
  const maps = html("div", { class: "maps", tabindex: 0, role: "slider", "aria-label": "output channel" });
  set(maps, { "aria-valuemin": 1, "aria-orientation": "vertical" });
  maps.append(...matrices.map(({ node }) => node));
  let [place, n, side] = [0.5, 1, 0]; // where the lit row is, of 1; rows; pixels of a matrix
  const light = (row) => {
    place = (Math.min(Math.max(Math.floor(row), 0), n - 1) + 0.5) / n;
    view.redraw();
  };
  const under = ({ target, offsetY }) => target.tagName === "CANVAS" && light((offsetY / side) * n);
  for (const name of ["pointermove", "pointerdown"]) maps.addEventListener(name, under);
  maps.addEventListener("keydown", (event) => {
    const step = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1, PageUp: -8, PageDown: 8, Home: -n, End: n }[event.key];
    if (!step) return;
    event.preventDefault();
    light(place * n + step);
  });

  const legend = NAMES.map((name, i) => html("span", {},
    svg("svg", { width: 28, height: 10, "aria-hidden": "true" }, svg("path", { class: `line ${KINDS[i]}`, d: "M0 5H28" })), name));
  const picture = html("div", { class: "picture" },
    html("div", { class: "hint" }, "Row i: what channel i’s weight takes from every channel. Point at a row.",
      html("span", {}, "−", html("i", { class: "ramp" }), "+")),
    maps,
    html("div", { class: "hint" }, html("b", {}, "Singular values"), ...legend),
    values.picture,
  );

  // A slider's halts: on a page without a kernel, what was recorded.
  const halts = (name, stops) => (alone ? () => recorded[name] : stops);
  const upTo = (C, stops) => [...stops.filter((stop) => stop < C), C];
  const seeds = Array.from({ length: limits.seed[1] + 1 }, (_, seed) => seed);
  const again = () => {
    const all = halts("seed", () => seeds)();
    view.change({ seed: all[(all.indexOf(view.state().seed) + 1) % all.length] });
  };
  const row = (name, label, stops, refused) => numberRow(view, name, label, halts(name, stops), true, refused);
  const controls = html("div", { class: "controls" },
    row("channels", "channels C", () => OCTAVES.filter((C) => C >= limits.channels[0])),
    row("reduction", "reduction r", ({ channels: C }) => upTo(C, OCTAVES)),
    row("kernel_size", "kernel k", ({ channels: C }) => upTo(odd(C), KERNELS), (k) => k % 2 === 0 && "an odd integer"),
    row("groups", "groups g", ({ channels: C }) => divisors(C), (g, { channels: C }) => C % g && `one of ${divisors(C).join(", ")}`),
    row("seed", "seed", () => seeds),
    Object.keys(layers).length ? choice(view, "weights", "weights", [["random", "random"], ...Object.keys(layers).map((layer) => [layer, `trained, ${layer}`])]) : [],
    presets(view),
  );
  controls.querySelector(".buttons").prepend(html("button", { type: "button", onclick: again }, "Draw again"));

  const note = html("div", { class: "note", role: "status" });
  const lines = NAMES.map((name) => [html("b", {}, `${name}: `), html("span")]);
  const cells = ROWS.map(() => NAMES.map(() => html("td")));
  const table = html("table", {}, html("tr", {}, ["", ...NAMES].map((name) => html("th", {}, name))),
    ROWS.map(([name], i) => html("tr", { class: i < 2 ? null : "measured" }, html("th", {}, name), cells[i])));
  const readout = html("div", { class: "readout" }, note, lines.map((line) => html("div", {}, line)), table, stateLine(view));
  view.root.append(html("div", { class: "columns" }, picture, controls, readout));

  let [shown, modules, before, width] = [null, [], null, 0];
  function draw(state) {
    const answer = view.answer(state);
    if (shown !== (shown = answer.modules)) {
      n = answer.asked.channels;
      modules = shown.map(({ matrix, spectrum, largest, measures }) => {
        const entries = numbers(Int16Array, matrix);
        return { entries, image: bitmap(entries, n), shares: numbers(Float32Array, spectrum), largest, ...measures };
      });
    }
    const cost = costs(state);
    tell(state, cost).forEach((text, i) => write(lines[i][1], text));
    ROWS.forEach(([, text], i) => cells[i].forEach((cell, j) => write(cell, text(j, cost, modules))));
    write(note, alone && !answer.fresh ? "This needs a kernel: open the notebook." : tellLowered(state));
    if (width !== view.width) [width, side] = [view.width, Math.floor((maps.clientWidth - 32) / 3)];
    if (side <= 0) return;
    const lit = Math.floor(place * n);
    const told = matrices.map((matrix, i) => matrix.draw(modules[i], n, lit, side));
    set(maps, { "aria-valuenow": lit + 1, "aria-valuemax": n, "aria-valuetext": `Channel ${lit + 1}: ${told.join("; ")}` });
    values.draw(modules, n, 3 * side + 32);
  }

  // New channels lower what they have no room for, wherever they come from.
  let said = "";
  function tellLowered(state) {
    if (JSON.stringify(before) === JSON.stringify(state)) return said;
    const least = lowered({ ...(before ?? state), channels: state.channels });
    const changed = traits.filter((name) => before && least[name] < before[name] && least[name] === state[name] && name !== "channels");
    said = changed.length ? `Lowered to fit C = ${state.channels}: ${changed.map((name) => `${name} to ${state[name]}`).join(", ")}` : "";
    before = state;
    return said;
  }

  view.redraw();
  return view.close;
}

export default { render };
