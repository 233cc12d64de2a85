// A model in words: size, license, score and where its weights are.
import { formatValue, make } from "/components/charts.js";
import { word } from "../words.js";

const MILLION = 1e6, BILLION = 1e9;

export function paramCount(params) {
  if (params >= BILLION) return `${(params / BILLION).toFixed(2)} B`;
  if (params >= MILLION) return `${(params / MILLION).toFixed(1)} M`;
  return `${(params / 1e3).toFixed(0)} k`;
}

// Returns "accuracy 81.31 % (ImageNet-1k validation)" of the first published score.
// metrics: promise of the table of scores, which the server may need seconds for; until then the
// plain number is shown.
export function publishedScore({ task_type, performance }, metrics) {
  const [dataset, scores] = Object.entries(performance || {})[0] || [];
  const [key, value] = Object.entries(scores || {})[0] || [];
  if (key === undefined) return word("model.no.score");
  return scoreText(task_type, key, value, metrics, ` (${dataset})`);
}

// Returns the score that has picked a trained model, "-" without one.
export function localScore({ task_type, metric, score }, metrics) {
  return metric === null || score === null ? "-" : scoreText(task_type, metric, score, metrics, "");
}

function scoreText(task, key, value, metrics, end) {
  const text = make("span", {}, `${key} ${formatValue("float", value)}${end}`);
  metrics.then((known) => {
    const spec = known[task]?.metrics.find((one) => one.key === key);
    if (spec) text.textContent = `${spec.label} ${formatValue(spec.format, value)}${end}`;
  }).catch(() => null); // the plain number stays
  return text;
}

export const weightsBadge = ({ weights }) => {
  return make("span", { class: `tag weights-${weights}` }, word(`model.weights.${weights}`));
};

// Returns the facts of a model as a list.
export function modelFacts(model, metrics) {
  const rows = [
    ["model.params", paramCount(model.params)],
    ["model.input", `${model.input_size} px`],
    ["model.scale", model.upscale_factor && `x${model.upscale_factor}`],
    ["model.score", publishedScore(model, metrics)],
    ["model.license", model.weights === "none" ? null : model.weights_license ||
      word("model.license.unknown")],
  ];
  return make("dl", { class: "facts" }, rows.filter(([, text]) => text).map(([key, text]) => {
    return make("div", {}, make("dt", {}, word(key)), make("dd", {}, text));
  }));
}
