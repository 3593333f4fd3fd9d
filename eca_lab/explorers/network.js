// Networks that the page runs by itself, as eca_lab.explorers.network describes them.
// C channels of H x W positions. All is computed in doubles, of weights that were rounded to float16.

// All that computes. It refers to nothing outside of itself, for a worker is given its text.
export function engine() {
	// The number that 16 bits are, by IEEE 754; Python writes none that is infinite.
	const half = (bits) => {
		const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
		const size = exponent
			? (1024 + fraction) * 2 ** (exponent - 25)
			: fraction * 2 ** -24;
		return bits >> 15 ? -size : size;
	};

	// A network for `forward`: its layers, each with room for its maps and run(), which computes them of those given.
	function load({ size, mean, std, layers, weights }) {
		const { buffer, byteOffset, byteLength } = weights;
		const view = new DataView(buffer, byteOffset, byteLength);
		let place = 0;
		const take = (count) => {
			const values = new Float64Array(count);
			for (let i = 0; i < count; i++, place += 2)
				values[i] = half(view.getUint16(place, true));
			return values;
		};
		const margin = Math.max(
			...layers.map(({ op, padding }) => (op === "conv" ? padding : 0)),
		);
		const tools = { take, room: (C, H, W) => room(C, H, W, margin), size };
		const made = [];
		for (const layer of layers) {
			const given = layer.from.map((number) => made[number]);
			const maps = given.map(({ out }) => out);
			const { name } = layer; // of an attention
			made.push({ name, given, ...MAKE[layer.op](layer, maps, tools) });
		}
		if (place !== byteLength)
			throw new RangeError(`weights of ${byteLength} bytes, not of ${place}`);
		const [image] = made;
		image.mean = mean.map((value) => Math.fround(255 * value));
		image.std = std.map((value) => Math.fround(255 * value));
		return { layers: made, plain: null };
	}

	// Room for maps, each with a margin of zeros, which all that works number by number leaves zeros: convolutions
	// read them. Convolutions also write four channels at once.
	function room(C, H, W, margin) {
		const row = W + 2 * margin;
		const plane = (H + 2 * margin) * row;
		const values = new Float64Array(4 * Math.ceil(C / 4) * plane);
		return { C, H, W, row, plane, values, start: margin * (row + 1) };
	}
	// Where in a plane the positions are, row by row.
	const positions = ({ H, W, row, start }) =>
		Int32Array.from(
			{ length: H * W },
			(_, i) => start + Math.floor(i / W) * row + (i % W),
		);
	// How many windows of a layer there are along so many positions.
	const windows = ({ side, stride, padding }, length) =>
		Math.floor((length + 2 * padding - side) / stride) + 1;

	// By operation: (layer, maps that are given, tools) to its maps `out` and run().
	const MAKE = {
		image(_, __, { room, size: [H, W] }) {
			const out = room(3, H, W);
			const pixels = new Uint8Array(3 * H * W); // (H, W, 3)
			const places = positions(out);
			function run() {
				places.forEach((place, i) => {
					for (let c = 0; c < 3; c++)
						out.values[c * out.plane + place] = Math.fround(
							Math.fround(pixels[3 * i + c] - this.mean[c]) / this.std[c],
						); // float32, as in Python
				});
			}
			return { out, pixels, run };
		},
		conv(layer, [from], { take, room }) {
			const { inputs, outputs, side, stride, padding } = layer;
			const out = room(outputs, windows(layer, from.H), windows(layer, from.W));
			const ends = positions(out);
			const corner = from.start - padding * (from.row + 1);
			const starts = ends.map((_, i) => {
				const [y, x] = [Math.floor(i / out.W), i % out.W];
				return corner + stride * (y * from.row + x);
			});
			const count = inputs * side * side;
			const taps = Int32Array.from({ length: count }, (_, i) => {
				const [channel, cell] = [Math.floor(i / side ** 2), i % side ** 2];
				const [y, x] = [Math.floor(cell / side), cell % side];
				return channel * from.plane + y * from.row + x;
			});
			// The weights of four output channels stand side by side: of what is read once, four sums are made.
			const blocks = Math.ceil(outputs / 4);
			const packed = new Float64Array(4 * blocks * count);
			take(outputs * count).forEach((weight, i) => {
				const [output, tap] = [Math.floor(i / count), i % count];
				packed[4 * ((output >> 2) * count + tap) + (output & 3)] = weight;
			});
			const bias = new Float64Array(4 * blocks);
			bias.set(take(outputs));
			const plan = { taps, starts, ends, packed, bias, plane: out.plane };
			return { out, run: () => convolve(from.values, out.values, plan) };
		},
		relu(_, [from], { room }) {
			const out = room(from.C, from.H, from.W);
			const [a, b] = [from.values, out.values];
			function run() {
				for (let i = 0; i < a.length; i++) b[i] = Math.max(a[i], 0);
			}
			return { out, run };
		},
		add(_, [one, other], { room }) {
			const out = room(one.C, one.H, one.W);
			const [a, b, c] = [one.values, other.values, out.values];
			function run() {
				for (let i = 0; i < a.length; i++) c[i] = a[i] + b[i];
			}
			return { out, run };
		},
		maxpool(layer, [from], { room }) {
			const { side, stride, padding } = layer;
			const { C, H, W, row, plane, values, start } = from;
			const out = room(C, windows(layer, H), windows(layer, W));
			const ends = positions(out);
			// The largest of a window, without what lies in the margin.
			const largest = (c, top, left) => {
				let most = -Infinity;
				for (let y = Math.max(top, 0); y < Math.min(top + side, H); y++)
					for (let x = Math.max(left, 0); x < Math.min(left + side, W); x++)
						most = Math.max(most, values[c * plane + start + y * row + x]);
				return most;
			};
			function run() {
				for (let c = 0; c < C; c++)
					for (let i = 0; i < ends.length; i++)
						out.values[c * out.plane + ends[i]] = largest(
							c,
							stride * Math.floor(i / out.W) - padding,
							stride * (i % out.W) - padding,
						);
			}
			return { out, run };
		},
		mean(_, [from], { room }) {
			const out = room(from.C, 1, 1);
			function run() {
				means(from).forEach((mean, c) => {
					out.values[c * out.plane + out.start] = mean;
				});
			}
			return { out, run };
		},
		eca({ k, circular, order }, [from], tools) {
			const [kernel, { C }] = [tools.take(k), from];
			const channels = order ?? Array.from({ length: C }, (_, c) => c);
			return attention(from, tools, (y) => {
				const logits = new Float64Array(C);
				channels.forEach((channel, place) => {
					kernel.forEach((weight, i) => {
						const beside = place + i - (k >> 1);
						if (circular || (beside >= 0 && beside < C))
							logits[channel] += weight * y[channels[(beside + C) % C]];
					});
				});
				return logits;
			});
		},
		se({ hidden }, [from], tools) {
			const { C } = from;
			const [first, second] = [tools.take(hidden * C), tools.take(C * hidden)];
			return attention(from, tools, (y) => {
				const units = product(first, y).map((unit) => Math.max(unit, 0));
				return product(second, units);
			});
		},
	};

	// A matrix, row by row, times a vector.
	const product = (matrix, vector) => {
		const { length } = vector;
		return Float64Array.from({ length: matrix.length / length }, (_, row) =>
			vector.reduce(
				(sum, value, i) => sum + matrix[row * length + i] * value,
				0,
			),
		);
	};

	// The mean of each channel: what is in the margins is 0.
	function means({ C, H, W, plane, values }) {
		const found = new Float64Array(C);
		for (let c = 0; c < C; c++) {
			let sum = 0;
			for (let i = c * plane; i < (c + 1) * plane; i++) sum += values[i];
			found[c] = sum / (H * W);
		}
		return found;
	}

	// What has logits of the means, score(y): its maps are those given, times weights, times the factors it was given.
	function attention(from, { room }, score) {
		const { C, H, W, plane, values } = from;
		const out = room(C, H, W);
		function run() {
			this.means = means(from);
			this.weights = score(this.means).map((z) => 1 / (1 + Math.exp(-z)));
			for (let c = 0; c < C; c++) {
				const weight = this.weights[c] * (this.factors?.[c] ?? 1);
				for (let i = c * plane; i < (c + 1) * plane; i++)
					out.values[i] = weight * values[i];
			}
		}
		return { out, run, before: from };
	}

	// Two positions and four channels at once: eight sums stay in registers.
	function convolve(from, to, { taps, starts, ends, packed, bias, plane }) {
		const [count, places] = [taps.length, starts.length];
		for (let c = 0; c < bias.length; c += 4) {
			for (let n = 0; n < places; n += 2) {
				const m = n + 1 < places ? n + 1 : n; // the last of an odd number twice
				const [p, q] = [starts[n], starts[m]];
				let a0 = bias[c];
				let a1 = bias[c + 1];
				let a2 = bias[c + 2];
				let a3 = bias[c + 3];
				let [b0, b1, b2, b3] = [a0, a1, a2, a3];
				for (let t = 0, w = c * count; t < count; t++, w += 4) {
					const x = from[p + taps[t]];
					const y = from[q + taps[t]];
					const w0 = packed[w];
					const w1 = packed[w + 1];
					const w2 = packed[w + 2];
					const w3 = packed[w + 3];
					a0 += w0 * x;
					b0 += w0 * y;
					a1 += w1 * x;
					b1 += w1 * y;
					a2 += w2 * x;
					b2 += w2 * y;
					a3 += w3 * x;
					b3 += w3 * y;
				}
				const [i, j] = [c * plane + ends[n], c * plane + ends[m]];
				to[i] = a0;
				to[i + plane] = a1;
				to[i + 2 * plane] = a2;
				to[i + 3 * plane] = a3;
				to[j] = b0;
				to[j + plane] = b1;
				to[j + 2 * plane] = b2;
				to[j + 3 * plane] = b3;
			}
		}
	}

	const same = (a, b) =>
		a === b || (a?.length === b?.length && a?.every((x, i) => x === b[i]));

	// The logits of an image (H, W, 3), where the weights of attentions, by name, are multiplied by factors of their
	// channels. Only what lies behind a change is computed again.
	function forward({ layers }, pixels, factors = {}) {
		const [image] = layers;
		if (pixels.length !== image.pixels.length)
			throw new RangeError(
				`an image of ${pixels.length} bytes, not of ${image.pixels.length}`,
			);
		for (const layer of layers) {
			layer.stale =
				!layer.ran ||
				(layer === image && !same(image.pixels, pixels)) ||
				!same(layer.factors, factors[layer.name]) ||
				layer.given.some(({ stale }) => stale);
			if (!layer.stale) continue;
			if (layer === image) image.pixels.set(pixels);
			layer.factors = factors[layer.name];
			layer.run();
			layer.ran = true;
		}
		const { C, plane, start, values } = layers.at(-1).out;
		return Float64Array.from(
			{ length: C },
			(_, c) => values[c * plane + start],
		);
	}

	// What a network makes of an image: logits, plain and with factors of one layer's weights; of every attention the
	// channels' means and weights, plain; and the maps in front of that layer, (C, H, W). Without a layer, what is plain.
	function look(network, { pixels, layer, factors }) {
		if (!network.plain || !same(network.plain.pixels, pixels)) {
			const logits = forward(network, pixels);
			const seen = network.layers.filter(({ name }) => name !== undefined);
			const all = seen.map(({ name, means, weights }) => [
				name,
				{ means, weights },
			]);
			const attention = Object.fromEntries(all);
			network.plain = { pixels: Uint8Array.from(pixels), logits, attention };
		}
		const { logits: plain, attention } = network.plain;
		if (layer === undefined) return { plain, attention };
		const changed = forward(network, pixels, factors && { [layer]: factors });
		const { before } = network.layers.find(({ name }) => name === layer);
		const { C, H, W, plane, values } = before;
		const maps = new Float32Array(C * H * W);
		const places = positions(before);
		for (let c = 0; c < C; c++)
			for (let i = 0; i < places.length; i++)
				maps[c * places.length + i] = values[c * plane + places[i]];
		return { plain, changed, attention, maps, size: [C, H, W] };
	}

	return { load, forward, look };
}

