import { formatValue, grouped, make } from "./charts.js";
import { runName, section } from "./tables.js";

// Samples: fixed ones at several steps with a slider, and the worst ones.

const scoreText = (kind, sample) => (kind && sample.score !== null ? `${kind.label} ${formatValue(kind.format, sample.score)}` : "");

// Shows an image in its own size over the page; Escape or a click closes it.
export function enlarge(source, name) {
  const close = () => large.remove();
  const large = make("dialog", { close, click: close, "aria-label": name }, make("img", { src: source, alt: name }), make("p", {}, name));
  document.body.append(large);
  large.showModal();
}

// Returns the figure of a sample. label: the text before the score below the image.
export function sampleFigure(name, label) {
  const image = make("img", { alt: name }), missing = make("div", { class: "missing" }, "no image"), text = make("span");
  const button = make("button", { class: "zoom", "aria-label": `enlarge ${name}`, click: () => enlarge(image.src, name) }, image);
  const figure = make("figure", { class: "sample" }, button, missing, make("figcaption", {}, label, " ", text));
  figure.set = (sample, score) => {
    [button.hidden, missing.hidden, text.textContent] = [!sample.image, Boolean(sample.image), score];
    if (sample.image) image.setAttribute("src", sample.image);
  };
  return figure;
}

export function fixedSamples(runs) {
  const withImages = runs.filter((run) => run.fixed);
  if (!withImages.length) return null;
  const steps = [...new Set(withImages.flatMap((run) => run.fixed.selection.map(({ step }) => step)))].sort((a, b) => a - b);
  const groups = grouped(withImages, (run) => run.task + namesOf(run)), galleries = groups.map(sideBySide);
  const heading = (runs) => (groups.length > 1 ? make("h3", { class: "runs" }, runs.map(runName)) : null);
  const last = steps.length - 1, stepText = make("output", { for: "sample-step" });
  const slider = make("input", { type: "range", min: 0, max: last, value: last, id: "sample-step", input: move });
  function move() {
    const step = steps[slider.value];
    stepText.textContent = `step ${step}`;
    slider.setAttribute("aria-valuetext", `step ${step}`);
    for (const gallery of galleries) gallery.show(step);
  }
  move();
  const limits = withImages.flatMap((run) => {
    const { total, evaluations, selection } = run.fixed, count = selection.at(-1).samples.length;
    const isReduced = count < total || selection.length < evaluations;
    return isReduced ? [`${run.name}: ${count} of ${total} samples at ${selection.length} of ${evaluations} evaluations with images. `] : [];
  });
  const control = make("div", { class: "slider" }, make("label", { for: "sample-step" }, "evaluation at"), slider, stepText);
  const text = make("p", {}, "Prediction beside ground truth. Click an image to enlarge it. ", ...limits);
  const blocks = groups.flatMap((runs, i) => [heading(runs), galleries[i]]);
  return section("samples", "Fixed samples over training", text, control, ...blocks);
}

const namesOf = (run) => JSON.stringify(run.fixed.selection.at(-1).samples.map(({ name }) => name));

// Returns a gallery of runs that were evaluated on the same samples, with the images of a sample side by side. show(step): selects the evaluation.
function sideBySide(runs) {
  const several = runs.length > 1, names = JSON.parse(namesOf(runs[0]));
  const figures = names.map((name) => runs.map((run) => sampleFigure(name, several ? runName(run) : make("b", {}, name))));
  const cell = (name, i) => (several ? make("div", { class: "pair" }, make("b", {}, name), make("div", {}, figures[i])) : figures[i][0]);
  const gallery = make("div", { class: "gallery", style: several ? { "--cell": `${180 * runs.length}px` } : {} }, names.map(cell));
  gallery.show = (step) => runs.forEach((run, k) => {
    const evaluation = run.fixed.selection.filter((one) => one.step <= step).at(-1) || run.fixed.selection[0];
    const other = evaluation.step === step ? "" : ` (step ${evaluation.step})`;
    evaluation.samples.forEach((sample, i) => figures[i][k].set(sample, scoreText(run.fixed.score, sample) + other));
  });
  return gallery;
}

export function worstSamples(runs) {
  const withImages = runs.filter((run) => run.worst);
  if (!withImages.length) return null;
  const gallery = (run) => {
    const { step, score, samples, total } = run.worst;
    const figures = samples.map((sample) => {
      const figure = sampleFigure(sample.name, make("b", {}, sample.name));
      figure.set(sample, scoreText(score, sample));
      return figure;
    });
    const number = samples.length < total ? `${samples.length} of ${total} samples` : `${samples.length} samples`;
    const order = score ? `by ${score.label}, the ${score.higher_is_better ? "lowest" : "highest"} first` : "worst first";
    const text = `${number} at step ${step}, ${order}${score && score.description ? ` (${score.description})` : ""}.`;
    const heading = runs.length > 1 ? make("h3", {}, runName(run)) : null;
    return make("div", {}, heading, make("p", {}, text), make("div", { class: "gallery" }, figures));
  };
  return section("worst", "Worst samples", ...withImages.map(gallery));
}
