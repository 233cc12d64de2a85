// Confusion matrix, and the most frequent confusions.
import { make, runName, say, scroll, section, shape, sum, whole } from "./elements.js";
import { head, row } from "./tables.js";

const MAX_CONFUSIONS = 12, MAX_LETTERS = 16;
const isWide = (letter) => letter > "\u2e80"; // of Korean, Chinese and Japanese
const places = (name) => sum([...name].map((letter) => (isWide(letter) ? 1.8 : 1)));
const shareOf = (counts, i, j) => counts[i][j] / (sum(counts[i]) || 1);

function cut(name) {
  return name.length > MAX_LETTERS ? `${name.slice(0, MAX_LETTERS - 1)}\u2026` : name;
}

export function confusions(runs) {
  const evaluated = runs.filter((run) => run.last_evaluation && run.last_evaluation.confusion);
  if (!evaluated.length) return null;
  const text = say(
    "Rows are the ground truth, columns the predictions. The color of a cell is its share of the "
    + "row; point at a cell for its count.");
  const blocks = evaluated.map(({ last_evaluation: { step, confusion }, ...run }) => {
    const heading = make("h3", {}, runName(run), ` ${say("at step {step}", { step })}`);
    return make("div", {}, heading, matrix(confusion), mostConfused(confusion));
  });
  const beside = make("div", { class: "beside" }, blocks);
  return section("confusion", say("Confusion matrix"), make("p", {}, text), beside);
}

// Returns the confusion matrix. Empty cells are not drawn: 200 classes would be 40,000 elements.
function matrix({ classes, counts, unit }) {
  const n = classes.length, size = n <= 12 ? 34 : n <= 30 ? 20 : n <= 60 ? 12 : 5;
  const named = size > 5, longest = Math.max(...classes.map((name) => places(cut(name))));
  const margin = named ? 8 + 7.2 * longest : 4, side = margin + n * size + 2;
  const label = say("confusion matrix of {n} classes", { n });
  const box = { class: "confusion", width: side, height: side, role: "img", "aria-label": label };
  const svg = shape("svg", box);
  const frame = { x: margin, y: margin, width: n * size, height: n * size, class: "frame" };
  svg.append(shape("rect", frame));
  counts.forEach((line, i) => line.forEach((count, j) => {
    if (!count) return;
    const place = [margin + j * size, margin + i * size];
    svg.append(...matrixCell(...place, size, shareOf(counts, i, j), i === j));
  }));
  if (named) classes.forEach((name, i) => {
    const middle = margin + (i + 0.5) * size + 4;
    const above = `translate(${middle} ${margin - 5}) rotate(-90)`;
    svg.append(shape("text", { x: margin - 5, y: middle, "text-anchor": "end" }, cut(name)));
    svg.append(shape("text", { transform: above }, cut(name)));
  });
  const total = `${whole(sum(counts.flat()))} ${say(unit)}`;
  const text = make("p", { class: "cell-text", "aria-live": "polite" }, total);
  function point(event) {
    const { left, top } = svg.getBoundingClientRect();
    const indexOf = (place) => Math.floor((place - margin) / size);
    const [i, j] = [indexOf(event.clientY - top), indexOf(event.clientX - left)];
    if (i < 0 || j < 0 || i >= n || j >= n) return;
    text.textContent = say(
      "ground truth {truth}, prediction {prediction}: {count} {unit}, {share} % of {all}", {
        truth: classes[i],
        prediction: classes[j],
        count: whole(counts[i][j]),
        unit: say(unit),
        share: (100 * shareOf(counts, i, j)).toFixed(1),
        all: whole(sum(counts[i])),
      });
  }
  for (const kind of ["pointermove", "pointerdown"]) svg.addEventListener(kind, point);
  return make("div", {}, scroll(svg), text);
}

function matrixCell(x, y, size, share, isRight) {
  const color = { class: isRight ? "right" : "wrong", style: { "--share": share ** 0.6 } };
  const cell = shape("rect", { x, y, width: size, height: size, ...color });
  if (size <= 30) return [cell];
  const middle = { x: x + size / 2, y: y + size / 2 + 4, "text-anchor": "middle" };
  return [cell, shape("text", { ...middle, class: "share" }, (100 * share).toFixed(0))];
}

function mostConfused({ classes, counts, unit }) {
  const all = counts.flatMap((line, i) => line.map((count, j) => ({ count, i, j })));
  const pairs = all.filter(({ count, i, j }) => i !== j && count);
  if (!pairs.length) return make("p", {}, say("No class was confused with another."));
  const worst = pairs.sort((a, b) => b.count - a.count).slice(0, MAX_CONFUSIONS);
  const share = (i, j) => `${(100 * shareOf(counts, i, j)).toFixed(1)} %`;
  const rows = worst.map(({ count, i, j }) => {
    return row(classes[i], [classes[j], whole(count), share(i, j)]);
  });
  const caption = make("caption", {}, say("Most frequent confusions"));
  const ofTruth = say("share of the ground truth");
  const heads = head(say("ground truth"), say("prediction"), say(unit), ofTruth);
  return scroll(make("table", {}, caption, heads, make("tbody", {}, rows)));
}
