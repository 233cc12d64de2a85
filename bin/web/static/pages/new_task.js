// First step: the task, with an example of an image and its prediction.
import { make } from "/components/charts.js";
import { get } from "../api.js";
import { taskIcon, taskName } from "../parts.js";
import { localized, word } from "../words.js";

async function draw(place, { draft, next, signal }) {
  const { tasks } = await get("/tasks", { signal });
  const cards = tasks.map((task) => {
    const example = make("img", {
      src: `/static/icons/example-${task.command}.svg`, alt: word(`new.example.${task.command}`),
    });
    const choose = () => {
      draft.chooseTask(task.command);
      next();
    };
    const isChosen = task.command === draft.values.task;
    return make("button", { class: "choice", "aria-pressed": String(isChosen), click: choose },
      example,
      make("span", { class: "choice-name" }, taskIcon(task.command), localized(task.label)),
      make("span", { class: "hint" }, word(`new.about.${task.command}`)));
  });
  place.replaceChildren(make("p", {}, word("new.task.text")),
    make("div", { class: "choices tasks" }, cards));
}

export const taskStep = {
  name: "task",
  isOpen: () => true,
  summary: ({ task }) => task && taskName(task),
  draw,
};
