// The explorer of the channel weights: its heat map, images x channels, is its control.
// N images in G groups, of which each is a class, or the only one all images; C channels; B classes that have a bar;
// h x w pixels of a map.

import { drawing, percent } from "./drawing.js";
import {
	ARROWS,
	axes,
	block,
	bounded,
	choice,
	drag,
	explorer,
	fill,
	html,
	minus,
	nearest,
	numberRow,
	onKeys,
	onPointer,
	paint,
	path,
	pixel,
	presets,
	remember,
	scale,
	set,
	status,
	svg,
	typed,
	upTo,
	write,
} from "./kit.js";
import { chancesOf, crew, lookFor } from "./network.js";

const LEFT = 84; // pixels: the names of the groups, as in explorer.css
const TALL = 240; // pixels: the weights of all images
const [TOP, GAP] = [20, 22]; // pixels: above the means, and between them and the images

// The group of each of the images.
const groupsOf = (counts) =>
	counts.flatMap((count, group) => Array(count).fill(group));
// A class as a sentence names it, also one that has but a number.
const named = (name) => (/^\d+$/.test(name) ? `class ${name}` : name);
const tidy = (value) =>
	minus(Number(Math.abs(value) < 10 ? value.toFixed(2) : value.toPrecision(3)));

// Of the bytes (N, C) that Python recorded, from the lowest to the highest: the weights, at(image, channel), and their
// means by group.
export function decode(bytes, counts, [lowest, highest] = [0, 1]) {
	const [shades, owner] = [typed(Uint8Array, bytes), groupsOf(counts)];
	const C = shades.length / owner.length;
	const weight = (shade) => lowest + ((highest - lowest) * shade) / 255;
	const at = (image, channel) => weight(shades[image * C + channel]);
	const means = counts.map(() => new Float64Array(C));
	shades.forEach((shade, i) => {
		const group = owner[Math.floor(i / C)];
		means[group][i % C] += weight(shade) / counts[group];
	});
	return { C, at, means };
}

// --- Without a kernel ---

// Answers every state from what was recorded, as the kernel would: of the changed predictions it has those without the
// attention of the layer, of the maps those of some images.
export function recall({ recorded, mapped, networks, counts }) {
	const N = groupsOf(counts).length;
	const whole = (Type, bytes) => (bytes ? typed(Type, bytes) : new Type());
	const layers = new Map();
	for (const [i, [network, names]] of networks.entries())
		for (const [j, [layer, C]] of names.entries()) {
			const told = recorded[i][j];
			layers.set(JSON.stringify([network, layer]), {
				...told,
				C,
				bars: whole(Int32Array, told.classes),
				before: whole(Float32Array, told.plain),
				after: whole(Float32Array, told.changed),
				maps: typed(Int8Array, told.map),
			});
		}
	return (state) => {
		const { network, layer, image, channel } = state;
		const { bars, before, after, maps, C, ...told } = layers.get(
			JSON.stringify([network, layer]),
		);
		const of = (numbers) => {
			const B = numbers.length / N;
			return [...numbers.subarray(image * B, (image + 1) * B)];
		};
		const cells = told.size[0] * told.size[1];
		const from = (mapped.indexOf(image) * C + channel) * cells;
		return {
			...told,
			asked: state,
			fresh: true,
			classes: of(bars),
			plain: of(before),
			changed: of(after),
			map: from < 0 ? null : maps.subarray(from, from + cells),
		};
	};
}

// Answers every state by the networks that the page runs, as the kernel would: by null until the first answer.
function compute(view, key, channels, picture) {
	const { described, recorded, networks } = view.given;
	const told = new Map(
		networks.flatMap(([network, layers], i) =>
			layers.map(([layer], j) => [key({ network, layer }), recorded[i][j]]),
		),
	);
	let [asked, last] = ["", null];
	const { ask, close } = crew(described, ([found], { state }) => {
		const [, h, w] = found.size;
		const from = state.channel * h * w;
		last = {
			...told.get(key(state)),
			asked: state,
			weight: found.attention[state.layer].weights[state.channel],
			classes: upTo(found.plain.length),
			plain: chancesOf(found.plain),
			changed: chancesOf(found.changed),
			map: found.maps.subarray(from, from + h * w),
			size: [h, w],
			form: "",
		};
		view.redraw();
	});
	view.ends.push(close);
	return (state) => {
		const now = JSON.stringify(state);
		if (asked !== now)
			ask({ looks: [lookFor(state, channels(state), picture(state))], state });
		asked = now;
		const fresh = last !== null && JSON.stringify(last.asked) === now;
		view.root.classList.toggle("waiting", !fresh);
		return last && { ...last, fresh };
	};
}

