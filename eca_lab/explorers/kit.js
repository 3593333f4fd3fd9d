// The kit of the explorers: elements, a state shared with Python, controls and pictures.
// Python puts it, and all else that is imported, before an explorer's own text, in one ES module, because a page can
// fetch nothing, and strips the imports: no name may be declared in two files, and none be imported as another.
// What people name (classes, networks, errors) becomes text nodes and never markup.

const build = (node, attributes, children) => {
	for (const [name, value] of Object.entries(attributes)) {
		if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
		else if (value === null || value === false) node.removeAttribute(name);
		else if (node.getAttribute(name) !== String(value))
			node.setAttribute(name, value);
	}
	node.append(...children.flat(Infinity));
	return node;
};
export const html = (tag, attributes = {}, ...children) =>
	build(document.createElement(tag), attributes, children);
export const svg = (tag, attributes = {}, ...children) =>
	build(
		document.createElementNS("http://www.w3.org/2000/svg", tag),
		attributes,
		children,
	);
export const set = (node, attributes) => build(node, attributes, []);
export function write(node, text) {
	if (node.textContent !== text) node.textContent = text;
}
// Like `write`, for what a control holds.
export function enter(control, value) {
	if (control.value !== String(value)) control.value = value;
}
// Gives a node the attributes and children of another of its kind.
function become(node, { attributes, childNodes }) {
	for (const name of node.getAttributeNames())
		if (!attributes.getNamedItem(name)) node.removeAttribute(name);
	for (const { name, value } of attributes) set(node, { [name]: value });
	fill(node, ...childNodes);
}
// Gives a node these children. What stands there already stays, changed where it differs: new nodes cost a layout.
export function fill(node, ...children) {
	const fresh = children
		.flat(Infinity)
		.map((each) => (typeof each === "string" ? new Text(each) : each));
	for (const [i, child] of fresh.entries()) {
		const old = node.childNodes[i];
		if (!old) node.append(child);
		else if (old.isEqualNode(child)) continue;
		else if (old.nodeName !== child.nodeName || child instanceof Text)
			old.replaceWith(child);
		else become(old, child);
	}
	while (node.childNodes.length > fresh.length) node.lastChild.remove();
}
export const block = (name, ...children) =>
	html("div", { class: name }, ...children);
export const status = (name = "") =>
	html("div", { class: name, role: "status" }); // read aloud when it changes
export const bad = () => html("div", { class: "bad", "aria-live": "polite" }); // so is this
export const path = (name, d, others = {}) =>
	svg("path", { class: name, d, ...others });
export const button = (words, act, others = {}) =>
	html("button", { type: "button", onclick: act, ...others }, words);
export const tableRow = (tag, cells) =>
	html(
		"tr",
		{},
		cells.map((cell) => html(tag, {}, cell)),
	);

// Like no other on the page, where each explorer has a kit of its own.
export const newId = () => `eca-lab-${Math.random().toString(36).slice(2)}`;

// --- Numbers and words ---

export const upTo = (count) => Array.from({ length: count }, (_, i) => i);
export const bounded = (value, low, high) =>
	Math.min(Math.max(value, low), high);
export const nearest = (stops, value) =>
	stops.reduce((a, b) => (Math.abs(b - value) < Math.abs(a - value) ? b : a));
