// A page without a kernel: the model that anywidget would give, over what alone.py recorded.
// A link carries the state: #channels=128&gamma=2.

const dark = matchMedia("screen and (prefers-color-scheme: dark)"); // paper is never dark
dark.onchange = () => {
	document.body.dataset.jpThemeLight = !dark.matches;
};
dark.onchange();
const bytes = (text) =>
	new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
const [blobs, told] = JSON.parse(document.querySelector("#told").textContent);
const revive = (_, value) =>
	typeof value?.blob === "number" ? bytes(blobs[value.blob]) : value;
const { module, names, traits, answers } = JSON.parse(
	JSON.stringify(told),
	revive,
);
const { initial, usual } = traits.given;
const asked = Object.keys(traits.answer.asked ?? {});
const key = (state) => JSON.stringify(asked.map((name) => state[name]));
const known = new Map(answers.map((each) => [key(each.asked ?? {}), each]));
const recorded = answers.map((each) => each.asked ?? {}); // none where the page answers every state itself
const heard = {};
let later;
const model = {
	get(name) {
		if (name === "alone") return recorded;
		return name === "link" ? link() : traits[name];
	},
	set(name, value) {
		if (traits[name] === value) return;
		traits[name] = value;
		for (const hear of heard[`change:${name}`] ?? []) hear();
		if (!names.includes(name)) return;
		model.set("answer", known.get(key(traits)) ?? traits.answer);
		clearTimeout(later); // browsers take only so many changes of the address
		later = setTimeout(() => history.replaceState(null, "", link()), 200);
	},
	on(event, hear) {
		heard[event] ??= new Set();
		heard[event].add(hear);
	},
	off: (event, hear) => heard[event]?.delete(hear),
	save_changes() {},
};

const read = (text) => {
	try {
		return JSON.parse(text);
	} catch {
		return text;
	}
};
const say = (value) =>
	typeof value === "string" && read(value) === value
		? value
		: JSON.stringify(value);
function link() {
	const shown = names.filter(
		(name) =>
			say(traits[name]) !== say(usual[name]) ||
			say(initial[name]) !== say(usual[name]),
	);
	return `${location.href.split("#")[0]}#${new URLSearchParams(shown.map((name) => [name, say(traits[name])]))}`;
}
// Takes the address's values one by one: numbers as far as their boxes accept them, others as far as they can be drawn.
async function open() {
	const said = new URLSearchParams(location.hash.slice(1));
	if (!names.some((name) => said.has(name))) return;
	place.scrollIntoView();
	document.activeElement?.blur(); // or what is being written would be taken for what is linked
	const next = names.map((name) => [
		name,
		said.has(name) ? read(said.get(name)) : initial[name],
	]);
	for (const name of names) model.set(name, initial[name]); // what is shown may refuse a part of what is linked
	if (asked.length && known.has(key(Object.fromEntries(next)))) {
		for (const [name, value] of next) model.set(name, value);
		return;
	}
	for (const [name, value] of next) {
		const [before, box] = [traits[name], place.querySelector(`[name=${name}]`)];
		if (box && value !== before) {
			box.value = value;
			box.dispatchEvent(new Event("change"));
		} else model.set(name, value);
		await new Promise(requestAnimationFrame);
		if (place.querySelector(".unfit")) model.set(name, before);
	}
}
const [place, el] = [
	document.querySelector(".explorer"),
	document.createElement("div"),
];
const text = new Blob([module], { type: "text/javascript" }); // a page from a file can fetch none
(await import(URL.createObjectURL(text))).default.render({ model, el });
place.replaceChildren(el); // in place of the picture for readers without JavaScript
for (const _ of "12") await new Promise(requestAnimationFrame);
// The styles of a page may spare what is out of sight while the explorer is used, until sizes change.
for (const event of ["pointerenter", "focusin"])
	place.addEventListener(event, () => document.body.classList.add("using"));
addEventListener("resize", () => document.body.classList.remove("using"));
place.closest(".output_html")?.classList.add("alive");
addEventListener("hashchange", open);
await open();
