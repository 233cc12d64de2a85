// A slider for the lowest score, and the list of what is above it: pointing at a row marks it.
import { colorBox, make } from "/components/charts.js";
import { number, word } from "../words.js";
import { percent } from "./try_stage.js";

const LISTED = 100;

// Returns the elements {control, count, list} and the state {above, shown, marked}; mark(item) marks
// an item or null, update() filters again.
// items: [{score, label}, ...], best first. first: percent at the start; lower where no item has as
// much. words: keys of the texts {some, below}. colorOf(item): CSS color. isShown(item): false for
// an item that is hidden whatever its score. changed(): called after each change.
export function scoreFilter(items, { first, words, colorOf, isShown = () => true, changed }) {
  const best = items.length ? Math.floor(100 * items[0].score) : 0;
  const start = Math.max(1, Math.min(first, best));
  const slider = make("input", { type: "range", min: 1, max: 100, value: start, input: update });
  const value = make("output"), rows = new Map();
  const filter = {
    control: make("label", {}, word("try.score"), slider, value),
    count: make("p", { role: "status" }), list: make("ol", { class: "try-list" }),
    above: [], shown: [], marked: null, mark, update,
  };

  function update() {
    value.textContent = `${slider.value} %`;
    filter.above = items.filter((item) => item.score >= slider.value / 100);
    filter.shown = filter.above.filter(isShown);
    filter.marked = null;
    const text = filter.above.length ? words.some : items.length ? words.below : "try.boxes.none";
    const counts = { n: number(filter.shown.length), all: number(items.length) };
    filter.count.textContent = word(text, counts);
    filter.list.replaceChildren(...filter.shown.slice(0, LISTED).map(rowOf));
    changed();
  }

  function mark(item) {
    if (item === filter.marked) return;
    rows.get(filter.marked)?.classList.remove("marked");
    rows.get(item)?.classList.add("marked");
    filter.marked = item;
    changed();
  }

  // The row of an item is made once: a slider that moves changes many lists in a second.
  function rowOf(item) {
    const on = () => mark(item), off = () => mark(null);
    const events = { pointerenter: on, focus: on, pointerleave: off, blur: off };
    const row = rows.get(item) || make("li", { tabindex: 0, ...events },
      colorBox(colorOf(item)), make("span", { class: "try-label" }, item.label),
      make("span", {}, percent(item.score)));
    row.classList.remove("marked");
    rows.set(item, row);
    return row;
  }

  return filter;
}
