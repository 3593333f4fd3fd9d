// The explorer of the channel weights: its heat map, images x channels, is its control. kit.js
// stands before this text. N images, sorted by class; G classes; C channels; h x w pixels of a map.

const LEFT = 84; // pixels: the names of the classes
const TALL = 240; // pixels: the weights of all images
const [TOP, GAP] = [20, 22]; // pixels: above the means, and between them and the images

// The class of each of the images.
const classesOf = (counts) => counts.flatMap((count, label) => Array(count).fill(label));
const upTo = (count) => Array.from({ length: count }, (_, i) => i);
const percent = (share) => `${(100 * share).toFixed(1)}%`;
const marks = (tag, names) => names.map((name) => svg(tag, { class: name }));

// Of the bytes (N, C) that Python recorded: the weights, at(image, channel), and their means by class.
export function decode(bytes, counts) {
  const C = bytes.byteLength / classesOf(counts).length;
  const at = (image, channel) => bytes.getUint8(image * C + channel) / 255;
  const means = counts.map(() => new Float64Array(C));
  classesOf(counts).forEach((label, image) => {
    for (let channel = 0; channel < C; channel++) means[label][channel] += at(image, channel) / counts[label];
  });
  return { C, at, means };
}

// --- Pictures ---

// Draws a color [r, g, b] for each of w x h cells, as a pixel each, which the page then enlarges.
function paint(canvas, w, h, color) {
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  const image = new ImageData(w, h);
  for (let i = 0; i < w * h; i++) image.data.set([...color(i), 255], 4 * i);
  canvas.getContext("2d").putImageData(image, 0, 0);
}
const SHADES = upTo(256).map((i) => ramp(i / 255).match(/\d+/g));
const shade = (share) => SHADES[Math.round(255 * share)];

// From -1, blue, over white to 1, red.
const signed = (share) =>
  (share < 0 ? [0, 84, 148] : [194, 74, 0]).map((end) => 255 + (end - 255) * Math.min(Math.abs(share), 1));

// Labels of rows of this height, as far as there is room for them.
const ticks = (names, height) =>
  names.map((name, i) => [i + 0.5, i % Math.ceil(12 / height) ? "" : name.replace(/^(.{11}).{2,}/su, "$1…")]);

// The weights as images x channels, below their means by class. Pointing at a cell, or the arrow
// keys, look at it; a click or Enter pins it: to what is pinned the state goes back otherwise.
function heat(view, { classes, counts }) {
  const [N, G, start] = [classesOf(counts).length, counts.length, TOP + Math.min(13 * counts.length + 24, 154) + GAP];
  const [means, all, labels, end] = [html("canvas"), html("canvas"), [svg("g"), svg("g")], start + TALL];
  const frames = marks("path", ["under", "over", "pinned"]);
  const titles = [["mean of each class: dark 0, bright 1", TOP], ["weight of each image", start]];
  const texts = titles.map(([words, y]) => svg("text", { x: LEFT, y: y - 6 }, words));
  const picture = svg("svg", { height: end + 40, "aria-hidden": "true" }, labels, texts, frames);
  const node = html("div", { class: "heat", tabindex: 0, role: "application" }, means, all, picture);
  let [now, size, drawn, x, pinned] = [null, "", null, null, null];

  const clamp = (value, count) => Math.min(Math.max(Math.floor(value), 0), count - 1);
  const look = (image, channel) => {
    if (image === now.image && channel === now.channel) return;
    pinned ??= { image: now.image, channel: now.channel };
    view.change({ image: (now.image = image), channel: (now.channel = channel) });
  };
  const pin = (changes = {}) => {
    pinned = null;
    view.change(changes);
  };
  const leave = () => pinned && pin(pinned);
  const under = ({ offsetX, offsetY }) => {
    const image = offsetY < start ? (pinned ?? now).image : clamp(((offsetY - start) / TALL) * N, N);
    look(image, clamp(x.invert(offsetX), now.C));
  };
  node.addEventListener("pointermove", (event) => x && under(event));
  node.addEventListener("click", (event) => x && (under(event), pin()));
  for (const name of ["pointerleave", "blur"]) node.addEventListener(name, leave);
  const step = (down, right) => () => look(clamp(now.image + down, N), clamp(now.channel + right, now.C));
  const keys = {
    ...{ ArrowUp: step(-1, 0), ArrowDown: step(1, 0), ArrowLeft: step(0, -1), ArrowRight: step(0, 1) },
    ...{ PageUp: step(-counts[0], 0), PageDown: step(counts[0], 0), Home: step(0, -1e9), End: step(0, 1e9) },
    ...{ Enter: () => pin(), Escape: leave },
  };
  node.addEventListener("keydown", (event) => {
    if (!keys[event.key] || !x) return;
    event.preventDefault();
    keys[event.key]();
  });

  function draw({ image, channel }, layer, words, width) {
    const { C, at } = layer;
    now = { image, channel, C };
    if (drawn !== (drawn = layer)) {
      paint(means, C, G, (i) => shade(layer.means[Math.floor(i / C)][i % C]));
      paint(all, C, N, (i) => shade(at(Math.floor(i / C), i % C)));
    }
    if (size !== (size = `${width} ${C}`)) {
      x = scale(0, C, LEFT, width - 6);
      set(picture, { width });
      const every = 2 ** Math.ceil(Math.log2(C / Math.min(width / 40, 16)));
      const channels = upTo(Math.ceil(C / every)).map((i) => [i * every + 0.5, i * every]);
      [[means, TOP, start - GAP, []], [all, start, end, channels]].forEach(([canvas, from, to, below], i) => {
        canvas.style.cssText = `left: ${LEFT}px; top: ${from}px; width: ${x(C) - LEFT}px; height: ${to - from}px`;
        const names = ticks(classes, (to - from) / G);
        axes(labels[i], x, scale(G, 0, to, from), below, names, i ? "channel" : "", "");
      });
    }
    const box = (a, b, c, d) => `M${a} ${b}H${c}V${d}H${a}Z`;
    const [left, right, above] = [x(channel) - 1, x(channel + 1) + 1, start + (TALL * image) / N - 1];
    const columns = box(left, TOP, right, start - GAP) + box(left, start, right, end);
    for (const frame of frames) set(frame, { d: columns + box(LEFT, above, x(C), above + TALL / N + 2) });
    const { channel: px, image: py } = pinned ?? now;
    set(frames[2], { d: `M${x(px + 0.5)} ${end + 1}l-4 6h8zM${LEFT - 1} ${start + (TALL * (py + 0.5)) / N}l-7 -5v10z` });
    set(node, { "aria-label": `Heat map of ${N} images and ${C} channels. ${words}. Arrow keys move, Enter pins.` });
  }
  return { node, draw, pin };
}

