// The choices of a new training. They are kept in this window over a reload.
import { get, query as queryOf } from "../api.js";
import { taskKey } from "../parts.js";

const STORED = "visionloop-new";
const LOCAL = { kind: "local", devices: [] };
const EMPTY = {
  step: 0, task: null, data: null, model: null, settings: {}, launcher: LOCAL, name: "", note: "",
  runName: "", check: null,
};
// settings of a run that its next one must not take over
const OWN = ["output", "run_name", "resume", "branch", "extend"];
const VAL_SPLIT = 0.2;
const GIVEN = ["config", "flag"];

export class Draft extends EventTarget {
  constructor() {
    super();
    this.values = { ...EMPTY };
    try {
      Object.assign(this.values, JSON.parse(sessionStorage.getItem(STORED)));
    } catch {
      this.clear(); // of another version
    }
  }

  // Changes some values and tells the listeners of "change" which.
  set(changes) {
    Object.assign(this.values, changes);
    sessionStorage.setItem(STORED, JSON.stringify(this.values));
    this.dispatchEvent(new CustomEvent("change", { detail: Object.keys(changes) }));
  }

  clear() {
    sessionStorage.removeItem(STORED);
    this.values = { ...EMPTY };
  }

  // Chooses a task; what belongs to another one is dropped.
  chooseTask(task) {
    if (task === this.values.task) return;
    const { data, model, settings, check } = EMPTY;
    this.set({ task, data, model, settings, check });
  }

  // Chooses data. rows: what the folder is recognised as; one without validation images gets a
  // share of the training images.
  chooseData(data, rows) {
    const own = rows.filter(({ task_types }) => task_types.some((name) => this.isTask(name)));
    const isShared = own.some(({ problem }) => problem === "no_validation");
    const settings = { ...this.values.settings, val_split: VAL_SPLIT };
    if (!isShared) delete settings.val_split;
    this.set({ data, settings, check: null });
  }

  // Whether a task type, such as "image_classification", is the task that is chosen.
  isTask(type) {
    return taskKey(type) === this.values.task;
  }

  // Gives a setting a value; undefined takes it back.
  setSetting(name, value) {
    const settings = { ...this.values.settings, [name]: value };
    if (value === undefined) delete settings[name];
    this.set({ settings });
  }

  // The settings of `train` as the API takes them.
  get settings() {
    const { data, model, settings } = this.values;
    return { ...(data ? { data } : {}), ...(model ? { model } : {}), ...settings };
  }

  // Text that is equal for equal data, model and settings: a check belongs to one.
  get key() {
    return JSON.stringify([this.values.task, this.settings]);
  }

  // Body of POST /jobs.
  get body() {
    const { task, launcher, name, note, runName } = this.values;
    const texts = Object.entries({ name, note, run_name: runName }).filter(([, text]) => text);
    const { settings } = this;
    return { kind: "train", task, settings, launcher, ...Object.fromEntries(texts) };
  }

  get isReady() {
    return Boolean(this.values.task && this.values.data && this.values.model);
  }
}

export function settingsPath({ task, model, data, settings }) {
  const { preset = null, from_scratch = null } = settings;
  return `/tasks/${task}/settings${queryOf({ model, data, preset, from_scratch })}`;
}

// Fills the draft from the address: ?job=ID or ?run=ID starts again, ?task=, ?data= and ?model=
// choose one thing.
export async function prefill(draft, query, signal) {
  const job = query.get("job"), run = query.get("run");
  if (job) await fromJob(draft, await get(`/jobs/${encodeURIComponent(job)}`, { signal }), signal);
  else if (run) await fromRun(draft, run, signal);
  else if (query.get("task")) {
    draft.chooseTask(query.get("task"));
    const chosen = ["data", "model"].filter((name) => query.get(name));
    draft.set(Object.fromEntries(chosen.map((name) => [name, query.get(name)])));
    if (draft.values.data) await takeData(draft, draft.values.data, signal);
    draft.set({ step: draft.values.data ? (draft.values.model ? 3 : 2) : 1, check: null });
  }
}

// Holds images out for validation where a data set has none of its own.
async function takeData(draft, data, signal) {
  const { recognised } = await get(`/folders${queryOf({ path: data })}`, { signal });
  draft.chooseData(data, recognised);
}

async function fromJob(draft, job, signal) {
  const { launcher, name, note, task } = job;
  try {
    await fromRun(draft, job.run_id, signal);
  } catch (error) {
    if (error.status !== 404) throw error; // it failed before there was a folder of the run
    const table = await get(settingsPath({ task, settings: {} }), { signal });
    draft.clear();
    take(draft, task, settingsOfCommand(job.command, task, table));
  }
  draft.set({ launcher, name, note });
}

async function fromRun(draft, id, signal) {
  const run = await get(`/runs/${encodeURIComponent(id)}`, { signal });
  const given = Object.entries(run.settings).filter(([, setting]) => {
    return GIVEN.includes(String(setting.source).split(" ")[0]);
  });
  draft.clear();
  take(draft, run.task, Object.fromEntries(given.map(([name, { value }]) => [name, value])));
}

function take(draft, task, given) {
  const { data = null, model = null, ...settings } = given;
  for (const name of OWN) delete settings[name];
  draft.set({ task, data, model, settings, step: 3 });
}

// Reads the settings back from the words of a command: `... train --lr 0.1 --no-ema`, or of a
// container or cluster, where the task stands in the place of `train`.
export function settingsOfCommand(command, task, table) {
  const rows = table.groups.flatMap((group) => group.settings);
  const kinds = new Map([["--data", "text"], ["--model", "text"]]);
  for (const { flag, type } of rows) kinds.set(flag, type);
  const settings = {};
  const start = Math.max(command.lastIndexOf("train"), command.lastIndexOf(task));
  const words = command.slice(start + 1);
  for (let i = 0; i < words.length; i++) {
    const [flag, inline] = words[i].split(/=(.*)/s);
    const positive = flag.startsWith("--no-") ? `--${flag.slice(5)}` : flag;
    const kind = kinds.get(flag) || (kinds.get(positive) === "bool" ? "bool" : null);
    if (!kind) continue;
    const name = (kind === "bool" ? positive : flag).slice(2).replaceAll("-", "_");
    if (kind === "bool") settings[name] = flag === positive;
    else settings[name] = valueOf(kind, inline ?? words[++i]);
  }
  return settings;
}

// Returns the value of a text for a setting of this type. A text that is no number stays one: the
// server says what is wrong with it.
export function valueOf(type, text) {
  if (type === "bool") return text === "true";
  if (type !== "int" && type !== "float") return text;
  const value = Number(text);
  const isNumber = text.trim() !== "" && Number.isFinite(value);
  return isNumber && (type === "float" || Number.isInteger(value)) ? value : text;
}
