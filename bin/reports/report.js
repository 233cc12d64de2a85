"use strict";
// The page: drawReport(object) draws all of it, and may be called again with a newer object; schema.json says what is in it.

const STATES = {
  running: "still running when this page was made",
  lost: "no sign of life for over a minute: the process is gone; the same command goes on from its last checkpoint",
  stopped: "saved and stopped; the same command goes on from there",
  failed: "ended with an error",
  unknown: "the folder has no status.json that tells",
};
const CURVES = {
  loss: "training loss",
  lr: "learning rate",
  grad_norm: "gradient norm",
  step_ms: "milliseconds a step",
  data_wait: "share of the time spent waiting for data",
};
const KEYS_SHOWN = 12, MOST_NAMED = 3; // names below a chart of many lines; runs in the title
const view = { log: false, weight: 0, hidden: new Set() };
const plain = () => ({ format: "float", log: false, weight: 0, hidden: view.hidden });

const taskOf = (report, run) => report.tasks.find(({ name }) => name === run.task);
const metricOf = (report, run, key) => taskOf(report, run).metrics.find((metric) => metric.key === key) || { label: key, format: "float" };
const curveName = (name) => CURVES[name] || name.replace(/^loss_/, "loss: ").replaceAll("_", " ");
const lineOf = (run) => ({ run: run.place, colour: colourOf(run.place), name: run.name });

function moment(seconds) {
  return new Date(1000 * seconds).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}

function steps({ step, steps: all, epoch }) {
  return `${whole(step)}${all ? ` of ${whole(all)}` : ""}${epoch === null ? "" : `, epoch ${epoch}`}`;
}

// What a run is at a glance.
function card(report, run) {
  const time_breakdown = run.time_breakdowns.at(-1), told = (value, text) => (value === null ? null : text(value));
  const facts = [
    ["task", run.task && taskOf(report, run).label],
    ["model", run.model],
    ["data", run.data],
    ["steps", told(run.step, () => steps(run))],
    ["in training steps", told(run.seconds, duration)],
    [run.time_breakdowns.length > 1 ? "last start took" : "took", time_breakdown ? duration(wallTime(time_breakdown)) : null],
    ["last sign of life", told(run.heartbeat, moment)],
    ["expected end", run.state === "running" ? told(run.eta, moment) : null],
  ].filter(([, value]) => value !== null);
  const error = run.error && make("p", { class: "error", role: "alert" }, run.error);
  const hint = STATES[run.state] ? make("p", { class: "hint" }, STATES[run.state]) : null;
  const done = run.steps && run.step !== null ? make("progress", { max: run.steps, value: run.step, "aria-label": "steps done" }) : null;
  const list = facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)));
  const title = make("h2", {}, runName(run), make("span", { class: `state ${run.state}` }, run.state));
  const colour = { "border-top-color": colourOf(run.place) };
  return make("article", { class: "card", style: colour }, title, error, hint, bestScore(report, run), done, make("dl", {}, list));
}

// The best score with its interval, and what a trivial answer would have.
function bestScore(report, run) {
  const { best } = run;
  if (!best) return [make("p", {}, "no score yet")];
  const { label, format } = metricOf(report, run, best.metric);
  const span = best.interval ? ` 95 % interval ${best.interval.map((end) => show(format, end)).join(" to ")}` : "";
  const trivial = Object.entries(run.last_evaluation ? run.last_evaluation.reference : {});
  const about = make("p", {}, `best ${label}, at step ${best.step}`, make("small", {}, span));
  const others = trivial.map(([name, value]) => make("p", { class: "hint" }, `${name}: ${show(format, value)}`));
  return [make("div", { class: "score" }, show(format, best.score)), about, ...others];
}

function scoreCharts(report, runs) {
  const keys = taskOf(report, runs[0]).metrics.map(({ key }) => key);
  return keys.map((key) => {
    const { label, format, description } = metricOf(report, runs[0], key);
    const lines = runs.flatMap((run) => run.scores.filter((score) => score.key === key).flatMap((score) => {
      const line = { ...lineOf(run), x: score.steps };
      const raw = score.raw ? [{ ...line, name: `${run.name}, not averaged`, y: score.raw, dashed: true }] : [];
      return [...raw, { ...line, y: score.values, low: score.low, high: score.high }];
    }));
    return chart(label, lines, () => ({ ...plain(), format }), { note: description });
  });
}

// A chart for each curve of these groups, with a line for each run.
function trainingCharts(runs, groups) {
  const curves = runs.flatMap((run) => run.curves.map((curve) => ({ run, ...curve }))).filter(({ group }) => groups.includes(group));
  return grouped(curves, ({ name }) => name).map((own) => {
    const { name, group } = own[0], gaps = sum(own.map((curve) => curve.gaps));
    const lines = own.map(({ run, steps: x, values: y, low, high }) => ({ ...lineOf(run), x, y, low, high }));
    const title = `${curveName(name)}${gaps ? ` (${whole(gaps)} values not finite)` : ""}`;
    const format = name === "data_wait" ? "percent" : "float";
    const isExact = name.startsWith("lr"); // a rate is not noisy
    return chart(title, lines, () => ({ ...plain(), format, log: view.log && group === "loss", weight: isExact ? 0 : view.weight }));
  });
}

