// What the page makes of the recorded weights.

import assert from "node:assert/strict";
import { test } from "node:test";
import { decode, recall } from "../../eca_lab/explorers/channel_weights.js";

const view = (numbers) => new DataView(numbers.buffer);

test("weights are bytes of images x channels, with a mean of each class", () => {
	const bytes = Uint8Array.of(0, 255, 51, 51, 102, 204); // 3 images, 2 channels
	const { C, at, means } = decode(new DataView(bytes.buffer), [1, 2]);
	assert.equal(C, 2);
	assert.deepEqual([at(0, 1), at(1, 0), at(2, 1)], [1, 0.2, 0.8]);
	assert.deepEqual([...means[0]], [0, 1]);
	assert.deepEqual(
		[...means[1]].map((mean) => mean.toFixed(6)),
		["0.300000", "0.500000"],
	);
});

test("weights lie between the limits that Python told", () => {
	const { at, means } = decode(view(Uint8Array.of(0, 255)), [2], [-1, 4]);
	assert.deepEqual([at(0, 0), at(1, 0)], [-1, 4]);
	assert.deepEqual([...means[0]], [1.5]);
});

test("a page without a kernel recalls what was recorded of every state", () => {
	// 2 images, of which the second has maps of 1 x 2 cells; 2 classes have a bar.
	const layer = (C, more) => ({
		weights: view(Uint8Array.of(...Array(2 * C).fill(255))),
		limits: [0, 1],
		size: [1, 2],
		map: view(Int8Array.from({ length: 2 * C }, (_, i) => i - 1)),
		...more,
	});
	const bars = {
		classes: view(Int32Array.of(0, 1, 7, 2)),
		plain: view(Float32Array.of(0.25, 0.75, 0.5, 0.125)),
		changed: view(Float32Array.of(1, 0, 0.5, 0.25)),
	};
	const answered = recall({
		recorded: [[layer(1, bars), layer(3, {})]],
		mapped: [1],
		networks: [
			[
				"net",
				[
					["a", 1],
					["", 3],
				],
			],
		],
		counts: [1, 1],
	});
	const state = { network: "net", layer: "a", image: 1, channel: 0, factor: 1 };
	const first = answered(state);
	assert.deepEqual(
		[first.asked, first.fresh, first.limits],
		[state, true, [0, 1]],
	);
	assert.deepEqual(first.classes, [7, 2]);
	assert.deepEqual(
		[first.plain, first.changed],
		[
			[0.5, 0.125],
			[0.5, 0.25],
		],
	);
	assert.deepEqual([...first.map], [-1, 0]);
	const other = answered({ ...state, image: 0 });
	assert.deepEqual(
		[other.classes, other.plain, other.map],
		[[0, 1], [0.25, 0.75], null],
	);
	const deep = answered({ ...state, layer: "", channel: 2 });
	assert.deepEqual([[...deep.map], deep.classes], [[3, 4], []]);
});