// --- Pictures ---

// Labels of rows of this height, as far as there is room for them.
const ticks = (names, height) =>
	names.map((name, i) => [
		i + 0.5,
		i % Math.ceil(12 / height) ? "" : name.replace(/^(.{11}).{2,}/su, "$1…"),
	]);

// The weights as images x channels, below their means by group. Pointing at a cell, or the arrow
// keys, look at it; a click or Enter pins it: to what is pinned the state goes back otherwise.
function heat(view, { groups, counts, labels }) {
	const [N, G] = [groupsOf(counts).length, counts.length];
	const page = bounded(counts[0], 1, 20);
	const start = TOP + Math.min(13 * G + 24, 154) + GAP;
	const end = start + TALL;
	const spans = [
		[TOP, start - GAP],
		[start, end],
	]; // of the means, of all images
	const [means, all] = spans.map(([from, to]) =>
		html("canvas", { style: `top: ${from}px; height: ${to - from}px` }),
	);
	const scales = spans.map(() => svg("g"));
	const picture = svg("svg", { height: end + 40, "aria-hidden": "true" });
	const node = html(
		"div",
		{ class: "heat", tabindex: 0, role: "application" },
		means,
		all,
		picture,
	);
	let [C, x, pinned] = [1, scale(0, 1, LEFT, LEFT), null];
	const cell = ({ network, layer, image, channel }) =>
		JSON.stringify([network, layer, image, channel]);
	const seen = new Set(); // cells that were pointed at since the pin
	view.shows.push((state) => {
		if (seen.has(cell(state))) return;
		pinned = null; // somebody else has set another
		seen.clear();
	});

	const look = (image, channel) => {
		const { image: before, channel: beside } = view.state();
		const whole = (place, count) => bounded(Math.floor(place), 0, count - 1);
		const next = { image: whole(image, N), channel: whole(channel, C) };
		if (next.image === before && next.channel === beside) return;
		pinned ??= { image: before, channel: beside };
		seen.add(cell(view.state())).add(cell({ ...view.state(), ...next }));
		view.change(next);
	};
	const pin = (changes = {}) => {
		pinned = null;
		seen.clear();
		view.change(changes);
	};
	const leave = () => pinned && pin(pinned);
	onPointer(node, ["pointermove", "pointerup"], (px, py, { type }) => {
		look(
			py < start ? (pinned ?? view.state()).image : ((py - start) / TALL) * N,
			x.invert(px),
		);
		if (type === "pointerup") pin();
	});
	for (const name of ["pointerleave", "blur"])
		node.addEventListener(name, leave);
	const pages = {
		PageUp: [0, -page],
		PageDown: [0, page],
		Home: [-1e9, 0],
		End: [1e9, 0],
	};
	onKeys(node, { ...ARROWS, ...pages }, ([right, down]) =>
		look(view.state().image + down, view.state().channel + right),
	);
	onKeys(node, { Enter: () => pin(), Escape: leave }, (act) => act());

	const paintAll = remember((layer) => {
		C = layer.C;
		const share = scale(...layer.limits, 0, 1);
		paint(means, C, G, (i) =>
			view.palettes.weight(share(layer.means[Math.floor(i / C)][i % C])),
		);
		paint(all, C, N, (i) =>
			view.palettes.weight(share(layer.at(Math.floor(i / C), i % C))),
		);
	});
	function draw({ image, channel }, layer, words, width) {
		paintAll(layer);
		const [dark, bright] = layer.limits.map(tidy);
		const [least, most] = layer.spread.map(tidy);
		x = scale(0, C, LEFT, width - 6);
		const every = 2 ** Math.ceil(Math.log2(C / Math.min(width / 40, 16)));
		const channels = upTo(Math.ceil(C / every)).map((i) => [
			i * every + 0.5,
			i * every,
		]);
		const yOf = ([from, to]) => scale(G, 0, to, from);
		const [few, many] = spans.map(([from, to]) =>
			ticks(groups, (to - from) / G),
		);
		axes(scales[0], x, yOf(spans[0]), [], few, "", "");
		axes(scales[1], x, yOf(spans[1]), channels, many, "channel", "");
		const box = (a, b, c, d) => `M${a} ${b}H${c}V${d}H${a}Z`;
		const above = start + (TALL * image) / N - 1;
		const frame =
			spans
				.map(([from, to]) => box(x(channel) - 1, from, x(channel + 1) + 1, to))
				.join("") + box(LEFT, above, x(C), above + TALL / N + 2);
		const { channel: px, image: py } = pinned ?? { image, channel };
		const beside = start + (TALL * (py + 0.5)) / N;
		fill(
			picture,
			scales,
			svg(
				"text",
				{ x: LEFT, y: TOP - 6 },
				`mean of ${labels ? "each class" : "all"}: dark ${dark}, bright ${bright}`,
			),
			svg(
				"text",
				{ x: LEFT, y: start - 6 },
				`weight of each image, ${least} to ${most}`,
			),
			path("under", frame),
			path("over", frame),
			path(
				"pinned",
				`M${x(px + 0.5)} ${end + 1}l-4 6h8zM${LEFT - 1} ${beside}l-7 -5v10z`,
			),
		);
		set(picture, { width });
		set(node, {
			"aria-label": `Heat map of ${N} images and ${C} channels. ${words}. Arrow keys move, Enter pins.`,
		});
	}
	return { node, draw, pin };
}

