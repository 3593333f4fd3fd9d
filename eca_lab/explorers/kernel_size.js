// The explorer of the kernel size: its numbers, which equal those of eca_lab.attention.kernel_size, and its
// picture. C: channels; t: what psi rounds to the nearest odd k.

import {
	axes,
	bad,
	block,
	bounded,
	button,
	choice,
	drag,
	explorer,
	fill,
	grouped,
	html,
	legend,
	minus,
	nearest,
	newId,
	numberRow,
	onPointer,
	paint,
	path,
	presets,
	remember,
	rowSlider,
	scale,
	set,
	showTip,
	status,
	svg,
	tableRow,
	upTo,
	write,
} from "./kit.js";

const OCTAVES = 13; // the axis of channels ends at 2^13
const MOST = 2 ** OCTAVES;
const K_AXES = [9, 19, 37]; // upper ends of the axis of k
const SIDE = 32; // channels: the corner of the interaction matrix that is shown

// --- Numbers ---

// A decimal as it is written, exactly, in units of 10^-400.
function exact(number) {
	const [digits, exponent = "0"] = String(number).split("e");
	const [whole, part = ""] = digits.split(".");
	return BigInt(whole + part.padEnd(400 + Number(exponent), "0"));
}

const exactly = remember((...numbers) => numbers.map(exact));

// |t|, and whether 100 |t| and |t| itself are integers, which is possible only at powers of two.
function rounded(C, gamma, b) {
	const octaves = Math.log2(C); // exact at powers of two, unlike Math.log(C) / Math.LN2
	const size = Math.abs((octaves + b) / gamma);
	if (!Number.isInteger(octaves)) return { lower: Math.floor(size) };
	const [offset, below, one] = exactly(b, gamma, 1);
	const above = BigInt(octaves) * one + offset;
	const lower = above < 0n ? -above / below : above / below;
	return {
		lower: Number(lower),
		whole: above % below === 0n,
		short: (100n * above) % below === 0n,
	};
}

// The even number, midway between two odd ones, that |t| is; null elsewhere.
function tied(C, gamma, b) {
	const { lower, whole } = rounded(C, gamma, b);
	return whole && lower % 2 === 0 ? lower : null;
}

export function psi(C, gamma, b, ties) {
	const { lower } = rounded(C, gamma, b);
	if (lower % 2) return lower;
	return ties === "down" && tied(C, gamma, b) ? lower - 1 : lower + 1;
}

// The runs of equal k over C = 1, 2, ..., each {first, last, k}. The last run goes on to its end.
export function runs(gamma, b, ties) {
	const at = (C) => psi(C, gamma, b, ties);
	const found = [];
	for (let C = 1; C <= MOST; C++) {
		const [k, run] = [at(C), found.at(-1)];
		if (k === run?.k) run.last = C;
		else found.push({ first: C, last: C, k });
	}
	const run = found.at(-1);
	run.last = Math.max(MOST, Math.floor(2 ** (gamma * (run.k + 1) - b))); // but for rounding
	while (at(run.last) !== run.k) run.last--;
	while (at(run.last + 1) === run.k) run.last++;
	return found;
}

const latestRuns = remember(runs);

// All numbers that a state shows.
export function numbers(state, given) {
	const { channels: C, gamma, b, ties } = state;
	const { stages, released } = given.networks[state.network];
	const steps = latestRuns(gamma, b, ties);
	const { first, last, k } = steps.findLast((run) => run.first <= C);
	return {
		k,
		first,
		last,
		steps,
		tie: tied(C, gamma, b),
		short: rounded(C, gamma, b).short,
		se: 2 * C * Math.floor(C / given.reduction),
		stages: stages.map((width, i) => [
			width,
			psi(width, gamma, b, ties),
			released[i],
		]),
	};
}

// What row i of the C x C matrix holds: [first column, last column, the weight that stands first].
export function row(i, C, k) {
	const half = (k - 1) / 2;
	const first = Math.max(1, i - half);
	return [first, Math.min(C, i + half), first - i + half + 1];
}

// --- Words ---

// A number behind its sign of equality; short says whether two digits behind the point suffice.
const equals = (number, short) =>
	minus(short ? `= ${Number(number.toFixed(2))}` : `≈ ${number.toFixed(3)}`);

const ofSE = (se, reduction, words = "") =>
	se ? words + grouped(se) : `needs ${reduction} channels`;

