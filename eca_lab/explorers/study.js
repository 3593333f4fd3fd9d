// The explorer of a study: its verdicts and sentences at any margin, which equal those of eca_lab.stats and
// eca_lab.report, and its picture. What takes SciPy, Python has told. kit.js stands before this text.

const TOP = 28; // pixels above the first arm
const REACH = 8; // pixels from a mark within which it is meant
const RUN = ["device", "precision", "path"];
// How a verdict is marked: filled only where the arms were told apart.
const MARKS = { better: "M-5 -7L7 0L-5 7Z", worse: "M5 -7L-7 0L5 7Z" };
Object.assign(MARKS, { equivalent: "M-5 -5H5V5H-5Z", undecided: "M0 -6L6 0L0 6L-6 0Z" });
const WORDS = { equivalent: "as good", undecided: "not told apart" };

// --- Numbers ---

// Every arm against a baseline: its pairs, and what Python computed of them.
export function compared({ arms, trials, compared: known }, metric, baseline) {
  const { buffer, byteOffset, byteLength } = known[metric][baseline].numbers;
  const numbers = new Float64Array(buffer.slice(byteOffset, byteOffset + byteLength));
  const [names, values] = [Object.keys(arms), trials[metric]];
  const theirs = new Map(trials.seed.flatMap((seed, i) => (trials.arm[i] === baseline ? [[seed, i]] : [])));
  const rows = names.map((arm, row) => {
    const [difference, low, high, p, within] = numbers.subarray((row * numbers.length) / names.length);
    return { arm, fixed: arms[arm], values: [], pairs: [], difference, low, high, p, within };
  });
  trials.arm.forEach((arm, i) => {
    const [seed, other] = [trials.seed[i], theirs.get(trials.seed[i])];
    if (values[i] !== null) rows[names.indexOf(arm)].values.push(values[i]);
    if (arm === baseline || values[i] === null || (values[other] ?? null) === null) return;
    if (RUN.some((name) => trials[name][i] !== trials[name][other])) return;
    rows[names.indexOf(arm)].pairs.push({ seed, i, other, difference: values[i] - values[other] });
  });
  return rows;
}

export function verdict({ difference, p, within }, margin, level) {
  if (p < level) return difference > 0 ? "better" : "worse";
  return within < margin ? "equivalent" : "undecided"; // what is not known is NaN
}

// Two digits as Python writes them: a tie, which only odd eighths are, goes to the even digit.
function two(number) {
  const size = Math.abs(number);
  const digits = ((size * 8) % 2 === 1 ? Math.round(size * 50) / 50 : size).toFixed(2);
  return (number < 0 ? "-" : "+") + digits.toLowerCase();
}

// The sentences of eca_lab.report.conclusions, from those at the margin that Python knew.
export function conclusions(said, rows, { baseline, margin }, level) {
  const tell = (subject, chosen) => {
    const parts = Object.keys(MARKS).map((kind) => {
      const found = chosen.filter((row) => row.arm !== baseline && verdict(row, margin, level) === kind);
      const listed = found.map(({ arm, difference }) => `${arm} (${two(difference)})`);
      return listed.length ? `${WORDS[kind] ?? kind} ${listed.join(", ")}` : "";
    });
    return `${subject} against ${baseline}, in points: ${parts.filter(Boolean).join("; ") || "none"}`;
  };
  const shown = rows.filter(({ within }) => within < margin).length;
  const power = `margin of ${Number(margin.toPrecision(6))} points is shown for ${shown} of`;
  return [
    tell("Fixed k", rows.filter(({ fixed }) => fixed !== null)) + (said[0].match(/; from k = .*/)?.[0] ?? "."),
    `${tell("Other arms", rows.filter(({ fixed }) => fixed === null))}.`,
    said[2].replace(/margin of \S+ points is shown for \d+ of/, power),
    ...said.slice(3),
  ];
}

// --- Picture ---

