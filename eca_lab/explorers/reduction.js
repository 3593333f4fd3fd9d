// The explorer of the reduction: three matrices whose rows are there to be pointed at, their
// singular values and what they cost. The kernel gives a matrix as integers, FULL for its largest absolute entry, 0 only for what counts as zero.

import {
	axes,
	block,
	button,
	choice,
	explorer,
	fill,
	grouped,
	html,
	legend,
	numberRow,
	paint,
	path,
	presets,
	remember,
	rowSlider,
	scale,
	set,
	status,
	svg,
	tableRow,
	typed,
	upTo,
	write,
} from "./kit.js";

const FULL = 2 ** 15 - 1;
const NAMES = ["SE", "SE-GC", "ECA"];
const KINDS = ["se", "gc", "eca"];
const OCTAVES = upTo(10).map((n) => 2 ** n);
const KERNELS = [...upTo(16).map((i) => 2 * i + 1), 63, 127, 255];

// --- Numbers ---

const divisors = (C) => upTo(C + 1).filter((d) => C % d === 0);
const odd = (C) => C - 1 + (C % 2);

// The state with r, k and groups lowered to what C has room for.
export const lowered = (state) => ({
	...state,
	reduction: Math.min(state.reduction, state.channels),
	kernel_size: Math.min(state.kernel_size, odd(state.channels)),
	groups: divisors(state.channels).findLast((d) => d <= state.groups),
});

// What changes of a state ask for: a trained layer gives sizes, and other sizes make the weights random.
export function wanted(state, changes, layers) {
	const next = { ...state, ...changes };
	const layer = layers[next.weights] ?? {};
	if ("weights" in changes) Object.assign(next, layer);
	if (Object.entries(layer).some(([name, size]) => next[name] !== size))
		next.weights = "random";
	return next;
}

function apart(one, other) {
	if (one === other) return 0;
	return typeof one === "number"
		? Math.abs(Math.log((1 + one) / (1 + other)))
		: 100;
}

// The recorded state that is nearest to a state: first in the names that were changed, then in the rest. Random
// weights stay random, for trained ones are of one layer.
export function nearestRecorded(state, changed, recorded) {
	const rest = Object.keys(state).filter((name) => !changed.includes(name));
	let [best, least] = [state, [Infinity, Infinity]];
	for (const each of recorded) {
		if (!["random", state.weights].includes(each.weights)) continue;
		const away = [changed, rest].map((names) =>
			names.reduce((sum, name) => sum + apart(state[name], each[name]), 0),
		);
		if ((away[0] - least[0] || away[1] - least[1]) < 0)
			[best, least] = [each, away];
	}
	return best;
}

// Hidden units of SE, channels in a block of SE-GC; of all three, parameters and multiply-adds.
export function costs({
	channels: C,
	reduction: r,
	kernel_size: k,
	groups: g,
}) {
	const [hidden, width] = [Math.floor(C / r), C / g];
	const [se, gc] = [2 * C * hidden, C * width];
	return {
		hidden,
		width,
		parameters: [se, gc, k],
		multiplyAdds: [se, gc, k * C],
	};
}

// Whether SE, SE-GC and ECA are trained: of SE-GC there is no trained one.
const weightsOf = ({ weights }) =>
	NAMES.map((name) =>
		weights === "random" || name === "SE-GC" ? "random" : "trained",
	);

// What a row of entries hears: how many channels, and the strongest, each [channel, entry].
export function hears(row) {
	const heard = Array.from(row, (entry, j) => [j + 1, entry]).filter(
		([, entry]) => entry,
	);
	return [
		heard.length,
		heard.sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, 3),
	];
}

// --- Words ---

const some = (number, noun) =>
	`${grouped(number)} ${noun}${number === 1 ? "" : "s"}`;
const signed = (number) =>
	(number < 0 ? "−" : "+") + Math.abs(number).toPrecision(2);

const tell = (
	{ channels: C, reduction: r, kernel_size: k, groups: g },
	{ hidden, width, parameters },
) => [
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
	[
		"effective rank",
		(i, _, modules) => modules[i].effective_rank?.toFixed(1) ?? "–",
	],
	[
		"diagonal share",
		(i, _, modules) => modules[i].diagonal_share?.toFixed(3) ?? "–",
	],
	["bandwidth", (i, _, modules) => String(modules[i].bandwidth)],
];

// --- Pictures ---

