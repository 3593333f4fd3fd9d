// What the board makes of strokes and pictures. test_network.py draws on it in a page.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
	averaged,
	covered,
	coverInside,
	coverLine,
} from "../../eca_lab/explorers/board.js";

const empty = () => new Float64Array(32 * 32);
const sum = (cover) => cover.reduce((all, share) => all + share, 0);
const near = (found, expected, by = 1e-9) =>
	assert.ok(Math.abs(found - expected) < by, `${found}, not ${expected}`);

test("a line covers its width, and the middle of it wholly", () => {
	const cover = empty();
	coverLine(cover, [8, 16], [24, 16], 4);
	near(sum(cover), 16 * 4 + Math.PI * 2 ** 2, 1); // with round ends
	assert.equal(cover[15 * 32 + 16], 1);
	assert.equal(cover[16 * 32 + 16], 1);
	assert.equal(cover[20 * 32 + 16], 0);
	const before = Float64Array.from(cover);
	coverLine(cover, [8, 16], [24, 16], 4); // once more covers no more
	assert.deepEqual(cover, before);
});

test("a dot is a line from a point to itself", () => {
	const cover = empty();
	coverLine(cover, [16, 16], [16, 16], 6);
	near(sum(cover), Math.PI * 3 ** 2, 1);
});

test("what points go round is covered, cells at its edge by their share", () => {
	const cover = empty();
	coverInside(cover, [
		[2.25, 3],
		[10, 3],
		[10, 8.5],
		[2.25, 8.5],
	]);
	near(sum(cover), 7.75 * 5.5);
	near(cover[4 * 32 + 2], 0.75);
	near(cover[8 * 32 + 5], 0.5);
	assert.equal(cover[4 * 32 + 5], 1);
	assert.equal(cover[4 * 32 + 10], 0);
});

test("a star of one stroke is covered in its middle, too", () => {
	const points = [0, 2, 4, 1, 3].map((corner) => {
		const angle = (2 * Math.PI * corner) / 5;
		return [16 + 12 * Math.sin(angle), 16 - 12 * Math.cos(angle)];
	});
	const cover = empty();
	coverInside(cover, points);
	assert.equal(cover[16 * 32 + 16], 1);
	// The area of the pentagram that has corners on a circle of radius 1 is 1.1226.
	near(sum(cover), 144 * 1.12257, 1);
});

test("what is beyond the board is not covered, nor what has no inside", () => {
	const cover = empty();
	coverInside(cover, [
		[-10, 30],
		[50, 30],
		[50, 40],
		[-10, 40],
	]);
	near(sum(cover), 32 * 2);
	const none = empty();
	coverInside(none, [[5, 5]]);
	coverInside(none, []);
	assert.equal(sum(none), 0);
});

test("a color is mixed in as far as a cell is covered", () => {
	const image = new Uint8Array(32 * 32 * 3).fill(100);
	const cover = empty();
	[cover[0], cover[1]] = [1, 0.25];
	const found = covered(image, cover, [200, 0, 104]);
	assert.deepEqual(
		[...found.slice(0, 9)],
		[200, 0, 104, 125, 75, 101, 100, 100, 100],
	);
	assert.equal(image[0], 100);
});

test("a picture is averaged over the area of each cell", () => {
	for (const n of [1, 16, 32, 48, 96, 100]) {
		const pixels = new Uint8ClampedArray(4 * n * n);
		for (let i = 0; i < n * n; i++) {
			const [x, y] = [i % n, Math.floor(i / n)];
			pixels.set(
				[(255 * (x + 0.5)) / n, (255 * (y + 0.5)) / n, 77, 255],
				4 * i,
			);
		}
		const image = averaged(pixels, n);
		for (const [cell, channel] of [
			[0, 2],
			[1023, 2],
		])
			assert.equal(image[3 * cell + channel], 77);
		if (n < 32) continue;
		for (const place of [0, 13, 31]) {
			near(image[3 * (32 * 5 + place)], (255 * (place + 0.5)) / 32, 1.5);
			near(image[3 * (32 * place + 5) + 1], (255 * (place + 0.5)) / 32, 1.5);
		}
	}
});

test("an average keeps the shares of pixels that two cells have in common", () => {
	const n = 48; // three pixels for two cells
	const pixels = new Uint8ClampedArray(4 * n * n);
	for (let i = 0; i < n * n; i++)
		if (i % n === 1) pixels.set([240, 0, 0, 255], 4 * i);
	const image = averaged(pixels, n);
	// Half of the second column is in the first cell, of one and a half pixels.
	assert.deepEqual([image[0], image[3], image[6]], [80, 80, 0]);
});