const LOOK = `
.eca-lab { --green: #00795a; --chosen: color-mix(in srgb, var(--grid) 60%, var(--page));
  .headline { font-size: 15px; font-weight: 700; } .hint { font-size: 12px; margin-bottom: 4px; }
  .setting select { width: 100%; } .forest { position: relative; padding-bottom: 40px; }
  .plot { position: absolute; inset: 0 92px 0 160px; } .narrow .plot { inset: 0; }
  [role="table"] { position: relative; z-index: 1; pointer-events: none; font-variant-numeric: tabular-nums; }
  [role="row"] { height: var(--row); display: flex; justify-content: space-between; line-height: 17px;
    box-sizing: border-box; border-top: 1px solid var(--grid); white-space: nowrap; }
  [role="row"]:first-child { height: ${TOP}px; border: 0; } small { display: block; font-size: 12px; color: var(--ink); }
  [role="row"] > * { width: 92px; height: 35px; pointer-events: auto; cursor: pointer; background: var(--page); }
  [role="row"] > :first-child { width: 160px; } .baseline > * { background: var(--chosen) !important; }
  [role="columnheader"] { background: none !important; pointer-events: none !important; }
  .forest button { all: unset; display: block; max-width: 100%; overflow: hidden; text-overflow: ellipsis;
    color: var(--ink); cursor: pointer; }
  .forest button:focus-visible { outline: 2px solid var(--blue); } [role="row"]:hover button { text-decoration: underline; }
  .baseline button { font-weight: 600; } .chosen { fill: var(--chosen); }
  .forest svg { touch-action: pan-y; user-select: none; cursor: pointer; } [data-cursor="off"] { cursor: ew-resize !important; }
  .band { fill: var(--green); opacity: 0.16; } .edge { stroke: var(--green); stroke-width: 1.5; fill: var(--green); }
  .dot { fill: var(--blue); opacity: 0.75; stroke: var(--page); stroke-width: 0.5; } .dot.lit { fill: var(--ink); opacity: 1; }
  .interval { stroke: var(--ink); stroke-width: 2; } .mark { stroke-width: 2; fill: var(--page); stroke: currentColor; }
  .better { color: var(--blue); } .worse { color: var(--red); } .equivalent { color: var(--green); }
  .mark.better, .mark.worse { fill: currentColor; }
  .tip { position: absolute; transform: translate(-50%, -100%); width: 250px; padding: 3px 8px; z-index: 2; font-size: 12px;
    pointer-events: none; background: var(--page); border: 1px solid var(--edge); } .tip :first-child { font-weight: 600; } }
[data-jp-theme-light="false"] .eca-lab { --green: #2fc39b; }
`;
const signed = (text) => text.replace(/(^|[ (])-(?=\d)/g, "$1−");
const bounded = (value, low, high) => Math.min(Math.max(value, low), high);

function render({ model, el }) {
  const view = connect({ model, el }, ["data", "backbone", "metric", "baseline", "margin"], draw, LOOK);
  const { settings, metrics, stops, level } = view.given;
  const at = ({ data, backbone }) => settings.findIndex((each) => each.data === data && each.backbone === backbone);

  // --- Controls ---

  const why = html("div", { class: "why", role: "alert" });
  // Another setting or metric takes over the baseline, if it has it.
  function take(changes) {
    const next = { ...view.state(), ...changes };
    const known = settings[at(next)].compared[next.metric];
    const can = [next.baseline, ...(changes.baseline ? [] : ["eca", ...Object.keys(known)])];
    const baseline = can.find((arm) => known[arm]?.numbers);
    write(why, baseline ? "" : known[changes.baseline ?? Object.keys(known)[0]].why);
    view.change(baseline ? { ...changes, baseline } : {});
  }
  const select = html("select", { "aria-label": "setting" },
    settings.map(({ data, backbone }, i) => html("option", { value: i }, `${backbone} on ${data}`)));
  select.addEventListener("change", () => {
    const { data, backbone } = settings[select.value];
    take({ data, backbone });
  });
  const controls = html("div", { class: "controls" }, html("div", { class: "setting" }, select),
    choice({ ...view, change: take }, "metric", "metric", Object.entries(metrics)),
    numberRow(view, "margin", "margin ±", stops.margin), presets(view), why);

  // --- Picture: arms are there to be clicked, the margin's edges to be dragged ---

  const [chosen, band] = [svg("rect", { class: "chosen" }), svg("rect", { class: "band" })];
  const [grid, zero, marks, dots] = [svg("g"), svg("path", { class: "axis" }), svg("g"), svg("g")];
  const edges = [-1, 1].map((side) => [side, svg("path", { class: "edge" }), svg("circle", { class: "edge", r: 7, cy: 18 })]);
  const picture = svg("svg", { tabindex: 0, role: "slider", "aria-label": "trials, by arrow keys" },
    chosen, band, grid, zero, marks, dots, edges.flatMap(([, ...nodes]) => nodes));
  const tip = html("div", { class: "tip", hidden: "" });
  const plot = html("div", { class: "plot" }, picture, tip);
  const table = html("div", { role: "table", "aria-label": "arms against the baseline" });
  const forest = html("div", { class: "forest" }, table, plot);
  const headline = html("div", { class: "headline", role: "status" });
  const hint = "Above, mean and 95% interval; below, the seeds. Click an arm to compare with it; drag the margin's edges.";
  const [told, about] = [html("div"), html("div", { class: "hint" })];
  view.root.append(html("div", { class: "columns" },
    html("div", { class: "picture" }, headline, html("div", { class: "hint" }, hint), forest),
    controls, html("div", { class: "readout" }, told, about, stateLine(view))));

  let [now, rows, lines, key, sizes, size, x] = [null, [], [], "", [], "", null];
  let [held, lit, row, mid] = [null, null, 0, 0]; // row: pixels of an arm; mid: where its marks stand

  const middle = (i) => TOP + row * i + mid;
  const beyond = (px) => Math.abs(px - x(0)) - (x(now.margin) - x(0)); // the margin's edge
  function meant(px, py) {
    const i = Math.floor((py - TOP) / row);
    const far = (rows[i]?.pairs ?? []).map(({ difference }) => Math.hypot(x(difference) - px, middle(i) + 8 - py));
    const least = Math.min(...far);
    if (least < REACH) return { dot: [i, far.indexOf(least)] };
    const off = beyond(px);
    return off > -REACH && off < (i < 0 ? 20 : REACH) ? { off } : { arm: rows[i]?.arm };
  }
  function light(dot = null) {
    lit = dot;
    view.redraw();
  }
  function move(px, py) {
    held ??= { ...meant(px, py), px, py };
    if (Math.hypot(px - held.px, py - held.py) > 4) held.arm = null; // no click any more
    if (!("off" in held)) return light(meant(px, py).dot);
    const edge = Math.abs(bounded(px, ...x.range) - x(0)) - held.off;
    view.change({ margin: bounded(Math.round(100 * x.invert(x(0) + edge)) / 100, 0.01, 5) });
  }
  drag(picture, picture, move, () => {
    if (held?.arm) take({ baseline: held.arm });
    held = null;
    view.redraw(); // with an axis that fits
  });
  picture.addEventListener("pointermove", ({ offsetX, offsetY }) => {
    if (held) return;
    const found = meant(offsetX, offsetY);
    set(picture, { "data-cursor": Object.keys(found)[0] });
    light(found.dot);
  });
  for (const name of ["pointerleave", "blur"]) picture.addEventListener(name, () => light());
  picture.addEventListener("keydown", (event) => {
    const keys = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!keys[event.key]) return;
    event.preventDefault();
    const [along, down] = lit ? keys[event.key] : [0, 1];
    const dotted = rows.flatMap(({ pairs }, i) => (pairs.length ? [i] : []));
    const i = dotted.at(bounded(dotted.indexOf(lit?.[0]) + down, 0, dotted.length - 1));
    light([i, bounded((lit?.[1] ?? 0) + along, 0, rows[i].pairs.length - 1)]);
  });

  function draw(state) {
    const { metric, baseline, margin } = (now = state);
    const setting = settings[at(state)];
    const fresh = key !== (key = [at(state), metric, baseline].join());
    if (fresh) [rows, lit] = [compared(setting, metric, baseline), null];
    if (sizes[0] !== view.width) {
      set(forest, { class: view.width < 560 ? "forest narrow" : "forest" });
      [row, mid] = view.width < 560 ? [66, 50] : [36, 15];
      forest.style.setProperty("--row", `${row}px`);
      sizes = [view.width, plot.clientWidth];
    }
    select.value = at(state);
    const verdicts = rows.map((each) =>
      each.arm === baseline ? "baseline" : each.pairs.length ? verdict(each, margin, level) : "no pair");
    const counts = Object.keys(MARKS).map((kind) => [verdicts.filter((each) => each === kind).length, kind]);
    write(headline, `Against ${baseline}: ${counts.filter(([n]) => n).map((each) => each.join(" ")).join(", ")}`);
    const said = conclusions(setting.compared[metric][baseline].said, rows, state, level).map(signed);
    if (told.textContent !== said.join("")) told.replaceChildren(...said.map((text) => html("p", {}, text)));
    write(about, setting.about);
    if (sizes[1]) drawForest(state, setting, verdicts, fresh, sizes[1]);
  }

  function drawForest({ metric, baseline, margin }, setting, verdicts, fresh, width) {
    const bottom = TOP + row * rows.length;
    const all = rows.flatMap(({ pairs }) => pairs.map(({ difference }) => difference));
    const [least, most] = [Math.min(-1.2 * margin, ...all), Math.max(1.2 * margin, ...all)];
    const step = [0.1, 0.2, 0.5, 1, 2, 5, 10].find((each) => (most - least) / each < width / 50) ?? 20;
    const [first, last] = [Math.floor(least / step), Math.ceil(most / step)];
    const fits = [width, step, first, last, metric, bottom].join();
    const scaled = !(held && "off" in held) && size !== (size = fits); // held, it stays under the pointer
    if (scaled) {
      x = scale(first * step, last * step, 10, width - 10);
      const ticks = Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
      axes(grid, x, { range: [bottom, TOP] }, ticks.map((tick) => [tick, signed(String(+tick.toFixed(1)))]), [],
        `difference in ${metrics[metric]}, points`, "");
      set(picture, { width, height: bottom + 40 });
      set(zero, { d: `M${x(0)} ${TOP}V${bottom}` });
    }
    if (lines.setting !== setting) {
      lines = Object.assign(rows.map(({ arm }) => line(arm)), { setting });
      const heads = ["difference, 95% interval", "p by Holm, n"].map((text) =>
        html("div", { role: "columnheader" }, html("small", {}, text)));
      table.replaceChildren(html("div", { role: "row" }, heads), ...lines.map(({ node }) => node));
      marks.replaceChildren(...lines.flatMap(({ interval, mark }) => [interval, mark]));
    }
    if (fresh || scaled) {
      dots.replaceChildren(...rows.flatMap(({ pairs }, i) => pairs.map(({ seed, difference }) =>
        svg("circle", { "data-seed": seed, r: 4, cx: x(difference), cy: middle(i) + 8 }))));
    }
    const at = (value) => bounded(x(value), ...x.range);
    set(band, { x: at(-margin), y: TOP, width: at(margin) - at(-margin), height: bottom - TOP });
    for (const [side, edge, grip] of edges) {
      set(edge, { d: `M${at(side * margin)} 18V${bottom}` });
      set(grip, { cx: at(side * margin) + 7 * side });
    }
    rows.forEach(({ arm, pairs, values, difference, low, high, p }, i) => {
      const { node, button, note, word, more, interval, mark } = lines[i];
      const [own, kind, known, y] = [arm === baseline, verdicts[i], low <= high, middle(i) - 6];
      const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
      const limits = known ? ` (${two(low)} to ${two(high)})` : "";
      write(note, own ? `mean ${mean.toFixed(2)}` : pairs.length ? signed(two(difference) + limits) : "");
      write(word, kind);
      write(more, own ? `n ${values.length}` : `${p <= 1 ? `p ${two(p).slice(1)}, ` : ""}n ${pairs.length}`);
      set(node, { class: kind });
      set(button, { "aria-pressed": String(own) });
      set(interval, { d: known ? `M${at(low)} ${y}H${at(high)}` : "" });
      set(mark, { class: `mark ${kind}`, d: MARKS[kind] ?? "", transform: `translate(${at(difference) || 0} ${y})` });
      if (own) set(chosen, { y: TOP + row * i, width, height: row });
    });
    drawTrial(metric, baseline, setting.trials, width);
  }

  const line = (arm) => {
    const [button, note, word, more] = ["button", "small", "b", "small"].map((tag) => html(tag));
    set(button, { type: "button", title: arm }).append(arm);
    const cells = [["rowheader", button, note], ["cell", word, more]].map(([role, ...nodes]) =>
      html("div", { role, onclick: () => take({ baseline: arm }) }, nodes));
    const [interval, mark] = [svg("path", { class: "interval" }), svg("path")];
    return { node: html("div", { role: "row" }, cells), button, note, word, more, interval, mark };
  };

  // The trial that is meant, and the dots of its seed in all rows.
  function drawTrial(metric, baseline, trials, width) {
    const { seed, i, other, difference } = lit ? rows[lit[0]].pairs[lit[1]] : {};
    for (const dot of dots.children) set(dot, { class: +dot.dataset.seed === seed ? "dot lit" : "dot" });
    set(tip, { hidden: lit ? null : "" });
    if (!lit) return;
    const trial = (name, of) => [`${name}: ${trials[metric][of].toFixed(2)}`, trials.identity[of] && `${trials.identity[of]}.json`];
    const words = [[`seed ${seed}: ${signed(two(difference))}`], trial(rows[lit[0]].arm, i), trial(baseline, other)];
    words.push(RUN.map((name) => trials[name][i]));
    tip.replaceChildren(...words.map((each) => html("div", {}, each.filter(Boolean).join(", "))));
    set(picture, { "aria-valuetext": tip.textContent });
    tip.style.left = `${bounded(x(difference), 134, Math.max(134, width - 134))}px`;
    tip.style.top = `${middle(lit[0])}px`;
  }

  view.redraw();
  return view.close;
}

export default { render };
