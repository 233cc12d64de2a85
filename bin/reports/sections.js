// The parts of a page about runs that hold charts, and the switches of the charts.
import { trainingClock } from "./axes.js";
import { chart } from "./charts.js";
import { colorBox, colorOf, duration, formatValue, grouped, make, moment } from "./elements.js";
import { runName, say, section, sum, whole } from "./elements.js";
import { wallTime } from "./tables.js";

const STATES = {
  running: "still running when this page was created",
  lost: "no heartbeat for over a minute: the process is gone; run the same command to resume from "
    + "the last checkpoint",
  stopped: "checkpoint saved and stopped; run the same command to resume",
  failed: "ended with an error",
  unknown: "the folder has no readable status.json",
};
const CURVES = {
  loss: "training loss",
  lr: "learning rate",
  grad_norm: "gradient norm",
  step_ms: "milliseconds per step",
  data_wait: "data wait, share of the time",
};
const MAX_KEYS = 12; // names below a chart of many lines
// What the switches of the charts have set; a page that is drawn again keeps it.
export const view = { log: false, weight: 0, time: false, hidden: new Set() };

const plain = () => ({ format: "float", log: false, weight: 0, time: false, hidden: view.hidden });
export const taskOf = (report, run) => report.tasks.find(({ name }) => name === run.task);
export function metricOf(report, run, key) {
  const metric = taskOf(report, run).metrics.find((one) => one.key === key);
  return metric || { label: key, format: "float" };
}

function curveName(name) {
  if (name in CURVES) return say(CURVES[name]);
  return name.replace(/^loss_/, say("loss: ")).replaceAll("_", " ");
}

// Returns a function from steps of a run to seconds of training, or null without a measurement.
export function clockOf(run) {
  const curve = run.curves.find(({ name }) => name === "step_ms");
  return curve ? trainingClock(curve.steps, curve.values) : null;
}

// Returns runs with what the charts need: their place in the page, and their clock.
export function placed(runs) {
  return runs.map((run, place) => ({ ...run, place, clock: clockOf(run) }));
}

function lineOf(run, x) {
  const seconds = run.clock ? x.map(run.clock) : null;
  const shared = run.branch ? run.branch.step : undefined;
  return { run: run.place, color: colorOf(run.place), name: run.name, x, seconds, shared };
}

function stepsText({ step, steps, epoch }) {
  const all = steps ? ` ${say("of")} ${whole(steps)}` : "";
  return `${whole(step)}${all}${epoch === null ? "" : `, ${say("epoch")} ${epoch}`}`;
}

// Returns source, step and changes of a branch.
export function branchText({ name, step, changes }) {
  const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const list = Object.entries(changes).map(([key, [old, now]]) => {
    return `${key} ${text(old)} \u2192 ${text(now)}`;
  });
  return `${name}@${step}: ${list.join(", ") || say("no changes")}`;
}

// Returns the overview of a run.
export function card(report, run) {
  const optional = (value, text) => (value === null ? null : text(value));
  const last = run.time_breakdowns.at(-1);
  const time = run.time_breakdowns.length > 1 ? say("time of the last start") : say("time");
  const facts = [
    [say("branch of"), run.branch && branchText(run.branch)],
    [say("task"), run.task && say(taskOf(report, run).label)],
    [say("model"), run.model],
    [say("data"), run.data],
    [say("steps"), optional(run.step, () => stepsText(run))],
    [say("time in training steps"), optional(run.seconds, duration)],
    [time, last ? duration(wallTime(last)) : null],
    [say("last heartbeat"), optional(run.heartbeat, moment)],
    [say("expected end"), run.state === "running" ? optional(run.eta, moment) : null],
  ].filter(([, value]) => value !== null);
  const list = facts.map(([name, value]) => {
    return make("div", {}, make("dt", {}, name), make("dd", {}, value));
  });
  const bar = { max: run.steps, value: run.step, "aria-label": say("steps done") };
  const state = make("span", { class: `state ${run.state}` }, say(run.state));
  return make("article", { class: "card", style: { "border-top-color": colorOf(run.place) } },
    make("h2", {}, runName(run), state),
    run.error ? make("p", { class: "error", role: "alert" }, run.error) : null,
    STATES[run.state] ? make("p", { class: "hint" }, say(STATES[run.state])) : null,
    bestScore(report, run),
    run.steps && run.step !== null ? make("progress", bar) : null,
    make("dl", {}, list));
}

