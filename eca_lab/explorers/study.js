// The explorer of a study: its verdicts and sentences at any margin, which equal those of eca_lab.evidence.stats and
// eca_lab.evidence.report, and its picture. What takes SciPy, Python has told.

import {
	ARROWS,
	axes,
	block,
	bounded,
	button,
	choice,
	drag,
	explorer,
	fill,
	html,
	minus,
	numberRow,
	onKeys,
	onPointer,
	path,
	presets,
	remember,
	scale,
	set,
	showTip,
	status,
	svg,
	typed,
	upTo,
	write,
} from "./kit.js";

const TOP = 28; // pixels above the first arm, as in explorer.css
const REACH = 8; // pixels from a mark within which it is meant
const RUN = ["device", "precision", "path"];
// How a verdict is marked: filled only where the arms were told apart.
const MARKS = {
	better: "M-5 -7L7 0L-5 7Z",
	worse: "M5 -7L-7 0L5 7Z",
	equivalent: "M-5 -5H5V5H-5Z",
	undecided: "M0 -6L6 0L0 6L-6 0Z",
};

// --- Numbers ---

// Every arm against a baseline: its pairs, and what Python computed of them.
// `margins` are those at which its test of equivalence would have p = level / j, for j = 1, 2, ... tests; none where
// the spread is not known.
export function compared(
	{ arms, trials, compared: known },
	metric,
	baseline,
	quantiles,
) {
	const numbers = typed(Float64Array, known[metric][baseline].numbers);
	const [names, values] = [Object.keys(arms), trials[metric]];
	const theirs = new Map(
		trials.seed.flatMap((seed, i) =>
			trials.arm[i] === baseline ? [[seed, i]] : [],
		),
	);
	const rows = names.map((arm, row) => {
		const [difference, low, high, p, sd] = numbers.subarray(
			(row * numbers.length) / names.length,
		);
		return {
			arm,
			fixed: arms[arm],
			values: [],
			pairs: [],
			difference,
			low,
			high,
			p,
			sd,
		};
	});
	trials.arm.forEach((arm, i) => {
		const [seed, other] = [trials.seed[i], theirs.get(trials.seed[i])];
		if (values[i] !== null) rows[names.indexOf(arm)].values.push(values[i]);
		if (
			arm === baseline ||
			values[i] === null ||
			(values[other] ?? null) === null
		)
			return;
		if (RUN.some((name) => trials[name][i] !== trials[name][other])) return;
		rows[names.indexOf(arm)].pairs.push({
			seed,
			i,
			other,
			difference: values[i] - values[other],
		});
	});
	return rows.map((row) => {
		const [n, size] = [row.pairs.length, Math.abs(row.difference)];
		const factors = Number.isNaN(row.sd) ? [] : quantiles[n];
		return {
			...row,
			margins: factors.map((factor) => size + (factor * row.sd) / Math.sqrt(n)),
		};
	});
}

// The rows that are shown to be equivalent, by Holm over all that have a test: with j tests left, all those are whose
// p is below level / j, until there is none.
export function equivalent(rows, margin) {
	let left = rows.filter(({ margins }) => margins.length);
	const shown = new Set();
	for (;;) {
		const found = left.filter(
			({ margins }) => margins[left.length - 1] < margin,
		);
		if (!found.length) return shown;
		for (const row of found) shown.add(row);
		left = left.filter((row) => !shown.has(row));
	}
}

// Of every row, at a margin.
export function verdicts(rows, margin, level) {
	const shown = equivalent(rows, margin);
	return rows.map((row) => {
		if (!row.pairs.length) return "no pair";
		if (row.p < level) return row.difference > 0 ? "better" : "worse"; // what is not known is NaN
		return shown.has(row) ? "equivalent" : "undecided";
	});
}

// Two digits as Python writes them: a tie, which only odd eighths are, goes to the even digit.
function two(number) {
	const size = Math.abs(number);
	const digits = (
		(size * 8) % 2 === 1 ? Math.round(size * 50) / 50 : size
	).toFixed(2);
	return (number < 0 ? "-" : "+") + digits.toLowerCase();
}

// Which of the arms are better, worse, equivalent and undecided, as eca_lab.evidence.report lists them.
function listed(rows, judged, isChosen) {
	const parts = Object.keys(MARKS).map((kind) => {
		const found = rows.filter((row, i) => isChosen(row) && judged[i] === kind);
		const arms = found.map(
			({ arm, difference }) => `${arm} (${two(difference)})`,
		);
		return arms.length ? `${kind} ${arms.join(", ")}` : "";
	});
	return parts.filter(Boolean).join("; ") || "none";
}