export const { format: grouped } = new Intl.NumberFormat("en-US", {
	maximumFractionDigits: 3,
});
export const minus = (text) => String(text).replace(/(^|[ (])-(?=\d)/g, "$1−");
// The same function, which remembers what it returned last, and for what.
export function remember(make) {
	let before;
	let value;
	return (...args) => {
		if (args.some((each, i) => each !== before?.[i])) {
			value = make(...args);
			before = args;
		}
		return value;
	};
}
// Bytes of Python as numbers: copied, because they need not begin at a multiple of 4.
export const typed = (Type, { buffer, byteOffset, byteLength }) =>
	new Type(buffer.slice(byteOffset, byteOffset + byteLength));

// --- State ---

// What Python tells, as a text but for a page of eca_lab.site, which has read it.
export const bytes = (text) =>
	Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const revive = (_, value) =>
	typeof value?.base64 === "string" ? bytes(value.base64) : value;
const read = (told) =>
	typeof told === "string" ? JSON.parse(told, revive) : told;

// What anywidget renders: make(view) gives the nodes of the headline, the main controls, the picture, the other
// controls and the readout; draw(state), which is called at most once a frame; and fits(state), whether there is
// such a state, where the kernel may change what there is while somebody else sets the rest.
export const explorer = (make) => ({
	render: ({ model, el }) => connect(model, el, make),
});

function connect(model, el, make) {
	// Jupyter takes arrows and letters as commands; shortcuts with Ctrl or Cmd stay its own. JupyterLab hears a key
	// after the explorer. Jupyter Notebook hears it before, and lets be what has this attribute.
	const ours = ({ ctrlKey, metaKey }) => !ctrlKey && !metaKey;
	const keep = (event) => ours(event) && event.stopPropagation();
	const claim = (event) => {
		if (root.contains(event.target))
			event.target.toggleAttribute("data-lm-suppress-shortcuts", ours(event));
	};
	addEventListener("keydown", claim, true);
	const [given, refusal, need, widths] = [
		read(model.get("given")),
		bad(),
		bad(),
		new Map(),
	];
	const whole = model.get("answer").asked ? "" : "whole"; // it asks the kernel for nothing
	const root = html("div", {
		class: `eca-lab ${given.kind} ${whole}`,
		onkeydown: keep,
	});
	el.append(root);
	const names = Object.keys(given.initial);
	let [frame, unshown, patience] = [0, true, 0];
	// `shows` are called with every state that is set, by whomever, even if it is the same again; `ends` at the end.
	const view = {
		root,
		given,
		shows: [],
		ends: [],
		alone: model.get("alone"), // on a page without a kernel the states of which it has an answer
		link: () => model.get("link"),
	};
	view.palettes = Object.fromEntries(
		Object.entries(given.palettes).map(([name, stops]) => [
			name,
			palette(stops),
		]),
	);
	view.state = () =>
		Object.fromEntries(names.map((name) => [name, model.get(name)]));
	// What the kernel said last, fresh if it was asked for this state. Else draw it, but for what the page
	// knows better, until the answer is there: .eca-lab.waiting tells the reader.
	view.answer = (state) => {
		const answer = model.get("answer");
		const fresh = Object.entries(answer.asked).every(
			([name, value]) => state[name] === value,
		);
		root.classList.toggle("waiting", !fresh);
		clearTimeout(patience);
		const lacking =
			"No answer from the kernel: it is busy, or the cells down to this one have not been run.";
		if (fresh) write(need, "");
		else patience = setTimeout(() => write(need, lacking), 2000);
		return { ...answer, fresh };
	};
	view.redraw = () => {
		frame ||= requestAnimationFrame(() => {
			frame = 0;
			const state = view.state();
			const fitting = fits(state);
			root.classList.toggle("unfit", !fitting);
			if (!fitting) return model.save_changes(); // so that the kernel can say what holds
			if (unshown) for (const show of view.shows) show(state);
			unshown = false;
			draw(state);
			model.save_changes(); // all changes of a frame in one message
		});
	};
	view.change = (changes) => {
		for (const [name, value] of Object.entries(changes)) model.set(name, value);
		if (Object.keys(changes).length) write(refusal, "");
		unshown = true;
		view.redraw();
	};
	view.restore = view.change; // of what an explorer's own `change` would fit to the rest
	// The width of a node, 0 until it is known: a size that is read while drawing costs a layout.
	view.width = (node) => {
		if (!widths.has(node)) resized.observe(node);
		return widths.get(node) ?? 0;
	};
	const resized = new ResizeObserver((entries) => {
		for (const { target, contentRect } of entries)
			widths.set(target, Math.floor(contentRect.width));
		view.redraw();
	});
	const {
		headline,
		main,
		picture,
		controls,
		readout,
		draw,
		fits = () => true,
	} = make(view);
	const above = [headline, block("main", main), block("picture", picture)];
	const beside = [
		block("controls", controls),
		block("readout", refusal, need, readout, stateLine(view)),
	];
	root.append(block("columns", above, beside));
	const heard = names.map((name) => [`change:${name}`, () => view.change({})]);
	heard.push(["change:answer", view.redraw]);
	heard.push(["msg:custom", ({ refused }) => write(refusal, refused)]);
	for (const [event, hear] of heard) model.on(event, hear);
	view.redraw();
	return () => {
		cancelAnimationFrame(frame);
		clearTimeout(patience);
		removeEventListener("keydown", claim, true);
		resized.disconnect();
		for (const end of view.ends) end();
		for (const [event, hear] of heard) model.off(event, hear);
	};
}

// A text, a number or a list of numbers as Python writes it.
const plain = /^[^'\\\p{C}]*$/u;
function python(value) {
	if (Array.isArray(value))
		return `(${value.join(", ")}${value.length === 1 ? "," : ""})`;
	return typeof value === "string" && plain.test(value)
		? `'${value}'`
		: JSON.stringify(value);
}

// The constructor call that gives this state, after the arguments that are no state.
function call({ name, usual, arguments: others }, state) {
	const shown = Object.keys(state).filter(
		(key) => python(usual[key]) !== python(state[key]),
	);
	return `${name}(${[...others, ...shown.map((key) => `${key}=${python(state[key])}`)].join(", ")})`;
}

// --- Keys and pointers ---

// Calls act with what the table has for a key that is pressed; with Ctrl, Alt or Cmd it is the browser's.
export const onKeys = (node, table, act) =>
	node.addEventListener("keydown", (event) => {
		if (event.ctrlKey || event.altKey || event.metaKey || !(event.key in table))
			return;
		event.preventDefault();
		act(table[event.key]);
	});
export const ARROWS = {
	ArrowLeft: [-1, 0],
	ArrowRight: [1, 0],
	ArrowUp: [0, -1],
	ArrowDown: [0, 1],
};

// Calls act(x, y, event), in pixels of the node, at these events.
export function onPointer(node, names, act) {
	for (const name of names)
		node.addEventListener(name, (event) => {
			const { left, top } = node.getBoundingClientRect();
			act(event.clientX - left, event.clientY - top, event);
		});
}

// Calls undo() at Escape, until the pointer that is down is released; then done().
function onEscape(undo, done = () => {}) {
	const hear = (event) => {
		if (event.key !== "Escape") return;
		event.stopPropagation();
		removeEventListener("keydown", hear, true);
		undo();
	};
	const stop = () => {
		removeEventListener("keydown", hear, true);
		for (const name of ["pointerup", "pointercancel"])
			removeEventListener(name, stop, true);
		done();
	};
	addEventListener("keydown", hear, true); // wherever the focus is
	for (const name of ["pointerup", "pointercancel"])
		addEventListener(name, stop, true);
}

// Calls move(x, y, event) from a press, of no second finger, until its release, then end(). A scroll and Escape
// undo it all.
export function drag(view, node, move, end = () => {}) {
	let before = {};
	onPointer(node, ["pointerdown", "pointermove"], (x, y, event) => {
		if (!event.isPrimary) return;
		if (event.type === "pointerdown" && event.button === 0) {
			event.preventDefault();
			node.closest(".eca-lab").querySelector("[type=text]:focus")?.blur(); // enters what is being written
			before = view.state();
			node.setPointerCapture(event.pointerId);
			onEscape(() => {
				node.releasePointerCapture(event.pointerId);
				end(); // not by an event, of which there is none where the pointer has not moved
				view.restore(before);
			});
		}
		if (node.hasPointerCapture(event.pointerId)) move(x, y, event);
	});
	for (const name of ["pointercancel", "lostpointercapture"])
		node.addEventListener(name, (event) => {
			if (event.isPrimary) end();
			if (event.isPrimary && name === "pointercancel") view.restore(before);
		});
}

// Makes the node a slider of the rows of the square matrices in it, that are pointed at or stepped to by keys.
// Its place is the share of the rows above the middle of that one; null is none.
export function rowSlider(view, node, label, matrices, place) {
	const slider = {
		place,
		count: 1,
		row: () => slider.place && Math.floor(slider.place * slider.count),
	};
	slider.light = (row) => {
		slider.place =
			(bounded(Math.floor(row), 0, slider.count - 1) + 0.5) / slider.count;
		view.redraw();
	};
	const keys = {
		...ARROWS,
		PageUp: [0, -8],
		PageDown: [0, 8],
		Home: [0, -512],
		End: [0, 512],
	};
	onKeys(node, keys, ([right, down]) =>
		slider.light((slider.row() ?? -1) + right + down),
	);
	for (const matrix of matrices)
		onPointer(matrix, ["pointerdown", "pointermove"], (_, y) =>
			slider.light((y / matrix.clientHeight) * slider.count),
		);
	slider.tell = (text) =>
		set(node, {
			tabindex: 0,
			role: "slider",
			"aria-label": label,
			"aria-orientation": "vertical",
			"aria-valuemin": 1,
			"aria-valuemax": slider.count,
			"aria-valuenow": (slider.row() ?? 0) + 1,
			"aria-valuetext": text,
		});
	return slider;
}

// --- Controls: each shows the state and changes it ---

const of = (state, value) =>
	typeof value === "function" ? value(state) : value;

// The number that a text says, NaN if none: "1,000", "1 000" and "1_000" are a thousand; "1,5" is no integer, and
// elsewhere one and a half.
export function numberOf(text, integer) {
	const ascii = text.trim().replace(/^−/, "-").replace(/^\+/, "");
	if (!integer)
		return ascii === ""
			? NaN
			: Number(ascii.replace(/^([^.,]*),([^.,]*)$/, "$1.$2"));
	const separator = ascii.match(/^-?\d{1,3}([\s,_])\d{3}(\1\d{3})*$/)?.[1];
	const digits = separator ? ascii.replaceAll(separator, "") : ascii;
	return /^-?\d+$/.test(digits) ? Number(digits) : NaN;
}

// A slider that halts at stops, beside a box that takes every number from the first to the last, integers only if
// `integer`; a wrong entry is answered below, until the state is set. The stops may be a function of the state;
// refused(value, state) tells what is accepted where a number within the limits is not.
export function numberRow(
	view,
	name,
	label,
	stops,
	integer = false,
	refused = () => "",
) {
	let [halts, written, undone] = [[0], "", false];
	const [id, whyId] = [newId(), newId()];
	const why = html("div", { class: "why", id: whyId, role: "alert" });
	const slide = (halt) => {
		written = box.value; // which is not being written any more
		view.change({ [name]: halts[bounded(halt, 0, halts.length - 1)] });
	};
	const range = html("input", {
		type: "range",
		id,
		min: 0,
		step: 1,
		onpointerdown: hold,
		oninput,
	});
	const box = html("input", {
		type: "text",
		name,
		autocomplete: "off",
		spellcheck: "false",
		onchange: take,
		"aria-label": `${label}, any value`,
		"aria-describedby": whyId,
	});
	onKeys(box, { ArrowUp: 1, ArrowDown: -1 }, (step) =>
		slide(+range.value + step),
	);
	onKeys(box, { Escape: null }, () => {
		written = box.value;
		view.restore({});
	});
	// After Escape the thumb stays where it was, wherever the pointer moves until it is released.
	function hold() {
		const before = view.state();
		onEscape(
			() => {
				undone = true;
				view.restore(before);
			},
			() => {
				undone = false;
			},
		);
	}
	function oninput() {
		if (undone) view.restore({});
		else slide(+range.value);
	}
	function take() {
		written = box.value;
		const text = written.trim();
		const value = numberOf(text, integer);
		const [least, most] = [halts[0], halts.at(-1)];
		const within = value >= least && value <= most;
		const limits = `${integer ? "an integer" : "a finite number"} from ${least} to ${most}`;
		const accepted = within ? refused(value, view.state()) : limits;
		if (!accepted) return view.change({ [name]: value });
		const shown = Number.isNaN(Number(text || NaN)) ? python(text) : text;
		write(why, `${name}=${shown}: accepted is ${accepted}`);
		set(box, { "aria-invalid": true });
	}
	view.shows.push((state) => {
		halts = of(state, stops);
		write(why, "");
		const inputmode = halts[0] < 0 ? "text" : "decimal"; // which may have no minus
		set(box, { "aria-invalid": false, inputmode });
		set(range, {
			max: halts.length - 1,
			"aria-valuetext": `${label} = ${state[name]}`,
		});
		enter(range, halts.indexOf(nearest(halts, state[name])));
		if (box.matches(":focus") && box.value !== written) return; // somebody is writing
		written = String(state[name]);
		enter(box, written);
	});
	return block("row", html("label", { for: id }, label), range, box, why);
}

// A list of [value, text] to choose from, which may be a function of the state; shown(state) is the value.
export function choice(
	view,
	name,
	label,
	options,
	shown = (state) => state[name],
) {
	const select = html("select", {
		onchange: () => view.change({ [name]: select.value }),
	});
	const fillAll = remember((all) =>
		fill(
			select,
			JSON.parse(all).map(([value, text]) => html("option", { value }, text)),
		),
	);
	view.shows.push((state) => {
		fillAll(JSON.stringify(of(state, options)));
		enter(select, shown(state));
	});
	return html("label", { class: "choice" }, html("span", {}, label), select);
}

// A button for each preset, and one that goes back to the first state.
export function presets(view, ...before) {
	const all = Object.entries({
		...view.given.presets,
		Reset: view.given.initial,
	});
	return block(
		"buttons",
		before,
		all.map(([words, changes]) => button(words, () => view.change(changes))),
	);
}

// The state as a line of Python, to copy; on a page without a kernel also as a link.
function stateLine(view) {
	const code = html("code");
	const copier = (words, text, otherwise) => {
		const copy = button(words, async () => {
			getSelection().selectAllChildren(code); // where the page may not copy, the reader can
			const done = await navigator.clipboard?.writeText(text()).then(
				() => "Copied",
				() => "",
			);
			write(copy, done || otherwise);
		});
		view.shows.push(() => write(copy, words));
		return copy;
	};
	view.shows.push((state) => write(code, call(view.given, state)));
	const copy = copier("Copy", () => code.textContent, "Selected: copy it");
	return block(
		"state",
		code,
		copy,
		view.link()
			? copier("Copy link", view.link, "Copy it from the address")
			: [],
	);
}

// --- Pictures ---

// A linear scale from values a0..a1 to pixels p0..p1.
export function scale(a0, a1, p0, p1) {
	const at = (value) => p0 + ((value - a0) * (p1 - p0)) / (a1 - a0);
	return Object.assign(at, {
		invert: (pixel) => a0 + ((pixel - p0) * (a1 - a0)) / (p1 - p0),
		range: [p0, p1],
	});
}

export const pixel = ([r, g, b]) => (255 << 24) | (b << 16) | (g << 8) | r;
// A function from shares, 0 to 1, to pixels: their color between stops, each "#rrggbb".
export function palette(stops) {
	const parts = stops.map((stop) =>
		[1, 3, 5].map((start) => parseInt(stop.slice(start, start + 2), 16)),
	);
	const colors = upTo(1025).map((n) => {
		const place = (n / 1024) * (parts.length - 1);
		const [from, to] = [parts[Math.floor(place)], parts[Math.ceil(place)]];
		return pixel(from.map((value, i) => value + (to[i] - value) * (place % 1)));
	});
	return (share) => colors[Math.round(1024 * bounded(share, 0, 1))];
}

// Draws color(i) for each of w x h cells, as a pixel each, which the page then enlarges.
export function paint(canvas, w, h, color) {
	if (canvas.width !== w || canvas.height !== h)
		[canvas.width, canvas.height] = [w, h];
	const image = new ImageData(w, h);
	const pixels = new Uint32Array(image.data.buffer);
	for (let i = 0; i < w * h; i++) pixels[i] = color(i);
	canvas.getContext("2d").putImageData(image, 0, 0);
}

// Grid, ticks ([value, text]) and titles of a group, drawn anew where they change.
export function axes(group, x, y, xTicks, yTicks, xTitle, yTitle) {
	const [[left, right], [bottom, top]] = [x.range, y.range];
	const all = [x.range, y.range, xTicks, yTicks, xTitle, yTitle];
	const drawn = JSON.stringify(all);
	if (group.drawn === drawn) return;
	group.drawn = drawn;
	const text = (words, anchor, place) =>
		svg("text", { "text-anchor": anchor, ...place }, words);
	const xTick = ([value, words]) => [
		path("grid", `M${x(value)} ${bottom}V${top}`),
		text(words, "middle", { x: x(value), y: bottom + 16 }),
	];
	const yTick = ([value, words]) => [
		path("grid", `M${left} ${y(value)}H${right}`),
		text(words, "end", { x: left - 7, y: y(value) + 4 }),
	];
	group.replaceChildren(
		...xTicks.flatMap(xTick),
		...yTicks.flatMap(yTick),
		path("axis", `M${left} ${top}V${bottom}H${right}`),
		text(xTitle, "middle", { x: (left + right) / 2, y: bottom + 34 }),
		text(yTitle, "middle", {
			transform: `translate(${left - 32} ${(top + bottom) / 2})rotate(-90)`,
		}),
	);
}

// Shows lines above a place of the picture that holds the tip, none without a line.
export function showTip(tip, lines, x = 0, y = 0) {
	fill(
		tip,
		lines.map((line) => html("div", {}, line)),
	);
	tip.style.cssText = `left: clamp(134px, ${x}px, 100% - 134px); top: ${y}px`;
}

// What marks mean: [mark, words].
export const legend = (entries) =>
	block(
		"legend",
		entries.map(([mark, words]) =>
			html(
				"span",
				{},
				svg("svg", { width: 20, height: 18, "aria-hidden": "true" }, mark),
				words,
			),
		),
	);