// The lever of the factor, beside the weights of the channel by class; the probabilities of the classes.
function rows(view, { classes, counts, stops }, alone) {
  const [owner, grids] = [classesOf(counts), [0, 1, 2].map(() => svg("g"))];
  const tall = Math.min(Math.max(17 * counts.length, 150), 400);
  const [dots, middles, plain, changed] = marks("path", ["dots", "middles", "plain asks", "changed asks"]);
  const [[chosen, knob], [rail, bar]] = [marks("circle", ["chosen", "knob"]), marks("rect", ["rail", "bar"])];
  const product = svg("text", { class: "product", "text-anchor": "middle", x: 56, y: 12 });
  const texts = svg("g", { class: "asks" }, counts.map(() => svg("text")));
  const lever = svg("g", { class: alone ? "" : "lever" }, set(rail, { x: 36, y: 8, width: 40, height: tall + 24 }), bar, knob);
  const [left, right] = [0, 1].map(() => svg("svg", { role: "img", height: tall + 60 }));
  left.append(...grids.slice(0, 2), dots, middles, chosen, lever, product);
  right.append(grids[2], plain, changed, texts);
  const [y, up] = [scale(0, counts.length, 20, tall + 20), scale(0, stops.at(-1), tall + 20, 20)];
  const bottom = scale(counts.length, 0, tall + 20, 20); // the same as y, for axes
  const firsts = counts.map((_, label) => owner.indexOf(label));
  const height = (n) => y(owner[n] + 0.15 + (0.7 * (n - firsts[owner[n]] + 0.5)) / counts[owner[n]]);
  const nearest = (value) =>
    stops.reduce((best, stop) => (Math.abs(stop - value) < Math.abs(best - value) ? stop : best));
  if (!alone) drag(left, lever, (_, py) => view.change({ factor: nearest(up.invert(py)) }));
  let [x, share, size] = [null, null, ""];

  function draw({ image, channel, factor }, { at, means }, answer, weight, words, widths) {
    if (size !== (size = widths.join())) {
      x = scale(0, 1, 168, widths[0] - 12);
      share = scale(0, 1, LEFT, widths[1] - 50);
      const names = ticks(classes, tall / counts.length);
      const factors = [0, 1, 2, 3, 4].map((number) => [number, number ? `× ${number}` : "off"]);
      axes(grids[0], scale(0, 1, 36, 76), up, [], factors, "factor", "");
      axes(grids[1], x, bottom, [[0, 0], [0.5, 0.5], [1, 1]], names, "weight in each image", "");
      axes(grids[2], share, bottom, [[0, 0], [0.5, "50%"], [1, "100%"]], names, "probability, grey: original", "");
      [left, right].forEach((each, i) => set(each, { width: widths[i] }));
    }
    set(dots, { d: owner.map((_, n) => `M${x(at(n, channel)).toFixed(1)} ${height(n).toFixed(1)}h0`).join("") });
    set(middles, { d: means.map((mean, i) => `M${x(mean[channel])} ${y(i)}V${y(i + 1)}`).join("") });
    set(chosen, { r: 5, cx: x(at(image, channel)), cy: height(image) });
    set(bar, { x: 46, width: 20, y: up(factor), height: up(0) - up(factor) });
    set(knob, { r: 9, cx: 56, cy: up(factor) });
    write(product, `weight ${(weight * factor).toFixed(2)}`);
    const bars = (chances, from, to) =>
      chances.map((p, i) => `M${LEFT} ${y(i + from)}H${share(p)}V${y(i + to)}H${LEFT}Z`).join("");
    set(plain, { d: bars(answer.plain, 0.12, 0.48) });
    set(changed, { d: bars(answer.changed, 0.52, 0.88) });
    [...texts.children].forEach((text, i) => {
      const most = Math.max(answer.plain[i], answer.changed[i]);
      set(text, { x: share(most) + 5, y: y(i + 0.5) + 4 });
      write(text, most < 0.005 ? "" : percent(answer.changed[i]));
    });
    set(left, { "aria-label": `Weights of channel ${channel} in all images, by class.` });
    set(right, { "aria-label": words });
  }
  return { pictures: [left, right], draw };
}

