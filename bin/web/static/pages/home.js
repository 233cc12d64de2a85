// Home: trainings that run, the queue, what failed, and the latest runs. Live without a reload.
import { make } from "/components/charts.js";
import { get, stream, throttled } from "../api.js";
import { emptyState, errorBox, icon, pageHead, skeleton } from "../parts.js";
import { word } from "../words.js";
import { devicesLine, failedPart, livePart, queuePart } from "./home_jobs.js";
import { runsPart } from "./home_runs.js";

export const title = "home.title";

const ALIVE = ["starting", "running", "stopping", "verifying"];
const REFRESH_MS = 1000; // at most one refresh in this time

function newTraining() {
  return make("a", { class: "button primary", href: "/new" }, icon("new"), word("home.new"));
}

export async function show(main, { signal }) {
  const problem = make("div"), devices = make("div", { class: "devices" });
  const empty = emptyState(
    word("home.empty"), word("home.empty.text"), newTraining(),
    make("a", { class: "button", href: "/data" }, icon("data"), word("home.empty.data")));
  const refresh = () => update().catch(report);
  const live = livePart(refresh), queue = queuePart(refresh), failed = failedPart(refresh);
  const runs = runsPart(signal), waiting = skeleton(6);
  for (const part of [live, queue, failed, runs, empty]) part.hidden = true;
  main.append(pageHead(word("home.title"), devices, newTraining()), problem, waiting);
  main.append(live, queue, failed, runs, empty);

  function report(error) {
    if (signal.aborted) return;
    waiting.remove();
    problem.replaceChildren(errorBox(error, { retry: refresh }));
  }

  async function update() {
    const [{ jobs, devices: all }] = await Promise.all([
      get("/jobs", { signal }), runs.load(),
    ]);
    const trainings = jobs.filter(({ kind }) => kind === "train");
    const rows = new Map(runs.rows.map((run) => [run.id, run]));
    const alive = trainings.filter(({ state }) => ALIVE.includes(state));
    const known = new Set(alive.map((job) => job.run_id));
    const others = runs.rows.filter((run) => run.state === "running" && !known.has(run.id));
    devicesLine(devices, all, jobs);
    live.show(alive.map((job) => ({ job, run: rows.get(job.run_id) }))
      .concat(others.map((run) => ({ job: null, run }))));
    queue.show(trainings.filter(({ state }) => ["queued", "paused"].includes(state)), alive);
    failed.show(trainings.filter(({ state }) => ["failed", "lost"].includes(state)));
    const isEmpty = !jobs.length && !runs.rows.length && !runs.isFiltered();
    [empty.hidden, runs.hidden] = [!isEmpty, isEmpty];
    waiting.remove();
    problem.replaceChildren();
  }

  await update();
  const changed = throttled(refresh, REFRESH_MS, signal);
  stream("/events", { changed }, signal, { poll: async () => void changed() });
}