// The lever of the factor, beside the weights of the channel by group; the probabilities of the classes.
function rows(view, { groups, counts, classes, why, stops }) {
	const [owner, grids] = [groupsOf(counts), upTo(3).map(() => svg("g"))];
	const G = counts.length;
	const tall = bounded(17 * G, 150, 400);
	const [lever, strip, bars] = [view.alone ? "" : "lever", "", ""].map((name) =>
		svg("svg", { role: "img", class: name, height: tall + 60 }),
	);
	const [y, up] = [
		scale(0, G, 20, tall + 20),
		scale(0, stops.at(-1), tall + 20, 20),
	];
	const bottom = scale(G, 0, tall + 20, 20); // the same as y, for axes
	const heights = owner.map((group, n) =>
		y(group + 0.15 + (0.7 * (n - owner.indexOf(group) + 0.5)) / counts[group]),
	);
	if (!view.alone)
		drag(view, lever, (_, py) =>
			view.change({ factor: nearest(stops, up.invert(py)) }),
		);

	function drawLever(factor, weight) {
		const factors = upTo(5).map((number) => [
			number,
			number ? `× ${number}` : "off",
		]);
		axes(grids[0], scale(0, 1, 36, 76), up, [], factors, "factor", "");
		const applied = `weight ${(weight * factor).toFixed(2)}`;
		fill(
			lever,
			grids[0],
			svg("rect", {
				class: "bar",
				x: 46,
				width: 20,
				y: up(factor),
				height: up(0) - up(factor),
			}),
			svg("circle", { class: "knob", r: 9, cx: 56, cy: up(factor) }),
			svg("text", { class: "applied", x: 56, y: 12 }, applied),
		);
		set(lever, { width: 84, "aria-label": applied });
	}

	function drawStrip(image, channel, { at, means, limits }, width) {
		const x = scale(...limits, 84, width - 12);
		const [low, high] = limits;
		const stops = [low, (low + high) / 2, high].map((each) => [
			each,
			tidy(each),
		]);
		const names = ticks(groups, tall / G);
		axes(grids[1], x, bottom, stops, names, "weight in each image", "");
		const dots = owner.map(
			(_, n) => `M${x(at(n, channel)).toFixed(1)} ${heights[n].toFixed(1)}h0`,
		);
		const middles = means.map(
			(mean, i) => `M${x(mean[channel])} ${y(i)}V${y(i + 1)}`,
		);
		fill(
			strip,
			grids[1],
			path("dots", dots.join("")),
			path("middles", middles.join("")),
			svg("circle", {
				class: "chosen",
				r: 5,
				cx: x(at(image, channel)),
				cy: heights[image],
			}),
		);
		set(strip, {
			width,
			"aria-label": `Weights of channel ${channel} in all images.`,
		});
	}

	function drawBars({ classes: shown, plain, changed }, words, width) {
		const [B, share] = [shown.length, scale(0, 1, LEFT, width - 50)];
		const [at, floor] = [
			scale(0, B, 20, tall + 20),
			scale(B, 0, tall + 20, 20),
		];
		const names = shown.map((label) => classes[label]);
		axes(
			grids[2],
			share,
			floor,
			[
				[0, 0],
				[0.5, "50%"],
				[1, "100%"],
			],
			ticks(names, tall / B),
			view.alone
				? "grey: original; else layer off"
				: "probability, grey: original",
			"",
		);
		const across = (chances, from, to) =>
			chances
				.map(
					(p, i) =>
						`M${LEFT} ${at(i + from)}H${share(p)}V${at(i + to)}H${LEFT}Z`,
				)
				.join("");
		const most = plain.map((p, i) => Math.max(p, changed[i]));
		const texts = most.map((p, i) =>
			svg(
				"text",
				{ x: share(p) + 5, y: at(i + 0.5) + 4 },
				p < 0.005 && B === classes.length ? "" : percent(changed[i]),
			),
		);
		const both = [
			path("plain", across(plain, 0.12, 0.48)),
			path("changed", across(changed, 0.52, 0.88)),
		];
		fill(bars, grids[2], svg("g", { class: "asks" }, both, texts));
		set(bars, { width, "aria-label": words });
	}

	function draw(
		{ image, channel, factor },
		layer,
		answer,
		weight,
		words,
		widths,
	) {
		if (!view.alone) drawLever(factor, weight);
		const beside = view.alone ? 0 : 84; // the lever
		drawStrip(image, channel, layer, widths[0] - beside);
		if (!why) drawBars(answer, words, widths[1]);
	}
	const strips = block("strips", view.alone ? [] : lever, strip);
	return { charts: [strips, why ? [] : block("chances", bars)].flat(), draw };
}

