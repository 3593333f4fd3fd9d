// What the networks that the page runs make of what a reader draws.

import { board } from "./board.js";
import {
	block,
	button,
	fill,
	html,
	paint,
	status,
	tableRow,
	write,
} from "./kit.js";
import { chancesOf, crew, lookFor } from "./network.js";

export const percent = (share) => `${(100 * share).toFixed(1)}%`;

// The board, and beside it what each network answers; of the one that is shown the bars of its classes, the weights of
// the layer and the map of the channel. channels(state) are those of the layer, picture(state) an image to begin with.
export function drawing(view, channels, picture) {
	const { classes, described } = view.given;
	const names = Object.keys(described);
	let [image, asked, seen, runner] = [null, {}, null, null];
	const made = board(view.root, (next) => {
		image = next;
		if (image) node.open = true; // a picture may be dropped where it is closed
		view.redraw();
	});
	const [answers, chances, strip, map] = [
		html("table"),
		block("shares"),
		html("canvas", { class: "weights" }),
		html("canvas", { class: "map" }),
	];
	const [ofWeights, ofMap] = [html("div"), html("div")];
	const found = block(
		"found",
		html("div", { role: "status" }, answers),
		chances,
		ofWeights,
		strip,
		ofMap,
		map,
	);
	const copy = button("Copy the image above", () =>
		made.show(picture(view.state())),
	);
	const nothing = status("note");
	const node = html(
		"details",
		{ class: "own", open: "" },
		html("summary", {}, "Draw your own"),
		block("drawing", block("", made.node, copy), block("", nothing, found)),
	);
	view.ends.push(() => runner?.close());

	function ask(state) {
		const key = JSON.stringify(state);
		if (asked.image === image && asked.key === key) return;
		asked = { image, key };
		runner ??= crew(described, (all, question) => {
			seen = { ...question, all };
			view.redraw();
		});
		const looks = names.map((network) =>
			network === state.network
				? lookFor(state, channels(state), image)
				: { network, pixels: image },
		);
		runner.ask({ looks, state });
	}
	const best = (shares) => {
		const most = Math.max(...shares);
		return `${classes[shares.indexOf(most)]} (${percent(most)})`;
	};

	function show({ all, state: { network, layer, channel, factor } }) {
		const shares = all.map(({ plain }) => chancesOf(plain));
		const { plain, changed, attention, maps, size } =
			all[names.indexOf(network)];
		fill(
			answers,
			names.map((name, i) => tableRow("td", [name, best(shares[i])])),
		);
		const [before, after] = [plain, changed].map(chancesOf);
		const bar = (name, share) =>
			html("i", { class: name, style: `width: ${percent(share)}` });
		fill(
			chances,
			classes.map((name, i) => [
				html("span", {}, name),
				html("span", {}, bar("was", before[i]), bar("is", after[i])),
				html("span", {}, after[i] < 0.005 ? "" : percent(after[i])),
			]),
		);
		const { weights } = attention[layer];
		paint(strip, weights.length, 1, (c) => view.palettes.weight(weights[c]));
		const [, h, w] = size;
		const values = maps.subarray(channel * h * w, (channel + 1) * h * w);
		const most = values.reduce((a, b) => Math.max(a, Math.abs(b)), 0) || 1;
		paint(map, w, h, (i) => view.palettes.signed((1 + values[i] / most) / 2));
		const weight = weights[channel].toFixed(3);
		write(ofWeights, `${network}: weights of ${layer}`);
		write(
			ofMap,
			`channel ${channel}: weight ${weight}${factor === 1 ? "" : ` × ${factor}`}; its map`,
		);
	}

	function draw({ network, layer, channel, factor }) {
		write(nothing, image ? "" : "Nothing is drawn yet.");
		found.hidden = !image || !seen;
		if (!image) return;
		ask({ network, layer, channel, factor });
		if (seen) show(seen);
	}
	return { node, draw };
}
