// The explorer of the channel weights: its heat map, images x channels, is its control.
// N images, sorted by class; G classes; C channels; h x w pixels of a map.

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

const LEFT = 84; // pixels: the names of the classes, as in explorer.css
const TALL = 240; // pixels: the weights of all images
const [TOP, GAP] = [20, 22]; // pixels: above the means, and between them and the images

// The class of each of the images.
const classesOf = (counts) =>
	counts.flatMap((count, label) => Array(count).fill(label));
const percent = (share) => `${(100 * share).toFixed(1)}%`;

// Of the bytes (N, C) that Python recorded: the weights, at(image, channel), and their means by class.
export function decode(bytes, counts) {
	const [shades, owner] = [typed(Uint8Array, bytes), classesOf(counts)];
	const C = shades.length / owner.length;
	const at = (image, channel) => shades[image * C + channel] / 255;
	const means = counts.map(() => new Float64Array(C));
	shades.forEach((shade, i) => {
		const label = owner[Math.floor(i / C)];
		means[label][i % C] += shade / 255 / counts[label];
	});
	return { C, at, means };
}

// --- Pictures ---

// Labels of rows of this height, as far as there is room for them.
const ticks = (names, height) =>
	names.map((name, i) => [
		i + 0.5,
		i % Math.ceil(12 / height) ? "" : name.replace(/^(.{11}).{2,}/su, "$1…"),
	]);