// --- The explorer ---

const LOOK = `
.eca-lab { .columns { grid-template-rows: auto auto 1fr; } .picture { grid-row: span 3; }
  .heat { position: relative; touch-action: pan-y; cursor: crosshair; } .heat .grid { display: none; }
  .heat > * { pointer-events: none; } .heat canvas { position: absolute; } .heat svg { position: relative; }
  canvas { image-rendering: pixelated; } .under, .over { fill: none; stroke: #fff; }
  .under { stroke: #000; stroke-width: 3; } .pinned, .chosen { fill: var(--red); stroke: var(--page); }
  .dots { stroke: var(--blue); stroke-width: 4; stroke-linecap: round; opacity: 0.8; }
  .middles { stroke: var(--ink); stroke-width: 2; } .plain { fill: var(--soft); } .rail { fill: transparent; }
  .bar, .changed { fill: var(--blue); } .knob { fill: var(--page); stroke: var(--red); stroke-width: 3; }
  .lever { cursor: ns-resize; touch-action: none; } .product, .headline { font-weight: 700; }
  .lower { display: flex; flex-wrap: wrap; gap: 8px; } .strips { flex: 1 1 280px; min-width: 0; }
  .chances { flex: 1 1 210px; min-width: 0; } .maps { display: flex; gap: 6px; margin-top: 6px; }
  .maps canvas { display: block; width: 94px; height: 94px; outline: 1px solid var(--grid); } figure { margin: 0; font-size: 12px; }
  .headline { font-size: 15px; } :disabled { opacity: 0.5; cursor: default; }
  &.waiting .asks, &.unknown .picture { opacity: 0.35; transition: opacity 0s 0.15s; } }
`;

