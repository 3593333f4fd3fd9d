// The explorer of the module: averages of channels in the middle, above them ECA's kernel and weights, below them
// those of SE. Its numbers equal those of eca_lab.explorers.module. Channels are counted from 1, as they are named;
// places, where they stand in the list, from 0.

import {
	ARROWS,
	block,
	bounded,
	button,
	drag,
	enter,
	explorer,
	fill,
	html,
	legend,
	minus,
	newId,
	numberOf,
	numberRow,
	onKeys,
	onPointer,
	path,
	presets,
	remember,
	scale,
	set,
	status,
	svg,
	upTo,
	write,
} from "./kit.js";

const PACE = 160; // milliseconds for each channel that the kernel slides by itself
const TURN = 0.1; // by which keys and the mouse move a weight of the kernel
const NEAR = 1e-9; // numbers that differ by less are the same
const OUTER = 6; // the sigmoid is drawn from -6 to 6

// --- Numbers ---

const dot = (row, numbers) =>
	row.reduce((sum, each, i) => sum + each * numbers[i], 0);
const equal = (one, other) => JSON.stringify(one) === JSON.stringify(other);
export const sigmoid = (sum) => 1 / (1 + Math.exp(-sum));
const rounded = (value, step) =>
	Math.round(value / step) / Math.round(1 / step);

// What the weight of a place hears: pairs of a weight of the kernel and a channel, null beyond the ends.
export function heard(place, { kernel, order }) {
	const first = place - (kernel.length - 1) / 2;
	return kernel.map((weight, i) => [weight, order[first + i] ?? null]);
}

// By channel, what the sigmoid gets in ECA and in SE; and SE's hidden units.
export function sums(state, { fc1, fc2 }) {
	const { averages, order } = state;
	const eca = [];
	for (const [place, channel] of order.entries())
		eca[channel - 1] = heard(place, state).reduce(
			(sum, [weight, other]) =>
				sum + (other === null ? 0 : weight * averages[other - 1]),
			0,
		);
	const hidden = fc1.map((row) => Math.max(0, dot(row, averages)));
	return { eca, hidden, se: fc2.map((row) => dot(row, hidden)) };
}

// By channel, whether the two differ by more than rounding.
const moved = (one, other) =>
	one.map((each, i) => Math.abs(each - other[i]) > NEAR);
const count = (flags) => flags.filter(Boolean).length;

const withAverage = ({ averages, channel }, value) =>
	averages.map((each, i) => (i === channel - 1 ? value : each));

// How many weights of ECA, and how many of SE, move when the average of the channel does.
export function reach(state, { se, step, limits }) {
	const average = state.averages[state.channel - 1];
	const within = average + step <= limits.average[1];
	const averages = withAverage(state, average + (within ? step : -step));
	const [before, after] = [sums(state, se), sums({ ...state, averages }, se)];
	return ["eca", "se"].map((arm) => count(moved(after[arm], before[arm])));
}

// A kernel of k weights with the same middle. New ones are half of the outermost.
export function resized(kernel, k) {
	const less = Math.max(0, (kernel.length - k) / 2);
	const grown = kernel.slice(less, kernel.length - less);
	const half = (weight) => Math.trunc(10 * weight) / 20 + 0; // never -0
	while (grown.length < k)
		grown.splice(0, grown.length, half(grown[0]), ...grown, half(grown.at(-1)));
	return grown;
}

// What a state is compared with: the one before the latest thing that was moved, such as one average. Several things
// that change at once, as by a preset, are compared with nothing.
export function compared(kept, before, now) {
	const changed = ["averages", "kernel", "order"].filter(
		(name) => !equal(before[name], now[name]),
	);
	if (!changed.length) return kept;
	const dragged = moved(now.averages, before.averages);
	if (changed.length > 1 || count(dragged) > 1) return null;
	const kind = dragged.indexOf(true) + 1 || changed[0];
	const state = kept?.kind === kind ? kept.state : before;
	const back = changed.every((name) => equal(state[name], now[name]));
	return back ? null : { kind, state };
}

