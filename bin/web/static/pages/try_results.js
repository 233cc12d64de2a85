// A prediction as it is shown: classes, boxes, masks, an enlarged image, and its JSON.
import { make } from "/components/charts.js";
import { copyableCommand, taskIcon } from "../parts.js";
import { number, word } from "../words.js";
import { boxesOf } from "./try_boxes.js";
import { comparisonOf } from "./try_compare.js";
import { maskOf } from "./try_mask.js";
import { instancesOf, panopticOf } from "./try_segments.js";
import { percent, picture, stage } from "./try_stage.js";

const KINDS = {
  classification: classesOf, detection: boxesOf, segmentation: maskOf,
  instance_segmentation: instancesOf, panoptic_segmentation: panopticOf,
  super_resolution: comparisonOf,
};
const TOP = [3, 5, 10, 100];

// Returns the elements of an answer. image: {url, name} of what was sent. context: {options} of the
// request; again(options) asks once more with others; signal aborts when another result comes.
export async function resultOf(answer, image, context) {
  const { width, height, seconds, prediction } = answer;
  const facts = word("try.facts", { width: number(width), height: number(height),
    seconds: seconds.toFixed(2) });
  const json = JSON.stringify({ ...prediction, file: image.name }, null, 1);
  return make("div", { class: "try-answer" },
    make("p", { class: "hint try-facts" }, taskIcon(answer.task), make("span", {}, facts)),
    await KINDS[answer.task](answer, image, context),
    make("details", {}, make("summary", {}, word("try.json")), copyableCommand(json)));
}

async function classesOf(answer, image, { options, again }) {
  const { width, height, top, images, explanations } = answer;
  const counts = TOP.map((count) => {
    const isShown = count === (options.top_k || TOP[1]);
    return make("option", { value: count, selected: isShown }, count);
  });
  const select = make("select", { change: () => again({ top_k: Number(select.value) }) }, counts);
  const attention = make("input", { type: "checkbox", checked: Boolean(options.attention),
    change: () => again({ attention: attention.checked || null }) });
  const bars = top.map(({ label, score }) => make("li", {},
    make("span", { class: "try-label" }, label), make("span", {}, percent(score)),
    make("meter", { min: 0, max: 1, value: score, "aria-label": label })));
  const shown = images.attention
    ? make("figure", {}, picture(images.attention, word("try.attention")),
      make("figcaption", {}, make("span", {}, word("try.attention.text"))))
    : stage(width, height, picture(image.url, word("try.image")));
  return make("div", { class: "try-kind" },
    make("div", { class: "try-controls" },
      make("label", {}, word("try.top"), select),
      explanations.includes("attention")
        ? make("label", {}, attention, word("try.attention.show"))
        : make("small", {}, word("try.attention.none"))),
    make("div", { class: "try-columns" }, shown, make("ol", { class: "try-bars" }, bars)));
}