// The lines of the readout: each a list of words.
function tell(
	{ channels: C, gamma, b, ties, k, tie, short, first, last, se },
	reduction,
) {
	const octaves = Math.log2(C);
	const t = (octaves + b) / gamma;
	const offset = b < 0 ? `− ${-b}` : `+ ${b}`;
	const [sign, written] = equals(octaves, Number.isInteger(octaves)).split(" ");
	const log = () => ["(log", html("sub", {}, "2")];
	const rule = tie ? `ties go ${ties}` : "and a kernel size is positive";
	const midway = `: ${tie} is midway between ${minus(tie - 1)} and ${tie + 1}; ${rule}: `;
	const near = `Nearest odd integer to ${equals(Math.abs(t), short).slice(2)}: `;
	const never = `Cannot be built: k = ${k} is larger than C = ${C}, so some weights would only ever meet padding.`;
	return [
		["k = |t|", html("sub", {}, "odd"), " with t = ", ...log(), " C + b) / γ"],
		[
			"t = ",
			...log(),
			` ${C} ${offset}) / ${gamma} ${sign} (${written} ${offset}) / ${gamma} ${equals(t, short)}`,
		],
		[
			...(tie === null ? [near] : [html("b", {}, "A tie"), midway]),
			html("b", {}, `k = ${k}`),
		],
		[k > C ? never : ""],
		[`Every C from ${grouped(first)} to ${grouped(last)} shares k = ${k}.`],
		[
			`Parameters of a module: ECA ${k}; SE with r = ${reduction} ${ofSE(se, reduction, "has 2C⌊C/r⌋ = ")}.`,
		],
	];
}

const tellStage = ([C, k, released], i) =>
	`Stage ${i + 1}: C = ${C}, k = ${k} by Equation 12, ` +
	(k === released ? "as released" : `but released with ${released}`);

function tellRow(i, C, k) {
	const [first, last, weight] = row(i, C, k);
	const w = (number) =>
		`w${String(number).replace(/\d/g, (digit) => "₀₁₂₃₄₅₆₇₈₉"[digit])}`;
	if (first === last)
		return `Channel ${i} hears itself alone, by ${w(weight)} of ${k}.`;
	const weights = `${w(weight)} to ${w(weight + last - first)} of ${k}`;
	return `Channel ${i} hears channels ${first} to ${last}, by ${weights}.`;
}

// --- Pictures ---

