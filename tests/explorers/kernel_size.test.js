// psi, the runs of channels that share a kernel size, and the rows of the matrix.

import assert from "node:assert/strict";
import { test } from "node:test";
import { psi, row, runs } from "../../eca_lab/explorers/kernel_size.js";

test("psi is Equation 12", () => {
	const expected = { 1: 1, 16: 3, 64: 3, 127: 3, 256: 5, 512: 5, 2047: 5 };
	for (const [C, k] of Object.entries(expected))
		for (const ties of ["up", "down"])
			assert.equal(psi(Number(C), 2, 1, ties), k, `C = ${C}, ties go ${ties}`);
});

test("only ties depend on the way that they go", () => {
	for (const [C, up] of [
		[8, 3],
		[128, 5],
		[2048, 7],
	]) {
		assert.equal(psi(C, 2, 1, "up"), up);
		assert.equal(psi(C, 2, 1, "down"), up - 2);
		assert.equal(psi(C + 1, 2, 1, "down"), up);
	}
	assert.equal(psi(2, 1, -1, "down"), 1); // t = 0 is no tie: a kernel size is positive
	assert.equal(psi(2 ** 10, 0.1, 0, "up"), 101); // exactly 100, but for rounding
	assert.equal(psi(2 ** 10, 0.1, 0, "down"), 99);
});

test("runs share a kernel size and leave no channel out", () => {
	for (const [gamma, b] of [
		[2, 1],
		[1.5, -3],
		[4, 0],
	]) {
		const found = runs(gamma, b, "up");
		assert.equal(found[0].first, 1);
		for (const [i, { first, last, k }] of found.entries()) {
			assert.equal(psi(first, gamma, b, "up"), k);
			assert.equal(psi(last, gamma, b, "up"), k);
			assert.notEqual(psi(last + 1, gamma, b, "up"), k);
			if (i) assert.equal(first, found[i - 1].last + 1);
		}
		assert.ok(found.at(-1).last >= 8192);
	}
	const { first, last } = runs(2, 1, "up").find(({ k }) => k === 5);
	assert.deepEqual([first, last], [128, 2047]);
});

test("a row ends where the channels end", () => {
	assert.deepEqual(row(5, 256, 5), [3, 7, 1]);
	assert.deepEqual(row(1, 256, 5), [1, 3, 3]);
	assert.deepEqual(row(256, 256, 5), [254, 256, 1]);
	assert.deepEqual(row(2, 4, 7), [1, 4, 3]);
});
