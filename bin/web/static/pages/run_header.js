// The head of the run page: state, progress, figures, buttons, note.
import { formatValue, make } from "/components/charts.js";
import { metricOf } from "/components/sections.js";
import { API, get, patch, post, query } from "../api.js";
import { actionButton, confirmButton, copyableCommand, errorBox, icon } from "../parts.js";
import { openDialog, progressBar, setText, stateBadge, taskIcon, taskName } from "../parts.js";
import { ago, clock, moment, number, span, word } from "../words.js";
import { GRACE_SECONDS, progressText } from "./home_jobs.js";

const JOB_STATES = ["queued", "paused", "starting", "stopping", "verifying"];
const RESUMABLE = ["stopped", "failed", "lost"];
const TICK_MS = 1000;

// Returns a figure with a label; set(text, detail) changes it, and hides it for null.
function tile(label) {
  const value = make("strong"), detail = make("small");
  const part = make("div", { class: "tile" }, make("span", {}, label), value, detail);
  part.set = (text, more = "") => {
    part.hidden = text === null || text === undefined;
    setText(value, part.hidden ? "" : text);
    setText(detail, more);
  };
  part.set(null);
  return part;
}

// Returns the note, which a button opens for a change.
function notePart(path) {
  const text = make("p", { class: "note" }), place = make("div");
  const edit = make("button", { class: "quiet small-button", click: () => open() }, icon("note"),
    make("span"));
  const part = make("div", { class: "note-part" }, text, edit, place);
  let note = "";
  part.set = (now) => {
    note = now ?? "";
    setText(text, note);
    text.hidden = !note;
    setText(edit.lastChild, word(note ? "note.edit" : "note.add"));
  };
  function open() {
    const input = make("textarea", { rows: 3, maxlength: 10000, "aria-label": word("note") });
    input.value = note;
    const close = () => {
      place.replaceChildren();
      edit.hidden = false;
      edit.focus();
    };
    const save = actionButton(word("note.save"), async () => {
      part.set((await patch(path, { note: input.value })).note);
      close();
    }, { kind: "primary" });
    edit.hidden = true;
    place.replaceChildren(input, make("div", { class: "buttons" }, save,
      make("button", { click: close }, word("cancel"))));
    input.focus();
  }
  return part;
}

// Opens a list of runs of the same task to compare with.
async function openCompare(run, signal) {
  const body = openDialog(word("compare.with"), signal);
  try {
    const { runs } = await get(`/runs${query({ task: run.task, limit: 100 })}`, { signal });
    const others = runs.filter(({ id }) => id !== run.id);
    const links = others.map((other) => {
      const started = other.started ? ago(other.started) : "";
      const about = [other.model, other.data, started].filter(Boolean).join(" · ");
      const link = make("a", { href: `/compare?runs=${run.id},${other.id}` }, other.name);
      return make("li", {}, link, make("span", { class: "hint" }, ` ${about}`));
    });
    body.append(links.length ? make("ul", {}, links) : make("p", {}, word("compare.none")));
  } catch (error) {
    body.append(errorBox(error));
  }
}

