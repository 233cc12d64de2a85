// Samples: fixed ones at several steps with a slider, and the worst ones.
import { formatValue, grouped, make, runName, say, section } from "./elements.js";

function scoreText(kind, sample) {
  const isShown = kind && sample.score !== null;
  return isShown ? `${kind.label} ${formatValue(kind.format, sample.score)}` : "";
}

// Shows an image in its own size over the page; Escape or a click closes it.
export function enlarge(source, name) {
  const events = { close: () => large.remove(), click: () => large.close() };
  const image = make("img", { src: source, alt: name });
  const large = make("dialog", { ...events, "aria-label": name }, image, make("p", {}, name));
  document.body.append(large);
  large.showModal();
}

// Returns the figure of a sample; set(sample, text) shows another image and text.
// label: before the text below the image.
export function sampleFigure(name, label) {
  const image = make("img", { alt: name }), text = make("span");
  const missing = make("div", { class: "missing" }, say("no image"));
  const button = make("button", {
    class: "zoom",
    "aria-label": say("enlarge {name}", { name }),
    click: () => enlarge(image.src, name),
  }, image);
  const caption = make("figcaption", {}, label, " ", text);
  const figure = make("figure", { class: "sample" }, button, missing, caption);
  figure.set = (sample, score) => {
    button.hidden = !sample.image;
    missing.hidden = Boolean(sample.image);
    text.textContent = score;
    const isNew = sample.image && image.getAttribute("src") !== sample.image;
    if (isNew) image.setAttribute("src", sample.image);
  };
  return figure;
}

// at: step to show first, that of the last evaluation without it; onMove(step): called for a step
// that the user chooses.
export function fixedSamples(runs, { at = Infinity, onMove = () => {} } = {}) {
  const shown = runs.filter((run) => run.fixed);
  if (!shown.length) return null;
  const all = new Set(shown.flatMap((run) => run.fixed.selection.map(({ step }) => step)));
  const steps = [...all].sort((a, b) => a - b), last = steps.length - 1;
  const groups = grouped(shown, (run) => run.task + namesOf(run));
  const galleries = groups.map(sideBySide);
  const several = groups.length > 1;
  const heading = (own) => (several ? make("h3", { class: "runs" }, own.map(runName)) : null);
  const stepText = make("output", { for: "sample-step" });
  const first = Math.max(0, steps.findLastIndex((step) => step <= at));
  const slider = make("input", {
    type: "range", min: 0, max: last, value: first, id: "sample-step", input: () => {
      move();
      onMove(Number(slider.value) === last ? Infinity : steps[slider.value]);
    },
  });
  function move() {
    const step = steps[slider.value], text = say("step {step}", { step });
    stepText.textContent = text;
    slider.setAttribute("aria-valuetext", text);
    for (const gallery of galleries) gallery.show(step);
  }
  move();
  const label = make("label", { for: "sample-step" }, say("evaluation at"));
  const text = say("Prediction beside ground truth. Click an image to enlarge it.");
  return section("samples", say("Fixed samples over training"),
    make("p", {}, `${text} `, shown.flatMap(limitsOf)),
    make("div", { class: "slider" }, label, slider, stepText),
    groups.flatMap((own, i) => [heading(own), galleries[i]]));
}

// Returns a text about what the page leaves out of a run, [] if nothing.
function limitsOf({ name, fixed: { total, evaluations, selection } }) {
  const count = selection.at(-1).samples.length, number = selection.length;
  if (count >= total && number >= evaluations) return [];
  const values = { name, count, total, number, evaluations };
  return [say(
    "{name}: {count} of {total} samples at {number} of {evaluations} evaluations with images. ",
    values)];
}

const namesOf = (run) => JSON.stringify(run.fixed.selection.at(-1).samples.map(({ name }) => name));

// Returns a gallery of runs that were evaluated on the same samples, with the images of a sample
// side by side. show(step): selects the evaluation.
function sideBySide(runs) {
  const several = runs.length > 1, names = JSON.parse(namesOf(runs[0]));
  const labelOf = (run, name) => (several ? runName(run) : make("b", {}, name));
  const figures = names.map((name) => runs.map((run) => sampleFigure(name, labelOf(run, name))));
  const cell = (name, i) => {
    if (!several) return figures[i][0];
    return make("div", { class: "pair" }, make("b", {}, name), make("div", {}, figures[i]));
  };
  const style = several ? { "--cell": `${180 * runs.length}px` } : {};
  const gallery = make("div", { class: "gallery", style }, names.map(cell));
  gallery.show = (step) => runs.forEach((run, k) => {
    const { score, selection } = run.fixed;
    const evaluation = selection.filter((one) => one.step <= step).at(-1) || selection[0];
    const other = evaluation.step === step ? "" : ` (${say("step {step}", evaluation)})`;
    evaluation.samples.forEach((sample, i) => {
      figures[i][k].set(sample, scoreText(score, sample) + other);
    });
  });
  return gallery;
}

export function worstSamples(runs) {
  const shown = runs.filter((run) => run.worst);
  if (!shown.length) return null;
  const gallery = (run) => {
    const { score, samples } = run.worst;
    const figures = samples.map((sample) => {
      const figure = sampleFigure(sample.name, make("b", {}, sample.name));
      figure.set(sample, scoreText(score, sample));
      return figure;
    });
    const heading = runs.length > 1 ? make("h3", {}, runName(run)) : null;
    const text = make("p", {}, orderText(run.worst));
    return make("div", {}, heading, text, make("div", { class: "gallery" }, figures));
  };
  return section("worst", say("Worst samples"), shown.map(gallery));
}

function orderText({ step, score, samples, total }) {
  const count = samples.length < total ? `${samples.length} / ${total}` : samples.length;
  if (!score) return say("{count} samples at step {step}, worst first.", { count, step });
  const about = score.description ? ` (${score.description})` : "", by = `${score.label}${about}`;
  return score.higher_is_better
    ? say("{count} samples at step {step} by {by}, the lowest first.", { count, step, by })
    : say("{count} samples at step {step} by {by}, the highest first.", { count, step, by });
}
