// Detected boxes over an image, with a slider for the lowest score.
import { colorBox, make } from "/components/charts.js";
import { number, word } from "../words.js";
import { percent, picture, stage } from "./try_stage.js";

const FIRST_SCORE = 30; // percent; lower where no box has as much
const LISTED = 100;
const FONT = 13, SMALL_FONT = 11, NARROW = 480, PAD = 4, LINE = 2; // pixels of the screen

// Light colors, for black text: neighbors differ in hue by the golden angle.
const colorOf = (id) => `hsl(${(200 + id * 137.5) % 360} 90% 68%)`;

export async function boxesOf({ width, height, boxes }, image, { signal }) {
  const best = boxes.length ? Math.floor(100 * boxes[0].score) : 0;
  const start = Math.max(1, Math.min(FIRST_SCORE, best));
  const slider = make("input", { type: "range", min: 1, max: 100, value: start, input: update });
  const value = make("output"), count = make("p", { role: "status" });
  const canvas = make("canvas"), list = make("ol", { class: "try-list" });
  const frame = stage(width, height, picture(image.url, word("try.image")), canvas);
  let shown = [], marked = null;

  function update() {
    value.textContent = `${slider.value} %`;
    shown = boxes.filter((box) => box.score >= slider.value / 100);
    marked = null;
    const text = shown.length ? "try.boxes" : boxes.length ? "try.boxes.below" : "try.boxes.none";
    count.textContent = word(text, { n: number(shown.length), all: number(boxes.length) });
    list.replaceChildren(...shown.slice(0, LISTED).map(rowOf));
    draw();
  }

  function rowOf(box) {
    const mark = (now) => () => {
      marked = now;
      draw();
    };
    const on = mark(box), off = mark(null);
    const events = { pointerenter: on, focus: on, pointerleave: off, blur: off };
    return make("li", { tabindex: 0, ...events },
      colorBox(colorOf(box.id)), make("span", { class: "try-label" }, box.label),
      make("span", {}, percent(box.score)));
  }

  // In pixels of the screen, so that lines and texts are sharp at every size.
  function draw() {
    const ratio = devicePixelRatio, scale = frame.clientWidth / width;
    canvas.width = Math.round(frame.clientWidth * ratio);
    canvas.height = Math.round(frame.clientHeight * ratio);
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    const room = frame.clientWidth, font = room < NARROW ? SMALL_FONT : FONT;
    context.font = `600 ${font}px system-ui, sans-serif`;
    const drawn = marked ? [marked] : shown.toReversed(); // the best one on top
    for (const box of drawn) drawBox(context, box, { scale, room, font });
  }

  const observer = new ResizeObserver(draw);
  observer.observe(frame);
  signal.addEventListener("abort", () => observer.disconnect());
  update();
  return make("div", { class: "try-kind" },
    make("div", { class: "try-controls" }, make("label", {}, word("try.score"), slider, value)),
    frame, count, list);
}

function drawBox(context, { box, label, score, id }, { scale, room, font }) {
  const [x0, y0, x1, y1] = box.map((edge) => edge * scale);
  context.strokeStyle = "rgb(0 0 0 / 60%)";
  context.lineWidth = 2 * LINE;
  context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  context.strokeStyle = context.fillStyle = colorOf(id);
  context.lineWidth = LINE;
  context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  const text = `${label} ${Math.round(100 * score)} %`, size = font + 2 * PAD;
  const width = context.measureText(text).width + 2 * PAD;
  const left = Math.max(0, Math.min(x0 - LINE / 2, room - width));
  const top = y0 >= size ? y0 - size : Math.max(0, y0); // inside where there is no room above
  context.fillRect(left, top, width, size);
  context.fillStyle = "#000000";
  context.fillText(text, left + PAD, top + font + PAD / 2);
}
