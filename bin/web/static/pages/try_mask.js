// A class map over an image, with its opacity and a legend that hides classes.
import { colorBox, make } from "/components/charts.js";
import { word } from "../words.js";
import { percent, picture, stage } from "./try_stage.js";

const FIRST_OPACITY = 60;
const LONGEST = 2048; // pixels of the drawn map: phones have limits for a canvas

export async function maskOf({ width, height, classes, images }, image) {
  const map = await readMap(images.ids);
  const canvas = make("canvas", { width: map.width, height: map.height });
  const hidden = new Set();
  const slider = make("input", { type: "range", min: 0, max: 100, value: FIRST_OPACITY,
    input: fade });
  const value = make("output");

  function fade() {
    value.textContent = `${slider.value} %`;
    canvas.style.setProperty("opacity", slider.value / 100);
  }

  function draw() {
    const context = canvas.getContext("2d");
    const colors = new Map(classes.map(({ id, color }) => [id, color]));
    const drawn = context.createImageData(map.width, map.height);
    for (let i = 0; i < drawn.data.length; i += 4) {
      const color = hidden.has(map.data[i]) ? null : colors.get(map.data[i]);
      if (color) drawn.data.set([...color, 255], i);
    }
    context.putImageData(drawn, 0, 0);
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
  fade();
  return make("div", { class: "try-kind" },
    make("div", { class: "try-controls" }, make("label", {}, word("try.opacity"), slider, value)),
    stage(width, height, picture(image.url, word("try.image")), canvas),
    make("p", { class: "hint" }, word("try.legend")),
    make("div", { class: "legend" }, legend));
}

// Returns the pixels of the class map: the class is in the first of four values.
async function readMap(address) {
  const image = new Image();
  image.src = address;
  await image.decode();
  const scale = Math.min(1, LONGEST / Math.max(image.naturalWidth, image.naturalHeight));
  const width = Math.max(1, Math.round(image.naturalWidth * scale));
  const height = Math.max(1, Math.round(image.naturalHeight * scale));
  const context = make("canvas", { width, height }).getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = false; // a mean of two classes is a third one
  context.drawImage(image, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}
