// Charts of runs that are updated in place: of the run page and of the comparison.
import { make } from "/components/charts.js";
import { chartParts, chartSection, controls, figureOf } from "/components/sections.js";
import { word } from "../words.js";

const TRAINING = ["scores", "losses", "speed"]; // parts whose axis is the step

// Returns the points of a curve with steps from `first` to `last`.
function within(curve, first, last) {
  const indices = curve.steps.map((_, i) => i);
  const kept = indices.filter((i) => curve.steps[i] >= first && curve.steps[i] <= last);
  const only = (values) => values && kept.map((i) => values[i]);
  const { steps, values, raw, low, high } = curve;
  const reduced = { steps: only(steps), values: only(values), low: only(low), high: only(high) };
  return { ...curve, ...reduced, raw: only(raw) };
}

// Returns number fields for the first and the last step that the charts show.
function rangeFields(change) {
  const input = (key) => make("input", {
    type: "number", min: 0, placeholder: word(`range.${key}`), "aria-label": word(`range.${key}`),
    change: () => change(valueOf(first, 0), valueOf(last, Infinity)),
  });
  const first = input("first"), last = input("last");
  const valueOf = (field, none) => (field.value === "" ? none : Number(field.value));
  const reset = make("button", { class: "small-button", hidden: true, click: () => {
    change(0, Infinity);
  } }, word("range.all"));
  const part = make("span", { class: "steps-range" }, word("range"), first, last, reset);
  part.set = (from, to) => {
    [first.value, last.value] = [from > 0 ? from : "", to < Infinity ? to : ""];
    reset.hidden = !(from > 0 || to < Infinity);
  };
  return part;
}

// Returns the part with all charts. show(report, runs) draws them, or changes those that are there.
// detail(first, last): returns the curves of each run between two steps, in more detail.
// onPoint(step): called for a point of a training curve.
export function chartBoard({ detail, onPoint = null, pointText = "" }) {
  const figures = new Map(), toolbar = make("div"), place = make("div");
  const board = make("div", { class: "board" }, toolbar, place);
  let shape = null, latest = null, first = 0, last = Infinity, details = null;
  const isZoomed = () => first > 0 || last < Infinity;
  const redraw = () => figures.forEach((figure) => figure.redraw());
  const fields = rangeFields(zoom);

  async function zoom(from, to) {
    [first, last] = from <= to ? [Math.floor(from), Math.ceil(to)] : [0, Infinity];
    fields.set(first, last);
    details = null;
    draw();
    if (!isZoomed()) return;
    const wanted = [first, last], found = await detail(first, last).catch(() => null);
    if (found === null || wanted[0] !== first || wanted[1] !== last) return;
    details = found;
    draw();
  }

  function inRange(run, i) {
    if (!isZoomed()) return run;
    // the server adds a point beside each end
    const only = (curves) => curves.map((curve) => within(curve, first, last));
    return { ...run, curves: only(details?.[i] || run.curves), scores: only(run.scores) };
  }

  const settingsOf = (id) => (TRAINING.includes(id) ? {
    onPoint, pointText, onRange: (from, to) => (from === null ? zoom(0, Infinity) : zoom(from, to)),
  } : {});

  function draw() {
    const { report, runs } = latest, parts = chartParts(report, runs.map(inRange));
    const keyOf = (id, label, key) => `${id} ${label} ${key}`;
    const now = JSON.stringify([runs.map(({ name }) => name), parts.map(({ id, groups }) => {
      return groups.map(({ label, charts }) => charts.map(({ key }) => keyOf(id, label, key)));
    })]);
    const isSame = now === shape;
    shape = now;
    for (const { id, groups } of parts) {
      for (const { label, charts } of groups) {
        for (const described of charts) {
          const key = keyOf(id, label, described.key), figure = figures.get(key);
          if (figure) figure.update(described.lines);
          else figures.set(key, figureOf(described, settingsOf(id)));
          described.figure = figures.get(key);
        }
      }
    }
    if (isSame) return;
    const several = new Set(runs.map((run) => run.task)).size > 1;
    const switches = controls(runs, redraw);
    switches.append(fields);
    toolbar.replaceChildren(figures.size ? switches : "");
    place.replaceChildren(
      ...parts.map((part) => chartSection(part, several, ({ figure }) => figure)));
  }

  board.show = (report, runs) => {
    latest = { report, runs };
    draw();
  };
  return board;
}
