// Jobs on the home page: running ones, the queue, and those that failed.
import { formatValue, make } from "/components/charts.js";
import { post, remove } from "../api.js";
import { actionButton, confirmButton, confirmed, icon, keepList, progressBar } from "../parts.js";
import { setText, stateBadge, taskIcon, taskName } from "../parts.js";
import { clock, number, span, word } from "../words.js";

export const GRACE_SECONDS = 20; // before a stopping job may be killed from here
const MAX_FAILED = 5;

// Shows each device, and the job that uses it.
export function devicesLine(place, devices, jobs) {
  const nameOf = (id) => jobs.find((job) => job.id === id)?.name ?? id;
  const draw = () => make("span", { class: "device" });
  keepList(place, devices, ({ name }) => name, draw, (chip, one) => {
    const user = one.job === null ? one.run : nameOf(one.job);
    chip.classList.toggle("busy", user !== null);
    chip.title = one.label;
    setText(chip, user === null ? word("home.device.free", { name: one.name })
      : word("home.device.busy", { name: one.name, job: user }));
  });
}

// Returns a section with a list; show(items) draws it and hides the section without items.
function listPart(title, id, draw, update, keyOf, tag = "ul") {
  const list = make(tag, { class: `plain ${id}` }), count = make("span", { class: "count" });
  const part = make("section", { id, hidden: true }, make("h2", {}, title, count), list);
  part.show = (items) => {
    part.hidden = !items.length;
    setText(count, String(items.length));
    keepList(list, items, keyOf, draw, update);
  };
  return part;
}

// Returns the address of a training: its page waits where the run has not begun.
const addressOf = ({ id, run_id, has_run }) => `/runs/${run_id}${has_run ? "" : `?job=${id}`}`;

export function progressText({ step, steps, eta }) {
  if (step === null || step === undefined) return word("progress.none");
  const all = steps ? ` / ${number(steps)}` : "";
  const share = steps ? ` · ${Math.floor((100 * step) / steps)} %` : "";
  if (!eta) return `${number(step)}${all}${share}`;
  const left = span(Math.max(0, eta - Date.now() / 1000));
  return `${number(step)}${all}${share} · ${word("progress.eta", { span: left, at: clock(eta) })}`;
}

export function bestText(run) {
  if (!run?.best) return word("home.noscore");
  const { metric, best } = run;
  return `${metric?.label ?? best.metric} ${formatValue(metric?.format ?? "float", best.score)}`;
}

// Returns an action of a button: a call of the API, after which the page shows the change.
const calling = (refresh, path, body) => async () => {
  await post(path, body);
  await refresh();
};

// Returns the card of a training that runs; job is null for a run that was started elsewhere.
function liveCard({ job, run }, refresh) {
  const path = job ? `/jobs/${job.id}` : `/runs/${run.id}`;
  const act = (name) => calling(refresh, `${path}/${name}`);
  const parts = {
    state: stateBadge("starting"),
    name: make("a", { class: "name" }),
    about: make("span", { class: "hint" }),
    bar: progressBar(word("progress")),
    best: make("strong"),
    device: make("span", { class: "hint" }),
    pause: actionButton(word("action.pause"), act("pause"), { image: "pause" }),
    stop: actionButton(word("action.stop"), act("stop"), { image: "stop" }),
    kill: confirmButton(word("action.kill"), word("kill.question"), act("kill"), {
      image: "kill", kind: "danger",
    }),
    since: null,
  };
  const item = make("li", { class: "job-card" },
    make("div", { class: "line" }, taskIcon(job?.task ?? run.task),
      make("div", { class: "grow" }, parts.name, parts.about), parts.state),
    parts.bar,
    make("div", { class: "line" }, parts.best, parts.device,
      make("div", { class: "buttons end" }, parts.pause, parts.stop, parts.kill)));
  item.parts = parts;
  return item;
}

function updateLiveCard({ parts }, { job, run }) {
  const state = job?.state ?? run.state, can = job?.can ?? { stop: true, kill: true };
  parts.state.set(state);
  setText(parts.name, job?.name || run.name);
  parts.name.href = job ? addressOf(job) : `/runs/${run.id}`;
  setText(parts.about, [run?.model, run?.data].filter(Boolean).join(" · "));
  const now = job?.progress ?? run ?? {};
  parts.bar.set(now.step ?? null, now.steps || 1, progressText(now));
  setText(parts.best, bestText(run));
  setText(parts.device, job?.devices.join(", ") ?? word("home.elsewhere"));
  // a stop takes up to a step and a checkpoint: killing it comes after a while
  const isEnding = state === "stopping" || state === "verifying";
  parts.since = isEnding ? parts.since ?? Date.now() : null;
  const waited = parts.since !== null && Date.now() - parts.since > 1000 * GRACE_SECONDS;
  parts.pause.hidden = !can.pause || isEnding;
  parts.stop.hidden = !can.stop || isEnding;
  parts.kill.hidden = !can.kill || !waited;
}

