// Replay of a step in a dialog: its images, losses and gradient norms.
import { formatValue, make } from "/components/charts.js";
import { enlarge } from "/components/images.js";
import { head, row, scroll } from "/components/tables.js";
import { API, get, post } from "../api.js";
import { actionButton, errorBox, openDialog, progressBar } from "../parts.js";
import { word } from "../words.js";

const WAIT_MS = 1000;
const OPEN = ["queued", "paused", "starting", "running", "stopping", "verifying"];

// Waits for the end of a job. show(job) is called at each look. Raises its error.
export async function ended(id, signal, show = () => {}) {
  for (;;) {
    const job = await get(`/jobs/${id}`, { signal });
    show(job);
    if (job.error) throw Object.assign(new Error(job.error.message), job.error);
    if (job.state === "finished") return job;
    if (!OPEN.includes(job.state)) {
      throw new Error(word("job.ended", { state: word(`state.${job.state}`) }));
    }
    await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
    signal.throwIfAborted();
  }
}

function losses({ losses: now, logged }) {
  const names = Object.keys(now), text = (value) => formatValue("float", value ?? null);
  const rows = names.map((name) => row(name, [text(now[name]), text(logged?.[name])]));
  const heads = head(word("replay.term"), word("replay.value"), word("replay.logged"));
  return scroll(make("table", {}, heads, make("tbody", {}, rows)));
}

function gradients({ gradient_norm: norm, gradient_norms: groups, logged }) {
  const text = (value) => formatValue("float", value ?? null);
  const rows = Object.entries(groups).map(([name, value]) => row(name, [text(value), ""]));
  rows.unshift(row(word("replay.all"), [text(norm), text(logged?.grad_norm)]));
  const heads = head(word("replay.group"), word("replay.norm"), word("replay.logged"));
  return scroll(make("table", {}, heads, make("tbody", {}, rows)));
}

function draw(job, result) {
  const images = result.images.map((name, i) => {
    const source = `${API}/jobs/${job.id}/files/replay/${encodeURIComponent(name)}`;
    const alt = word("replay.images", { n: i + 1 });
    const label = { class: "zoom", "aria-label": alt, click: () => enlarge(source, alt) };
    return make("button", label, make("img", { src: source, alt }));
  });
  const samples = result.samples.map(({ name, epoch }) => row(name, [String(epoch)]));
  const table = make("table", {}, head(word("replay.sample"), word("replay.epoch")),
    make("tbody", {}, samples));
  const exact = result.weights.exact ? "replay.exact" : "replay.near";
  return [
    make("p", { class: "hint" }, word(exact, { step: result.weights.step })),
    make("div", { class: "replay-images" }, images),
    make("div", { class: "beside" },
      make("div", {}, make("h3", {}, word("replay.losses")), losses(result)),
      make("div", {}, make("h3", {}, word("replay.gradients")), gradients(result))),
    make("details", {}, make("summary", {}, word("replay.samples", { n: result.samples.length })),
      scroll(table)),
  ];
}

// Opens the dialog for a step of a run.
export function openReplay(run, step, signal) {
  const own = new AbortController();
  signal.addEventListener("abort", () => own.abort());
  const body = openDialog(word("replay.title", { step }), signal, () => own.abort());
  const start = actionButton(word("replay.start"), async () => {
    const job = await post(`/runs/${run}/replays`, { step });
    const bar = progressBar(word("replay.busy"));
    bar.set(null, 1, word("replay.busy"));
    body.replaceChildren(bar);
    try {
      const done = await ended(job.id, own.signal, ({ state }) => {
        bar.set(null, 1, word(state === "queued" ? "replay.queued" : "replay.busy"));
      });
      const result = await get(`/jobs/${done.id}/result`, { signal: own.signal });
      body.replaceChildren(...draw(done, result));
    } catch (error) {
      if (!own.signal.aborted) body.replaceChildren(errorBox(error));
    }
  }, { image: "play", kind: "primary" });
  body.append(make("p", {}, word("replay.text", { step })), start);
  start.querySelector("button").focus();
}