// A matrix, the lit row enlarged on it, and below it that row: bars, and what it hears.
function map(name, { signed: palette }) {
	const color = (entry) => palette((entry / FULL + 1) / 2);
	const [title, told, canvas, strip] = [
		block("title"),
		block("told"),
		html("canvas"),
		html("canvas", { class: "strip" }),
	];
	const bars = svg("svg", {
		height: 56,
		preserveAspectRatio: "none",
		"aria-hidden": "true",
	});
	const paintAll = remember((entries, n) =>
		paint(canvas, n, n, (i) => color(entries[i])),
	);
	function draw({ entries, largest, rank }, weights, n, lit) {
		paintAll(entries, n);
		write(title, `${name}\nrank ${rank}, ${weights}`);
		const row = entries.subarray(lit * n, (lit + 1) * n);
		paint(strip, n, 1, (j) => color(row[j]));
		const bar = (entry, j) => `M${j + 0.5} 30v${(-25 * entry) / FULL}`;
		const upright = (sign) =>
			Array.from(row, (entry, j) =>
				sign * entry > 0 ? bar(entry, j) : "",
			).join("");
		set(bars, { viewBox: `0 0 ${n} 56` });
		fill(
			bars,
			path("axis", `M0 30H${n}`),
			path("up", upright(1)),
			path("down", upright(-1)),
		);
		const [count, strongest] = hears(row);
		const words = strongest.map(
			([j, entry]) => `\n${j} by ${signed((entry / FULL) * largest)}`,
		);
		write(told, `hears ${count} of ${n}${words.join("")}`);
		return `${name} ${told.textContent}`;
	}
	return {
		node: block("map", title, block("matrix", canvas, strip), bars, told),
		canvas,
		draw,
	};
}

// Singular values as shares of the largest; a line ends at the rank.
function spectrum() {
	const [node, grid] = [
		svg("svg", { role: "img", class: "spectrum" }),
		svg("g"),
	];
	function draw(modules, n, width) {
		const [last, height] = [Math.ceil(Math.log2(n)), width > 450 ? 270 : 200];
		const [x, y] = [
			scale(0, last, 40, width - 10),
			scale(-5, 0, height - 42, 10),
		];
		const decades = ["1", "10⁻¹", "10⁻²", "10⁻³", "10⁻⁴", "10⁻⁵"].map(
			(text, i) => [-i, text],
		);
		const octaves = OCTAVES.slice(0, last + 1).map((number, i) => [i, number]);
		axes(grid, x, y, octaves, decades, "number of the singular value", "");
		const line = ({ shares, rank }, i) => {
			const at = Array.from(shares.subarray(0, rank), (part, j) => [
				x(Math.log2(j + 1)),
				y(Math.log10(part)),
			]);
			const [cx, cy] = at.at(-1) ?? [x(0), y(-5)];
			const d = `M${at.length ? at.join("L") : [cx, cy]}${rank < n ? `V${y(-5)}` : ""}`;
			return [
				path(`line ${KINDS[i]}`, d),
				svg("circle", { class: KINDS[i], r: 4.5, cx, cy }),
			];
		};
		fill(node, grid, modules.map(line));
		const ranks = NAMES.map((name, i) => `${name} ${modules[i].rank}`).join(
			", ",
		);
		set(node, {
			width,
			height,
			"aria-label": `Singular values. Ranks: ${ranks} of ${n}.`,
		});
	}
	return { node, draw };
}

// --- The explorer ---