// Returns the part with a card for each training that runs; items are {job, run}, one may be null.
export function livePart(refresh) {
  const keyOf = ({ job, run }) => job?.id ?? run.id, draw = (item) => liveCard(item, refresh);
  return listPart(word("home.live"), "live", draw, updateLiveCard, keyOf);
}

const wayOf = (by) => (by < 0 ? "up" : "down");

function mover(job, by, move) {
  const way = wayOf(by), label = word(`queue.${way}`, { name: job.name });
  const attributes = { class: `small-button move-${way}`, "aria-label": label, title: label };
  return make("button", { ...attributes, click: () => move(job.id, by) }, icon(way));
}

// Returns the row of a job that waits. move(id, by) and runFirst(id) change the order.
function queueRow(job, { move, runFirst, refresh }) {
  const act = (name) => calling(refresh, `/jobs/${job.id}/${name}`);
  const first = () => runFirst(job.id);
  const parts = {
    state: stateBadge(job.state),
    name: make("a", { class: "name", href: addressOf(job) }),
    up: mover(job, -1, move),
    down: mover(job, 1, move),
    first: actionButton(word("queue.first"), first, { image: "play" }),
    resume: actionButton(word("queue.resume"), act("resume"), { image: "play" }),
    pause: actionButton(word("action.pause"), act("pause"), { image: "pause" }),
    remove: removeButton(job, refresh),
  };
  const item = make("li", { class: "line" },
    make("div", { class: "movers" }, parts.up, parts.down),
    taskIcon(job.task), make("div", { class: "grow" }, parts.name), parts.state,
    make("div", { class: "buttons end" }, parts.first, parts.resume, parts.pause, parts.remove));
  item.parts = parts;
  return item;
}

// Returns the part with the jobs that wait, in their order. show(jobs, alive).
export function queuePart(refresh) {
  let shown = [], running = [];
  const canPause = ({ can }) => can.pause;
  async function move(id, by) {
    const from = shown.findIndex((job) => job.id === id);
    const rest = shown.filter((job) => job.id !== id);
    // refused where the job has left the queue: the list then shows it
    await post(`/jobs/${id}/move`, { before: rest[from + by]?.id ?? null }).catch(() => null);
    await refresh();
    document.querySelector(`.queue [data-key="${id}"] .move-${wayOf(by)}`)?.focus();
  }
  async function runFirst(id) {
    await post(`/jobs/${running.find(canPause).id}/pause`, { for: id });
    await refresh();
  }
  const draw = (job) => queueRow(job, { move, runFirst, refresh });
  const update = ({ parts }, job) => {
    const i = shown.indexOf(job);
    parts.state.set(job.state);
    setText(parts.name, job.name);
    [parts.up.disabled, parts.down.disabled] = [i === 0, i === shown.length - 1];
    parts.first.hidden = job.state !== "queued" || !running.some(canPause);
    parts.resume.hidden = !job.can.resume;
    parts.pause.hidden = !job.can.pause;
    parts.remove.hidden = !job.can.remove;
  };
  const part = listPart(word("home.queue"), "queue", draw, update, (job) => job.id, "ol");
  const draws = part.show;
  part.show = (jobs, alive) => {
    [shown, running] = [jobs, alive];
    draws(jobs);
  };
  return part;
}

function removeButton(job, refresh) {
  return actionButton(word("action.remove"), async () => {
    const question = word("remove.question", { name: job.name });
    if (!await confirmed(question, word("action.remove"))) return;
    await remove(`/jobs/${job.id}`);
    await refresh();
  }, { kind: "quiet" });
}

// Returns the part with the latest jobs that failed: reason, hint, log, and how to go on.
export function failedPart(refresh) {
  const draw = (job) => {
    const { error } = job, log = job.log_tail.join("\n");
    const again = calling(refresh, `/jobs/${job.id}/resume`);
    const resume = actionButton(word("action.resume"), again, { image: "play" });
    resume.hidden = !job.can.resume;
    const name = make("a", { class: "name", href: addressOf(job) }, job.name);
    const anew = make("a", { class: "button", href: `/new?job=${encodeURIComponent(job.id)}` },
      icon("again"), word("action.again"));
    const reason = error?.message ?? word("failed.unknown", { code: job.exit_code ?? "-" });
    return make("li", { class: "job-card" },
      make("div", { class: "line" }, taskIcon(job.task),
        make("div", { class: "grow" }, name, make("span", { class: "hint" }, taskName(job.task))),
        stateBadge(job.state)),
      make("p", { class: "error" }, reason),
      error?.hint ? make("p", { class: "hint" }, error.hint) : null,
      log ? make("details", {}, make("summary", {}, word("failed.log")),
        make("pre", { class: "plain log", tabindex: 0 }, log)) : null,
      make("div", { class: "buttons" }, anew, resume, removeButton(job, refresh)));
  };
  const keyOf = (job) => `${job.id} ${job.attempt}`;
  const part = listPart(word("home.failed"), "failed", draw, () => null, keyOf);
  const draws = part.show;
  part.show = (jobs) => draws(jobs.slice(0, MAX_FAILED));
  return part;
}
