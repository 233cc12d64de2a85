// Texts of the pages in English and Korean: word("key", {name: value}).
import { moment } from "/components/elements.js";

export { moment } from "/components/elements.js";

const LANGUAGES = { en: "English", ko: "한국어" };
const STORED = "visionloop-language";
const texts = { en: {}, ko: {} };

// Returns the language of the switch, else the first one of the browser that we have.
function firstLanguage() {
  const wanted = [localStorage.getItem(STORED), ...navigator.languages];
  return wanted.map((name) => String(name).slice(0, 2)).find((name) => name in texts) || "en";
}

let current = firstLanguage();

export const languages = LANGUAGES;
export const language = () => current;

// Adds the texts of a page, {en: {key: text}, ko: {key: text}}. A text holds values as {name}.
export function addWords(words) {
  for (const name of Object.keys(texts)) Object.assign(texts[name], words[name]);
}

export function setLanguage(name) {
  current = name;
  localStorage.setItem(STORED, name);
  document.documentElement.lang = name;
}

// Returns the text of a key; values stand for {name} in it. A key without a text returns itself.
export function word(key, values = {}) {
  const text = texts[current][key] ?? texts.en[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (slot, name) => (name in values ? String(values[name]) : slot));
}

// Returns whether there is a text for a key.
export const hasWord = (key) => key in texts.en;

// Returns the text in our language of an object such as {en: "Image", ko: "..."}.
export const localized = (both) => both[current] ?? both.en;

export const number = (value) => value.toLocaleString(current);

// Returns a time of the day, with the day where it is another one than today.
export function clock(seconds) {
  const date = new Date(1000 * seconds);
  const isToday = date.toDateString() === new Date().toDateString();
  if (!isToday) return moment(seconds);
  return date.toLocaleTimeString(current === "en" ? "en-GB" : current, { timeStyle: "short" });
}

// Returns how long ago something was, in its largest unit.
export function ago(seconds) {
  const age = Math.max(0, Date.now() / 1000 - seconds);
  const units = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
  const [unit, size] = units.find(([, length]) => age >= length) || units.at(-1);
  const format = new Intl.RelativeTimeFormat(current, { numeric: "auto" });
  return format.format(-Math.floor(age / size), unit);
}

// Returns a time span in its two largest units.
export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const units = [["days", 86400], ["hours", 3600], ["minutes", 60], ["seconds", 1]];
  const first = units.findIndex(([, length]) => whole >= length);
  if (first < 0) return word("span.seconds", { n: 0 });
  const [unit, size] = units[first], rest = units[first + 1];
  const text = word(`span.${unit}`, { n: Math.floor(whole / size) });
  const more = rest ? Math.floor((whole % size) / rest[1]) : 0;
  return more ? `${text} ${word(`span.${rest[0]}`, { n: more })}` : text;
}

export function bytes(size) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = Math.min(units.length - 1, size ? Math.floor(Math.log2(size) / 10) : 0);
  const value = size / 1024 ** power;
  return `${power && value < 100 ? value.toFixed(1) : Math.round(value)} ${units[power]}`;
}
