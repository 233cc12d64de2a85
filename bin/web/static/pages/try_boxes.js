// Detected boxes over an image, with a slider for the lowest score.
import { make } from "/components/charts.js";
import { word } from "../words.js";
import { scoreFilter } from "./try_scores.js";
import { picture, stage } from "./try_stage.js";

const FIRST_SCORE = 30; // percent
const FONT = 13, SMALL_FONT = 11, NARROW = 480, PAD = 4, LINE = 2; // pixels of the screen

// Light colors, for black text: neighbors differ in hue by the golden angle.
const colorOf = ({ id }) => `hsl(${(200 + id * 137.5) % 360} 90% 68%)`;

export async function boxesOf({ width, height, boxes }, image, { signal }) {
  const canvas = make("canvas");
  const frame = stage(width, height, picture(image.url, word("try.image")), canvas);
  const filter = scoreFilter(boxes, {
    first: FIRST_SCORE, words: { some: "try.boxes", below: "try.boxes.below" }, colorOf,
    changed: draw,
  });

  // In pixels of the screen, so that lines and texts are sharp at every size.
  function draw() {
    const ratio = devicePixelRatio, scale = frame.clientWidth / width;
    canvas.width = Math.round(frame.clientWidth * ratio);
    canvas.height = Math.round(frame.clientHeight * ratio);
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    const room = frame.clientWidth, font = room < NARROW ? SMALL_FONT : FONT;
    context.font = `600 ${font}px system-ui, sans-serif`;
    const { marked, shown } = filter;
    const drawn = marked ? [marked] : shown.toReversed(); // the best one on top
    for (const box of drawn) drawBox(context, box, { scale, room, font });
  }

  const observer = new ResizeObserver(draw);
  observer.observe(frame);
  signal.addEventListener("abort", () => observer.disconnect());
  filter.update();
  return make("div", { class: "try-kind" },
    make("div", { class: "try-controls" }, filter.control), frame, filter.count, filter.list);
}

function drawBox(context, box, { scale, room, font }) {
  const [x0, y0, x1, y1] = box.box.map((edge) => edge * scale);
  context.strokeStyle = "rgb(0 0 0 / 60%)";
  context.lineWidth = 2 * LINE;
  context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  context.strokeStyle = context.fillStyle = colorOf(box);
  context.lineWidth = LINE;
  context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  const text = `${box.label} ${Math.round(100 * box.score)} %`, size = font + 2 * PAD;
  const width = context.measureText(text).width + 2 * PAD;
  const left = Math.max(0, Math.min(x0 - LINE / 2, room - width));
  const top = y0 >= size ? y0 - size : Math.max(0, y0); // inside where there is no room above
  context.fillRect(left, top, width, size);
  context.fillStyle = "#000000";
  context.fillText(text, left + PAD, top + font + PAD / 2);
}