// k over C. What can be taken says so in data-takes: a stage, the line and its handles; all else takes the point.
function staircase(view) {
	const [clip, grid, tip] = [newId(), svg("g"), block("tip")];
	const picture = svg("svg", { role: "img", class: "staircase", height: 290 });
	let [x, y, top, held, now] = [null, null, K_AXES[0], null, null];
	let foot = 2; // octaves: where the handle of b stands on the line

	const t = (octaves) => Math.abs((octaves + now.b) / now.gamma);
	const change = (name, value) =>
		view.change({ [name]: nearest(view.given.stops[name], value) });
	drag(
		view,
		picture,
		(px, py, { target }) => {
			held ??= {
				...target.closest("[data-takes]")?.dataset,
				px,
				folded: x.invert(px) + now.b < 0 ? -1 : 1,
			};
			const [octaves, k] = [bounded(x.invert(px), 0, OCTAVES), y.invert(py)];
			if (held.takes === "gamma") {
				change("gamma", (12 + now.b) / Math.max(k, 0.1)); // the line turns about its foot
			} else if (held.takes === "b") {
				foot = Math.min(octaves, 11);
				change("b", held.folded * now.gamma * k - octaves);
			} else {
				const still = held.stage && Math.abs(px - held.px) < 4;
				change("channels", still ? now.stages[held.stage][0] : 2 ** octaves);
			}
		},
		() => {
			held = null;
			view.redraw(); // with an axis that fits
		},
	);
	onPointer(
		picture,
		["pointerover", "pointerleave"],
		(_px, _py, { target }) => {
			if (held) return;
			const i = target.closest(".stage")?.dataset.stage;
			if (!i) return showTip(tip, []);
			const [C, ...ks] = now.stages[i];
			showTip(
				tip,
				[tellStage(now.stages[i], +i)],
				x(Math.log2(C)),
				y(Math.max(...ks)) - 14,
			);
		},
	);

	function draw(shown, width) {
		now = shown;
		const { channels: C, gamma, b, k, first, last, steps, stages } = shown;
		// While the line is held its axis stays, or it would run away from the pointer.
		const highest = Math.max(...steps.map((step) => step.k));
		if (!held) top = K_AXES.find((end) => end >= highest);
		x = scale(-0.25, OCTAVES + 0.25, 44, width - 8);
		y = scale(0, top, 246, 12);
		const powers = upTo(OCTAVES + 1).map((n) => [
			n,
			n % (width < 560 ? 2 : 1) ? "" : 2 ** n,
		]);
		const odd = upTo((top + 1) / 2).map((i) => [2 * i + 1, 2 * i + 1]);
		axes(
			grid,
			x,
			y,
			powers,
			odd.filter((_, i) => top < 20 || i % 2 === 0),
			"channels C",
			"kernel size k",
		);

		const [at, [left, right]] = [(channels) => x(Math.log2(channels)), x.range];
		const area = (name, from, to) =>
			svg("rect", {
				class: name,
				x: from,
				y: 12,
				width: to - from,
				height: 234,
			});
		const stairs = steps
			.map((step) => `H${at(step.first)}V${y(step.k)}`)
			.join("");
		const bends = [0, bounded(-b, 0, OCTAVES), OCTAVES].map(
			(octaves) => `${x(octaves)} ${y(t(octaves))}`,
		);
		const line = `M${bends.join("L")}`;
		// At a tie, a full dot on the step that is taken, an empty one on the other.
		const dots = upTo(OCTAVES + 1)
			.map((n) => 2 ** n)
			.flatMap((channels) => {
				const tie = tied(channels, gamma, b);
				const dot = (here) =>
					svg("circle", {
						r: 3.5,
						cx: at(channels),
						cy: y(here),
						class: `tie ${here === psi(channels, gamma, b, shown.ties) ? "full" : "empty"}`,
					});
				return tie ? [dot(tie - 1), dot(tie + 1)] : [];
			});
		const stage = ([channels, formula, released], i) => {
			const apart = `M${at(channels)} ${y(formula)}V${y(released)}`;
			return svg(
				"g",
				{ class: "stage", "data-takes": "stage", "data-stage": i },
				path("apart", apart),
				svg("circle", {
					class: "formula",
					r: 8,
					cx: at(channels),
					cy: y(formula),
				}),
				path("released", `M${at(channels)} ${y(released) - 5}l5 5l-5 5l-5 -5z`),
				path("reach", apart),
			);
		};
		const handle = (takes, word, octaves) =>
			svg(
				"g",
				{
					class: "handle",
					"data-takes": takes,
					transform: `translate(${x(octaves)} ${y(t(octaves))})`,
				},
				svg("circle", { r: 9 }),
				svg("text", { y: 4 }, word),
			);
		set(picture, {
			width,
			"aria-label": `Kernel size over channels. C = ${C}, k = ${k}.`,
		});
		fill(
			picture,
			grid,
			svg("clipPath", { id: clip }, area("", left, right)),
			svg(
				"g",
				{ "clip-path": `url(#${clip})` },
				area("span", at(first), at(last + 1)),
				path("line", line),
				path("stairs", `M${left} ${y(steps[0].k)}${stairs}H${right}`),
				path("cross", `M${at(C)} ${y(0)}V${y(k)}H${left}`),
				path("reach", line, { "data-takes": "b" }),
			),
			dots,
			svg("circle", { class: "point", r: 6, cx: at(C), cy: y(k) }),
			stages.map(stage),
			handle("gamma", "γ", 12),
			handle("b", "b", foot),
		);
	}
	return { node: block("chart", picture, tip), draw };
}

// The corner of the C x C matrix: the band of k weights, and the row under the pointer.
function band(view) {
	const [canvas, bar, told] = [
		html("canvas"),
		html("canvas", { class: "bar" }),
		block("told"),
	];
	const slider = block("band", block("corner", canvas), bar);
	const rows = rowSlider(view, slider, "row of the matrix", [canvas], null);
	onPointer(slider, ["pointerleave", "blur"], () => {
		rows.place = null;
		view.redraw();
	});

	const paintAll = remember((count, k, lit) => {
		const color = (weight) =>
			view.palettes.weight(k === 1 ? 0.5 : (weight - 1) / (k - 1));
		paint(canvas, count, count, (n) => {
			const [i, j] = [Math.floor(n / count), n % count];
			const weight = j - i + (k + 1) / 2;
			const shown = weight >= 1 && weight <= k ? color(weight) : 0;
			return lit === null || lit === i ? shown : shown & 0x4dffffff; // or nearly transparent
		});
		canvas.style.width = `${(100 * count) / SIDE}%`;
		paint(bar, 1, k, (i) => color(i + 1));
	});
	function draw({ channels: C, k }) {
		rows.count = Math.min(C, SIDE);
		const lit = rows.row();
		paintAll(rows.count, k, lit);
		const idle =
			"A row is a channel, its colours those it hears. Point at one.";
		write(told, lit === null ? idle : tellRow(lit + 1, C, k));
		rows.tell(told.textContent);
	}
	const ends = block("ends", html("span", {}, "w₁"), html("span", {}, "wₖ"));
	const title = block("title", `C × C interactions, ${SIDE} × ${SIDE} corner`);
	return {
		node: block("matrix", title, block("pair", slider, ends), told),
		draw,
	};
}