// Returns the header. refresh(): fetches run and job; resumed(): called after a start.
export function runHeader(path, signal, { refresh, resumed }) {
  let run = null, job = null, since = null;
  const act = (name) => async () => {
    await post(`${path}/${name}`);
    await refresh();
    if (name === "resume") resumed();
  };
  const heading = make("h1", {}, "…"), about = make("p", { class: "hint" });
  const source = make("p", { class: "hint", hidden: true });
  const badge = stateBadge("unknown");
  const mark = make("span"), ending = make("p", { class: "hint", role: "status" });
  const failure = make("div"), bar = progressBar(word("progress"));
  const buttons = {
    stop: actionButton(word("action.stop"), act("stop"), { image: "stop" }),
    kill: confirmButton(word("action.kill"), word("kill.question"), act("kill"), {
      image: "kill", kind: "danger",
    }),
    pause: actionButton(word("action.pause"), async () => {
      await post(`/jobs/${job.id}/pause`);
      await refresh();
    }, { image: "pause" }),
    resume: actionButton(word("action.resume"), act("resume"), { image: "play" }),
    again: make("a", { class: "button" }, icon("again"), word("action.again")),
    download: make("a", { class: "button", href: `${API}${path}/best.zip`, download: "" },
      icon("download"), word("run.download")),
    tryIt: make("a", { class: "button" }, icon("try"), word("run.try")),
    compare: make("button", { click: () => openCompare(run, signal) }, icon("compare"),
      word("runs.compare")),
  };
  const names = ["best", "end", "time", "device", "memory", "disk", "bad", "heartbeat"];
  const tiles = Object.fromEntries(names.map((name) => [name, tile(word(`tile.${name}`))]));
  const note = notePart(path), command = copyableCommand("");
  const commandPart = make("details", { class: "command" },
    make("summary", {}, word("run.command")), command);
  const header = make("header", { class: "run-head" },
    make("div", { class: "line" }, mark, make("div", { class: "grow" }, heading, about, source), badge),
    failure, bar, ending,
    make("div", { class: "tiles" }, Object.values(tiles)),
    make("div", { class: "buttons" }, Object.values(buttons)),
    note, commandPart);

  const stateOf = () => (job && JOB_STATES.includes(job.state) ? job.state : run.state);

  function drawState() {
    const state = stateOf(), isEnding = state === "stopping" || state === "verifying";
    const isAlive = state === "running" || state === "starting" || isEnding;
    badge.set(state);
    since = isEnding ? since ?? Date.now() : null;
    const waited = since !== null && Date.now() - since > 1000 * GRACE_SECONDS;
    setText(ending, isEnding || state === "lost" ? word(`ending.${state}`) : "");
    buttons.stop.hidden = !isAlive || isEnding;
    buttons.kill.hidden = !waited;
    buttons.pause.hidden = !job?.can.pause || isEnding;
    buttons.resume.hidden = !(job ? job.can.resume : RESUMABLE.includes(state));
    buttons.again.hidden = isAlive;
    const isDone = !isAlive && run.step === run.steps;
    bar.hidden = isDone;
    bar.set(run.step, run.steps || 1, progressText({ ...run, eta: isAlive ? run.eta : null }));
    tiles.end.set(isAlive && run.eta ? clock(run.eta) : null,
      run.eta ? word("tile.left", { span: span(run.eta - Date.now() / 1000) }) : "");
    const seen = isAlive ? null : run.heartbeat;
    tiles.heartbeat.set(seen && ago(seen), seen ? moment(seen) : "");
    tiles.memory.set(run.peak_gib === null ? null : `${run.peak_gib.toFixed(2)} GiB`);
    const bad = run.nonfinite_steps;
    tiles.bad.set(bad === null ? null : number(bad), bad ? word("tile.bad.hint") : "");
  }

  header.show = (nowRun, nowJob) => {
    [run, job] = [nowRun, nowJob];
    if (!mark.firstChild) mark.append(taskIcon(run.task));
    setText(heading, run.name);
    setText(about, [taskName(run.task), run.model, run.data].filter(Boolean).join(" · "));
    source.hidden = !run.branch;
    if (run.branch) {
      const { id, ...values } = run.branch, text = word("runs.branch", values);
      source.replaceChildren(id === null ? text : make("a", { href: `/runs/${id}` }, text));
    }
    const error = run.error ?? job?.error;
    const text = JSON.stringify(error ?? null);
    if (failure.dataset.text !== text) {
      failure.dataset.text = text;
      failure.replaceChildren(...(error ? [errorBox(error)] : []));
    }
    buttons.again.href = `/new?${run.job ? `job=${run.job}` : `run=${run.id}`}`;
    buttons.download.hidden = buttons.tryIt.hidden = !run.has_best;
    buttons.tryIt.href = `/try?model=${encodeURIComponent(`${run.path}/best`)}`;
    const device = job?.devices.join(", ") || run.settings.device?.value;
    tiles.device.set(device, run.environment.gpu ?? "");
    const used = run.disk_used_gib, free = run.disk_free_gib;
    const detail = used === null ? "" : word("tile.used", { gib: used.toFixed(1) });
    tiles.disk.set(free === null ? null : `${free.toFixed(1)} GiB`, detail);
    note.set(run.note);
    command.set(run.command_text ?? job?.command_text ?? "");
    commandPart.hidden = !command.textContent;
    drawState();
  };

  // Shows the status of an event. Returns whether the state is another one than before.
  header.progress = ({ state, step, steps, eta, heartbeat, peak_gib, nonfinite_steps }) => {
    if (!run) return false;
    const isNew = state !== run.state;
    Object.assign(run, { state, step, steps, eta, heartbeat });
    run.peak_gib = peak_gib ?? null;
    run.nonfinite_steps = nonfinite_steps ?? null;
    drawState();
    return isNew;
  };

  header.showReport = (report) => {
    const [one] = report.runs, { best } = one;
    if (!best) return tiles.best.set(word("home.noscore"));
    const { label, format } = metricOf(report, one, best.metric);
    const [low, high] = (best.interval || []).map((end) => formatValue(format, end));
    const at = word("tile.at", { label, step: number(best.step) });
    const interval = low ? ` · ${word("tile.interval", { low, high })}` : "";
    tiles.best.set(formatValue(format, best.score), at + interval);
    tiles.time.set(one.seconds === null ? null : span(one.seconds));
  };

  const timer = setInterval(() => run && drawState(), TICK_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
  return header;
}
