import { chart, colorBox, colorOf, formatValue, grouped, make } from "./charts.js";
import { classTables, confusions, duration, environments, repeats, runName } from "./tables.js";
import { section, settings, sum, time_breakdowns, wallTime, whole } from "./tables.js";
import { fixedSamples, worstSamples } from "./images.js";

// The page: drawReport(object) draws all of it, and may be called again with a newer object, which schema.json defines.

const STATES = {
  running: "still running when this page was created",
  lost: "no heartbeat for over a minute: the process is gone; run the same command to resume from the last checkpoint",
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
const MAX_KEYS = 12, MAX_TITLE_RUNS = 3; // names below a chart of many lines; runs named in the title
const view = { log: false, weight: 0, hidden: new Set() };
const plain = () => ({ format: "float", log: false, weight: 0, hidden: view.hidden });

const taskOf = (report, run) => report.tasks.find(({ name }) => name === run.task);
const metricOf = (report, run, key) => taskOf(report, run).metrics.find((metric) => metric.key === key) || { label: key, format: "float" };
const curveName = (name) => CURVES[name] || name.replace(/^loss_/, "loss: ").replaceAll("_", " ");
const lineOf = (run) => ({ run: run.place, color: colorOf(run.place), name: run.name });

function moment(seconds) {
  return new Date(1000 * seconds).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}

function steps({ step, steps: all, epoch }) {
  return `${whole(step)}${all ? ` of ${whole(all)}` : ""}${epoch === null ? "" : `, epoch ${epoch}`}`;
}

// Returns the overview of a run.
function card(report, run) {
  const time_breakdown = run.time_breakdowns.at(-1), optional = (value, text) => (value === null ? null : text(value));
  const facts = [
    ["task", run.task && taskOf(report, run).label],
    ["model", run.model],
    ["data", run.data],
    ["steps", optional(run.step, () => steps(run))],
    ["time in training steps", optional(run.seconds, duration)],
    [run.time_breakdowns.length > 1 ? "time of the last start" : "time", time_breakdown ? duration(wallTime(time_breakdown)) : null],
    ["last heartbeat", optional(run.heartbeat, moment)],
    ["expected end", run.state === "running" ? optional(run.eta, moment) : null],
  ].filter(([, value]) => value !== null);
  const error = run.error && make("p", { class: "error", role: "alert" }, run.error);
  const hint = STATES[run.state] ? make("p", { class: "hint" }, STATES[run.state]) : null;
  const done = run.steps && run.step !== null ? make("progress", { max: run.steps, value: run.step, "aria-label": "steps done" }) : null;
  const list = facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)));
  const title = make("h2", {}, runName(run), make("span", { class: `state ${run.state}` }, run.state));
  const color = { "border-top-color": colorOf(run.place) };
  return make("article", { class: "card", style: color }, title, error, hint, bestScore(report, run), done, make("dl", {}, list));
}

// Returns the best score with its interval, and the score of a trivial predictor.
function bestScore(report, run) {
  const { best } = run;
  if (!best) return [make("p", {}, "no score yet")];
  const { label, format } = metricOf(report, run, best.metric);
  const span = best.interval ? ` 95 % interval ${best.interval.map((end) => formatValue(format, end)).join(" to ")}` : "";
  const trivial = Object.entries(run.last_evaluation ? run.last_evaluation.reference : {});
  const about = make("p", {}, `best ${label}, at step ${best.step}`, make("small", {}, span));
  const others = trivial.map(([name, value]) => make("p", { class: "hint" }, `${name}: ${formatValue(format, value)}`));
  return [make("div", { class: "score" }, formatValue(format, best.score)), about, ...others];
}

function scoreCharts(report, runs) {
  const keys = taskOf(report, runs[0]).metrics.map(({ key }) => key);
  return keys.map((key) => {
    const { label, format, description } = metricOf(report, runs[0], key);
    const lines = runs.flatMap((run) => run.scores.filter((score) => score.key === key).flatMap((score) => {
      const line = { ...lineOf(run), x: score.steps };
      const raw = score.raw ? [{ ...line, name: `${run.name}, without EMA`, y: score.raw, dashed: true }] : [];
      return [...raw, { ...line, y: score.values, low: score.low, high: score.high }];
    }));
    return chart(label, lines, () => ({ ...plain(), format }), { note: description });
  });
}

// Returns a chart for each curve of these groups, with a line for each run.
function trainingCharts(runs, groups) {
  const curves = runs.flatMap((run) => run.curves.map((curve) => ({ run, ...curve }))).filter(({ group }) => groups.includes(group));
  return grouped(curves, ({ name }) => name).map((own) => {
    const { name, group } = own[0], gaps = sum(own.map((curve) => curve.gaps));
    const lines = own.map(({ run, steps: x, values: y, low, high }) => ({ ...lineOf(run), x, y, low, high }));
    const title = `${curveName(name)}${gaps ? ` (${whole(gaps)} values are not finite)` : ""}`;
    const format = name === "data_wait" ? "percent" : "float";
    const isExact = name.startsWith("lr"); // the learning rate has no noise to smooth
    return chart(title, lines, () => ({ ...plain(), format, log: view.log && group === "loss", weight: isExact ? 0 : view.weight }));
  });
}