export default explorer((view) => {
	const { layers, limits, palettes } = view.given;
	let elsewhere = ""; // what the nearest recorded state has otherwise than it was asked for
	function change(changes) {
		const asked = wanted(view.state(), changes, layers);
		const next = view.alone
			? nearestRecorded(asked, Object.keys(changes), view.alone)
			: lowered(asked);
		elsewhere = Object.keys(next)
			.filter((name) => next[name] !== asked[name])
			.map((name) => `${name} ${next[name]}`)
			.join(", ");
		view.change(next);
	}
	const settling = { ...view, change };

	const [matrices, values] = [
		NAMES.map((name) => map(name, view.palettes)),
		spectrum(),
	];
	const maps = block(
		"maps",
		matrices.map(({ node }) => node),
	);
	const rows = rowSlider(
		view,
		maps,
		"row of the matrices",
		matrices.map(({ canvas }) => canvas),
		0.5,
	);
	const [headline, heading] = [block("headline measured"), html("span")];
	const ramp = html("i", {
		class: "ramp",
		style: `--colors: ${palettes.signed}`,
	});
	const dashes = NAMES.map((name, i) => [
		path(`line ${KINDS[i]}`, "M0 9H20"),
		name,
	]);

	// Without a kernel, sliders halt at what was recorded.
	const halts = (name) => {
		const random = view.alone.filter(({ weights }) => weights === "random");
		const values = new Set(random.map((state) => state[name]));
		return [...values].sort((a, b) => a - b);
	};
	const row = (name, label, stops, refused) =>
		numberRow(
			settling,
			name,
			label,
			view.alone ? halts(name) : stops,
			true,
			refused,
		);
	const fitting = (C, stops) => [...stops.filter((stop) => stop < C), C];
	const seeds = view.alone ? halts("seed") : upTo(limits.seed[1] + 1);
	const again = () =>
		change({
			seed: seeds[(seeds.indexOf(view.state().seed) + 1) % seeds.length],
		});
	const trained = Object.keys(layers).map((layer) => [
		layer,
		`trained, ${layer}`,
	]);
	const uneven = (k) => k % 2 === 0 && "an odd integer";
	const whole = (g, { channels: C }) =>
		C % g !== 0 && `one of ${divisors(C).join(", ")}`;

	const [note, lines] = [status("note"), NAMES.map(() => html("span"))];
	const cells = ROWS.map(() => NAMES.map(() => html("td")));
	const kinds = NAMES.map(() => html("td"));
	const table = html(
		"table",
		{},
		tableRow("th", ["", ...NAMES]),
		ROWS.map(([name], i) =>
			html(
				"tr",
				{ class: i < 2 ? "cost" : "measured" },
				html("th", {}, name),
				cells[i],
			),
		),
		html("tr", { class: "measured" }, html("th", {}, "weights"), kinds),
	);

	// New channels lower what they have no room for, whoever sets them.
	let before = view.state();
	view.shows.push((state) => {
		const fitted = lowered({ ...before, channels: state.channels });
		const less = Object.keys(state).filter(
			(name) => fitted[name] < before[name] && fitted[name] === state[name],
		);
		const words = less
			.filter((name) => name !== "channels")
			.map((name) => `${name} to ${state[name]}`)
			.join(", ");
		const lower = words && `Lowered to fit C = ${state.channels}: ${words}`;
		const nearest = elsewhere && `Nearest recorded: ${elsewhere}`;
		write(note, view.alone ? nearest : lower);
		elsewhere = "";
		before = state;
	});

	const modulesOf = remember((told) =>
		told.map(({ matrix, spectrum, largest, measures }) => ({
			...measures,
			largest,
			entries: typed(Int16Array, matrix),
			shares: typed(Float32Array, spectrum),
		})),
	);
	return {
		headline,
		main: [
			row(
				"channels",
				"channels C",
				OCTAVES.filter((C) => C >= limits.channels[0]),
			),
			row("reduction", "reduction r", ({ channels: C }) => fitting(C, OCTAVES)),
			row(
				"kernel_size",
				"kernel k",
				({ channels: C }) => fitting(odd(C), KERNELS),
				uneven,
			),
			row("groups", "groups g", ({ channels: C }) => divisors(C), whole),
		],
		picture: [
			block("hint measured", heading, html("span", {}, "−", ramp, "+")),
			maps,
			block("hint", "Singular values, shares of the largest", legend(dashes)),
			values.node,
		],
		controls: [
			row("seed", "seed", seeds),
			trained.length
				? choice(settling, "weights", "weights", [
						["random", "random"],
						...trained,
					])
				: [],
			presets(settling, button("Draw again", again)),
		],
		readout: [
			note,
			NAMES.map((name, i) =>
				html("div", {}, html("b", {}, `${name}: `), lines[i]),
			),
			table,
		],
		fits: ({ weights }) => weights === "random" || weights in layers,
		draw(state) {
			const answer = view.answer(state);
			if (view.alone && !answer.fresh) {
				const names = Object.keys(state); // of a link, which may say anything
				const changed = names.filter(
					(name) => state[name] !== answer.asked[name],
				);
				return change(
					Object.fromEntries(changed.map((name) => [name, state[name]])),
				);
			}
			const n = answer.asked.channels;
			rows.count = n;
			const modules = modulesOf(answer.modules);
			const cost = costs(state);
			const told = tell(state, cost);
			const weights = weightsOf(answer.asked);
			for (const i of NAMES.keys()) {
				write(lines[i], told[i]);
				write(kinds[i], weights[i]);
				for (const [j, [, text]] of ROWS.entries())
					write(cells[j][i], text(i, cost, modules));
			}
			const lit = rows.row();
			write(
				headline,
				`Rank, of ${n}: ${NAMES.map((name, i) => `${name} ${modules[i].rank}`).join(", ")}`,
			);
			const words = matrices.map((matrix, i) =>
				matrix.draw(modules[i], weights[i], n, lit),
			);
			maps.style.cssText = `--n: ${n}; --lit: ${lit}`;
			write(
				heading,
				`Row ${lit + 1}: what channel ${lit + 1} hears. Point at another.`,
			);
			rows.tell(`Channel ${lit + 1}: ${words.join("; ")}`);
			const width = view.width(maps);
			maps.classList.toggle("fine", n > (width / 3) * devicePixelRatio);
			if (width) values.draw(modules, n, width);
		},
	};
});