function render({ model, el }) {
  const view = connect({ model, el }, ["network", "layer", "image", "channel", "factor"], draw, LOOK);
  const [{ given }, alone] = [view, model.get("alone")]; // a page without a kernel
  const { classes, counts, size, initial } = given;
  const [map, lower, owner, seen] = [heat(view, given), rows(view, given, alone), classesOf(counts), new Map()];
  const key = ({ network, layer }) => JSON.stringify([network, layer]); // of what was seen: the weights
  const layersOf = (network) => new Map(given.networks.find(([name]) => name === network)[1]);

  // A change by a control, fitted to the network and the layer; alone, to what was recorded of them.
  const change = (changes) => {
    const next = { ...view.state(), ...changes };
    const layers = layersOf(next.network);
    if (!layers.has(next.layer)) next.layer = [...layers.keys()].at(-1);
    if (alone && (changes.network || changes.layer))
      Object.assign(next, { image: initial.image, channel: initial.channel, factor: 1 });
    next.channel = Math.min(next.channel, layers.get(next.layer) - 1);
    map.pin(next);
  };
  const fitting = { ...view, change };
  let [network, count, widths] = ["", 0, []];
  view.shows.push((state) => {
    if (network === (network = state.network)) return;
    const names = [...layersOf(network).keys()];
    layer.lastChild.replaceChildren(...names.map((name) => html("option", { value: name }, name)));
  });
  const layer = choice(fitting, "layer", "layer", []);
  const channels = html("div");
  const changing = [numberRow(fitting, "factor", "factor", given.stops), presets(fitting)];
  const able = changing.flatMap((each) => [...each.querySelectorAll("input, button")]).slice(0, -1); // but Reset
  if (alone) able.forEach((each) => set(each, { disabled: "" }));
  const controls = html("div", { class: "controls" },
    choice(fitting, "network", "network", given.networks.map(([name]) => [name, name])), layer,
    numberRow(fitting, "image", "image", upTo(owner.length), true), channels, changing);
  const figures = ["", "asks", "asks"].map((name) => html("canvas", { class: name }));
  const captions = figures.map(() => html("figcaption"));
  controls.append(html("div", { class: "maps" }, figures.map((each, i) => html("figure", {}, each, captions[i]))));
  const [headline, predicted] = [0, 1].map(() => html("div", { role: "status" }));
  const [told, need] = [html("div"), html("div", { class: "bad" })];
  const readout = html("div", { class: "readout" }, told, predicted, need, stateLine(view));
  const charts = ["strips", "chances"].map((name, i) => html("div", { class: name }, lower.pictures[i]));
  const picture = html("div", { class: "picture" }, set(headline, { class: "headline" }), map.node,
    html("div", { class: "lower" }, charts));
  view.root.append(html("div", { class: "columns" }, picture, controls, readout));
  const fixed = view.shows.length;

  function draw(state) {
    const answer = view.answer(state);
    const { asked } = answer;
    if (!seen.has(key(asked))) seen.set(key(asked), decode(answer.weights, counts));
    const weights = seen.get(key(state));
    view.root.classList.toggle("unknown", !weights);
    write(need, alone && !answer.fresh ? "This needs a kernel: open the notebook." : "");
    if (!weights) return; // the old picture stays until the kernel has recorded them
    const { image, channel, factor } = state;
    if (count !== (count = weights.C)) {
      view.shows.length = fixed; // without the row for another number of channels
      channels.replaceChildren(numberRow(fitting, "channel", "channel", upTo(count), true));
      view.shows.at(-1)(state);
    }
    const same = ["network", "layer", "image", "channel"].every((name) => asked[name] === state[name]);
    const [weight, digits] = same ? [answer.weight, 3] : [weights.at(image, channel), 2]; // of a byte
    const name = classes[owner[image]];
    const words = `Image ${image}, ${name}, channel ${channel}: weight ${weight.toFixed(digits)}`;
    write(headline, factor === 1 ? words : `${words} × ${factor} = ${(weight * factor).toFixed(digits)}`);
    const mean = weights.means[owner[image]][channel].toFixed(2);
    write(told, `Test image ${given.indices.getInt32(4 * image, true)}; mean weight of its class ${mean}.`);
    const best = (chances) => chances.indexOf(Math.max(...chances));
    const [plain, changed] = [answer.plain, answer.changed].map((chances) =>
      `${classes[best(chances)]} (${percent(Math.max(...chances))})`);
    if (answer.fresh)
      write(predicted, `Predicts ${plain}${asked.factor === 1 ? "" : `, with the changed weight ${changed}`}.`);
    if (widths[0] !== view.width)
      widths = [view.width, map.node.clientWidth, ...charts.map((chart) => chart.clientWidth)];
    if (!widths[1]) return;
    map.draw(state, weights, words, widths[1]);
    lower.draw(state, weights, answer, weight, predicted.textContent, widths.slice(2));
    drawMaps(state, answer, same ? weight * factor : answer.weight * asked.factor);
  }

  function drawMaps({ image }, { asked, map, size: [h, w] }, applied) {
    const from = image * size[0] * size[1];
    paint(figures[0], size[1], size[0], (i) => [0, 1, 2].map((c) => given.images.getUint8(3 * (from + i) + c)));
    const values = upTo(h * w).map((i) => map.getFloat32(4 * i, true));
    const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
    [1, applied].forEach((by, i) => paint(figures[i + 1], w, h, (n) => signed((by * values[n]) / largest)));
    const texts = [`image ${image}`, `map ${asked.channel} before`, `after, × ${applied.toFixed(2)}`];
    texts.forEach((text, i) => write(captions[i], text));
  }

  view.redraw();
  return view.close;
}

export default { render };
