// Segments over an image, each in a color of its own, with sliders for opacity and lowest score.
import { make } from "/components/charts.js";
import { number, word } from "../words.js";
import { mapCanvas, mapSize, opacitySlider, pixelOf, readMap } from "./try_map.js";
import { runsOf } from "./try_run_lengths.js";
import { scoreFilter } from "./try_scores.js";
import { percent, picture, stage } from "./try_stage.js";

const FIRST_OPACITY = 60, PALE = 70; // of 255: segments beside a marked one
const LONGEST = 1280; // pixels of the map, which is drawn again at each move of a slider
const BYTE = 256;

// Returns a color as [red, green, blue]. hue in degrees, saturation and lightness 0 to 1.
function rgbOf(hue, saturation, lightness) {
  const reach = saturation * Math.min(lightness, 1 - lightness);
  return [0, 8, 4].map((offset) => {
    const place = (offset + hue / 30) % 12;
    const share = Math.max(-1, Math.min(place - 3, 9 - place, 1));
    return Math.round(255 * (lightness - reach * share));
  });
}

// Neighbors in a list differ in hue by the golden angle; stuff is paler, a color for each class.
const colorOf = ({ is_thing, number: own, id }) => (is_thing
  ? rgbOf((200 + own * 137.5) % 360, 0.85, 0.58) : rgbOf((20 + id * 137.5) % 360, 0.3, 0.55));

// Objects, whose masks may overlap: the best one is on top, or the marked one.
export function instancesOf(answer, image) {
  const size = mapSize(answer.width, answer.height, LONGEST);
  const { width, height } = size;
  const runs = new Map(answer.segments.map((segment) => {
    return [segment, runsOf(answer.prediction.segments[segment.number - 1].mask, size)];
  }));
  const down = new Uint16Array(width * height), numbers = new Uint16Array(width * height);
  // Runs go down the columns, and a canvas across the rows.
  function numbersOf(shown, marked) {
    down.fill(0);
    for (const segment of [...shown.toReversed(), ...(marked ? [marked] : [])]) {
      const own = runs.get(segment);
      for (let i = 0; i < own.length; i += 2) down.fill(segment.number, own[i], own[i + 1]);
    }
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i++) numbers[i] = down[x * height + y];
    }
    return numbers;
  }
  return segmentsOf(answer, image, size, numbersOf, {
    first: 50, words: { some: "try.objects", below: "try.objects.below" }, hint: "try.counts",
  });
}

// One segment for each pixel, from an image of their numbers.
export async function panopticOf(answer, image) {
  const numberOf = (red, green) => red + BYTE * green;
  const map = await readMap(answer.images.segments, numberOf, LONGEST);
  return segmentsOf(answer, image, map, () => map.numbers, {
    first: 80, words: { some: "try.segments", below: "try.segments.below" },
    hint: "try.counts.stuff",
  });
}

// numbersOf(shown, marked): the number of the segment of each pixel, 0 for none.
function segmentsOf({ width, height, segments }, image, size, numbersOf, { first, words, hint }) {
  const canvas = mapCanvas(size), hidden = new Set();
  const frame = stage(width, height, picture(image.url, word("try.image")), canvas);
  const length = 1 + Math.max(0, ...segments.map((segment) => segment.number));
  const byNumber = new Map(segments.map((segment) => [segment.number, segment]));
  const filter = scoreFilter(segments, {
    first, words, colorOf: (segment) => `rgb(${colorOf(segment).join(" ")})`,
    isShown: ({ id }) => !hidden.has(id), changed: draw,
  });
  const counts = classCounts(segments, width * height, (id) => {
    if (!hidden.delete(id)) hidden.add(id);
    filter.update();
    return !hidden.has(id);
  });
  let numbers = null, drawn = null;

  function draw() {
    const { shown, marked, above } = filter;
    if (drawn !== above) counts.update(above);
    drawn = above;
    const pixels = new Uint32Array(length);
    for (const segment of shown) {
      const isPale = marked && marked !== segment;
      pixels[segment.number] = pixelOf(colorOf(segment), isPale ? PALE : 255);
    }
    numbers = numbersOf(shown, marked);
    canvas.paint(numbers, pixels);
  }

  // Marks what is below the pointer.
  function point({ clientX, clientY }) {
    const { left, top, width: across, height: down } = frame.getBoundingClientRect();
    const placeOf = (place, all, side) => Math.min(side - 1, Math.floor(place / all * side));
    const x = placeOf(clientX - left, across, size.width);
    const y = placeOf(clientY - top, down, size.height);
    const segment = byNumber.get(numbers[y * size.width + x]);
    filter.mark(segment && filter.shown.includes(segment) ? segment : null);
  }

  for (const kind of ["pointermove", "pointerdown"]) frame.addEventListener(kind, point);
  frame.addEventListener("pointerleave", () => filter.mark(null));
  filter.update();
  return make("div", { class: "try-kind" },
    make("div", { class: "try-controls" }, filter.control,
      opacitySlider(canvas, word("try.opacity"), FIRST_OPACITY)),
    frame, filter.count,
    segments.length ? make("p", { class: "hint" }, word(hint)) : null,
    make("div", { class: "legend" }, counts.buttons), filter.list);
}

// Returns a button for each class, with its number of objects or, of stuff, its share of the image.
// toggle(id): returns whether the class is shown. update(segments): of what is above the score.
function classCounts(segments, area, toggle) {
  const classes = new Map(segments.map((segment) => [segment.id, segment]));
  const rows = [...classes.values()].map(({ id, label, is_thing }) => {
    const text = make("small");
    const button = make("button", { class: "toggle", "aria-pressed": "true", click: () => {
      button.setAttribute("aria-pressed", String(toggle(id)));
    } }, make("span", {}, label), text);
    return { id, is_thing, text, button };
  });
  function update(above) {
    for (const { id, is_thing, text, button } of rows) {
      const own = above.filter((segment) => segment.id === id);
      const share = own.reduce((sum, segment) => sum + segment.area, 0) / area;
      text.textContent = is_thing ? number(own.length) : percent(share);
      button.hidden = !own.length;
    }
  }
  return { buttons: rows.map(({ button }) => button), update };
}