// A sentence with a field in each of its pairs of braces.
export const filled = (sentence, fields) =>
	sentence.replace(/\{(\w+)\}/g, (_, name) => fields[name]);

// The sentences of eca_lab.evidence.report.conclusions, from the facts that Python knows; at this margin.
export function conclusions(facts, rows, margin, { sentences, level }) {
	const judged = verdicts(rows, margin, level);
	const now = {
		fixed: { verdicts: listed(rows, judged, ({ fixed }) => fixed !== null) },
		others: { verdicts: listed(rows, judged, ({ fixed }) => fixed === null) },
		power: {
			margin: Number(margin.toPrecision(6)),
			equivalent: equivalent(rows, margin).size,
		},
	};
	return Object.entries(facts).map(([name, fields]) =>
		filled(sentences[name], { ...fields, ...now[name] }),
	);
}

// --- The explorer ---

export default explorer((view) => {
	const { settings, metrics, stops, level, colors, quantiles } = view.given;
	const named = ({ data, backbone }) => JSON.stringify({ data, backbone });
	const settingOf = (state) =>
		settings.find((each) => named(each) === named(state));

	// Another setting or metric takes over the baseline, if it has it.
	const why = html("div", { class: "why", role: "alert" });
	let refused = "";
	function take(changes) {
		const next = { ...view.state(), ...changes };
		const known = settingOf(next).compared[next.metric];
		const can = [
			next.baseline,
			...(changes.baseline ? [] : ["eca", ...Object.keys(known)]),
		];
		const baseline = can.find((arm) => known[arm]?.numbers);
		refused = baseline
			? ""
			: known[changes.baseline ?? Object.keys(known)[0]].why;
		view.change(baseline ? { ...changes, baseline } : {});
	}
	view.shows.push(() => {
		write(why, refused);
		refused = "";
	});
	const options = settings.map((each) => [
		named(each),
		`${each.backbone} on ${each.data}`,
	]);
	const setting = {
		...view,
		change: ({ setting }) => take(JSON.parse(setting)),
	};

	// Arms are there to be clicked, dots to be pointed at, the margin's edges to be dragged.
	const [grid, tip] = [svg("g"), block("tip")];
	const picture = svg("svg", {
		tabindex: 0,
		role: "slider",
		"aria-label": "trials, by arrow keys",
	});
	const plot = block("plot", picture, tip);
	const table = html("div", {
		role: "table",
		"aria-label": "arms against the baseline",
	});
	const forest = block("forest", table, plot);
	const [headline, told, about] = [
		status("headline"),
		html("div"),
		block("hint"),
	];

	let [rows, x, ticks, held, lit] = [[], null, [], null, null]; // held: what was pressed; lit: a dot
	let row = 0; // pixels of an arm; the marks of a tall one stand below its name
	const middle = (i) => TOP + row * i + (row > 54 ? 50 : row / 2 - 3);

	// What is meant by a place: a dot, an edge of the margin and how far off it is, or an arm.
	function meant(px, py) {
		const i = Math.floor((py - TOP) / row);
		const far = (rows[i]?.pairs ?? []).map(({ difference }) =>
			Math.hypot(x(difference) - px, middle(i) + 8 - py),
		);
		const least = Math.min(...far);
		if (least < REACH) return { dot: [i, far.indexOf(least)] };
		const off = Math.abs(px - x(0)) - (x(view.state().margin) - x(0));
		return off > -REACH && off < (i < 0 ? 20 : REACH)
			? { off }
			: { arm: rows[i]?.arm };
	}
	const light = (dot = null) => {
		lit = dot;
		view.redraw();
	};
	drag(
		view,
		picture,
		(px, py) => {
			held ??= { ...meant(px, py), px, py };
			if (Math.hypot(px - held.px, py - held.py) > 4) held.arm = null; // no click any more
			if (!("off" in held)) return light(meant(px, py).dot);
			const edge = x.invert(
				x(0) + Math.abs(bounded(px, ...x.range) - x(0)) - held.off,
			);
			view.change({ margin: bounded(Math.round(100 * edge) / 100, 0.01, 5) });
		},
		() => {
			if (held?.arm) take({ baseline: held.arm });
			held = null;
			view.redraw(); // with an axis that fits
		},
	);
	onPointer(picture, ["pointermove", "pointerleave"], (px, py, { type }) => {
		if (held) return;
		const found = type === "pointerleave" ? {} : meant(px, py);
		set(picture, { "data-cursor": Object.keys(found)[0] ?? null });
		light(found.dot);
	});
	picture.addEventListener("blur", () => light());
	onKeys(picture, ARROWS, (keys) => {
		const [along, down] = lit ? keys : [0, 1];
		const dotted = rows.flatMap(({ pairs }, i) => (pairs.length ? [i] : []));
		const i = dotted.at(
			bounded(dotted.indexOf(lit?.[0]) + down, 0, dotted.length - 1),
		);
		light([i, bounded((lit?.[1] ?? 0) + along, 0, rows[i].pairs.length - 1)]);
	});

	// The lines of the table, whose nodes stay, so that a button that was pressed keeps the focus.
	const linesOf = remember((arms) => {
		const lines = Object.keys(arms).map((arm) => {
			const [note, word, more] = ["small", "b", "small"].map((tag) =>
				html(tag),
			);
			const name = button(arm, null, { title: arm });
			const cell = (role, ...nodes) =>
				html("div", { role, onclick: () => take({ baseline: arm }) }, nodes);
			const node = html(
				"div",
				{ role: "row" },
				cell("rowheader", name, note),
				cell("cell", word, more),
			);
			return { node, name, note, word, more };
		});
		const head = (text) =>
			html("div", { role: "columnheader" }, html("small", {}, text));
		const heads = html(
			"div",
			{ role: "row" },
			head("difference, 95% interval"),
			head("p by Holm, n"),
		);
		table.replaceChildren(heads, ...lines.map(({ node }) => node));
		return lines;
	});
	function fillTable({ baseline }, { arms }, words) {
		rows.forEach(({ arm, pairs, values, difference, low, high, p }, i) => {
			const { node, name, note, word, more } = linesOf(arms)[i];
			const own = arm === baseline;
			const mean =
				values.reduce((sum, value) => sum + value, 0) / values.length;
			const limits = low <= high ? ` (${two(low)} to ${two(high)})` : "";
			write(
				note,
				own
					? `mean ${mean.toFixed(2)}`
					: pairs.length
						? minus(two(difference) + limits)
						: "",
			);
			write(word, words[i]);
			write(
				more,
				`${p < 0.01 ? "p<0.01, " : p <= 1 ? `p ${two(p).slice(1)}, ` : ""}n ${(own ? values : pairs).length}`,
			);
			set(node, { class: words[i] });
			set(name, { "aria-pressed": String(own) });
		});
	}

	// The axis, and its ticks, with room for all pairs, the margin and the intervals. Those of two pairs
	// may be a hundred times as wide as the pairs are apart: they end where the axis does.
	function fit(margin, width) {
		const all = rows.flatMap(({ pairs, low, high }) => [
			...pairs.map(({ difference }) => difference),
			...(pairs.length > 2 && low <= high ? [low, high] : []),
		]);
		const [least, most] = [
			Math.min(-1.2 * margin, ...all),
			Math.max(1.2 * margin, ...all),
		];
		const step =
			[0.1, 0.2, 0.5, 1, 2, 5, 10].find(
				(each) => (most - least) / each < width / 50,
			) ?? 20;
		const [first, last] = [Math.floor(least / step), Math.ceil(most / step)];
		const values = upTo(last - first + 1).map((i) => (first + i) * step);
		return [
			scale(first * step, last * step, 10, width - 10),
			values.map((each) => [each, minus(+each.toFixed(1))]),
		];
	}
	function drawForest({ metric, baseline, margin }, words, seed, width) {
		const [own, bottom] = [
			rows.findIndex(({ arm }) => arm === baseline),
			TOP + row * rows.length,
		];
		if (!held || !("off" in held)) [x, ticks] = fit(margin, width); // held, an edge stays under the pointer
		axes(
			grid,
			x,
			{ range: [bottom, TOP] },
			ticks,
			[],
			`difference in ${metrics[metric]}, points`,
			"",
		);
		const at = (value) => bounded(x(value), ...x.range);
		const [from, to] = [at(-margin), at(margin)];
		const dot = (cy) => (pair) =>
			svg("circle", {
				class: pair.seed === seed ? "dot lit" : "dot",
				r: 4,
				cx: x(pair.difference),
				cy,
			});
		const line = (name, low, high, y) =>
			low <= high ? path(name, `M${at(low)} ${y}H${at(high)}`) : [];
		const marks = ({ arm, pairs, difference, low, high, margins }, i) => {
			const [y, kind] = [middle(i) - 6, words[i]];
			const half = margins[0] - Math.abs(difference); // of the interval of 90%, which the test of equivalence is about
			const intervals = [
				line("interval", low, high, y),
				line("inner", difference - half, difference + half, y),
			];
			const mark = path(`mark ${kind}`, MARKS[kind] ?? "", {
				transform: `translate(${at(difference) || 0} ${y})`,
			});
			return svg(
				"g",
				{ class: "arm", style: `--arm: ${colors[arm]}` },
				intervals,
				mark,
				pairs.map(dot(y + 14)),
			);
		};
		set(picture, { width, height: bottom + 40 });
		fill(
			picture,
			svg("rect", { class: "chosen", y: TOP + row * own, width, height: row }),
			svg("rect", {
				class: "band",
				x: from,
				y: TOP,
				width: to - from,
				height: bottom - TOP,
			}),
			grid,
			path("axis", `M${x(0)} ${TOP}V${bottom}`),
			rows.map(marks),
			path("edge", `M${from} 18V${bottom}M${to} 18V${bottom}`),
			[from - 7, to + 7].map((cx) =>
				svg("circle", { class: "edge", r: 7, cx, cy: 18 }),
			),
		);
	}

	// What is told of the trial that is meant, and of that of the baseline.
	function tellTrial(
		{ metric, baseline },
		trials,
		{ arm },
		{ seed, i, other, difference },
	) {
		const trial = (name, of) => {
			const file = trials.identity[of] ? `, ${trials.identity[of]}.json` : "";
			return `${name}: ${trials[metric][of].toFixed(2)}${file}`;
		};
		const run = RUN.map((name) => trials[name][i])
			.filter(Boolean)
			.join(", ");
		return [
			`seed ${seed}: ${minus(two(difference))}`,
			trial(arm, i),
			trial(baseline, other),
			run,
		];
	}

	const rowsOf = remember(compared);
	return {
		headline,
		main: [numberRow(view, "margin", "margin ±", stops.margin)],
		picture: [
			forest,
			block(
				"hint",
				"Click an arm to compare with it; drag the margin's edges. Above, the mean with ",
				"its intervals of 90%, thick, and 95%, thin, not adjusted; below, the seeds. Better, worse, equivalent: p, adjusted ",
				`by Holm, is below ${level.toFixed(2)}. A single arm would be equivalent where the thick interval lies within the `,
				"margin; of several, Holm asks more.",
			),
		],
		controls: [
			choice(setting, "setting", "setting", options, named),
			choice(
				{ ...view, change: take },
				"metric",
				"metric",
				Object.entries(metrics),
			),
			presets(view),
			why,
		],
		readout: [told, about],
		fits: (state) =>
			Boolean(
				settingOf(state)?.compared[state.metric]?.[state.baseline]?.numbers,
			),
		draw(state) {
			const { metric, baseline, margin } = state;
			const setting = settingOf(state);
			const before = rows;
			rows = rowsOf(setting, metric, baseline, quantiles);
			if (rows !== before) lit = null;
			const judged = verdicts(rows, margin, level);
			const words = rows.map(({ arm }, i) =>
				arm === baseline ? "baseline" : judged[i],
			);
			const counts = Object.keys(MARKS).map((kind) => [
				words.filter((each) => each === kind).length,
				kind,
			]);
			write(
				headline,
				`Against ${baseline}: ${counts
					.filter(([n]) => n)
					.map((each) => each.join(" "))
					.join(", ")}`,
			);
			const said = conclusions(
				setting.compared[metric][baseline].facts,
				rows,
				margin,
				view.given,
			).map(minus);
			fill(
				told,
				said.map((text) => html("p", {}, text)),
			);
			write(about, setting.about);
			fillTable(state, setting, words);
			const [all, width] = [view.root, plot].map(view.width);
			row = all < 560 ? 66 : bounded(Math.floor(330 / rows.length), 36, 54);
			set(forest, {
				class: all < 560 ? "forest narrow" : "forest",
				style: `--row: ${row}px`,
			});
			if (!width) return;
			const pair = lit && rows[lit[0]].pairs[lit[1]];
			drawForest(state, words, pair?.seed, width);
			const lines = pair
				? tellTrial(state, setting.trials, rows[lit[0]], pair)
				: [];
			set(picture, {
				"aria-valuenow": lit ? lit[1] + 1 : 0,
				"aria-valuetext": lines.join("; ") || "no trial",
			});
			showTip(
				tip,
				lines,
				...(pair ? [x(pair.difference), middle(lit[0])] : []),
			);
		},
	};
});