// Returns the best score with its interval, and the score of a trivial predictor.
export function bestScore(report, run) {
  const { best } = run;
  if (!best) return [make("p", {}, say("no score yet"))];
  const { label, format } = metricOf(report, run, best.metric);
  const [low, high] = (best.interval || []).map((end) => formatValue(format, end));
  const span = low ? ` ${say("95 % interval {low} to {high}", { low, high })}` : "";
  const trivial = Object.entries(run.last_evaluation ? run.last_evaluation.reference : {});
  const about = say("best {label}, at step {step}", { label, step: best.step });
  return [
    make("div", { class: "score" }, formatValue(format, best.score)),
    make("p", {}, about, make("small", {}, span)),
    ...trivial.map(([name, value]) => {
      return make("p", { class: "hint" }, `${name}: ${formatValue(format, value)}`);
    }),
  ];
}

// A chart is a description {key, title, lines, options, settings}, from which a page creates it or
// updates it.
function scoreCharts(report, runs) {
  return taskOf(report, runs[0]).metrics.map(({ key, label, format, description }) => {
    const lines = runs.flatMap((run) => {
      return run.scores.filter((score) => score.key === key).flatMap((score) => {
        const line = lineOf(run, score.steps), { low, high } = score;
        const name = say("{run}, without EMA", { run: run.name });
        const raw = score.raw ? [{ ...line, name, y: score.raw, dashed: true }] : [];
        return [...raw, { ...line, y: score.values, low, high }];
      });
    });
    const options = () => ({ ...plain(), time: view.time, format });
    return { key, title: label, lines, options, settings: { note: description } };
  });
}

// Returns a chart for each curve of these groups, with a line for each run.
function trainingCharts(runs, groups) {
  const all = runs.flatMap((run) => run.curves.map((curve) => ({ run, ...curve })));
  const curves = all.filter(({ group }) => groups.includes(group));
  return grouped(curves, ({ name }) => name).map((own) => {
    const { name, group } = own[0], gaps = sum(own.map((curve) => curve.gaps));
    const lines = own.map(({ run, steps, values: y, low, high }) => {
      return { ...lineOf(run, steps), y, low, high };
    });
    const lost = gaps ? ` ${say("({n} values are not finite)", { n: whole(gaps) })}` : "";
    const format = name === "data_wait" ? "percent" : "float";
    const isExact = name.startsWith("lr"); // the learning rate has no noise to smooth
    const options = () => ({
      ...plain(),
      format,
      time: view.time,
      log: view.log && group === "loss",
      weight: isExact ? 0 : view.weight,
    });
    return { key: name, title: `${curveName(name)}${lost}`, lines, options, settings: {} };
  });
}

// Returns charts such as precision over recall: a color for each line, or for each run where each
// has one line.
function evaluationCharts(runs) {
  const evaluated = runs.filter((run) => run.last_evaluation);
  return evaluated.flatMap((run) => run.last_evaluation.curves.map(({ title, x, y, lines }) => {
    const place = (i) => (lines.length > 1 ? i : run.place);
    const colored = lines.map((line, i) => ({ ...line, run: run.place, color: colorOf(place(i)) }));
    const full = runs.length > 1 ? `${title}, ${run.name}` : title;
    const settings = { x, below: say("{y} against {x}", { y, x }) };
    return { key: `${run.name} ${title}`, title: full, lines: colored, options: plain, settings };
  }));
}

