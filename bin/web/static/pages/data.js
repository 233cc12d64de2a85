// Data: the data sets below the roots, their layout, counts and what is wrong with them.
import { make } from "/components/charts.js";
import { get } from "../api.js";
import {
  emptyState, pageHead, skeleton, taskIcon, taskKey, taskName, TASKS,
} from "../parts.js";
import { word } from "../words.js";
import { dataFacts, warningOf } from "./data_set.js";

export const title = "data.title";

export async function show(main, { signal }) {
  const place = make("div", {}, skeleton(6));
  main.append(pageHead(word("data.title")), place);
  const [{ datasets, complete }, { data }] = await Promise.all([
    get("/datasets", { signal }), get("/session", { signal }),
  ]);
  const roots = make("p", { class: "hint path" }, word("data.roots", { roots: data.join(", ") }));
  const empty = emptyState(word("data.none"), word("data.none.text"),
    make("pre", { class: "plain" }, `python bin/sample_data.py classification ${data[0]}/shapes`));
  place.replaceChildren(roots,
    complete ? "" : make("p", { class: "warning", role: "status" }, word("data.incomplete")),
    datasets.length ? make("div", { class: "choices models" }, datasets.map(card)) : empty,
    make("details", { class: "layouts" }, make("summary", {}, word("data.layouts")), layouts()));
}

function card(row) {
  const task = taskKey(row.task_types[0]);
  const values = new URLSearchParams({ task, data: row.path });
  const train = make("a", { class: "button", href: `/new?${values}` }, word("data.train"));
  return make("article", { class: "choice still" },
    make("h2", { class: "choice-name" }, taskIcon(task), row.name || row.path),
    make("span", {}, taskName(task)),
    make("span", { class: "hint" }, dataFacts(row)), warningOf(row),
    make("small", { class: "path" }, row.path),
    make("div", { class: "buttons" }, row.problem === "wrong_layout" ? null : train));
}

function layouts() {
  return make("ul", {}, TASKS.map((task) => {
    return make("li", {}, make("b", {}, taskName(task)), " ", word(`new.layout.${task}`));
  }));
}
