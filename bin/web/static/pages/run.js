// A run: live curves, samples, tables, log, and what can be done with it.
import { placed } from "/components/sections.js";
import { make } from "/components/charts.js";
import { get, query as queryOf, stream, throttled } from "../api.js";
import { errorBox, skeleton } from "../parts.js";
import { rename } from "../router.js";
import { word } from "../words.js";
import { chartBoard } from "./run_charts.js";
import { runHeader } from "./run_header.js";
import { logPart, noLogPart } from "./run_log.js";
import { reportParts } from "./run_parts.js";
import { openReplay } from "./run_replay.js";
import { untilRun } from "./run_waiting.js";

export const title = "run.title";

const DRAW_MS = 500, REPORT_MS = 2000, HEAD_MS = 1000;
const MOST_POINTS = 3000; // of a curve; with more, the server reduces it again
const NOT_CURVES = ["time", "step", "epoch", "kind"];
const GROUPS = { lr: "optimizer", grad_norm: "optimizer", step_ms: "speed", data_wait: "speed" };

const groupOf = (name) => GROUPS[name] || (/^loss(_|$)/.test(name) ? "loss" : "other");

// Adds a line of metrics.jsonl to the curves of a run. Returns whether the curves have become long.
function append(run, line) {
  let isLong = false;
  for (const [name, value] of Object.entries(line)) {
    if (NOT_CURVES.includes(name) || (value !== null && typeof value !== "number")) continue;
    let curve = run.curves.find((one) => one.name === name);
    if (!curve) {
      const empty = { logged: 0, gaps: 0, steps: [], values: [], low: null, high: null };
      curve = { name, group: groupOf(name), ...empty };
      run.curves.push(curve);
    }
    if (curve.steps.length && line.step <= curve.steps.at(-1)) continue;
    curve.steps.push(line.step);
    curve.values.push(value);
    curve.low?.push(value);
    curve.high?.push(value);
    curve.logged += 1;
    curve.gaps += value === null ? 1 : 0;
    isLong ||= curve.steps.length > MOST_POINTS;
  }
  return isLong;
}

// Draws links to the sections of the page.
function drawLinks(nav, main) {
  const sections = [...main.querySelectorAll("section[id]")];
  const wanted = sections.map((part) => [part.id, part.querySelector("h2").textContent]);
  const text = JSON.stringify(wanted);
  if (nav.dataset.drawn === text) return;
  nav.dataset.drawn = text;
  nav.replaceChildren(...wanted.map(([id, name]) => make("a", { href: `#${id}` }, name)));
}

export async function show(main, { params, query, signal }) {
  if (query.get("job")) { // the folder of a run is written after its start
    await untilRun(main, query.get("job"), signal);
    rename(`/runs/${encodeURIComponent(params.id)}`);
  }
  const path = `/runs/${encodeURIComponent(params.id)}`;
  const problem = make("div");
  const nav = make("nav", { class: "sections", "aria-label": word("run.parts") });
  const header = runHeader(path, signal, { refresh: () => loadHead(), resumed: () => resumed() });
  const parts = reportParts(), place = make("div"), waiting = skeleton(8);
  const board = chartBoard({
    detail: async (first, last) => {
      const range = queryOf({ first, last: Number.isFinite(last) ? last : null, points: 2000 });
      return [(await get(`${path}/curves${range}`, { signal })).curves];
    },
    onPoint: (step) => openReplay(params.id, Math.max(1, step), signal),
    pointText: word("run.point"),
  });
  main.append(problem, waiting);
  let report = null, log = null, drawnJob, shownBest;

  function drawCharts() {
    if (!report) return;
    board.show(report, placed(report.runs));
  }

  async function loadHead() {
    const run = await get(path, { signal });
    const job = run.job && await get(`/jobs/${run.job}`, { signal }).catch(() => null);
    header.show(run, job);
    document.title = `${run.name} - visionloop`;
    if (drawnJob === run.job) return;
    drawnJob = run.job;
    const now = run.job ? logPart(run.job, signal) : noLogPart();
    log?.replaceWith(now);
    log = now;
    place.append(log);
  }

  async function loadReport() {
    report = await get(`${path}/report`, { signal });
    header.showReport(report);
    drawCharts();
    parts.show(placed(report.runs));
    drawLinks(nav, main);
    return report.cursor;
  }

  const failed = (error) => {
    if (!signal.aborted) problem.replaceChildren(errorBox(error, { retry: reload }));
  };
  const reload = () => Promise.all([loadHead(), loadReport()])
    .then(() => problem.replaceChildren()).catch(failed);
  const redraw = throttled(async () => drawCharts(), DRAW_MS, signal);
  const freshReport = throttled(() => loadReport().catch(failed), REPORT_MS, signal);
  const freshHead = throttled(() => loadHead().catch(failed), HEAD_MS, signal);
  const resumed = () => log?.again?.();

  place.append(board, parts);
  // all at once: parts that come one by one push each other down
  const [head, first] = await Promise.allSettled([loadHead(), loadReport()]);
  if (head.status === "rejected") throw head.reason;
  waiting.before(header, nav);
  if (first.status === "rejected") throw first.reason; // the run can still be stopped
  waiting.replaceWith(place);
  const cursor = first.value;
  const poll = (at) => get(`${path}/events/poll${queryOf({ cursor: at })}`, { signal });
  drawLinks(nav, main);
  stream(`${path}/events`, {
    metrics: (line) => {
      const isLong = line.kind === "train" && append(report.runs[0], line);
      if (isLong || line.kind !== "train") freshReport();
      redraw();
    },
    status: (status) => {
      const isNewState = header.progress(status);
      if (isNewState) freshHead();
      const best = JSON.stringify(status.best); // best/ is written after the line of its score
      if (best !== shownBest) freshHead();
      if (best !== shownBest || (isNewState && status.state !== "running")) freshReport();
      shownBest = best;
    },
    reset: freshReport,
  }, signal, { cursor, poll });
  // what has no event: states of the job, a note from another window
  stream("/events", { changed: freshHead }, signal);
}