// Whether there is such a state: a link may say anything.
export function fits(state, { limits, sizes, initial }) {
	const within = (numbers, lengths, [least, most]) =>
		Array.isArray(numbers) &&
		lengths.includes(numbers.length) &&
		numbers.every(
			(each) => Number.isFinite(each) && each >= least && each <= most,
		);
	const all = [...initial.order].sort((a, b) => a - b);
	const { averages, kernel, order, channel } = state;
	return (
		within(averages, [all.length], limits.average) &&
		within(kernel, sizes, limits.weight) &&
		within(order, [all.length], [1, all.length]) &&
		equal(
			[...order].sort((a, b) => a - b),
			all,
		) &&
		all.includes(channel)
	);
}

// --- Words ---

const two = (number) =>
	minus((number + 0).toFixed(2)).replace(/^−(0\.00)$/, "$1");

// A sum of products, as it is written.
function products(pairs) {
	const sign = (weight, i) => (weight < 0 ? (i ? " − " : "−") : i ? " + " : "");
	return pairs
		.map(
			([weight, number], i) =>
				`${sign(weight, i)}${Math.abs(weight).toFixed(2)} × ${number}`,
		)
		.join("");
}

// The point that a state makes.
export function point(state, given) {
	const { averages, kernel, order, channel } = state;
	const { se, adaptive } = given;
	const [C, k] = [averages.length, kernel.length];
	const { eca } = sums(state, se);
	const named = upTo(C).map((i) => i + 1);
	if (!equal(order, named)) {
		const others = count(moved(eca, sums({ ...state, order: named }, se).eca));
		return (
			`Shuffled: among other neighbours ${others} of ${C} channels get another weight from ECA. ` +
			"SE's stay as they are: its parameters go with the channels."
		);
	}
	if (k === 1)
		return "k = 1 hears nobody: the weight of a channel follows its own average, and no other.";
	const alike = new Set(averages).size === 1;
	const ends = count(moved(eca, Array(C).fill(eca[C / 2])));
	if (alike && ends)
		return `All averages are alike, but ${ends} weights of ECA differ: beyond the ends they hear zeros.`;
	const outside = heard(order.indexOf(channel), state).filter(
		([, other]) => other === null,
	).length;
	if (outside)
		return `Beyond the ends there are no channels: of its ${k} numbers channel ${channel} hears ${outside} as 0.`;
	if (k === adaptive)
		return `k = ${k} is what Equation 12 gives ${C} channels.`;
	return `Equation 12 gives ${C} channels k = ${adaptive}; this is k = ${k}.`;
}

// The lines of the readout.
function tell(state, { eca, hidden, se }, reached, given) {
	const { averages, kernel, order, channel } = state;
	const number = (other) => (other === null ? "0" : two(averages[other - 1]));
	const pairs = heard(order.indexOf(channel), state);
	const [toECA, toSE] = [eca, se].map((each) => each[channel - 1]);
	const becomes = (sum) => `sigmoid(${two(sum)}) = ${two(sigmoid(sum))}`;
	const units = given.se.fc2[channel - 1].map((weight, i) => [
		weight,
		two(hidden[i]),
	]);
	const parameters = 2 * averages.length * hidden.length;
	const weights = `${reached[0]} weight${reached[0] === 1 ? "" : "s"}`;
	return [
		[
			html("b", {}, "ECA: "),
			`sigmoid(${products(pairs.map(([weight, other]) => [weight, number(other)]))}) = ${becomes(toECA)}`,
		],
		[html("b", {}, "SE: "), `sigmoid(${products(units)}) = ${becomes(toSE)}`],
		[
			`When the average of channel ${channel} moves, so do `,
			html("b", {}, `${weights} of ECA and ${reached[1]} of SE.`),
		],
		[
			`Parameters: ECA ${kernel.length}, this SE 2 × ${averages.length} × ${hidden.length} = ${parameters}.`,
		],
	];
}

