// Elements, texts and numbers. Elements are created one by one and texts are set as text: no text
// of the data is interpreted as HTML.

const COPIED_MS = 1500;

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else if (name === "style") setStyle(node, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(2).filter((child) => child !== null && child !== undefined));
  return node;
}

function setStyle(node, style) {
  for (const [key, part] of Object.entries(style)) node.style.setProperty(key, part);
}

// make(tag, {attribute: value, event: function, style: {..}}, ...children) returns an element.
export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

const SVG = "http://www.w3.org/2000/svg";
// The same for an element of a drawing.
export function shape(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

const translation = {};
// Adds texts in another language: {English text: text}.
export const addTranslation = (texts) => Object.assign(translation, texts);
export function clearTranslation() {
  for (const text of Object.keys(translation)) delete translation[text];
}

// Returns a text of ours in the language of the page; values stand for {name} in it.
export function say(english, values = {}) {
  const text = translation[english] ?? english;
  return text.replace(/\{(\w+)\}/g, (slot, name) => (name in values ? String(values[name]) : slot));
}

const RUN_COLORS = 8;
export function colorOf(i) {
  return i < RUN_COLORS ? `var(--run-${i})` : `hsl(${(i * 137.5) % 360} 60% 50%)`;
}
export function colorBox(color) {
  return make("span", { class: "swatch", style: { background: color } });
}
export const swatch = (i) => colorBox(colorOf(i));
export const runName = (run) => make("span", { class: "run" }, swatch(run.place), run.name);

export function section(id, title, ...children) {
  return make("section", { id }, make("h2", {}, title), ...children);
}
export const scroll = (...children) => make("div", { class: "scroll", tabindex: 0 }, ...children);

// Groups items with equal keys: [[item]], in the order of the first item of each group.
export function grouped(items, keyOf) {
  const groups = new Map();
  for (const item of items) {
    const key = keyOf(item);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(item);
  }
  return [...groups.values()];
}

export const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
export const whole = (number) => number.toLocaleString("en");

export function formatValue(format, value) {
  if (value === null || value === undefined) return "-";
  if (format === "percent") return `${(100 * value).toFixed(2)}\u00a0%`;
  if (format === "integer") return Math.round(value).toLocaleString("en");
  const size = Math.abs(value);
  if (size !== 0 && size < 1e-3) return value.toExponential(2);
  return size >= 1000 ? value.toFixed(1) : value.toFixed(4);
}

export function duration(seconds) {
  if (seconds === null) return "-";
  const all = Math.round(seconds), minutes = Math.floor(all / 60) % 60;
  const hours = Math.floor(all / 3600), two = (number) => String(number).padStart(2, "0");
  if (hours) return say("{h} h {m} min", { h: hours, m: two(minutes) });
  if (minutes) return say("{m} min {s} s", { m: minutes, s: two(all % 60) });
  return say("{s} s", { s: seconds.toFixed(1) });
}

// Returns a date and a time of the day in the language of the page.
export function moment(seconds) {
  const { lang } = document.documentElement, style = { dateStyle: "medium", timeStyle: "short" };
  return new Date(1000 * seconds).toLocaleString(lang === "en" ? "en-GB" : lang, style);
}

// Returns a text in a box with a button that copies it. set(text) changes it.
export function copyable(text) {
  const block = make("pre", { tabindex: 0 }, text);
  const button = make("button", { click: async () => {
    getSelection().selectAllChildren(block);
    await navigator.clipboard?.writeText(block.textContent); // absent without TLS: Ctrl-C copies
    button.textContent = say("Copied");
    setTimeout(() => (button.textContent = say("Copy")), COPIED_MS);
  } }, say("Copy"));
  const part = make("div", { class: "copy" }, block, button);
  part.set = (now) => block.textContent !== now && (block.textContent = now);
  return part;
}
