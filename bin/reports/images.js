"use strict";
// Samples: the same ones at several steps behind a slider, and the worst.

const scoreText = (kind, sample) => (kind && sample.score !== null ? `${kind.label} ${show(kind.format, sample.score)}` : "");

// An image in its own size over the page; the browser closes it with Escape, and a click anywhere does.
function enlarge(source, name) {
  const close = () => large.remove();
  const large = make("dialog", { close, click: close, "aria-label": name }, make("img", { src: source, alt: name }), make("p", {}, name));
  document.body.append(large);
  large.showModal();
}

// label: what stands below the image before the score
function sampleFigure(name, label) {
  const image = make("img", { alt: name }), missing = make("div", { class: "missing" }, "no image"), text = make("span");
  const button = make("button", { class: "zoom", "aria-label": `enlarge ${name}`, click: () => enlarge(image.src, name) }, image);
  const figure = make("figure", { class: "sample" }, button, missing, make("figcaption", {}, label, " ", text));
  figure.set = (sample, told) => {
    [button.hidden, missing.hidden, text.textContent] = [!sample.image, Boolean(sample.image), told];
    if (sample.image) image.setAttribute("src", sample.image);
  };
  return figure;
}

function fixedSamples(runs) {
  const known = runs.filter((run) => run.fixed);
  if (!known.length) return null;
  const steps = [...new Set(known.flatMap((run) => run.fixed.shown.map(({ step }) => step)))].sort((a, b) => a - b);
  const groups = grouped(known, (run) => run.task + namesOf(run)), galleries = groups.map(besideEachOther);
  const heading = (runs) => (groups.length > 1 ? make("h3", { class: "runs" }, runs.map(runName)) : null);
  const last = steps.length - 1, told = make("output", { for: "sample-step" });
  const slider = make("input", { type: "range", min: 0, max: last, value: last, id: "sample-step", input: move });
  function move() {
    const step = steps[slider.value];
    told.textContent = `step ${step}`;
    slider.setAttribute("aria-valuetext", `step ${step}`);
    for (const gallery of galleries) gallery.show(step);
  }
  move();
  const limits = known.flatMap((run) => {
    const { known: all, evaluations, shown } = run.fixed, here = shown.at(-1).samples.length;
    const cut = here < all || shown.length < evaluations;
    return cut ? [`Of ${run.name} here: ${here} of ${all} samples, ${shown.length} of ${evaluations} evaluations with images. `] : [];
  });
  const control = make("div", { class: "slider" }, make("label", { for: "sample-step" }, "evaluation at"), slider, told);
  const text = make("p", {}, "Prediction beside truth; a click enlarges. ", ...limits);
  const shown = groups.flatMap((runs, i) => [heading(runs), galleries[i]]);
  return section("samples", "The same samples at several steps", text, control, ...shown);
}

const namesOf = (run) => JSON.stringify(run.fixed.shown.at(-1).samples.map(({ name }) => name));

// A gallery of runs that were evaluated on the same samples, each sample's images beside each other. show(step): of that evaluation.
function besideEachOther(runs) {
  const several = runs.length > 1, names = JSON.parse(namesOf(runs[0]));
  const figures = names.map((name) => runs.map((run) => sampleFigure(name, several ? runName(run) : make("b", {}, name))));
  const cell = (name, i) => (several ? make("div", { class: "pair" }, make("b", {}, name), make("div", {}, figures[i])) : figures[i][0]);
  const gallery = make("div", { class: "gallery", style: several ? { "--cell": `${180 * runs.length}px` } : {} }, names.map(cell));
  gallery.show = (step) => runs.forEach((run, k) => {
    const shown = run.fixed.shown.filter((one) => one.step <= step).at(-1) || run.fixed.shown[0];
    const other = shown.step === step ? "" : ` (step ${shown.step})`;
    shown.samples.forEach((sample, i) => figures[i][k].set(sample, scoreText(run.fixed.score, sample) + other));
  });
  return gallery;
}

function worstSamples(runs) {
  const known = runs.filter((run) => run.worst);
  if (!known.length) return null;
  const gallery = (run) => {
    const { step, score, samples, known: all } = run.worst;
    const figures = samples.map((sample) => {
      const figure = sampleFigure(sample.name, make("b", {}, sample.name));
      figure.set(sample, scoreText(score, sample));
      return figure;
    });
    const number = samples.length < all ? `${samples.length} of ${all} samples` : `${samples.length} samples`;
    const order = score ? `by ${score.label}, the ${score.higher_is_better ? "lowest" : "highest"} first` : "worst first";
    const text = `${number} at step ${step}, ${order}${score && score.description ? ` (${score.description})` : ""}.`;
    const heading = runs.length > 1 ? make("h3", {}, runName(run)) : null;
    return make("div", {}, heading, make("p", {}, text), make("div", { class: "gallery" }, figures));
  };
  return section("worst", "The worst samples", ...known.map(gallery));
}
