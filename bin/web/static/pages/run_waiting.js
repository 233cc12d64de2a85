// A training whose run has not begun: it waits in the queue, starts, or has failed before.
import { make } from "/components/charts.js";
import { get, post } from "../api.js";
import { actionButton, copyableCommand, errorBox, icon, progressBar, setText } from "../parts.js";
import { stateBadge, taskIcon, taskName } from "../parts.js";
import { span, word } from "../words.js";
import { logPart } from "./run_log.js";

const POLL_MS = 500;
const WAITING = ["queued", "starting", "running"];

// Shows a job until the folder of its run is there.
export async function untilRun(main, id, signal) {
  let job = await get(`/jobs/${encodeURIComponent(id)}`, { signal });
  if (job.has_run) return;
  const part = waitingPart(job), log = logPart(job.id, signal);
  main.append(part, log);
  while (!job.has_run) {
    part.show(job);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    const { state } = job;
    job = await get(`/jobs/${job.id}`, { signal });
    if (job.state !== state) log.again(); // the log of a job that waits has ended
  }
  log.remove();
  part.remove();
}

function waitingPart(job) {
  const act = (name) => async () => part.show(await post(`/jobs/${job.id}/${name}`));
  const badge = stateBadge(job.state), bar = progressBar(word("progress"));
  const text = make("p", { class: "hint", role: "status" }), failure = make("div");
  const stop = actionButton(word("action.stop"), act("stop"), { image: "stop" });
  const resume = actionButton(word("action.resume"), act("resume"), { image: "play" });
  const again = make("a", { class: "button", href: `/new?job=${encodeURIComponent(job.id)}` },
    icon("again"), word("action.again"));
  const home = make("a", { class: "button", href: "/" }, icon("home"), word("waiting.home"));
  const part = make("header", { class: "run-head" },
    make("div", { class: "line" }, taskIcon(job.task),
      make("div", { class: "grow" }, make("h1", {}, job.name),
        make("p", { class: "hint" }, taskName(job.task))), badge),
    failure, bar, text, make("div", { class: "buttons" }, stop, resume, again, home),
    copyableCommand(job.command_text));
  let shown = null, began = Date.now();

  part.show = (now) => {
    if (now.state !== shown) began = 1000 * (now.started ?? Date.now() / 1000);
    shown = now.state;
    badge.set(now.state === "running" ? "starting" : now.state); // no run folder yet
    bar.hidden = !WAITING.includes(now.state);
    const values = { n: now.position ?? 1, devices: now.devices.join(", ") };
    const key = now.state === "running" ? "starting" : now.state;
    setText(text, word(WAITING.includes(now.state) ? `waiting.${key}` : "waiting.none", values));
    bar.set(null, 1, now.state === "queued" ? "" : span((Date.now() - began) / 1000));
    stop.hidden = !now.can.stop;
    resume.hidden = !now.can.resume;
    again.hidden = WAITING.includes(now.state);
    const error = now.error && JSON.stringify(now.error);
    if (error && failure.dataset.text !== error) failure.replaceChildren(errorBox(now.error));
    failure.dataset.text = error ?? "";
    if (!error) failure.replaceChildren();
  };
  return part;
}