// --- Pictures ---

// Where things stand, from the top down: ECA's weights, its kernel, the averages, SE's units and weights.
const [LEFT, RIGHT, HEIGHT] = [30, 6, 494];
const [ECA_AT, AVERAGES_AT, SE_AT] = [
	[92, 32],
	[320, 236],
	[488, 428],
];
const BOX = [112, 186]; // of the kernel
const NUMBERS = 334;
const [UNITS, FAN] = [370, [341, 420]]; // SE's hidden units, and their lines

const text = (name, x, y, words) => svg("text", { class: name, x, y }, words);

// Averages to drag, the kernel that slides above them, and the weights of both modules; stop() ends a slide.
function bars(view, stop) {
	const { limits, step, initial, se } = view.given;
	const C = initial.averages.length;
	const [toECA, toSE] = [scale(0, 1, ...ECA_AT), scale(0, 1, ...SE_AT)];
	const toTap = scale(...limits.weight, BOX[1] - 8, BOX[0] + 8);
	const toAverage = scale(...limits.average, ...AVERAGES_AT);
	// The width of a column, how many stand beyond either end, and which weight of the kernel the keys move.
	let [now, col, half, tap] = [view.state(), 1, 0, 0];
	let held = null; // "average", "kernel", "weight", or the number of a weight of the kernel

	const left = (place) => LEFT + (place + half) * col;
	const middle = (place) => left(place) + col / 2;
	const placeAt = (x) => bounded(Math.floor((x - LEFT) / col) - half, 0, C - 1);
	const placeOf = (channel) => now.order.indexOf(channel);
	const bar = () => ({ x: 0.12 * col, width: 0.76 * col });

	// --- What stays ---

	const [frame, fan, lit, units, beam, ghosts, box, values] = upTo(8).map(() =>
		svg("g"),
	);
	set(beam, { class: "beam" });
	set(box, { class: "box" });
	const part = (name) => svg("rect", { class: name });
	const channels = upTo(C).map(() => ({
		average: [part("bar"), svg("circle"), svg("text", { y: NUMBERS })],
		eca: [part("bar"), part("change"), part("was")],
		se: [part("bar"), part("change"), part("was")],
	}));
	const groups = ["average", "eca", "se"].map((name) =>
		channels.map((each) => svg("g", { class: "channel" }, each[name])),
	);
	const [averages, eca, weights] = ["average", "eca", "se"].map((name, i) =>
		svg("g", { class: name }, groups[i]),
	);
	const said = [12, SE_AT[1] - 22].map((y) =>
		svg("text", { y, "text-anchor": "end" }),
	);
	const picture = svg(
		"svg",
		{ role: "img", height: HEIGHT },
		[frame, fan, lit, units, beam, ghosts],
		[averages, box, eca, weights, said, values],
	);
	// What is dragged lies below these: within a picture a finger would scroll the page.
	const hold = (name, label, top, bottom, [least, most]) =>
		html("div", {
			class: `hold ${name}`,
			role: "slider",
			tabindex: 0,
			"aria-label": label,
			"aria-orientation": "vertical",
			"aria-valuemin": least,
			"aria-valuemax": most,
			style: `top: ${top}px; height: ${bottom - top}px`,
		});
	const top = AVERAGES_AT[1] - 20;
	const row = hold(
		"row-of-averages",
		"average of the channel",
		top,
		FAN[0],
		limits.average,
	);
	const grasp = hold(
		"grasp",
		"weight of the kernel",
		BOX[0],
		BOX[1] + 16,
		limits.weight,
	);
	const chart = block("chart", row, grasp, picture);

	// --- Hands and keys ---

	const pointAt = (place) => {
		if (now.order[place] !== now.channel)
			view.change({ channel: now.order[place] });
	};
	const setAverage = (value) => {
		const within = bounded(rounded(value, step), ...limits.average);
		view.change({ averages: withAverage(now, within) });
	};
	const setTap = (value) => {
		const within = bounded(rounded(value, TURN), ...limits.weight);
		view.change({ kernel: now.kernel.with(tap, within) });
	};
	// What would be held at a pixel.
	function at(x, y) {
		if (y > top && y < FAN[0]) return "average";
		if (y < ECA_AT[0] + 8 || y > AVERAGES_AT[0]) return "weight";
		const i = Math.floor((x - left(placeOf(now.channel) - half)) / col);
		const inside = i >= 0 && i < now.kernel.length && y < BOX[1];
		return inside ? i : "kernel";
	}
	function take(x, y) {
		stop();
		held = at(x, y);
		if (held === "average") {
			pointAt(placeAt(x));
			now = view.state();
			row.focus({ preventScroll: true });
		} else if (Number.isInteger(held)) {
			tap = held;
			grasp.focus({ preventScroll: true });
		}
	}
	drag(
		view,
		chart,
		(x, y) => {
			if (held === null) take(x, y);
			if (held === "average") setAverage(toAverage.invert(y));
			else if (Number.isInteger(held)) setTap(toTap.invert(y));
			else pointAt(placeAt(x));
		},
		() => {
			held = null;
		},
	);
	// The kernel comes to where the mouse points, but not while that is on its way to the kernel.
	onPointer(chart, ["pointermove"], (x, y, { pointerType }) => {
		if (held !== null || pointerType === "touch") return;
		const here = at(x, y);
		grasp.classList.toggle("turns", Number.isInteger(here));
		if (here === "average" || here === "weight") {
			stop();
			pointAt(placeAt(x));
		} else if (here !== "kernel" && here !== tap) {
			tap = here;
			view.redraw();
		}
	});
	const keys = { ...ARROWS, PageUp: [0, -5], PageDown: [0, 5] };
	Object.assign(keys, { Home: [-C, 0], End: [C, 0] });
	onKeys(row, keys, ([right, down]) => {
		stop();
		now = view.state();
		if (right) return pointAt(bounded(placeOf(now.channel) + right, 0, C - 1));
		setAverage(now.averages[now.channel - 1] - step * down);
	});
	onKeys(grasp, keys, ([right, down]) => {
		now = view.state();
		tap = bounded(tap + right, 0, now.kernel.length - 1);
		if (right) return view.redraw();
		setTap(now.kernel[tap] - TURN * down);
	});

	// --- What is drawn anew ---

	const unitAt = (i) => {
		const span = (C + 2 * half) * col;
		const apart = Math.min(64, span / 7);
		return LEFT + 0.68 * span + (i - (se.fc1.length - 1) / 2) * apart;
	};
	const drawFrame = remember((width, k) => {
		const end = width - RIGHT;
		const label = (words, y) => text("label", LEFT, y, words);
		const ticks = (y, ...marks) =>
			marks.map((mark) => [
				path("grid", `M${LEFT} ${y(mark)}H${end}`),
				text("tick", LEFT - 6, y(mark) + 4, minus(mark)),
			]);
		const [least, most] = limits.weight;
		fill(
			frame,
			ticks(toECA, 0, 0.5, 1),
			ticks(toTap, least, 0, most),
			ticks(toAverage, 0, 1, 2),
			ticks(toSE, 0, 0.5, 1),
			label("weights of ECA", 12),
			label(
				`ECA: ${k === 1 ? "1 weight" : `${k} weights`} to drag and to slide`,
				BOX[0] - 5,
			),
			label("averages: drag them", AVERAGES_AT[1] - 16),
			label(`SE: ${C} become ${se.fc1.length},`, UNITS - 3),
			label(`${se.fc1.length} become ${C}`, UNITS + 12),
			label("weights of SE", SE_AT[1] - 22),
		);
		for (const each of said) set(each, { x: end });
		const foot = AVERAGES_AT[0];
		const ghost = (place) => [
			svg("rect", {
				class: "ghost",
				x: left(place) + 0.12 * col,
				width: 0.76 * col,
				y: foot - 20,
				height: 20,
			}),
			text("zero", middle(place), foot - 6, "0"),
		];
		fill(
			ghosts,
			upTo(half).map((i) => [ghost(-1 - i), ghost(C + i)]),
		);
		const lines = (y) =>
			se.fc1.flatMap((_, i) =>
				upTo(C).map((p) => `M${unitAt(i)} ${UNITS}L${middle(p)} ${y}`),
			);
		fill(fan, path("fan", FAN.flatMap(lines).join("")));
	});

	function drawAverages({ averages, order }, place) {
		for (const [i, { average }] of channels.entries()) {
			const [column, knob, number] = average;
			const [at, y] = [order.indexOf(i + 1), toAverage(averages[i])];
			const near = Math.abs(at - place);
			set(column, {
				class: near > half ? "bar" : "bar heard",
				...bar(),
				y,
				height: toAverage(0) - y,
			});
			const r = near ? Math.min(4.5, 0.34 * col) : Math.min(7, 0.5 * col);
			const pointed = near ? "" : "pointed";
			set(knob, { class: `knob ${pointed}`, cx: col / 2, cy: y, r });
			const room = col > 17 || (at % 2 === 0 && near > 1) || near === 0;
			set(number, { class: `number ${pointed}`, x: col / 2 });
			write(number, room ? String(i + 1) : "");
			for (const group of groups)
				set(group[i], { style: `transform: translate(${left(at)}px, 0)` });
		}
	}

	// The weights of ECA or of SE, beside those before where there are some: what moved, and from where.
	function drawWeights(arm, y, sums, before, pointed) {
		const differs = moved(sums, before ?? sums);
		for (const [i, each] of channels.entries()) {
			const [column, change, was] = each[arm];
			const [end, old] = [sums, before ?? sums].map((all) =>
				y(sigmoid(all[i])),
			);
			const kind = before && !differs[i] ? "still" : "";
			set(column, {
				class: `bar ${kind} ${i === pointed ? "pointed" : ""}`,
				...bar(),
				y: end,
				height: y(0) - end,
			});
			const height = differs[i] ? Math.abs(end - old) : 0;
			set(change, { ...bar(), y: Math.min(end, old), height });
			set(was, { width: col, y: old - 1, height: differs[i] ? 2 : 0 });
		}
	}

	// The kernel stands above what it is laid on, and its beam ends in the weight of the channel.
	function drawKernel({ kernel }, place) {
		const span = kernel.length * col;
		const there = `transform: translate(${left(place - half)}px, 0)`;
		for (const each of [beam, box]) set(each, { style: there });
		const over = `M${half * col} ${toECA(0)}h${col}L${span} ${BOX[0]}H0Z`;
		fill(beam, path("", `${over}M0 ${BOX[1]}H${span}V${toAverage(0)}H0Z`));
		const zero = toTap(0);
		const bars = kernel.map((weight, i) => {
			const [x, cy] = [(i + 0.5) * col, toTap(weight)];
			const name = i === tap ? "knob pointed" : "knob";
			const r = Math.min(i === tap ? 6 : 4.5, 0.36 * col);
			const words = col > 21 ? minus(rounded(weight, 0.01)) : "";
			return [
				svg("rect", {
					class: "tap",
					x: x - 0.24 * col,
					width: 0.48 * col,
					y: Math.min(cy, zero),
					height: Math.abs(cy - zero),
				}),
				svg("circle", { class: name, cx: x, cy, r }),
				text("written", x, weight < 0 ? zero - 5 : zero + 13, words),
			];
		});
		const [grip, foot] = [span / 2, BOX[1]];
		const [height, wide] = [foot - BOX[0], Math.max(span, 34)];
		fill(
			box,
			svg("rect", {
				class: "rim",
				x: -3,
				width: span + 6,
				y: BOX[0],
				height,
				rx: 4,
			}),
			bars,
			svg("rect", {
				class: "grip",
				x: grip - 17,
				y: foot,
				width: 34,
				height: 15,
				rx: 5,
			}),
			path(
				"arrows",
				`M${grip - 5} ${foot + 4}l-5 3.5l5 3.5zm10 0l5 3.5l-5 3.5z`,
			),
		);
		grasp.style.left = `${middle(place) - wide / 2}px`;
		grasp.style.width = `${wide}px`;
	}

	function drawUnits(hidden, place) {
		fill(
			lit,
			hidden.map((_, i) =>
				path("lit", `M${unitAt(i)} ${UNITS}L${middle(place)} ${FAN[1]}`),
			),
		);
		fill(
			units,
			hidden.map((each, i) => [
				svg("circle", {
					class: each ? "unit" : "unit off",
					cx: unitAt(i),
					cy: UNITS,
					r: 16,
				}),
				text("inside", unitAt(i), UNITS + 4, two(each)),
			]),
		);
	}

	function draw(state, { sums, before, reach }, width) {
		now = state;
		const { kernel, channel } = state;
		half = (kernel.length - 1) / 2;
		tap = Math.min(tap, kernel.length - 1);
		col = (width - LEFT - RIGHT) / (C + 2 * half);
		const place = placeOf(channel);
		drawFrame(width, kernel.length);
		drawAverages(state, place);
		drawKernel(state, place);
		drawUnits(sums.hidden, place);
		for (const [i, [arm, y]] of Object.entries({
			eca: toECA,
			se: toSE,
		}).entries()) {
			drawWeights(arm, y, sums[arm], before?.[arm], channel - 1);
			const others = before && count(moved(sums[arm], before[arm]));
			const words = `${reach[i]} move with channel ${channel}`;
			write(said[i], before ? `${others} of ${C} moved` : words);
			set(said[i], { class: others ? "label moved" : "label" });
		}
		const average = state.averages[channel - 1];
		const [ofECA, ofSE] = ["eca", "se"].map((arm) => sums[arm][channel - 1]);
		const value = (y, number) => text("value", middle(place), y, two(number));
		const above = (arm, y, sum) =>
			Math.min(y(sigmoid(sum)), y(sigmoid(before?.[arm][channel - 1] ?? sum)));
		fill(
			values,
			value(toAverage(average) - 10, average),
			value(above("eca", toECA, ofECA) - 5, sigmoid(ofECA)),
			value(above("se", toSE, ofSE) - 5, sigmoid(ofSE)),
		);
		const given = `ECA ${two(sigmoid(ofECA))}, SE ${two(sigmoid(ofSE))}`;
		const spoken = `channel ${channel}: average ${two(average)}, ${given}`;
		set(picture, { width, "aria-label": `Averages and weights, ${spoken}` });
		set(row, { "aria-valuenow": average, "aria-valuetext": spoken });
		const which = `weight ${tap + 1} of ${kernel.length}: ${two(kernel[tap])}`;
		set(grasp, { "aria-valuenow": kernel[tap], "aria-valuetext": which });
	}
	return { node: chart, draw };
}