// The probabilities that logits are.
export function chancesOf(logits) {
	const most = Math.max(...logits);
	const parts = Array.from(logits, (logit) => Math.exp(logit - most));
	const whole = parts.reduce((sum, part) => sum + part, 0);
	return parts.map((part) => part / whole);
}

// The look at an image in a state of an explorer: one of C channels of a layer has a factor.
export const lookFor = ({ network, layer, channel, factor }, C, pixels) => ({
	network,
	pixels,
	layer,
	factors:
		factor === 1
			? undefined
			: Array.from({ length: C }, (_, c) => (c === channel ? factor : 1)),
});

// A function that looks: each look names a network, of which a description comes with the first.
export function looking(engine) {
	const [{ load, look }, loaded] = [engine(), new Map()];
	return ({ looks, descriptions }) => {
		for (const [name, told] of Object.entries(descriptions))
			loaded.set(name, load(told));
		return looks.map((each) => look(loaded.get(each.network), each));
	};
}

// Answers questions { looks: [{ network, pixels, layer, factors }] } by hear(found, question), beside the page where it
// may have a worker, else between its frames. Of questions that come while one is being answered, the last alone is.
export function crew(descriptions, hear) {
	let [worker, answer, url, frame] = [null, null, "", 0];
	let [asked, next] = [null, null]; // what is being answered, and what will be
	const taught = new Set(); // the networks that were described to who answers
	function done(found) {
		const [question, waiting] = [asked, next];
		[asked, next] = [null, null];
		if (waiting) send(waiting);
		hear(found, question);
	}
	function alone() {
		worker = null;
		answer = looking(engine);
		taught.clear();
	}
	try {
		const text = `const answer = (${looking})(${engine}); onmessage = ({ data }) => postMessage(answer(data));`;
		url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
		worker = new Worker(url);
		worker.onmessage = ({ data }) => done(data);
		worker.onerror = () => {
			alone(); // the page forbids it
			if (asked) send(asked);
		};
	} catch {
		alone();
	}
	function send(question) {
		asked = question;
		const { looks } = question;
		const names = looks.map(({ network }) => network);
		const fresh = names.filter((name) => !taught.has(name));
		for (const name of fresh) taught.add(name);
		const told = fresh.map((name) => [name, descriptions[name]]);
		const message = { looks, descriptions: Object.fromEntries(told) };
		if (worker) return worker.postMessage(message);
		frame = requestAnimationFrame(() => done(answer(message)));
	}
	return {
		ask(question) {
			if (asked) next = question;
			else send(question);
		},
		close() {
			worker?.terminate();
			cancelAnimationFrame(frame);
			URL.revokeObjectURL(url);
		},
	};
}