// Returns charts such as precision over recall: a color for each line, or for each run where each has one line.
function evaluationCharts(runs) {
  const evaluated = runs.filter((run) => run.last_evaluation);
  return evaluated.flatMap((run) => run.last_evaluation.curves.map(({ title, x, y, lines }) => {
    const colored = lines.map((line, i) => ({ ...line, run: run.place, color: colorOf(lines.length > 1 ? i : run.place) }));
    const figure = chart(runs.length > 1 ? `${title}, ${run.name}` : title, colored, plain, { x });
    const keys = colored.slice(0, MAX_KEYS).map(({ name, color }) => make("span", { class: "run" }, colorBox(color), name));
    figure.append(make("div", { class: "key" }, `${y} against ${x}`, ...(colored.length > 1 ? keys : [])));
    return figure;
  }));
}

// Returns [[section, its charts]]; several tasks are shown one after the other, because their scores and losses cannot be compared.
function chartSections(report, runs) {
  const tasks = grouped(runs, (run) => run.task);
  const part = (id, title, chartsOf, text) => {
    const blocks = tasks.map((own) => [taskOf(report, own[0]).label, chartsOf(own)]).filter(([, charts]) => charts.length);
    if (!blocks.length) return null;
    const heading = (label) => (tasks.length > 1 ? make("h3", {}, label) : null);
    const drawn = blocks.flatMap(([label, charts]) => [heading(label), make("div", { class: "charts" }, charts)]);
    return [section(id, title, text ? make("p", { class: "hint" }, text) : null, ...drawn), blocks.flatMap(([, charts]) => charts)];
  };
  const weights = "Scores of the weights that best/ may hold (EMA where it is on). Dashed: the training weights without EMA. Bands: 95 % intervals.";
  return [
    part("scores", "Scores", (own) => scoreCharts(report, own), weights),
    part("losses", "Losses", (own) => trainingCharts(own, ["loss"])),
    part("speed", "Learning rate, gradients and speed", (own) => trainingCharts(own, ["optimizer", "speed", "other"])),
    part("curves", "Curves of the last evaluation", evaluationCharts),
  ].filter(Boolean);
}

// Returns the legend, whose buttons hide and show a run in all charts, the smoothing, and the scale of the losses.
function controls(runs, charts) {
  const redraw = () => charts.forEach((figure) => figure.redraw());
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
  const weight = make("input", { type: "range", min: 0, max: 0.99, step: 0.01, value: view.weight, id: "weight", input: () => {
    view.weight = Number(weight.value);
    weightText.textContent = view.weight.toFixed(2);
    redraw();
  } });
  const log = make("input", { type: "checkbox", id: "log", checked: view.log, change: () => {
    view.log = log.checked;
    redraw();
  } });
  const switches = [make("label", {}, "smoothing ", weight, weightText), make("label", {}, log, " losses on a log scale")];
  return make("div", { class: "controls", role: "toolbar", "aria-label": "charts" }, make("div", { class: "legend" }, legend), ...switches);
}

function missing(report, runs) {
  const { points, fixed_samples: samples, fixed_steps: evaluations, worst_samples: worst } = report.limits;
  const limits = [
    `A curve of more than ${whole(points)} points is reduced to the mean of equal intervals, in a band from the minimum to the maximum of each.`,
    `Of each run the page holds at most ${samples} fixed samples at ${evaluations} evaluations, and the ${worst} worst samples.`,
  ].join(" ");
  const notes = runs.flatMap((run) => run.notes.map((note) => make("li", {}, runs.length > 1 ? `${run.name}: ${note}` : note)));
  return section("missing", "Missing parts", make("p", {}, limits), notes.length ? make("ul", {}, notes) : null);
}

function drawReport(report) {
  const runs = report.runs.map((run, place) => ({ ...run, place }));
  const charted = chartSections(report, runs), charts = charted.flatMap(([, figures]) => figures);
  const drawn = charted.map(([part]) => part);
  const others = [
    classTables(runs), confusions(runs), fixedSamples(runs), worstSamples(runs), time_breakdowns(runs), settings(runs), environments(runs),
    repeats(runs), missing(report, runs),
  ].filter(Boolean);
  const title = runs.length > MAX_TITLE_RUNS ? `${runs.length} runs` : runs.map(({ name }) => name).join(", ");
  document.title = `${title} - visionloop`;
  const links = [...drawn, ...others].map((part) => make("a", { href: `#${part.id}` }, part.querySelector("h2").textContent));
  document.querySelector("main").replaceChildren(
    make("h1", {}, title),
    make("p", { class: "hint" }, `visionloop ${report.visionloop}, ${moment(report.created)}`),
    make("nav", { "aria-label": "sections" }, links),
    make("div", { class: "cards" }, runs.map((run) => card(report, run))),
    make("div", {}, charts.length ? controls(runs, charts) : "", ...drawn),
    ...others,
  );
}

drawReport(JSON.parse(document.getElementById("report").textContent));