// The sigmoid, and on it the sums of all channels: those of ECA as dots, those of SE as rings.
function curve(C) {
	const [frame, crosses] = [svg("g"), svg("g")];
	const [rings, dots] = ["se", "eca"].map((name) =>
		upTo(C).map(() => svg("circle", { class: name })),
	);
	const picture = svg(
		"svg",
		{ class: "curve", role: "img", height: 128 },
		frame,
		crosses,
		rings,
		dots,
	);
	const y = scale(0, 1, 100, 12);
	const toX = (width) => scale(-OUTER, OUTER, 30, width - 8);
	const drawFrame = remember((width) => {
		const x = toX(width);
		const line = upTo(61).map((i) => {
			const sum = -OUTER + (i * OUTER) / 30;
			return `${x(sum).toFixed(1)} ${y(sigmoid(sum)).toFixed(1)}`;
		});
		fill(
			frame,
			[0, 0.5, 1].map((mark) => [
				path("grid", `M30 ${y(mark)}H${width - 8}`),
				text("tick", 24, y(mark) + 4, mark),
			]),
			[-6, -3, 0, 3, 6].map((mark) => text("sum", x(mark), 116, minus(mark))),
			path("line", `M${line.join("L")}`),
		);
	});
	function draw({ channel }, { eca, se }, width) {
		drawFrame(width);
		const x = toX(width);
		const place = (node, sum, r) =>
			set(node, { cx: x(bounded(sum, -OUTER, OUTER)), cy: y(sigmoid(sum)), r });
		for (const i of eca.keys()) {
			place(rings[i], se[i], i === channel - 1 ? 6 : 3);
			place(dots[i], eca[i], i === channel - 1 ? 6 : 2.5);
		}
		const [own, others] = [eca, se].map((all) => all[channel - 1]);
		const cross = (name, sum) =>
			path(
				`cross ${name}`,
				`M${x(bounded(sum, -OUTER, OUTER))} ${y(0)}V${y(sigmoid(sum))}H30`,
			);
		fill(crosses, cross("eca", own), cross("se", others));
		set(picture, {
			width,
			"aria-label": `The sigmoid. Channel ${channel}: ECA from ${two(own)} to ${two(sigmoid(own))}, SE from ${two(others)} to ${two(sigmoid(others))}.`,
		});
	}
	return { node: picture, draw };
}