// Returns the line below a chart: its axes, and the names of its lines.
function keyOf({ lines, settings }) {
  const names = lines.length > 1 ? lines.slice(0, MAX_KEYS) : [];
  const keys = names.map(({ name, color }) => {
    return make("span", { class: "run" }, colorBox(color), name);
  });
  return make("div", { class: "key" }, settings.below, keys);
}

// Creates the figure of a chart. more: settings of `chart`.
export function figureOf(described, more = {}) {
  const { title, lines, options, settings } = described;
  const figure = chart(title, lines, options, { ...settings, ...more });
  if (settings.below) figure.append(keyOf(described));
  return figure;
}

// Returns [{id, title, text, groups: [{label, charts}]}]; several tasks are shown one after the
// other, because their scores and losses cannot be compared.
export function chartParts(report, runs) {
  const tasks = grouped(runs, (run) => run.task);
  const part = (id, title, chartsOf, text = "") => {
    const labelOf = (own) => say(taskOf(report, own[0]).label);
    const groups = tasks.map((own) => ({ label: labelOf(own), charts: chartsOf(own) }));
    return { id, title, text, groups: groups.filter(({ charts }) => charts.length) };
  };
  const weights = say(
    "Scores of the weights that best/ may hold (EMA where it is on). Dashed: the training weights "
    + "without EMA. Bands: 95 % intervals.");
  const dotted = say("Dotted: what a branch shares with its source.");
  const branched = runs.some((run) => run.branch) ? ` ${dotted}` : "";
  const speed = ["optimizer", "speed", "other"];
  return [
    part("scores", say("Scores"), (own) => scoreCharts(report, own), weights + branched),
    part("losses", say("Losses"), (own) => trainingCharts(own, ["loss"])),
    part("speed", say("Learning rate, gradients and speed"), (own) => trainingCharts(own, speed)),
    part("curves", say("Curves of the last evaluation"), evaluationCharts),
  ].filter(({ groups }) => groups.length);
}

// Returns the section of a part. create(described): creates a figure.
export function chartSection({ id, title, text, groups }, several, create) {
  return section(id, title,
    text ? make("p", { class: "hint" }, text) : null,
    groups.flatMap(({ label, charts }) => [
      several ? make("h3", {}, label) : null,
      make("div", { class: "charts" }, charts.map(create)),
    ]));
}

// Returns the legend, whose buttons hide and show a run in all charts, the smoothing, the scale of
// the losses, and the axis. redraw(): draws all charts again.
export function controls(runs, redraw) {
  const legend = runs.map((run) => {
    const update = () => button.setAttribute("aria-pressed", String(!view.hidden.has(run.place)));
    const button = make("button", { class: "toggle", click: () => {
      if (!view.hidden.delete(run.place)) view.hidden.add(run.place);
      update();
      redraw();
    } }, runName(run));
    update();
    return button;
  });
  const weightText = make("output", {}, view.weight.toFixed(2));
  const range = { type: "range", min: 0, max: 0.99, step: 0.01, value: view.weight };
  const weight = make("input", { ...range, input: () => {
    view.weight = Number(weight.value);
    weightText.textContent = view.weight.toFixed(2);
    redraw();
  } });
  const check = (name, text) => {
    const box = make("input", { type: "checkbox", checked: view[name], change: () => {
      view[name] = box.checked;
      redraw();
    } });
    return make("label", {}, box, ` ${text}`);
  };
  const hasTime = runs.some((run) => run.clock);
  return make("div", { class: "controls", role: "group", "aria-label": say("charts") },
    runs.length > 1 ? make("div", { class: "legend" }, legend) : null,
    make("label", {}, `${say("smoothing")} `, weight, weightText),
    check("log", say("losses on a log scale")),
    hasTime ? check("time", say("over the time in training steps")) : null);
}
