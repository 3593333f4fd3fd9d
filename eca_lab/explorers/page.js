// A page without a kernel: the model that anywidget would give, over what eca_lab.site embedded.
// A link carries the state: #channels=128&gamma=2.

const bytes = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
const revive = (_, value) => (typeof value?.base64 === "string" ? bytes(value.base64) : value);
const told = JSON.parse(document.querySelector("#told").textContent, revive);
const { names, traits } = told;

const asked = Object.keys(traits.answer.asked ?? {});
const key = (state) => JSON.stringify(asked.map((name) => state[name]));
const answers = new Map(told.answers.map((answer) => [key(answer.asked), answer]));
const heard = {};
let later;

const model = {
  get: (name) => (name === "alone" ? true : name === "link" ? link() : traits[name]),
  set(name, value) {
    if (traits[name] === value) return;
    traits[name] = value;
    heard[`change:${name}`]?.forEach((each) => each());
    if (!names.includes(name)) return;
    model.set("answer", answers.get(key(traits)) ?? traits.answer);
    clearTimeout(later); // browsers take only so many changes of the address
    later = setTimeout(() => history.replaceState(null, "", link()), 200);
  },
  on: (event, each) => (heard[event] ??= new Set()).add(each),
  off: (event, each) => heard[event]?.delete(each),
  save_changes() {},
  send() {},
};

// What is JSON is read as such, and everything else is text.
function read(text) {
  try { return JSON.parse(text); } catch { return text; }
}
const say = (value) => (read(value) === value && typeof value === "string" ? value : JSON.stringify(value));
function link() {
  const shown = names.filter((name) => traits[name] !== traits.given.usual[name]);
  const said = new URLSearchParams(shown.map((name) => [name, say(traits[name])]));
  return `${location.href.split("#")[0]}#${said}`;
}

// Takes one value of the address after the other, as far as the explorer's own controls accept it.
async function open() {
  const said = new URLSearchParams(location.hash.slice(1));
  if (!names.some((name) => said.has(name))) return;
  place.scrollIntoView();
  for (const name of names) {
    const [before, usual] = [traits[name], traits.given.usual[name] ?? traits[name]];
    model.set(name, said.has(name) ? read(said.get(name)) : usual);
    if (before !== traits[name] && (await refused())) model.set(name, before);
  }
}
async function refused() {
  let failed = false;
  const fail = (event) => (event.preventDefault(), (failed = true));
  addEventListener("error", fail);
  await new Promise(requestAnimationFrame);
  removeEventListener("error", fail);
  place.querySelectorAll("input[type=text]").forEach((box) => box.dispatchEvent(new Event("change")));
  const chosen = [...place.querySelectorAll("select")].every((select) => select.selectedIndex >= 0);
  return failed || !chosen || place.querySelector("[aria-invalid=true]");
}

const dark = matchMedia("screen and (prefers-color-scheme: dark)"); // paper is never dark
const theme = () => (document.body.dataset.jpThemeLight = !dark.matches);
dark.addEventListener("change", theme);
theme();

const place = document.querySelector(".explorer");
const el = document.createElement("div");
const text = new Blob([told.module], { type: "text/javascript" }); // files cannot be fetched
(await import(URL.createObjectURL(text))).default.render({ model, el });
place.replaceChildren(el); // what stood there was the picture for readers without JavaScript
for (let frames = 0; frames < 2; frames++) await new Promise(requestAnimationFrame);
addEventListener("hashchange", open);
await open();
