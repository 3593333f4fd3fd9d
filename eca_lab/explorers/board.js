// A board of 32 x 32 cells to draw on, by the mouse, a finger or keys, and to drop pictures on.
// An image is the bytes of (32, 32, 3); a cover is a share of each cell, (32, 32).

import {
	ARROWS,
	block,
	bounded,
	button,
	drag,
	html,
	newId,
	onKeys,
	paint,
	pixel,
	set,
	status,
	upTo,
	write,
} from "./kit.js";

const CELLS = 32;
const PAPER = [120, 120, 120]; // as bright as the backgrounds of `shapes`: white and black are unlike all of them
const COLORS = {
	orange: [220, 150, 60],
	red: [200, 60, 50],
	yellow: [230, 210, 90],
	green: [70, 150, 80],
	blue: [60, 90, 180],
	purple: [130, 80, 160],
	white: [255, 255, 255],
	black: [0, 0, 0],
	"grey, as the paper": PAPER,
};
const MOST_BYTES = 20e6; // of a picture's file
const MOST_PIXELS = 50e6; // of a picture
const MOST_UNDONE = 50;
const FINE = 8; // lines that are looked at in each row of cells

// Adds to a cover the line between two points [x, y], so wide.
export function coverLine(cover, [x0, y0], [x1, y1], width) {
	const [dx, dy] = [x1 - x0, y1 - y0];
	const length = dx * dx + dy * dy || 1;
	for (let i = 0; i < cover.length; i++) {
		const [x, y] = [(i % CELLS) + 0.5 - x0, Math.floor(i / CELLS) + 0.5 - y0];
		const along = bounded((x * dx + y * dy) / length, 0, 1);
		const distance = Math.hypot(x - along * dx, y - along * dy);
		const share = bounded(0.5 + width / 2 - distance, 0, 1);
		if (share > cover[i]) cover[i] = share;
	}
}

// Adds to a cover what points [x, y] go round, the last joined to the first; where their line crosses itself, too.
export function coverInside(cover, points) {
	const inside = new Float64Array(CELLS * CELLS);
	for (let line = 0; line < CELLS * FINE; line++) {
		const y = (line + 0.5) / FINE;
		const crossings = points.flatMap(([x0, y0], i) => {
			const [x1, y1] = points[(i + 1) % points.length];
			if (y0 > y === y1 > y) return [];
			return [[x0 + ((y - y0) / (y1 - y0)) * (x1 - x0), y1 > y0 ? 1 : -1]];
		});
		crossings.sort(([a], [b]) => a - b);
		const row = CELLS * Math.floor(line / FINE);
		let turns = 0;
		for (const [i, [x, turn]] of crossings.entries()) {
			if (turns) {
				const from = bounded(crossings[i - 1][0], 0, CELLS);
				const to = bounded(x, 0, CELLS);
				for (let cell = Math.floor(from); cell < to; cell++)
					inside[row + cell] +=
						(Math.min(to, cell + 1) - Math.max(from, cell)) / FINE;
			}
			turns += turn;
		}
	}
	for (const [i, share] of inside.entries())
		if (share > cover[i]) cover[i] = share;
}

// An image in a color, as far as it is covered.
export const covered = (image, cover, color) =>
	image.map((value, i) =>
		Math.round(
			value + (color[i % 3] - value) * Math.min(cover[Math.floor(i / 3)], 1),
		),
	);

// The image of a square of n x n pixels of four bytes: each cell is the mean over its area.
export function averaged(pixels, n) {
	// [pixel, share] of those under each cell, along a side.
	const under = upTo(CELLS).map((cell) => {
		const [from, to] = [(cell * n) / CELLS, ((cell + 1) * n) / CELLS];
		const [first, count] = [Math.floor(from), Math.ceil(to) - Math.floor(from)];
		return upTo(count).map((i) => {
			const [low, high] = [first + i, first + i + 1];
			return [low, (Math.min(high, to) - Math.max(low, from)) / (to - from)];
		});
	});
	const image = new Uint8Array(CELLS * CELLS * 3);
	for (const [row, downs] of under.entries())
		for (const [column, rights] of under.entries())
			for (const channel of [0, 1, 2]) {
				let sum = 0;
				for (const [y, high] of downs)
					for (const [x, wide] of rights)
						sum += high * wide * pixels[4 * (y * n + x) + channel];
				image[3 * (row * CELLS + column) + channel] = Math.round(sum);
			}
	return image;
}

