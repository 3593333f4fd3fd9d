// Layers of which the numbers are known by hand. test_network.py compares whole networks with torch.

import assert from "node:assert/strict";
import { test } from "node:test";
import { crew, engine } from "../../eca_lab/explorers/network.js";

const { load, forward, look } = engine();

// The bits of float16 of a number that is one, by trying all.
const HALVES = new Map();
for (let bits = 0; bits < 0xfc00; bits++) {
	const exponent = (bits >> 10) & 31;
	if (exponent === 31) continue;
	const fraction = bits & 1023;
	const size = exponent
		? (1 + fraction / 1024) * 2 ** (exponent - 15)
		: (fraction / 1024) * 2 ** -14;
	const value = bits >> 15 ? -size : size;
	if (!HALVES.has(value)) HALVES.set(value, bits);
}
const halves = (...numbers) => {
	const view = new DataView(new ArrayBuffer(2 * numbers.length));
	for (const [i, number] of numbers.entries())
		view.setUint16(2 * i, HALVES.get(number), true);
	return view;
};
const IMAGE = { op: "image", from: [] };
// A network over the red of an image of pixels 0..255 as they are, which its layers make one position of.
const network = (size, layers, ...weights) =>
	load({
		size,
		mean: [0, 0, 0],
		std: [1 / 255, 1 / 255, 1 / 255],
		layers: [IMAGE, ...layers],
		weights: halves(...weights),
	});
const red = (...values) =>
	Uint8Array.from(values.flatMap((value) => [value, 0, 0]));
const conv = (from, inputs, outputs, side = 1, stride = 1, padding = 0) => ({
	op: "conv",
	from: [from],
	inputs,
	outputs,
	side,
	stride,
	padding,
});
// A convolution 1x1 that makes channels 1, 2, ... times the red of it.
const spread = (...weights) => weights.flatMap((weight) => [weight, 0, 0]);
const near = (found, expected) => {
	assert.equal(found.length, expected.length);
	for (const [i, value] of expected.entries())
		assert.ok(Math.abs(found[i] - value) < 1e-12, `${[...found]}`);
};
const sigmoid = (z) => 1 / (1 + Math.exp(-z));

test("float16 is read to the last bit, the smallest and the largest, too", () => {
	const numbers = [1 / 3, -2.5, 65504, 2 ** -24, -(1023 / 1024) * 2 ** -14];
	numbers[0] = 1365 / 4096; // as float16 has it
	const zeros = numbers.map(() => 0);
	const net = network([1, 1], [conv(0, 3, 5)], ...spread(...numbers), ...zeros);
	near(forward(net, red(1)), numbers);
});

test("pixels are normalised in float32, as Python does it", () => {
	const [mean, std] = [Math.fround(0.4), Math.fround(0.3)];
	const description = { size: [1, 1], layers: [IMAGE, conv(0, 3, 1)] };
	const weights = halves(1, 0, 0, 0);
	const three = (value) => [value, value, value];
	const net = load({
		...description,
		mean: three(mean),
		std: three(std),
		weights,
	});
	const [m, s] = [Math.fround(255 * mean), Math.fround(255 * std)];
	const value = Math.fround(Math.fround(200 - m) / s);
	assert.deepEqual([...forward(net, red(200))], [value]);
});

test("a 3x3 convolution of stride 2 sees zeros beyond the image, and adds its bias", () => {
	// 1..9 in 3x3, kernel rows 1..9 too; an output at the corner and at the others.
	const kernel = [1, 2, 3, 4, 5, 6, 7, 8, 9];
	const zeros = Array(18).fill(0);
	const layers = [conv(0, 3, 1, 3, 2, 1), { op: "mean", from: [1] }];
	const net = network([3, 3], layers, ...kernel, ...zeros, 0.5);
	// Corners: [1,2,4,5]·[5,6,8,9], [2,3,5,6]·[4,5,7,8], [4,5,7,8]·[2,3,5,6], [5,6,8,9]·[1,2,4,5].
	const corners = [94, 106, 106, 94];
	assert.deepEqual([94, 106], [5 + 12 + 32 + 45, 8 + 15 + 35 + 48]);
	const mean = corners.reduce((sum, each) => sum + each, 0) / 4 + 0.5;
	near(forward(net, red(1, 2, 3, 4, 5, 6, 7, 8, 9)), [mean]);
});

test("ReLU and a sum: relu(x - 2) + x", () => {
	const layers = [
		conv(0, 3, 1),
		{ op: "relu", from: [1] },
		conv(0, 3, 1),
		{ op: "add", from: [2, 3] },
		{ op: "mean", from: [4] },
	];
	const net = network([1, 2], layers, ...spread(1), -2, ...spread(1), 0);
	near(forward(net, red(1, 4)), [(1 + 6) / 2]);
});

test("a largest of a window is never that of the margin", () => {
	const layers = [
		conv(0, 3, 1),
		{ op: "maxpool", from: [1], side: 3, stride: 2, padding: 1 },
		{ op: "mean", from: [2] },
	];
	// All are negative: -1 -2 -3; windows around the first and the third of three.
	const net = network([1, 3], layers, ...spread(-1), 0);
	near(forward(net, red(1, 2, 3)), [(-1 + -2) / 2]);
	// A convolution with a margin behind it: the margin of zeros is no part of a window either.
	const behind = [
		...layers.slice(0, 2),
		conv(2, 1, 1, 3, 1, 1),
		{ op: "mean", from: [3] },
	];
	const ones = Array(9).fill(1);
	const two = network([1, 3], behind, ...spread(-1), 0, ...ones, 0);
	near(forward(two, red(1, 2, 3)), [-3]);
});

