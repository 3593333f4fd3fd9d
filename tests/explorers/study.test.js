// Pairs, verdicts and sentences of a study. That they equal Python's is in test_browser.py.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
	compared,
	conclusions,
	equivalent,
	filled,
	verdicts,
} from "../../eca_lab/explorers/study.js";

const row = (arm, margins, more = {}) => ({
	arm,
	fixed: null,
	pairs: [{}],
	difference: 0.05,
	p: 1,
	margins,
	...more,
});
const ROWS = [
	row("a", [0.1, 0.15, 0.18]),
	row("b", [0.12, 0.17, 0.25], { fixed: 3, difference: -0.05 }),
	row("c", [0.19, 0.3, 0.4], { fixed: 5 }),
];

test("equivalence is adjusted by Holm's steps", () => {
	const shown = (margin, rows = ROWS) =>
		[...equivalent(rows, margin)].map(({ arm }) => arm).join("");
	assert.equal(shown(0.16), ""); // a and b would be alone
	assert.equal(shown(0.18), ""); // a margin at which p is at the level itself
	assert.equal(shown(0.181), "ab"); // a of three tests, then b of two
	assert.equal(shown(0.2), "abc");
	const unknown = row("d", []); // without a spread there is no test to adjust for
	assert.equal(shown(0.181, [unknown, ...ROWS]), "ab");
	assert.equal(shown(0.16, ROWS.slice(0, 2)), "ab"); // of two tests
	assert.equal(shown(5, []), "");
});

test("a difference that is shown comes before equivalence", () => {
	const p = 0.01;
	const rows = [
		...ROWS,
		row("d", [0.1, 0.1, 0.1, 0.1, 0.1], { p, difference: 0.05 }),
		row("e", [9, 9, 9, 9, 9], { p, difference: -1 }),
		row("f", [], { p: NaN }),
		row("g", [], { p: NaN, pairs: [] }),
	];
	const words = [
		"undecided",
		"undecided",
		"undecided",
		"better",
		"worse",
		"undecided",
		"no pair",
	];
	assert.deepEqual(verdicts(rows, 0.11, 0.05), words);
});

test("pairs have a seed in common, and the way of computing", () => {
	const numbers = Float64Array.of(
		NaN,
		NaN,
		NaN,
		NaN,
		NaN,
		0.5,
		0.1,
		0.9,
		0.04,
		0.2,
	);
	const setting = {
		arms: { eca: null, "eca(k=3)": 3 },
		trials: {
			arm: [...Array(4).fill("eca"), ...Array(4).fill("eca(k=3)")],
			seed: [0, 1, 2, 3, 0, 1, 2, 4],
			top1: [60, 61, null, 63, 60.5, 62, 63, 64],
			device: ["cpu", "cpu", "cpu", "cpu", "cpu", "cuda", "cpu", "cpu"],
			precision: Array(8).fill(null),
			path: Array(8).fill(null),
		},
		compared: { top1: { eca: { numbers: new DataView(numbers.buffer) } } },
	};
	const [own, other] = compared(setting, "top1", "eca", { 1: [3, 6] });
	assert.deepEqual([own.pairs, own.margins], [[], []]);
	assert.deepEqual(own.values, [60, 61, 63]);
	assert.deepEqual(other.pairs, [{ seed: 0, i: 4, other: 0, difference: 0.5 }]);
	assert.deepEqual([other.fixed, other.p], [3, 0.04]);
	assert.deepEqual(
		other.margins.map((margin) => margin.toFixed(6)),
		["1.100000", "1.700000"],
	);
});

test("sentences are filled with what is known, and with what the margin says", () => {
	assert.equal(
		filled("{a} of {b}{c}.", { a: 1, b: "$& {a}", c: "" }),
		"1 of $& {a}.",
	);
	const sentences = {
		fixed: "Fixed k against {baseline}: {verdicts}{slope}.",
		others: "Others: {verdicts}.",
		power: "Within {margin}: {equivalent} of {known}.",
		left_out: "Left out: {seeds}.",
	};
	const facts = {
		fixed: { baseline: "eca", verdicts: "", slope: "; rising" },
		others: { verdicts: "" },
		power: { margin: "0.2", equivalent: "3", known: "3" },
		left_out: { seeds: "1 of se" },
	};
	assert.deepEqual(
		conclusions(facts, ROWS, 0.181, { sentences, level: 0.05 }),
		[
			"Fixed k against eca: equivalent b (-0.05); undecided c (+0.05); rising.",
			"Others: equivalent a (+0.05).",
			"Within 0.181: 2 of 3.",
			"Left out: 1 of se.",
		],
	);
	const none = conclusions({ others: facts.others }, ROWS.slice(1), 1, {
		sentences,
		level: 0.05,
	});
	assert.deepEqual(none, ["Others: none."]);
});
