// The sizes of the three modules, their costs, and what a row hears.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
	costs,
	hears,
	lowered,
	nearestRecorded,
	wanted,
} from "../../eca_lab/explorers/reduction.js";

const STATE = {
	channels: 64,
	reduction: 16,
	kernel_size: 9,
	groups: 16,
	seed: 0,
	weights: "random",
};
const settled = (...asked) => lowered(wanted(...asked));
const LAYERS = { layer3: { channels: 32, reduction: 8, kernel_size: 5 } };

test("fewer channels lower what they have no room for", () => {
	const { reduction, kernel_size, groups } = settled(
		STATE,
		{ channels: 8 },
		{},
	);
	assert.deepEqual([reduction, kernel_size, groups], [8, 7, 8]);
	assert.equal(settled(STATE, { channels: 60 }, {}).groups, 15); // which divides 60
});

test("a trained layer has sizes, other sizes are random", () => {
	const trained = settled(STATE, { weights: "layer3" }, LAYERS);
	assert.deepEqual(trained, { ...STATE, ...LAYERS.layer3, weights: "layer3" });
	assert.equal(settled(trained, { seed: 7 }, LAYERS).weights, "layer3");
	assert.equal(settled(trained, { reduction: 4 }, LAYERS).weights, "random");
});

test("a page without a kernel goes to what is recorded, nearest in what was changed", () => {
	const wide = { ...STATE, channels: 256, kernel_size: 5 };
	const trained = { ...STATE, ...LAYERS.layer3, weights: "layer3" };
	const recorded = [STATE, { ...STATE, reduction: 4 }, wide, trained];
	const near = (state, changes) =>
		nearestRecorded({ ...state, ...changes }, Object.keys(changes), recorded);
	for (const state of recorded)
		assert.equal(nearestRecorded(state, ["seed"], recorded), state);
	assert.equal(near(wide, { reduction: 4 }), recorded[1]); // though of other channels
	assert.equal(near(STATE, { channels: 200 }), wide);
	assert.equal(near(STATE, { channels: 32 }), STATE); // not the trained layer of 32
	assert.equal(near(STATE, { weights: "layer3" }), trained);
	assert.equal(near(trained, { weights: "random" }).weights, "random");
});

test("costs count weights", () => {
	assert.deepEqual(
		costs({ channels: 64, reduction: 16, kernel_size: 3, groups: 16 }),
		{
			hidden: 4,
			width: 4,
			parameters: [512, 256, 3],
			multiplyAdds: [512, 256, 192],
		},
	);
	assert.equal(costs({ ...STATE, reduction: 65 }).parameters[0], 0);
});

test("a row hears its entries, the strongest first", () => {
	const row = Int16Array.of(-3, 0, 1, 9, 0, 2);
	assert.deepEqual(hears(row), [
		4,
		[
			[4, 9],
			[1, -3],
			[6, 2],
		],
	]);
	assert.deepEqual(hears(new Int16Array(3)), [0, []]);
});