test("ECA: zeros or the other end beyond the channels, in order or shuffled", () => {
	const y = [1, 2, 4, 8];
	const eca = (options) =>
		network(
			[1, 1],
			[
				conv(0, 3, 4),
				{
					op: "eca",
					from: [1],
					name: "a",
					k: 3,
					circular: false,
					order: null,
					...options,
				},
			],
			...spread(...y),
			...[0, 0, 0, 0],
			...[0.5, 0.25, -0.125],
		);
	const weighed = (logits) => logits.map((z, c) => y[c] * sigmoid(z));
	const zeros = [0.25 - 0.25, 0.5 + 0.5 - 0.5, 1 + 1 - 1, 2 + 2];
	near(forward(eca({}), red(1)), weighed(zeros));
	const circular = [zeros[0] + 4, zeros[1], zeros[2], zeros[3] - 0.125];
	near(forward(eca({ circular: true }), red(1)), weighed(circular));
	// In the order 2 0 3 1 the means are 4 1 8 2.
	const shuffled = [2 + 0.25 - 1, 4 + 0.5, 1 - 0.125, 0.5 + 2 - 0.25];
	const order = [2, 0, 3, 1];
	near(forward(eca({ order }), red(1)), weighed(shuffled));
});

test("SE: two layers with a ReLU between them, of the means over the positions", () => {
	const layers = [
		conv(0, 3, 2),
		{ op: "se", from: [1], name: "a", hidden: 2 },
		{ op: "mean", from: [2] },
	];
	const [first, second] = [
		[1, -0.5, -1, 0],
		[0.5, 7, -0.25, 7],
	];
	const net = network(
		[1, 2],
		layers,
		...spread(1, 0.5),
		0,
		0,
		...first,
		...second,
	);
	// Means 3 and 1.5: hidden units 2.25 and 0.
	const logits = [1.125, -0.5625];
	near(forward(net, red(2, 4)), [
		3 * sigmoid(logits[0]),
		1.5 * sigmoid(logits[1]),
	]);
});

// An image of two pixels through two attentions of one channel, with a convolution between them.
const two = () => {
	const layers = [
		conv(0, 3, 1),
		{ op: "eca", from: [1], name: "a", k: 1, circular: false, order: null },
		conv(2, 1, 1),
		{ op: "eca", from: [3], name: "b", k: 1, circular: false, order: null },
		{ op: "mean", from: [4] },
	];
	return network([1, 2], layers, ...spread(1), 0, 1, 2, 0, 0.5);
};
const plainOf = (x, a = 1, b = 1) => {
	const middle = 2 * a * x * sigmoid(x);
	return b * middle * sigmoid(0.5 * middle);
};

test("factors change a layer's weights, and only what lies behind is computed again", () => {
	const net = two();
	const ran = [];
	for (const [number, layer] of net.layers.entries()) {
		const { run } = layer;
		layer.run = function () {
			ran.push(number);
			run.call(this);
		};
	}
	const run = (pixels, factors) => {
		ran.length = 0;
		return [...forward(net, pixels, factors)];
	};
	near(run(red(2, 4)), [plainOf(3)]);
	assert.deepEqual(ran, [0, 1, 2, 3, 4, 5]);
	near(run(red(2, 4)), [plainOf(3)]);
	assert.deepEqual(ran, []);
	near(run(red(2, 4), { b: [0.5] }), [plainOf(3, 1, 0.5)]);
	assert.deepEqual(ran, [4, 5]);
	near(run(red(2, 4), { a: [0] }), [0]);
	assert.deepEqual(ran, [2, 3, 4, 5]);
	near(run(red(3, 5)), [plainOf(4)]);
	assert.deepEqual(ran, [0, 1, 2, 3, 4, 5]);
});

test("a look tells the plain network, whatever was changed before", () => {
	const net = two();
	look(net, { pixels: red(2, 4), layer: "a", factors: [3] });
	const seen = look(net, { pixels: red(2, 4), layer: "b", factors: [2] });
	near(seen.plain, [plainOf(3)]);
	near(seen.changed, [plainOf(3, 1, 2)]);
	assert.deepEqual(seen.size, [1, 1, 2]);
	const weight = sigmoid(3);
	assert.ok(Math.abs(seen.maps[1] - 8 * weight) < 1e-6);
	near(seen.attention.a.weights, [weight]);
	near(seen.attention.b.means, [6 * weight]);
	near(look(net, { pixels: red(2, 4), layer: "a" }).changed, [plainOf(3)]);
});

test("weights that are no whole network, and an image of another size, are refused", () => {
	assert.throws(
		() => network([1, 1], [conv(0, 3, 1)], 1, 1, 1, 1, 1),
		/weights of 10 bytes, not of 8/,
	);
	const net = network([1, 1], [conv(0, 3, 1)], 1, 1, 1, 1);
	assert.throws(() => forward(net, red(1, 2)), /an image of 6 bytes, not of 3/);
});

test("of questions that wait, the last alone is answered", () => {
	const frames = [];
	globalThis.requestAnimationFrame = (act) => frames.push(act);
	globalThis.cancelAnimationFrame = () => {};
	const description = {
		size: [1, 1],
		mean: [0, 0, 0],
		std: [1, 1, 1],
		layers: [
			IMAGE,
			{ op: "eca", from: [0], name: "a", k: 1, circular: false, order: null },
		],
		weights: halves(1),
	};
	const heard = [];
	const { ask, close } = crew({ one: description }, ([found], { looks }) =>
		heard.push([looks[0].pixels[0], found.plain.length]),
	);
	for (const value of [1, 2, 3])
		ask({ looks: [{ network: "one", pixels: red(value), layer: "a" }] });
	assert.deepEqual(heard, []);
	while (frames.length) frames.shift()();
	assert.deepEqual(heard, [
		[1, 3],
		[3, 3],
	]);
	close();
});
