// The exact command line of a new training, always in view, and the button that starts it.
import { make } from "/components/charts.js";
import { post } from "../api.js";
import { actionButton, copyableCommand, errorBox } from "../parts.js";
import { navigate } from "../router.js";
import { word } from "../words.js";

const WAIT_MS = 300;
const SHOWN = ["task", "data", "model", "settings", "launcher", "name", "note", "runName"];

// Returns the bar. showField(name): goes to the field of a setting.
export function commandBar({ draft, signal, showField }) {
  const command = copyableCommand(""), more = make("div", { class: "more" });
  const problems = make("div", { "aria-live": "polite" });
  const start = actionButton(word("new.start"), () => create(true), {
    kind: "primary", image: "play",
  });
  const queue = actionButton(word("new.queue"), () => create(false));
  const buttons = make("div", { class: "buttons" }, start, queue);
  const empty = make("p", { class: "hint" }, word("new.command.empty"));
  const bar = make("aside", { class: "command-bar", "aria-label": word("new.command") },
    make("h2", {}, word("new.command")), empty, command, more, problems, buttons);
  let timer = null, own = null;

  function schedule() {
    clearTimeout(timer);
    timer = setTimeout(preview, WAIT_MS);
  }

  async function preview() {
    own?.abort();
    own = new AbortController();
    const { isReady } = draft, current = own.signal;
    [empty.hidden, command.hidden, buttons.hidden, more.hidden] =
      [isReady, !isReady, !isReady, !isReady];
    if (!isReady) return problems.replaceChildren();
    bar.setAttribute("aria-busy", "true");
    try {
      const answer = await post("/jobs/preview", draft.body, { signal: current });
      command.set(answer.text);
      more.replaceChildren(...filesOf(answer));
      problems.replaceChildren(...answer.problems.map(problemOf));
      draft.dispatchEvent(new CustomEvent("problems", { detail: answer.problems }));
      enable(!answer.problems.length);
    } catch (error) {
      if (current.aborted) return;
      problems.replaceChildren(problemOf(error));
      enable(false);
    } finally {
      if (!current.aborted) bar.removeAttribute("aria-busy");
    }
  }

  function enable(isOn) {
    for (const button of buttons.querySelectorAll("button")) button.disabled = !isOn;
  }

  function problemOf(error) {
    const name = error.field && error.field.replace(/^settings\./, "");
    const go = make("button", { class: "small-button", click: () => showField(name) },
      word("new.show.field", { name }));
    return make("div", {}, errorBox(error), name ? go : null);
  }

  async function create(start) {
    let job;
    try {
      job = await post("/jobs", { ...draft.body, start });
    } catch (error) {
      problems.replaceChildren(problemOf(error));
      problems.querySelector("button")?.focus();
      return;
    }
    draft.clear();
    await navigate(start ? `/runs/${job.run_id}?job=${job.id}` : "/");
  }

  draft.addEventListener("change", ({ detail }) => {
    if (detail.some((name) => SHOWN.includes(name))) schedule();
  });
  signal.addEventListener("abort", () => {
    clearTimeout(timer);
    own?.abort();
  });
  preview();
  return bar;
}

// Returns the files that belong to a command, such as a manifest, and the folder of the run.
function filesOf({ files, run }) {
  return [
    ...Object.entries(files).map(([path, text]) => make("details", {},
      make("summary", {}, path.split("/").at(-1)), copyableCommand(text))),
    make("p", { class: "hint path" }, word("new.run.folder", { path: run })),
  ];
}