// --- The explorer ---

export default explorer((view) => {
	const { given } = view;
	const alone = view.alone && !given.described; // where no weight can be changed
	const { groups, classes, counts, labels, initial, networks, stops } = given;
	const [map, lower, owner, seen] = [
		heat(view, given),
		rows({ ...view, alone }, given),
		groupsOf(counts),
		new Map(),
	];
	const key = ({ network, layer }) => JSON.stringify([network, layer]); // of what was seen: the weights
	const layersOf = ({ network }) =>
		new Map(networks.find(([name]) => name === network)?.[1]);

	// A change by a control, fitted to the network and the layer.
	const change = (changes) => {
		const next = { ...view.state(), ...changes };
		const layers = layersOf(next);
		if (!layers.has(next.layer)) next.layer = [...layers.keys()].at(-1);
		next.channel = Math.min(next.channel, layers.get(next.layer) - 1);
		map.pin(next);
	};
	const fitting = { ...view, change };
	const buttons = alone
		? presets({ ...fitting, given: { presets: {}, initial } })
		: presets(fitting);

	const [pixels, indices] = [
		given.images && typed(Uint8Array, given.images),
		typed(Int32Array, given.indices),
	];
	const picture = ({ image }) => {
		const each = 3 * given.size[0] * given.size[1];
		return pixels.subarray(image * each, (image + 1) * each);
	};
	const channels = (state) => layersOf(state).get(state.layer);
	const answered = !view.alone
		? view.answer
		: alone
			? recall(given)
			: compute(view, key, channels, picture);
	const own = given.board ? drawing(view, channels, picture) : null;
	const figures = ["", "asks", "asks"].map((name) =>
		html("canvas", { class: name }),
	);
	const captions = figures.map(({ className }) =>
		html("div", { class: className }),
	);
	const unmapped = html("div", { class: "note" });
	const paintImage = remember((image) => {
		const [tall, wide] = given.size;
		const whole = picture({ image });
		paint(figures[0], wide, tall, (i) =>
			pixel(whole.subarray(3 * i, 3 * i + 3)),
		);
	});
	const paintMaps = remember((told, h, w, applied) => {
		const values = told instanceof DataView ? typed(Float32Array, told) : told;
		const largest =
			values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
		const paintMap = (figure, by) =>
			paint(figure, w, h, (n) =>
				view.palettes.signed((1 + (by * values[n]) / largest) / 2),
			);
		paintMap(figures[1], 1);
		paintMap(figures[2], applied);
	});
	function drawMaps({ image }, { asked, map, size, form }, applied) {
		if (pixels) paintImage(image);
		write(captions[0], `image ${image}`);
		for (const each of figures.slice(1)) set(each, { hidden: !map });
		write(captions[1], map ? `map ${asked.channel} before` : "");
		write(captions[2], map ? `after, × ${minus(applied.toFixed(2))}` : "");
		const without = `No map of this image: there are those of ${given.mapped?.join(", ")}.`;
		write(unmapped, map ? form && `Maps: ${form}.` : without);
		if (!map) return;
		paintMaps(map, ...size, applied);
		for (const each of figures.slice(1))
			each.classList.toggle("line", size[0] === 1);
	}

	const [headline, predicted, told] = [
		status("headline"),
		status("asks"),
		html("div"),
	];
	const notes = [given.why, ...given.notes];
	if (alone)
		notes.push(
			given.why
				? "Weights can be changed where the network is: in a notebook."
				: "Layer off: the prediction with all weights of the layer at 1. Single weights can be changed where the network is: in a notebook.",
		);
	return {
		headline,
		main: [
			numberRow(fitting, "image", "image", upTo(owner.length), true),
			numberRow(
				fitting,
				"channel",
				"channel",
				(state) => upTo(layersOf(state).get(state.layer)),
				true,
			),
			alone ? [] : numberRow(fitting, "factor", "factor", stops),
		].flat(),
		picture: [
			map.node,
			block("lower", lower.charts),
			own ? own.node : [],
		].flat(),
		controls: [
			networks.length === 1
				? []
				: choice(
						fitting,
						"network",
						"network",
						networks.map(([name]) => [name, name]),
					),
			choice(fitting, "layer", "layer", (state) =>
				[...layersOf(state).keys()].map((name) => [
					name,
					name || "the model itself",
				]),
			),
			buttons,
			block(
				"maps",
				figures
					.map((each, i) => html("div", {}, each, captions[i]))
					.slice(pixels ? 0 : 1),
			),
			unmapped,
		].flat(),
		readout: [
			told,
			predicted,
			notes
				.filter(Boolean)
				.map((words) => html("div", { class: "note" }, words)),
		].flat(),
		fits: (state) =>
			owner[state.image] !== undefined &&
			state.channel < layersOf(state).get(state.layer) &&
			!(alone && state.factor !== 1),
		draw(state) {
			own?.draw(state);
			const answer = answered(state);
			if (!answer) return; // until the page has computed the first
			const { asked } = answer;
			if (!seen.has(key(asked)))
				seen.set(key(asked), {
					...decode(answer.weights, counts, answer.limits),
					limits: answer.limits,
					spread: answer.spread,
				});
			const weights = seen.get(key(state));
			view.root.classList.toggle("unseen", !weights);
			if (!weights) return; // the old picture stays until the kernel has recorded them
			const { network, image, channel, factor } = state;
			view.root.style.setProperty("--arm", given.colors[network]);
			const same =
				!alone &&
				["network", "layer", "image", "channel"].every(
					(name) => asked[name] === state[name],
				);
			const [weight, digits] = same
				? [answer.weight, 3]
				: [weights.at(image, channel), 2]; // of a byte
			const rounded = (value) => minus(value.toFixed(digits));
			const group = named(groups[owner[image]]);
			const words = `Image ${image}, ${labels ? `${group}, ` : ""}channel ${channel}: weight ${rounded(weight)}`;
			write(
				headline,
				factor === 1
					? words
					: `${words} × ${factor} = ${rounded(weight * factor)}`,
			);
			const mean = minus(weights.means[owner[image]][channel].toFixed(2));
			write(
				told,
				`${given.source} ${indices[image]}; mean weight of ${labels ? "its class" : "all images"} ${mean}.`,
			);
			const best = (chances) => {
				const most = Math.max(...chances);
				if (most === 0) return "NaN or infinity"; // as Python tells it
				const label = answer.classes[chances.indexOf(most)];
				return `${named(classes[label])} (${percent(most)})`;
			};
			const change = alone
				? "without the layer's attention"
				: "with the changed weight";
			const changed = `, ${change} ${best(answer.changed)}`;
			if (answer.fresh && !given.why)
				write(
					predicted,
					`Predicts ${best(answer.plain)}${asked.factor === 1 && !alone ? "" : changed}.`,
				);
			const widths = [map.node, ...lower.charts].map(view.width);
			if (!widths.every(Boolean)) return;
			map.draw(state, weights, words, widths[0]);
			lower.draw(
				state,
				weights,
				answer,
				weight,
				predicted.textContent,
				widths.slice(1),
			);
			drawMaps(
				state,
				answer,
				same || alone ? weight * factor : answer.weight * asked.factor,
			);
		},
	};
});
