// ECA and SE by channel, the kernel of another size, and what a state is compared with.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
	compared,
	fits,
	heard,
	point,
	reach,
	resized,
	sigmoid,
	sums,
} from "../../eca_lab/explorers/module.js";

const named = (count) => Array.from({ length: count }, (_, i) => i + 1);
const se = {
	fc1: [
		[1, 0, 2, 0],
		[-1, -1, -1, 0],
	],
	fc2: [
		[1, 5],
		[2, 5],
		[0, 5],
		[-1, 5],
	],
};
const given = {
	se,
	step: 0.05,
	adaptive: 3,
	limits: { average: [0, 2], weight: [-2, 2] },
	sizes: [1, 3],
	initial: { order: named(4) },
};
const state = {
	averages: [1, 2, 0.5, 0],
	kernel: [0.5, 1, -1],
	order: named(4),
	channel: 2,
};

test("ECA hears the kernel's channels, and zeros beyond the ends", () => {
	assert.deepEqual(heard(0, state), [
		[0.5, null],
		[1, 1],
		[-1, 2],
	]);
	assert.deepEqual(sums(state, se).eca, [-1, 2, 1.5, 0.25]);
	assert.equal(sigmoid(0), 0.5);
});

test("ECA meets the channels in their order, SE by their numbers", () => {
	const order = [3, 1, 4, 2];
	const shuffled = sums({ ...state, order }, se);
	assert.deepEqual(shuffled.eca, [1.25, 2, -0.5, -1.5]);
	assert.deepEqual(shuffled.se, sums(state, se).se);
});

test("SE's hidden units pass a ReLU", () => {
	const { hidden, se: logits } = sums(state, se);
	assert.deepEqual(hidden, [2, 0]);
	assert.deepEqual(logits, [2, 4, 0, -2]);
});

test("an average moves the weights that hear it, down where it cannot go up", () => {
	assert.deepEqual(reach(state, given), [3, 0]); // of SE: its second unit is off
	assert.deepEqual(reach({ ...state, channel: 1 }, given), [2, 3]);
	assert.deepEqual(reach({ ...state, kernel: [0, 1, 0] }, given), [1, 0]);
	assert.deepEqual(reach({ ...state, kernel: [0, 0, 0] }, given), [0, 0]);
});

test("a kernel keeps its middle in another size", () => {
	assert.deepEqual(resized([0.1, 0.5, 1, 0.6, 0.2], 3), [0.5, 1, 0.6]);
	assert.deepEqual(resized([0.5, 1, -0.5], 3), [0.5, 1, -0.5]);
	assert.deepEqual(resized([0.5, 1, -0.5], 1), [1]);
	assert.deepEqual(
		resized([0.5, 1, -0.5], 7),
		[0.1, 0.25, 0.5, 1, -0.5, -0.25, -0.1],
	);
	assert.ok(resized([-0.05], 3).every((weight) => !Object.is(weight, -0)));
});

test("a state is compared with the one before what was moved last", () => {
	const at = (i, value) => ({
		...state,
		averages: state.averages.with(i, value),
	});
	const one = compared(null, state, at(0, 1.5));
	assert.deepEqual(one, { kind: 1, state });
	assert.equal(compared(one, at(0, 1.5), at(0, 1.7)).state, state);
	const pointed = { ...at(0, 1.7), channel: 1 };
	assert.equal(compared(one, at(0, 1.7), pointed), one);
	const other = { ...pointed, averages: pointed.averages.with(3, 2) };
	assert.deepEqual(compared(one, pointed, other), { kind: 4, state: pointed });
	const kernel = { ...state, kernel: [1] };
	assert.deepEqual(compared(one, state, kernel), { kind: "kernel", state });
	assert.equal(compared(one, at(0, 1.7), state), null); // all as it was
	assert.equal(compared(null, state, { ...other, kernel: [1] }), null);
	assert.equal(
		compared(null, state, { ...state, averages: [0, 0, 0, 0] }),
		null,
	);
});

test("only states that can be are drawn", () => {
	assert.ok(fits(state, given));
	for (const wrong of [
		{ averages: [1, 2, 3, 0] },
		{ averages: [1, 2, 0] },
		{ averages: [1, 2, "0", 0] },
		{ averages: [1, 2, Number.NaN, 0] },
		{ averages: 1 },
		{ kernel: [1, 1] },
		{ kernel: [3] },
		{ kernel: "1" },
		{ order: [1, 2, 3, 3] },
		{ order: [1, 2, 3] },
		{ order: null },
		{ channel: 0 },
		{ channel: 1.5 },
		{ channel: "1" },
	])
		assert.ok(!fits({ ...state, ...wrong }, given), JSON.stringify(wrong));
});

test("a state says its point", () => {
	const says = (changes, words) =>
		assert.match(point({ ...state, ...changes }, given), words);
	says({}, /^k = 3 is what Equation 12 gives 4 channels/);
	says({ kernel: [1] }, /^k = 1 hears nobody/);
	says({ channel: 4 }, /of its 3 numbers channel 4 hears 1 as 0/);
	says({ averages: [1, 1, 1, 1], kernel: [1, 1, 1] }, /alike, but 2 weights/);
	says({ order: [3, 1, 4, 2] }, /^Shuffled: .* 3 of 4 channels/);
	says({ order: [2, 1, 4, 3], kernel: [1] }, /^Shuffled: .* 0 of 4 channels/);
	assert.match(point(state, { ...given, adaptive: 5 }), /k = 5; this is k = 3/);
});