// The weights as images x channels, below their means by class. Pointing at a cell, or the arrow
// keys, look at it; a click or Enter pins it: to what is pinned the state goes back otherwise.
function heat(view, { classes, counts }) {
	const [N, G] = [classesOf(counts).length, counts.length];
	const start = TOP + Math.min(13 * G + 24, 154) + GAP;
	const end = start + TALL;
	const spans = [
		[TOP, start - GAP],
		[start, end],
	]; // of the means, of all images
	const [means, all] = spans.map(([from, to]) =>
		html("canvas", { style: `top: ${from}px; height: ${to - from}px` }),
	);
	const labels = spans.map(() => svg("g"));
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
		PageUp: [0, -counts[0]],
		PageDown: [0, counts[0]],
		Home: [-1e9, 0],
		End: [1e9, 0],
	};
	onKeys(node, { ...ARROWS, ...pages }, ([right, down]) =>
		look(view.state().image + down, view.state().channel + right),
	);
	onKeys(node, { Enter: () => pin(), Escape: leave }, (act) => act());

	const paintAll = remember((layer) => {
		C = layer.C;
		paint(means, C, G, (i) =>
			view.palettes.weight(layer.means[Math.floor(i / C)][i % C]),
		);
		paint(all, C, N, (i) =>
			view.palettes.weight(layer.at(Math.floor(i / C), i % C)),
		);
	});
	function draw({ image, channel }, layer, words, width) {
		paintAll(layer);
		x = scale(0, C, LEFT, width - 6);
		const every = 2 ** Math.ceil(Math.log2(C / Math.min(width / 40, 16)));
		const channels = upTo(Math.ceil(C / every)).map((i) => [
			i * every + 0.5,
			i * every,
		]);
		const yOf = ([from, to]) => scale(G, 0, to, from);
		const [few, many] = spans.map(([from, to]) =>
			ticks(classes, (to - from) / G),
		);
		axes(labels[0], x, yOf(spans[0]), [], few, "", "");
		axes(labels[1], x, yOf(spans[1]), channels, many, "channel", "");
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
			labels,
			svg(
				"text",
				{ x: LEFT, y: TOP - 6 },
				"mean of each class: dark 0, bright 1",
			),
			svg("text", { x: LEFT, y: start - 6 }, "weight of each image"),
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

// The lever of the factor, beside the weights of the channel by class; the probabilities of the classes.
function rows(view, { classes, counts, stops }) {
	const [owner, grids] = [classesOf(counts), upTo(3).map(() => svg("g"))];
	const tall = bounded(17 * counts.length, 150, 400);
	const [lever, strip, bars] = [view.alone ? "" : "lever", "", ""].map((name) =>
		svg("svg", { role: "img", class: name, height: tall + 60 }),
	);
	const [y, up] = [
		scale(0, counts.length, 20, tall + 20),
		scale(0, stops.at(-1), tall + 20, 20),
	];
	const bottom = scale(counts.length, 0, tall + 20, 20); // the same as y, for axes
	const heights = owner.map((label, n) =>
		y(label + 0.15 + (0.7 * (n - owner.indexOf(label) + 0.5)) / counts[label]),
	);
	if (!view.alone)
		drag(view, lever, (_, py) =>
			view.change({ factor: nearest(stops, up.invert(py)) }),
		);

	function draw(
		{ image, channel, factor },
		{ at, means },
		{ plain, changed },
		weight,
		words,
		widths,
	) {
		const [x, share] = [
			scale(0, 1, 84, widths[0] - 96),
			scale(0, 1, LEFT, widths[1] - 50),
		];
		const names = ticks(classes, tall / counts.length);
		const factors = upTo(5).map((number) => [
			number,
			number ? `× ${number}` : "off",
		]);
		axes(grids[0], scale(0, 1, 36, 76), up, [], factors, "factor", "");
		axes(
			grids[1],
			x,
			bottom,
			[
				[0, 0],
				[0.5, 0.5],
				[1, 1],
			],
			names,
			"weight in each image",
			"",
		);
		axes(
			grids[2],
			share,
			bottom,
			[
				[0, 0],
				[0.5, "50%"],
				[1, "100%"],
			],
			names,
			"probability, grey: original",
			"",
		);
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
		const across = (chances, from, to) =>
			chances
				.map(
					(p, i) => `M${LEFT} ${y(i + from)}H${share(p)}V${y(i + to)}H${LEFT}Z`,
				)
				.join("");
		const most = plain.map((p, i) => Math.max(p, changed[i]));
		const texts = most.map((p, i) =>
			svg(
				"text",
				{ x: share(p) + 5, y: y(i + 0.5) + 4 },
				p < 0.005 ? "" : percent(changed[i]),
			),
		);
		const both = [
			path("plain", across(plain, 0.12, 0.48)),
			path("changed", across(changed, 0.52, 0.88)),
		];
		fill(bars, grids[2], svg("g", { class: "asks" }, both, texts));
		set(lever, { width: 84, "aria-label": applied });
		set(strip, {
			width: widths[0] - 84,
			"aria-label": `Weights of channel ${channel} in all images, by class.`,
		});
		set(bars, { width: widths[1], "aria-label": words });
	}
	return {
		charts: [block("strips", lever, strip), block("chances", bars)],
		draw,
	};
}

// --- The explorer ---

export default explorer((view) => {
	const { given, alone } = view;
	const {
		classes,
		counts,
		size: [tall, wide],
		initial,
		networks,
		stops,
	} = given;
	const [map, lower, owner, seen] = [
		heat(view, given),
		rows(view, given),
		classesOf(counts),
		new Map(),
	];
	const key = ({ network, layer }) => JSON.stringify([network, layer]); // of what was seen: the weights
	const layersOf = ({ network }) =>
		new Map(networks.find(([name]) => name === network)?.[1]);

	// A change by a control, fitted to the network and the layer; alone, to what was recorded of them.
	const change = (changes) => {
		const next = { ...view.state(), ...changes };
		const layers = layersOf(next);
		if (!layers.has(next.layer)) next.layer = [...layers.keys()].at(-1);
		if (alone && (changes.network || changes.layer))
			Object.assign(next, {
				image: initial.image,
				channel: initial.channel,
				factor: 1,
			});
		next.channel = Math.min(next.channel, layers.get(next.layer) - 1);
		map.pin(next);
	};
	const fitting = { ...view, change };
	const [factor, buttons] = [
		numberRow(fitting, "factor", "factor", stops),
		presets(fitting),
	];
	const able = [factor, buttons]
		.flatMap((each) => [...each.querySelectorAll("input, button")])
		.slice(0, -1); // but Reset
	for (const each of able) each.disabled = alone;

	const [pixels, indices] = [
		typed(Uint8Array, given.images),
		typed(Int32Array, given.indices),
	];
	const figures = ["", "asks", "asks"].map((name) =>
		html("canvas", { class: name }),
	);
	const captions = figures.map(({ className }) =>
		html("div", { class: className }),
	);
	const paintImage = remember((image) => {
		const from = 3 * image * tall * wide;
		paint(figures[0], wide, tall, (i) =>
			pixel(pixels.subarray(from + 3 * i, from + 3 * i + 3)),
		);
	});
	const paintMaps = remember((bytes, h, w, applied) => {
		const values = typed(Float32Array, bytes);
		const largest =
			values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
		const paintMap = (figure, by) =>
			paint(figure, w, h, (n) =>
				view.palettes.signed((1 + (by * values[n]) / largest) / 2),
			);
		paintMap(figures[1], 1);
		paintMap(figures[2], applied);
	});
	function drawMaps({ image }, { asked, map, size }, applied) {
		paintImage(image);
		paintMaps(map, ...size, applied);
		write(captions[0], `image ${image}`);
		write(captions[1], `map ${asked.channel} before`);
		write(captions[2], `after, × ${applied.toFixed(2)}`);
	}

	const [headline, predicted, told] = [
		status("headline"),
		status("asks"),
		html("div"),
	];
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
			factor,
		],
		picture: [map.node, block("lower", lower.charts)],
		controls: [
			choice(
				fitting,
				"network",
				"network",
				networks.map(([name]) => [name, name]),
			),
			choice(fitting, "layer", "layer", (state) =>
				[...layersOf(state).keys()].map((name) => [name, name]),
			),
			buttons,
			block(
				"maps",
				figures.map((each, i) => html("div", {}, each, captions[i])),
			),
		],
		readout: [told, predicted],
		fits: (state) =>
			owner[state.image] !== undefined &&
			state.channel < layersOf(state).get(state.layer),
		draw(state) {
			const answer = view.answer(state);
			const { asked } = answer;
			if (!seen.has(key(asked)))
				seen.set(key(asked), decode(answer.weights, counts));
			const weights = seen.get(key(state));
			view.root.classList.toggle("unseen", !weights);
			if (!weights) return; // the old picture stays until the kernel has recorded them
			const { network, image, channel, factor } = state;
			view.root.style.setProperty("--arm", given.colors[network]);
			const same = ["network", "layer", "image", "channel"].every(
				(name) => asked[name] === state[name],
			);
			const [weight, digits] = same
				? [answer.weight, 3]
				: [weights.at(image, channel), 2]; // of a byte
			const words = `Image ${image}, ${classes[owner[image]]}, channel ${channel}: weight ${weight.toFixed(digits)}`;
			write(
				headline,
				factor === 1
					? words
					: `${words} × ${factor} = ${(weight * factor).toFixed(digits)}`,
			);
			const mean = weights.means[owner[image]][channel].toFixed(2);
			write(
				told,
				`Test image ${indices[image]}; mean weight of its class ${mean}.`,
			);
			const best = (chances) => {
				const most = Math.max(...chances);
				return `${classes[chances.indexOf(most)]} (${percent(most)})`;
			};
			const changed = `, with the changed weight ${best(answer.changed)}`;
			if (answer.fresh)
				write(
					predicted,
					`Predicts ${best(answer.plain)}${asked.factor === 1 ? "" : changed}.`,
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
				same ? weight * factor : answer.weight * asked.factor,
			);
		},
	};
});