// --- Controls ---

// A box that takes all weights of the kernel at once.
function kernelBox(view) {
	const { limits, sizes } = view.given;
	const [id, whyId] = [newId(), newId()];
	const why = html("div", { class: "why", id: whyId, role: "alert" });
	let written = "";
	const box = html("input", {
		type: "text",
		name: "kernel",
		id,
		autocomplete: "off",
		spellcheck: "false",
		onchange: take,
		"aria-describedby": whyId,
	});
	onKeys(box, { Escape: null }, () => {
		written = box.value;
		view.restore({});
	});
	function take() {
		written = box.value;
		const texts = written.trim().split(/\s*[,;]\s*|\s+/);
		const kernel = texts.map((text) => numberOf(text, false));
		const state = { ...view.state(), kernel };
		if (fits(state, view.given)) return view.change({ kernel });
		const accepted = `${sizes.join(" or ")} finite numbers from ${limits.weight.join(" to ")}`;
		write(why, `kernel=${JSON.stringify(written)}: accepted are ${accepted}`);
		set(box, { "aria-invalid": true });
	}
	view.shows.push(({ kernel }) => {
		write(why, "");
		set(box, { "aria-invalid": false });
		if (box.matches(":focus") && box.value !== written) return; // somebody is writing
		written = kernel.join(", ");
		enter(box, written);
	});
	return block("row list", html("label", { for: id }, "kernel w"), box, why);
}