// Parameters of an ECA and of an SE module, on a logarithmic axis.
function parameters(reduction) {
	const grid = svg("g");
	const picture = svg("svg", { role: "img", height: 190 });
	function draw({ k, se }, width) {
		const x = scale(-1, 7, 68, width - 74); // the largest number has room behind its dot
		const ticks = (width < 300 ? [0, 3, 6] : [0, 2, 4, 6]).map((power) => [
			power,
			`10${"⁰¹²³⁴⁵⁶"[power]}`,
		]);
		axes(grid, x, scale(0, 1, 150, 4), ticks, [], "number of parameters", "");
		const dot = (name, number, words, y, kind) => {
			const at = x(Math.log10(number || 0.1));
			const r = number && 8; // no dot for none
			return [
				svg("text", { x: 62, y: y + 22, "text-anchor": "end" }, name),
				svg("circle", { class: kind, cx: at, cy: y + 17, r }),
				svg("text", { class: "count", x: at + 14, y: y + 22 }, words),
			];
		};
		const [name, words] = [`SE, r = ${reduction}`, ofSE(se, reduction)];
		set(picture, {
			width,
			"aria-label": `ECA: ${grouped(k)}; ${name}: ${words}`,
		});
		fill(
			picture,
			grid,
			dot("ECA", k, grouped(k), 22, "eca"),
			dot(name, se, words, 88, "se"),
		);
	}
	return {
		node: block(
			"parameters",
			block("title", "Parameters of one module"),
			picture,
		),
		draw,
	};
}

// --- The explorer ---

export default explorer((view) => {
	const { stops, networks, reduction } = view.given;
	const [chart, matrix, counts] = [
		staircase(view),
		band(view),
		parameters(reduction),
	];
	const lines = [
		html("div"),
		html("div"),
		status(),
		bad(),
		html("div"),
		html("div"),
	];
	const [headline, table] = [block("headline"), html("table")];

	// Rebuilt only where it changes, so that a button that was pressed keeps the focus.
	const fillTable = remember((label, stages) =>
		table.replaceChildren(
			html("caption", {}, `Stages of ${label}`),
			tableRow("th", ["channels C", "k by Eq. 12", "k released"]),
			...JSON.parse(stages).map(([C, formula, released]) =>
				tableRow("td", [
					button(C, () => view.change({ channels: C }), {
						value: C,
						"aria-label": `C = ${C}`,
					}),
					formula,
					formula === released ? released : html("b", {}, `≠ ${released}`),
				]),
			),
		),
	);

	return {
		headline,
		main: [
			numberRow(view, "channels", "channels C", stops.channels, true),
			numberRow(view, "gamma", "slope γ", stops.gamma),
			numberRow(view, "b", "offset b", stops.b),
		],
		picture: [
			legend([
				[
					svg("circle", { class: "point", cx: 10, cy: 9, r: 6 }),
					"chosen C, its k",
				],
				[path("line", "M0 13L20 5"), "t, before rounding"],
				[
					svg("circle", { class: "formula", cx: 10, cy: 9, r: 7 }),
					"stage: Eq. 12",
				],
				[path("released", "M10 4l5 5l-5 5l-5 -5z"), "stage: released"],
				[
					svg("rect", { class: "span", x: 2, y: 3, width: 16, height: 12 }),
					"C with this k",
				],
			]),
			chart.node,
			block("lower", matrix.node, counts.node),
		],
		controls: [
			choice(view, "ties", "ties go", [
				["up", "up, as in Figure 3"],
				["down", "down"],
			]),
			choice(
				view,
				"network",
				"network",
				Object.entries(networks).map(([value, { label }]) => [value, label]),
			),
			presets(view),
		],
		readout: [lines, table],
		fits: ({ network, ties }) =>
			network in networks && ["up", "down"].includes(ties),
		draw(state) {
			const shown = { ...state, ...numbers(state, view.given) };
			const { channels: C, k } = shown;
			write(
				headline,
				`C = ${grouped(C)}, k = ${k}${k > C ? " > C: cannot be built" : ""}`,
			);
			headline.classList.toggle("bad", k > C);
			for (const [i, words] of tell(shown, reduction).entries())
				fill(lines[i], words);
			fillTable(networks[state.network].label, JSON.stringify(shown.stages));
			for (const each of table.querySelectorAll("button"))
				set(each, { "aria-pressed": String(+each.value === C) });
			matrix.draw(shown);
			const widths = [chart.node, counts.node].map(view.width);
			if (!widths.every(Boolean)) return;
			chart.draw(shown, widths[0]);
			counts.draw(shown, widths[1]);
		},
	};
});
