// Two images in one place with a slider between them: before and after super-resolution.
import { make } from "/components/charts.js";
import { icon } from "../parts.js";
import { number, word } from "../words.js";
import { picture, stage } from "./try_stage.js";

export async function comparisonOf({ width, images, prediction }, image) {
  const scale = prediction.width / width;
  const after = picture(images.result, word("try.result"));
  after.classList.add("after");
  const slider = make("input", { type: "range", min: 0, max: 100, value: 50, class: "split",
    "aria-label": word("try.split"), input: move });
  const frame = stage(prediction.width / scale, prediction.height / scale,
    picture(images.input, word("try.before")), after, make("span", { class: "divider" }), slider,
    make("span", { class: "corner left" }, word(scale > 1 ? "try.bicubic" : "try.before")),
    make("span", { class: "corner right" }, word("try.result")));
  function move() {
    frame.style.setProperty("--split", `${slider.value}%`);
  }
  move();
  const size = word("try.enlarged", { width: number(prediction.width),
    height: number(prediction.height), scale });
  const name = `${image.name.replace(/\.[^.]*$/, "") || "image"}-x${scale}.png`;
  return make("div", { class: "try-kind" },
    frame, make("p", { class: "hint" }, `${size} ${word("try.split.text")}`),
    make("div", { class: "buttons" },
      make("a", { class: "button", href: images.result, download: name },
        icon("download"), word("try.download"))));
}