// Moves the kernel from the first place to the last, or by one place for readers who want no motion.
function sliding(view) {
	const calm = matchMedia("(prefers-reduced-motion: reduce)");
	let timer = 0;
	const node = button("Slide the kernel", () => {
		if (timer) return stop();
		if (calm.matches) return step();
		const { order } = view.state();
		view.root.classList.add("sliding");
		write(node, "Stop");
		view.change({ channel: order[0] });
		timer = setInterval(() => step() || stop(), PACE);
	});
	// Whether there was a place to move on to.
	function step() {
		const { order, channel } = view.state();
		const next = order.indexOf(channel) + 1;
		if (next < order.length || calm.matches)
			view.change({ channel: order[next % order.length] });
		return next < order.length;
	}
	function stop() {
		if (!timer) return;
		clearInterval(timer);
		timer = 0;
		view.root.classList.remove("sliding");
		write(node, "Slide the kernel");
	}
	return { node, stop };
}

// --- The explorer ---

export default explorer((view) => {
	const { given, root } = view;
	const { limits, step, sizes, initial } = given;
	const C = initial.averages.length;
	const slide = sliding(view);
	const [chart, sigmoids] = [bars(view, slide.stop), curve(C)];
	const [headline, said] = [block("headline"), status("point")];
	const lines = upTo(4).map(() => html("div"));
	const marks = ["eca", "se"].map((arm) =>
		svg("circle", { class: arm, cx: 10, cy: 9, r: 5 }),
	);
	const inset = block("inset", sigmoids.node);
	const key = legend([
		[marks[0], "ECA"],
		[marks[1], "SE: from sums to weights"],
	]);
	// A slider of what follows from the state: read gives it, changes what it sets.
	const row = (name, label, stops, read, changes, ...others) =>
		numberRow(
			{
				...view,
				change: ({ [name]: value }) => view.change(changes(value)),
				shows: {
					push: (show) =>
						view.shows.push((state) => show({ ...state, [name]: read(state) })),
				},
			},
			name,
			label,
			stops,
			...others,
		);
	let widest = []; // the kernel before k was lowered, whose outer weights come back
	function sized(k) {
		const { kernel } = view.state();
		const fitting = equal(resized(widest, kernel.length), kernel);
		if (!fitting || widest.length < kernel.length) widest = kernel;
		const next = resized(widest, k);
		if (k > widest.length) widest = next;
		return { kernel: next };
	}
	const steps = upTo(Math.round(limits.average[1] / step) + 1);

	let [kept, before, settled] = [null, view.state(), 0];
	view.shows.push((state) => {
		kept = compared(kept, before, state);
		if (!equal(before.order, state.order)) {
			root.classList.add("shuffling"); // while the channels go to their places
			clearTimeout(settled);
			settled = setTimeout(() => root.classList.remove("shuffling"), 900);
		}
		before = state;
	});

	return {
		headline,
		main: [
			row(
				"k",
				"kernel k",
				sizes,
				({ kernel }) => kernel.length,
				sized,
				true,
				(k) => k % 2 === 0 && "an odd integer",
			),
			numberRow(
				view,
				"channel",
				"channel",
				upTo(C).map((i) => i + 1),
				true,
			),
			row(
				"average",
				"its average",
				steps.map((i) => rounded(i * step, step)),
				({ averages, channel }) => averages[channel - 1],
				(value) => ({ averages: withAverage(view.state(), value) }),
			),
		],
		picture: [chart.node, block("formulas", lines.slice(0, 2)), said],
		controls: [kernelBox(view), presets(view, slide.node)],
		readout: [lines.slice(2), key, inset],
		fits: (state) => fits(state, given),
		draw(state) {
			const all = sums(state, given.se);
			const shown = {
				sums: all,
				before: kept && sums(kept.state, given.se),
				reach: reach(state, given),
			};
			const [eca, se] = [all.eca, all.se].map((each) =>
				two(sigmoid(each[state.channel - 1])),
			);
			write(headline, `Channel ${state.channel}: ECA × ${eca}, SE × ${se}`);
			write(said, point(state, given));
			for (const [i, words] of tell(state, all, shown.reach, given).entries())
				fill(lines[i], words);
			const widths = [chart.node, inset].map(view.width);
			if (!widths.every(Boolean)) return;
			chart.draw(state, shown, widths[0]);
			sigmoids.draw(state, all, widths[1]);
		},
	};
});
