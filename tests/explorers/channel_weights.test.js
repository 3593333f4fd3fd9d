// What the page makes of the recorded weights.

import assert from "node:assert/strict";
import { test } from "node:test";
import { decode } from "../../eca_lab/explorers/channel_weights.js";

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