const titled = ({ name }) => name || "The picture";

// The image of a picture's file: its middle square. Throws an Error that says what is accepted.
async function pictured(file) {
	const name = titled(file);
	if (file.size > MOST_BYTES) {
		const megabytes = (file.size / 1e6).toFixed(0);
		throw Error(
			`${name} has ${megabytes} MB: accepted are pictures up to ${MOST_BYTES / 1e6} MB.`,
		);
	}
	const [picture, url] = [new Image(), URL.createObjectURL(file)];
	try {
		await new Promise((done, fail) => {
			picture.onload = done; // its size is known then; browsers decode what is drawn
			picture.onerror = fail;
			picture.src = url;
		}).catch(() => {
			throw Error(
				`${name} is no picture that this browser reads: accepted are PNG, JPEG, GIF and WebP.`,
			);
		});
		const { naturalWidth: width, naturalHeight: height } = picture;
		if (!width || !height || width * height > MOST_PIXELS)
			throw Error(
				`${name} has ${width} × ${height} pixels: accepted are 1 to ${MOST_PIXELS / 1e6} million.`,
			);
		const side = Math.min(width, height);
		const n = Math.min(side, 1024); // of larger ones the browser's own shrinking is near enough
		const canvas = html("canvas", { width: n, height: n });
		const context = canvas.getContext("2d", { willReadFrequently: true });
		context.imageSmoothingQuality = "high";
		context.fillStyle = `rgb(${PAPER})`; // below what is transparent
		context.fillRect(0, 0, n, n);
		const corner = [(width - side) / 2, (height - side) / 2];
		context.drawImage(picture, ...corner, side, side, 0, 0, n, n);
		return averaged(context.getImageData(0, 0, n, n).data, n);
	} finally {
		URL.revokeObjectURL(url);
	}
}

