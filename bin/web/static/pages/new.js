// New training in four steps: task, data, model, settings. The command line is always in view.
import { make } from "/components/charts.js";
import { errorBox, pageHead, skeleton } from "../parts.js";
import { navigate, rename } from "../router.js";
import { addWords, word } from "../words.js";
import settingWords from "../words/settings.js";
import { commandBar } from "./new_command.js";
import { dataStep } from "./new_data.js";
import { Draft, prefill } from "./new_draft.js";
import { modelStep } from "./new_model.js";
import { settingsStep } from "./new_settings.js";
import { taskStep } from "./new_task.js";

export const title = "new.title";
// {name, isOpen(values): can be shown, summary(values): what was chosen, draw(place, context)}
const STEPS = [taskStep, dataStep, modelStep, settingsStep];

export async function show(main, { query, signal }) {
  addWords(settingWords);
  const draft = new Draft(), again = make("button", { class: "quiet" }, word("new.again"));
  const steps = make("ol", { class: "steps" }), place = make("div", { class: "step" });
  const problem = make("div");
  const heading = pageHead(word("new.title"), again);
  const form = make("div", { class: "new" }, heading, problem, steps, place);
  main.append(form);
  if ([...query.keys()].length) {
    place.replaceChildren(skeleton());
    try {
      await prefill(draft, query, signal);
    } catch (error) {
      if (signal.aborted) return;
      problem.replaceChildren(errorBox(error));
    }
    rename("/new"); // a reload keeps what is changed from here on
  }
  let shown = null; // AbortController of the step that is shown

  function drawSteps() {
    const items = STEPS.map(({ name, summary, isOpen }, i) => {
      const chosen = summary(draft.values), isHere = i === draft.values.step;
      return make("li", { class: chosen ? "done" : null },
        make("button", {
          "aria-current": isHere ? "step" : null,
          disabled: !isOpen(draft.values),
          click: () => go(i),
        }, make("b", {}, String(i + 1)), make("span", {}, word(`new.step.${name}`),
          make("small", {}, chosen || ""))));
    });
    const focused = [...steps.children].findIndex((item) => item.contains(document.activeElement));
    steps.replaceChildren(...items);
    if (focused >= 0) steps.children[focused].firstChild.focus();
  }

  function go(step, { focus = true } = {}) {
    draft.set({ step });
    drawStep(focus);
  }

  function drawStep(focus) {
    shown?.abort();
    shown = new AbortController();
    const own = shown, step = draft.values.step;
    const { name, draw } = STEPS[step];
    const head = make("h2", { tabindex: -1 }, word(`new.${name}.title`));
    const body = make("div", {}, skeleton());
    place.replaceChildren(head, body);
    if (focus) {
      head.focus({ preventScroll: true });
      form.scrollIntoView();
    }
    const context = { draft, signal: own.signal, next: () => go(step + 1) };
    draw(body, context).catch((error) => {
      if (own.signal.aborted) return;
      body.replaceChildren(errorBox(error, { retry: () => drawStep(true) }));
    });
  }

  again.addEventListener("click", () => {
    draft.clear();
    navigate("/new");
  });
  signal.addEventListener("abort", () => shown?.abort());
  draft.addEventListener("change", drawSteps);
  while (!STEPS[draft.values.step].isOpen(draft.values)) draft.values.step--;
  drawSteps();
  drawStep(false);
  form.append(commandBar({ draft, signal, showField: (name) => {
    if (draft.values.step !== 3) go(3);
    settingsStep.focusField(place, name, signal);
  } }));
}
