// Models: those of this machine, and all of the model zoo, with filters.
import { make } from "/components/charts.js";
import { get } from "../api.js";
import { emptyState, field, pageHead, skeleton, taskIcon, taskName, TASKS } from "../parts.js";
import { word } from "../words.js";
import { localScore, paramCount, publishedScore, weightsBadge } from "./model_card.js";

export const title = "models.title";
const WEIGHTS = ["cached", "hub", "none"];
const UNBROKEN = ["params", "license"]; // columns of one line

export async function show(main, { query, signal }) {
  const place = make("div", {}, skeleton(6));
  main.append(pageHead(word("models.title")), place);
  const metrics = get("/metrics", { signal });
  const { models, local } = await get("/models", { signal });
  const rows = [
    ...local.map((model) => localRow(model, metrics)),
    ...models.map((model) => zooRow(model, metrics)),
  ];
  const count = make("p", { class: "hint", role: "status" }), body = make("tbody");
  const search = make("input", { type: "search", input: filter });
  const task = select(TASKS, taskName, query.get("task"));
  const weights = select(WEIGHTS, (name) => word(`model.weights.${name}`), null);

  function filter() {
    const text = search.value.trim().toLowerCase();
    const shown = rows.filter((one) => (!task.value || one.task === task.value) &&
      (!weights.value || one.weights === weights.value) && one.text.includes(text));
    body.replaceChildren(...shown.map(({ row }) => row));
    count.textContent = word("models.count", { n: shown.length, all: rows.length });
    empty.hidden = shown.length > 0;
  }

  function select(names, nameOf, chosen) {
    const options = names.map((name) => {
      return make("option", { value: name, selected: name === chosen }, nameOf(name));
    });
    return make("select", { change: filter }, make("option", { value: "" }, word("models.all")),
      options);
  }

  const headings = ["model", "task", "params", "score", "license", "weights", "actions"];
  const head = make("thead", {}, make("tr", {}, headings.map((name) => {
    return make("th", { scope: "col" }, word(`models.${name}`));
  })));
  const empty = emptyState(word("models.none"), word("models.none.text"));
  place.replaceChildren(
    make("div", { class: "filters model-filters" }, field(word("models.search"), search),
      field(word("models.task"), task), field(word("models.weights"), weights)),
    count, make("section", {}, make("table", { class: "model-table" }, head, body), empty));
  filter();
}

function rowOf(name, details, task, cells, actions) {
  const labels = ["params", "score", "license", "weights"];
  return make("tr", {},
    make("th", { scope: "row" }, make("div", {}, name, details)),
    make("td", {}, taskIcon(task)),
    cells.map((cell, i) => {
      const name = cell === "-" ? "unknown" : UNBROKEN.includes(labels[i]) ? "number" : null;
      return make("td", { class: name, "data-label": word(`models.${labels[i]}`) }, cell);
    }),
    make("td", {}, make("div", { class: "buttons" }, actions)));
}

const link = (key, path, values) => {
  const href = `${path}?${new URLSearchParams(values)}`;
  return make("a", { class: "button small-button", href }, word(key));
};

function zooRow(model, metrics) {
  const { model_id, display_name, command, description, architecture, aliases } = model;
  const details = make("div", { class: "hint" }, make("div", { class: "path" }, model_id),
    description);
  const license = model.weights === "none" ? "-"
    : model.weights_license || word("model.license.unknown");
  const score = publishedScore(model, metrics);
  return {
    task: command, weights: model.weights,
    text: [model_id, display_name, architecture, ...aliases].join(" ").toLowerCase(),
    row: rowOf(display_name, details, command,
      [paramCount(model.params), score, license, weightsBadge(model)],
      link("models.train", "/new", { task: command, model: model_id })),
  };
}

function localRow(model, metrics) {
  const { path, name, task, source } = model, shown = localScore(model, metrics);
  const badge = make("span", { class: "tag weights-cached" }, word(`model.source.${source}`));
  return {
    task, weights: "cached", text: `${name} ${path}`.toLowerCase(),
    row: rowOf(name, make("div", { class: "path hint" }, path), task, ["-", shown, "-", badge], [
      link("models.try", "/try", { model: path }),
      link("models.train", "/new", { task, model: path }),
    ]),
  };
}
