// The comparison of two runs on the same validation images: a verdict, and every score below it.
import { colorOf, formatValue, make, shape } from "/components/charts.js";
import { metricOf } from "/components/sections.js";
import { head, row, scroll } from "/components/tables.js";
import { get, post } from "../api.js";
import { actionButton, errorBox, progressBar } from "../parts.js";
import { localized, number, word } from "../words.js";
import { ended } from "./run_replay.js";

const WIDTH = 600, HEIGHT = 74, MARGIN = 60, MIDDLE = 26;
const MOST_OPEN = 12; // classes; a longer table is folded

// Returns a difference with its sign; one of shares is in points.
function signed(format, value) {
  const sign = value > 0 ? "+" : value < 0 ? "\u2212" : "";
  const size = Math.abs(value);
  if (format !== "percent") return `${sign}${formatValue(format, size)}`;
  return word("difference.points", { n: `${sign}${(100 * size).toFixed(2)}` });
}

// Returns a drawing of the interval beside zero.
function intervalBar(format, { difference, low, high }) {
  const reach = 1.15 * Math.max(Math.abs(low), Math.abs(high), Math.abs(difference)) || 1;
  const toX = (value) => WIDTH / 2 + (value / reach) * (WIDTH / 2 - MARGIN);
  const label = word("difference.bar", {
    difference: signed(format, difference), low: signed(format, low), high: signed(format, high),
  });
  const text = (value, anchor) => {
    const place = { x: toX(value), y: MIDDLE + 24, "text-anchor": anchor };
    return shape("text", place, signed(format, value));
  };
  const zero = { x1: toX(0), x2: toX(0), y1: 4, y2: MIDDLE + 34, class: "zero" };
  const box = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label };
  return shape("svg", { ...box, class: "interval" },
    shape("line", zero),
    shape("text", { x: toX(0), y: HEIGHT - 4, "text-anchor": "middle" }, "0"),
    shape("line", { x1: toX(low), x2: toX(high), y1: MIDDLE, y2: MIDDLE, class: "reach" }),
    shape("circle", { cx: toX(difference), cy: MIDDLE, r: 7, class: "estimate" }),
    text(low, "end"), text(high, "start"));
}

// Returns the verdict of one line; where nothing is shown, with the size that would be.
function verdictOf(format, { code, low, high, detectable }, images) {
  if (code !== "no_difference") return word(`difference.${code}`);
  if (low === 0 && high === 0) return word("difference.equal");
  const size = signed(format, detectable).replace("+", "");
  return word("difference.no_difference", { n: number(images), size });
}

// Returns a table of the lines of one part: overall, by size or by class.
function partTable(report, pair, result, part) {
  const lines = result.lines.filter((line) => line.part === part);
  if (!lines.length) return [];
  const rows = lines.map(({ metric, label, format, scores, differences }) => {
    const name = part === "class" ? label : metricOf(report, pair[0], metric).label;
    const values = scores.map((score) => formatValue(format, score));
    const found = differences[1];
    const known = found.low !== null, change = known ? signed(format, found.difference) : "–";
    const interval = known ? `${signed(format, found.low)} – ${signed(format, found.high)}` : "–";
    const verdict = make("td", { class: `code ${found.code}` },
      verdictOf(format, found, result.images));
    return row(name, [verdict, change, interval, ...values]);
  });
  const names = ["score", "verdict", "change", "interval", "a", "b"].map((name) => {
    return word(`difference.column.${name}`, { a: pair[0].name, b: pair[1].name });
  });
  const table = make("table", { class: "comparison" }, head(...names), make("tbody", {}, rows));
  const summary = make("summary", {}, word(`difference.${part}`, { n: lines.length }));
  const open = part !== "class" || lines.length <= MOST_OPEN;
  return [make("details", { open }, summary, scroll(table))];
}

function drawResult(report, pair, result) {
  const line = result.lines.find((one) => one.part !== "class" && one.metric === result.metric);
  const { format } = metricOf(report, pair[0], result.metric);
  const scores = pair.map((run, i) => make("div", { class: "tile" },
    make("span", {}, run.name),
    make("strong", {}, formatValue(format, line.scores[i]))));
  scores.forEach((part, i) => part.style.setProperty("border-left-color", colorOf(pair[i].place)));
  const found = line.differences[1];
  return [
    make("p", { class: "verdict" }, localized(result.settings[1].verdict)),
    make("div", { class: "tiles pair-tiles" }, scores),
    found.low === null ? "" : intervalBar(format, found),
    ...["overall", "size", "class"].flatMap((part) => partTable(report, pair, result, part)),
    ...result.notes.map((note) => make("p", { class: "hint" }, localized(note))),
  ];
}

// Returns the part: two runs to choose, a button, and the result.
export function differencePart(report, runs, ids, signal) {
  const place = make("div", { class: "difference" });
  const select = (key, chosen) => {
    const options = runs.map((run, i) => {
      return make("option", { value: i, selected: i === chosen }, run.name);
    });
    const attributes = { "aria-label": word(key), change: () => place.replaceChildren() };
    return make("select", attributes, options);
  };
  const first = select("difference.first", 0), second = select("difference.second", 1);
  const start = actionButton(word("difference.start"), async () => {
    const chosen = [Number(first.value), Number(second.value)];
    const pair = chosen.map((i) => runs[i]);
    if (chosen[0] === chosen[1]) throw new Error(word("difference.same"));
    if (pair[0].task !== pair[1].task) throw new Error(word("difference.tasks"));
    const bar = progressBar(word("difference.busy"));
    bar.set(null, 1, word("difference.busy"));
    place.replaceChildren(bar);
    try {
      const job = await post("/comparisons", { runs: chosen.map((i) => ids[i]) });
      await ended(job.id, signal);
      const result = await get(`/jobs/${job.id}/result`, { signal });
      place.replaceChildren(...drawResult(report, pair, result));
    } catch (error) {
      if (!signal.aborted) place.replaceChildren(errorBox(error));
    }
  }, { kind: "primary", image: "compare" });
  const choice = runs.length > 2 ? [first, make("span", {}, word("difference.and")), second] : [];
  return make("section", { id: "difference" }, make("h2", {}, word("difference.title")),
    make("p", { class: "hint" }, word("difference.about")),
    make("div", { class: "line wrap" }, choice, start), place);
}