// A board within a root that takes pictures wherever they are dropped or pasted. hear(image) is called at most once a
// frame with what is drawn, null if nothing is; show(image) draws one.
export function board(root, hear) {
	const paper = Uint8Array.from(
		{ length: CELLS * CELLS * 3 },
		(_, i) => PAPER[i % 3],
	);
	let [image, past, heard, frame] = [paper, [], paper, 0];
	let [color, fills, width] = [COLORS.orange, true, 4];
	let [points, cover] = [[], null]; // of the stroke that is being drawn
	let cursor = [CELLS / 2, CELLS / 2]; // the cell that keys paint
	const [mark, told, hintId] = [block("cursor"), status("told"), newId()];
	const canvas = html("canvas", {
		tabindex: 0,
		role: "application",
		"aria-describedby": hintId,
	});
	const undoer = button("Undo", undo);

	function redraw() {
		if (frame) return;
		frame = requestAnimationFrame(() => {
			frame = 0;
			const shown = points.length ? drawn() : image;
			paint(canvas, CELLS, CELLS, (i) =>
				pixel(shown.subarray(3 * i, 3 * i + 3)),
			);
			const [x, y] = cursor.map((cell) => (100 * cell) / CELLS);
			set(mark, { style: `left: ${x}%; top: ${y}%` });
			set(canvas, {
				"aria-label": `Board of ${CELLS} × ${CELLS} cells, at column ${cursor[0] + 1}, row ${cursor[1] + 1}`,
			});
			undoer.disabled = !past.length;
			if (same(shown, heard)) return;
			heard = shown;
			hear(same(shown, paper) ? null : shown);
		});
	}
	const same = (one, other) => one.every((value, i) => value === other[i]);
	// The image with the stroke.
	function drawn() {
		if (!fills) return covered(image, cover, color);
		const inside = Float64Array.from(cover);
		coverInside(inside, points);
		return covered(image, inside, color);
	}
	// Another image, which can be undone; words tell what it is.
	function show(next, words = "") {
		if (!same(next, image)) past = [...past, image].slice(-MOST_UNDONE);
		image = next;
		write(told, words);
		redraw();
	}
	function undo() {
		restore({ image: past.at(-1) ?? image, past: past.slice(0, -1) });
	}
	// A stroke goes on to a point, or begins there.
	function draw(point) {
		cover ??= new Float64Array(CELLS * CELLS);
		coverLine(cover, points.at(-1) ?? point, point, fills ? 1 : width);
		points.push(point);
		redraw();
	}
	function lift() {
		if (points.length) show(drawn());
		[points, cover] = [[], null];
	}
	const state = () => ({ image, past });
	function restore(before) {
		({ image, past } = before);
		write(told, "");
		redraw();
	}
	function move(x, y) {
		const side = canvas.clientWidth / CELLS;
		draw([x / side, y / side]);
	}
	drag({ state, restore }, canvas, move, lift);

	onKeys(canvas, ARROWS, (step) => {
		cursor = cursor.map((cell, i) => bounded(cell + step[i], 0, CELLS - 1));
		redraw();
	});
	onKeys(canvas, { " ": null, Enter: null }, () => {
		const point = cursor.map((cell) => cell + 0.5);
		const dot = new Float64Array(CELLS * CELLS);
		coverLine(dot, point, point, width);
		show(covered(image, dot, color));
	});
	root.addEventListener("keydown", (event) => {
		const own = canvas.parentNode?.contains(event.target);
		if (!own || event.key !== "z" || !(event.ctrlKey || event.metaKey)) return;
		event.preventDefault();
		event.stopPropagation(); // JupyterLab would undo in its cells
		undo();
	});

	async function take(file) {
		try {
			show(await pictured(file), `${titled(file)}: its middle square.`);
		} catch (error) {
			write(told, error.message);
		}
	}
	// Pictures are taken wherever they are dropped, or the page would be left for them.
	const brought = ({ dataTransfer }) => dataTransfer?.types.includes("Files");
	root.addEventListener("dragover", (event) => {
		if (brought(event)) event.preventDefault();
	});
	root.addEventListener("drop", (event) => {
		if (!brought(event)) return;
		event.preventDefault();
		event.stopPropagation();
		const [file] = event.dataTransfer.files;
		if (file) take(file);
	});
	root.addEventListener("paste", ({ clipboardData }) => {
		const [file] = clipboardData.files;
		if (file) take(file);
	});
	const chooser = html("input", {
		type: "file",
		accept: "image/*",
		hidden: true,
		onchange() {
			const [file] = chooser.files;
			if (file) take(file);
			chooser.value = ""; // so that the same can be chosen again
		},
	});

	// Buttons of which one is pressed.
	const group = (label, options, act) => {
		const press = (value) => {
			act(value);
			for (const [each, of] of buttons)
				set(each, { "aria-pressed": String(of === value) });
		};
		const buttons = options.map(([words, value, others]) => [
			button(words, () => press(value), others),
			value,
		]);
		press(options[0][1]);
		const nodes = buttons.map(([each]) => each);
		return html(
			"div",
			{ class: "buttons", role: "group", "aria-label": label },
			nodes,
		);
	};
	const tools = [
		["Fill", true, { title: "fills what you go round" }],
		["Line", false, { title: "draws a line" }],
	];
	const colors = Object.entries(COLORS).map(([name, rgb]) => {
		const style = `background: rgb(${rgb})`;
		return [
			"",
			rgb,
			{ style, title: name, "aria-label": name, class: "color" },
		];
	});
	const range = html("input", {
		type: "range",
		min: 1,
		max: 8,
		step: 0.5,
		oninput: () => {
			width = +range.value;
		},
	});
	range.value = width;
	const hint = html(
		"div",
		{ class: "hint", id: hintId },
		"Go round a shape, and it is filled: a star, a heart. For a ring, draw a line. Or drop a picture. By keys: arrows move, Space paints.",
	);
	const choose = (value) => {
		fills = value;
	};
	const dye = (value) => {
		color = value;
	};
	const node = block(
		"board",
		block("sheet", canvas, mark),
		group("color", colors, dye),
		group("tool", tools, choose),
		html("label", { class: "row" }, "line width", range),
		block(
			"buttons",
			undoer,
			button("Clear", () => show(paper)),
			button("Picture…", () => chooser.click()),
			chooser,
		),
		hint,
		told,
	);
	redraw();
	return { node, show: (next) => show(Uint8Array.from(next)) };
}
