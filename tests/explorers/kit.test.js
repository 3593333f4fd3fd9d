// What the kit computes without a page.

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import {
	bounded,
	minus,
	nearest,
	numberOf,
	palette,
	remember,
	scale,
	typed,
} from "../../eca_lab/explorers/kit.js";

const FOLDER = new URL("../../eca_lab/explorers/", import.meta.url);
const textOf = (name) => readFileSync(new URL(name, FOLDER), "utf8");

// The text of a module below those that it imports from, as explorer.py writes it.
const IMPORT = /^import \{[^}]*\} from "\.\/(\w+\.js)";\n/gm;
const glued = (name, texts = new Map()) => {
	for (const [, other] of textOf(name).matchAll(IMPORT))
		if (!texts.has(other)) glued(other, texts);
	texts.set(name, textOf(name).replaceAll(IMPORT, ""));
	return [...texts.values()].join("\n");
};

test("an explorer and what it imports from are one module when they are glued", async (t) => {
	const modules = readdirSync(FOLDER).filter((name) => /\.js$/.test(name));
	const explorers = modules.filter((name) =>
		textOf(name).includes("export default explorer("),
	);
	assert.equal(explorers.length, 5);
	for (const name of explorers)
		await t.test(name, async () => {
			const text = encodeURIComponent(glued(name));
			const { default: explorer } = await import(
				`data:text/javascript,${text}`
			);
			assert.equal(typeof explorer.render, "function");
		});
});

test("numbers are read as people write them", () => {
	const integers = { "1,000": 1000, "12 345": 12345, "1_000": 1000 };
	Object.assign(integers, { " 7 ": 7, "+7": 7, "−1,000": -1000 });
	for (const [text, value] of Object.entries(integers))
		assert.equal(numberOf(text, true), value, text);
	for (const text of ["1,5", "1.000", "1,00", "1,000_000", "", "0x10", "1e3"])
		assert.equal(numberOf(text, true), NaN, text);
	const numbers = { "0,5": 0.5, "−0.5": -0.5, ".5": 0.5, 2: 2 };
	for (const [text, value] of Object.entries(numbers))
		assert.equal(numberOf(text, false), value, text);
	for (const text of ["", "1,2,3", "x"])
		assert.equal(numberOf(text, false), NaN, text);
});

test("a scale maps values to pixels and back", () => {
	const x = scale(-1, 7, 68, 468);
	assert.deepEqual([x(-1), x(1), x(7)], [68, 168, 468]);
	assert.deepEqual([x.invert(68), x.invert(168), x.invert(468)], [-1, 1, 7]);
	assert.deepEqual(x.range, [68, 468]);
	const upward = scale(0, 10, 246, 46);
	assert.deepEqual([upward(0), upward(2.5), upward.invert(46)], [246, 196, 10]);
});

test("a palette passes from stop to stop", () => {
	const color = palette(["#000000", "#ff8000", "#0000ff"]);
	const channels = (share) =>
		[0, 8, 16].map((shift) => (color(share) >> shift) & 255);
	assert.deepEqual(channels(0), [0, 0, 0]);
	assert.deepEqual(channels(0.25), [127, 64, 0]);
	assert.deepEqual(channels(0.5), [255, 128, 0]);
	assert.deepEqual(channels(1), [0, 0, 255]);
	assert.equal(color(-3), color(0));
	assert.equal(color(3), color(1));
});

test("the nearest stop, the first of two", () => {
	assert.equal(nearest([1, 2, 4], 2.9), 2);
	assert.equal(nearest([1, 2, 4], 3), 2);
	assert.equal(nearest([1, 2, 4], 99), 4);
	assert.deepEqual(
		[-1, 5, 11].map((value) => bounded(value, 0, 10)),
		[0, 5, 10],
	);
});

test("a minus is one where a number follows", () => {
	assert.equal(
		minus("-1 (-2 to -0.5), p-value, a -b"),
		"−1 (−2 to −0.5), p-value, a -b",
	);
});

test("what is remembered is made anew for other arguments", () => {
	let made = 0;
	const count = remember((...args) => [++made, ...args]);
	assert.deepEqual(count("a", 1), [1, "a", 1]);
	assert.deepEqual(count("a", 1), [1, "a", 1]);
	assert.deepEqual(count("a", 2), [2, "a", 2]);
	assert.deepEqual(count("a", 1), [3, "a", 1]);
});

test("bytes that begin anywhere are numbers", () => {
	const bytes = new Uint8Array(12);
	bytes.set(new Uint8Array(Float32Array.of(0.5, -2).buffer), 3);
	const view = new DataView(bytes.buffer, 3, 8);
	assert.deepEqual([...typed(Float32Array, view)], [0.5, -2]);
});
