// A class map over an image, with its opacity and a legend that hides classes.
import { colorBox, make } from "/components/charts.js";
import { word } from "../words.js";
import { mapCanvas, opacitySlider, pixelOf, readMap } from "./try_map.js";
import { percent, picture, stage } from "./try_stage.js";

const FIRST_OPACITY = 60, NUMBERS = 256;

export async function maskOf({ width, height, classes, images }, image) {
  const map = await readMap(images.ids, (red) => red), canvas = mapCanvas(map);
  const hidden = new Set();

  function draw() {
    const pixels = new Uint32Array(NUMBERS);
    for (const { id, color } of classes) if (!hidden.has(id)) pixels[id] = pixelOf(color);
    canvas.paint(map.numbers, pixels);
  }

  const legend = classes.map(({ id, label, share, color }) => {
    const button = make("button", { class: "toggle", "aria-pressed": "true", click: () => {
      if (!hidden.delete(id)) hidden.add(id);
      button.setAttribute("aria-pressed", String(!hidden.has(id)));
      draw();
    } }, colorBox(`rgb(${color.join(" ")})`), make("span", {}, label),
    make("small", {}, percent(share)));
    return button;
  });
  draw();
  return make("div", { class: "try-kind" },
    make("div", { class: "try-controls" },
      opacitySlider(canvas, word("try.opacity"), FIRST_OPACITY)),
    stage(width, height, picture(image.url, word("try.image")), canvas),
    make("p", { class: "hint" }, word("try.legend")),
    make("div", { class: "legend" }, legend));
}
