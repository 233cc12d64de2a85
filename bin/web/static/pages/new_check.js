// Check of data, model and settings: a job of its own, its progress and its result in words.
import { make } from "/components/charts.js";
import { API, get, post } from "../api.js";
import { actionButton, errorBox, progressBar } from "../parts.js";
import { bytes, number, span, word } from "../words.js";

const ENDED = ["finished", "failed", "stopped", "lost"];
const MOST_ALIKE = 5, MANY_CLASSES = 12, POLL_MS = 1000, GIB = 2 ** 30;

// Returns a panel with a button that checks the draft, and the result of the last check.
// kind: "data", or "model" for its memory and time too.
export function checkPanel({ draft, signal, kind }) {
  const place = make("div", { class: "check-result", "aria-live": "polite" });
  const button = actionButton(word(`check.${kind}`), async () => {
    const { task } = draft.values, { key, settings } = draft;
    const job = await post("/checks", { task, settings, estimate: kind === "model" });
    draft.set({ check: { job: job.id, key, kind } });
    await follow(job.id);
  }, { kind: "primary" });

  async function follow(id) {
    const bar = progressBar(word(`check.${kind}.running`));
    const stop = actionButton(word("check.stop"), () => post(`/jobs/${id}/kill`));
    place.replaceChildren(bar, stop);
    const began = Date.now();
    let job = await get(`/jobs/${id}`, { signal });
    while (!ENDED.includes(job.state)) {
      const text = word(job.state === "queued" ? "check.waiting" : `check.${kind}.running`);
      bar.set(null, 1, `${text} (${span((Date.now() - began) / 1000)})`);
      await pause(signal);
      job = await get(`/jobs/${id}`, { signal });
    }
    await showResult(job);
  }

  async function showResult(job) {
    try {
      const report = await get(`/jobs/${job.id}/result`, { signal });
      place.replaceChildren(reportOf(report, job));
    } catch (error) {
      if (signal.aborted) return;
      place.replaceChildren(job.error ? errorBox(job.error) : errorBox(error), logOf(job));
    }
  }

  function start() {
    const { check } = draft.values;
    if (check?.key !== draft.key || check.kind !== kind) return; // of other choices
    follow(check.job).catch(() => place.replaceChildren()); // the job was removed
  }
  start();
  return make("section", { class: "check" },
    make("div", { class: "buttons" }, button,
      make("span", { class: "hint" }, word(`check.${kind}.hint`))), place);
}

// Waits a second; rejects when the page is left.
function pause(signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, POLL_MS);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("left", "AbortError"));
    });
  });
}

function logOf(job) {
  if (!job.log_tail?.length) return "";
  return make("pre", { class: "plain" }, job.log_tail.join("\n"));
}

function reportOf(report, job) {
  const { errors, warnings, classes, estimate } = report;
  const isGood = !errors.length;
  const sheet = make("img", {
    class: "sheet-image", alt: word("check.sheet.alt"),
    src: `${API}/jobs/${job.id}/files/sheet.png`,
    error: () => sheet.closest("figure").remove(), // none was written
  });
  const figure = make("figure", {}, make("figcaption", {}, word("check.sheet")), sheet);
  return make("div", {},
    make("p", { class: isGood ? "good" : "error", role: isGood ? "status" : "alert" },
      word(isGood ? "check.good" : "check.bad", { n: errors.length })),
    problemList("errors", errors), problemList("warnings", warnings),
    estimateOf(estimate),
    classCounts(classes), isGood ? figure : null);
}

// Returns the problems of a kind; of many that are alike the first ones.
function problemList(kind, rows) {
  if (!rows.length) return "";
  const alike = new Map();
  for (const { path, why } of rows) alike.set(why, [...(alike.get(why) || []), path]);
  const items = [...alike].map(([why, paths]) => {
    const more = paths.length - MOST_ALIKE;
    return make("li", {}, make("b", {}, why),
      make("ul", {}, paths.slice(0, MOST_ALIKE).map((path) => make("li", {}, path || "-"))),
      more > 0 ? make("span", { class: "hint" }, word("check.more", { n: number(more) })) : null);
  });
  return make("div", { class: `problems ${kind}` },
    make("h3", {}, word(`check.${kind}`, { n: number(rows.length) })),
    make("p", { class: "hint" }, word(`check.${kind}.todo`)), make("ul", {}, items));
}

// Returns the expected memory, time and disk space as a list, "" before it is known.
export function estimateOf({ memory_gib, disk_gib, seconds }) {
  if (seconds === null) return "";
  const rows = [
    ["check.memory", bytes(memory_gib * GIB)], ["check.time", span(seconds)],
    ["check.disk", bytes(disk_gib * GIB)],
  ];
  return make("dl", { class: "estimate" }, rows.map(([key, text]) => {
    return make("div", {}, make("dt", {}, word(key)), make("dd", {}, text));
  }));
}

function classCounts(classes) {
  const rows = Object.entries(classes);
  if (!rows.length) return "";
  const most = Math.max(...rows.map(([, count]) => count));
  const bars = rows.map(([name, count]) => make("tr", {},
    make("th", { scope: "row" }, name),
    make("td", {}, make("meter", { max: most || 1, value: count, "aria-hidden": "true" })),
    make("td", {}, number(count))));
  const table = make("div", { class: "scroll", tabindex: 0 },
    make("table", { class: "counts" }, make("tbody", {}, bars)));
  return make("details", { open: rows.length <= MANY_CLASSES },
    make("summary", {}, word("check.classes", { n: number(rows.length) })), table);
}
