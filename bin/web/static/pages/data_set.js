// A data set in words: layout, counts and what is wrong, for the data page and a new training.
import { make } from "/components/charts.js";
import { hasWord, number, word } from "../words.js";

export function layoutName(layout) {
  return hasWord(`layout.${layout}`) ? word(`layout.${layout}`) : layout;
}

// Returns "1,633 images (1,300 train, 333 val), 10 classes, class folders".
export function dataFacts({ layout, images, splits, classes, complete }) {
  const parts = Object.entries(splits).map(([split, count]) => `${number(count)} ${split}`);
  const count = word(complete ? "data.images" : "data.images.least", { n: number(images) });
  return [
    parts.length ? `${count} (${parts.join(", ")})` : "",
    classes === null ? "" : word("data.classes", { n: number(classes) }),
    layoutName(layout),
  ].filter(Boolean).join(", ");
}

// Returns what is wrong with a data set, null without a problem.
export function warningOf({ problem, warning }) {
  if (!problem) return null;
  const known = `data.problem.${problem}`;
  const text = hasWord(known) ? word(known) : "";
  const isDetailed = problem === "wrong_layout";
  return make("span", { class: "warning" }, [text, isDetailed ? warning : ""].join(" ").trim());
}