// Curves such as precision against recall: a colour for each line, or for each run where each has one line.
function evaluationCharts(runs) {
  const known = runs.filter((run) => run.last_evaluation);
  return known.flatMap((run) => run.last_evaluation.curves.map(({ title, x, y, lines }) => {
    const coloured = lines.map((line, i) => ({ ...line, run: run.place, colour: colourOf(lines.length > 1 ? i : run.place) }));
    const figure = chart(runs.length > 1 ? `${title}, ${run.name}` : title, coloured, plain, { x });
    const keys = coloured.slice(0, KEYS_SHOWN).map(({ name, colour }) => make("span", { class: "run" }, colourBox(colour), name));
    figure.append(make("div", { class: "key" }, `${y} against ${x}`, ...(coloured.length > 1 ? keys : [])));
    return figure;
  }));
}

// [[section, its charts]]; several tasks stand below each other, because their scores and losses are different things.
function chartSections(report, runs) {
  const tasks = grouped(runs, (run) => run.task);
  const part = (id, title, chartsOf, text) => {
    const blocks = tasks.map((own) => [taskOf(report, own[0]).label, chartsOf(own)]).filter(([, charts]) => charts.length);
    if (!blocks.length) return null;
    const heading = (label) => (tasks.length > 1 ? make("h3", {}, label) : null);
    const drawn = blocks.flatMap(([label, charts]) => [heading(label), make("div", { class: "charts" }, charts)]);
    return [section(id, title, text ? make("p", { class: "hint" }, text) : null, ...drawn), blocks.flatMap(([, charts]) => charts)];
  };
  const weights = "Of the weights that best/ may hold; dashed: of the weights as they are trained, not averaged. Bands: 95 % intervals.";
  return [
    part("scores", "Scores", (own) => scoreCharts(report, own), weights),
    part("losses", "Losses", (own) => trainingCharts(own, ["loss"])),
    part("speed", "Learning rate, gradients and speed", (own) => trainingCharts(own, ["rate", "speed", "other"])),
    part("curves", "Curves of the last evaluation", evaluationCharts),
  ].filter(Boolean);
}

// The legend, whose buttons hide and show a run in all charts, smoothing, and the scale of the losses.
function controls(runs, charts) {
  const redraw = () => charts.forEach((figure) => figure.redraw());
  const legend = runs.map((run) => {
    const tell = () => button.setAttribute("aria-pressed", String(!view.hidden.has(run.place)));
    const button = make("button", { class: "toggle", click: () => {
      if (!view.hidden.delete(run.place)) view.hidden.add(run.place);
      tell();
      redraw();
    } }, runName(run));
    tell();
    return button;
  });
  const told = make("output", {}, view.weight.toFixed(2));
  const weight = make("input", { type: "range", min: 0, max: 0.99, step: 0.01, value: view.weight, id: "weight", input: () => {
    view.weight = Number(weight.value);
    told.textContent = view.weight.toFixed(2);
    redraw();
  } });
  const log = make("input", { type: "checkbox", id: "log", checked: view.log, change: () => {
    view.log = log.checked;
    redraw();
  } });
  const switches = [make("label", {}, "smoothing ", weight, told), make("label", {}, log, " losses on a log scale")];
  return make("div", { class: "controls", role: "toolbar", "aria-label": "charts" }, make("div", { class: "legend" }, legend), ...switches);
}

function missing(report, runs) {
  const { points, fixed_samples: samples, fixed_steps: evaluations, worst_samples: worst } = report.limits;
  const limits = [
    `A curve of more than ${whole(points)} points is drawn as means of equal stretches, in a band from the least to the greatest of each.`,
    `Of a run there are at most ${samples} of the same samples at ${evaluations} evaluations, and ${worst} of the worst.`,
  ].join(" ");
  const notes = runs.flatMap((run) => run.notes.map((note) => make("li", {}, runs.length > 1 ? `${run.name}: ${note}` : note)));
  return section("missing", "What is not in this page", make("p", {}, limits), notes.length ? make("ul", {}, notes) : null);
}

function drawReport(report) {
  const runs = report.runs.map((run, place) => ({ ...run, place }));
  const charted = chartSections(report, runs), charts = charted.flatMap(([, found]) => found);
  const drawn = charted.map(([part]) => part);
  const others = [
    classTables(runs), confusions(runs), fixedSamples(runs), worstSamples(runs), time_breakdowns(runs), settings(runs), environments(runs),
    repeats(runs), missing(report, runs),
  ].filter(Boolean);
  const title = runs.length > MOST_NAMED ? `${runs.length} runs` : runs.map(({ name }) => name).join(", ");
  document.title = `${title} - visionloop`;
  const links = [...drawn, ...others].map((part) => make("a", { href: `#${part.id}` }, part.querySelector("h2").textContent));
  document.querySelector("main").replaceChildren(
    make("h1", {}, title),
    make("p", { class: "hint" }, `visionloop ${report.visionloop}, ${moment(report.made)}`),
    make("nav", { "aria-label": "parts" }, links),
    make("div", { class: "cards" }, runs.map((run) => card(report, run))),
    make("div", {}, charts.length ? controls(runs, charts) : "", ...drawn),
    ...others,
  );
}

drawReport(JSON.parse(document.getElementById("report").textContent));
