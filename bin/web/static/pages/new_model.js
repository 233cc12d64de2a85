// Third step: the model to start from, and what a training of it would cost.
import { make } from "/components/charts.js";
import { get, query } from "../api.js";
import { field } from "../parts.js";
import { word } from "../words.js";
import { localScore, modelFacts, weightsBadge } from "./model_card.js";
import { checkPanel } from "./new_check.js";

const MANY = 6;

async function draw(place, { draft, next, signal }) {
  const { task } = draft.values;
  const metrics = get("/metrics", { signal });
  const { models, local } = await get(`/models${query({ task })}`, { signal });
  const check = make("div"), scratch = make("input", { type: "checkbox" });
  const onward = make("button", { class: "primary", click: next }, word("new.model.next"));
  const cards = [];

  function card(value, name, children) {
    const radio = make("input", {
      type: "radio", name: "model", value, checked: value === draft.values.model,
      change: () => choose(value),
    });
    const part = make("label", { class: "choice card-choice" },
      make("span", { class: "choice-name" }, radio, name), children);
    cards.push([`${name} ${value}`.toLowerCase(), part]);
    return part;
  }

  function choose(model) {
    draft.set({ model, check: draft.values.check });
    update();
  }

  // Shows what belongs to the chosen model.
  function update() {
    const chosen = models.find(({ model_id }) => model_id === draft.values.model);
    onward.disabled = !draft.values.model;
    scratch.checked = Boolean(draft.values.settings.from_scratch);
    scratch.closest("label").hidden = !draft.values.model || chosen?.weights === "none";
    if (chosen?.weights === "none") draft.setSetting("from_scratch", undefined);
    if (!draft.values.model) return;
    check.replaceChildren(checkPanel({ draft, signal, kind: "model" }));
  }

  scratch.addEventListener("change", () => {
    draft.setSetting("from_scratch", scratch.checked || undefined);
    update();
  });
  const ofRuns = local.map((one) => {
    return card(one.path, one.name, localFacts(one, metrics));
  });
  const released = models.filter(({ weights }) => weights !== "none").map((model) => {
    return card(model.model_id, model.display_name, zooFacts(model, metrics));
  });
  const untrained = models.filter(({ weights }) => weights === "none").map((model) => {
    return card(model.model_id, model.display_name, zooFacts(model, metrics));
  });
  const search = make("input", { type: "search", input: () => filter(search.value) });
  const filter = (text) => {
    for (const [name, part] of cards) part.hidden = !name.includes(text.trim().toLowerCase());
  };
  place.replaceChildren(
    cards.length > MANY ? field(word("new.model.search"), search) : "",
    group("local", ofRuns), group("released", released), group("untrained", untrained),
    make("label", { class: "check-line" }, scratch, word("new.model.scratch")),
    check, make("div", { class: "buttons" }, onward));
  update();
}

function group(name, cards) {
  if (!cards.length) return "";
  return make("fieldset", { class: "choices models" },
    make("legend", {}, word(`new.model.${name}`)), cards);
}

function zooFacts(model, metrics) {
  return [
    weightsBadge(model), make("span", { class: "hint" }, model.description),
    modelFacts(model, metrics),
  ];
}

function localFacts(model, metrics) {
  return [
    make("span", { class: "tag weights-cached" }, word(`model.source.${model.source}`)),
    make("span", {}, localScore(model, metrics)), make("small", { class: "path" }, model.path),
  ];
}

export const modelStep = {
  name: "model",
  isOpen: ({ task, data }) => Boolean(task && data),
  summary: ({ model }) => model && model.replace(/\/best$/, "").split("/").at(-1),
  draw,
};
