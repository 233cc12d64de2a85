// Second step: a data set below the roots, and what `check` says about it.
import { make } from "/components/charts.js";
import { get, query } from "../api.js";
import { actionButton, emptyState, field, skeleton, taskName } from "../parts.js";
import { word } from "../words.js";
import { dataFacts, warningOf } from "./data_set.js";
import { checkPanel } from "./new_check.js";

async function draw(place, { draft, next, signal }) {
  const list = make("div", {}, skeleton()), browser = make("div"), check = make("div");
  const split = splitField(draft);
  const path = field(word("new.data.path"), make("input", {
    type: "text", value: draft.values.data || "", spellcheck: "false", autocomplete: "off",
  }), { hint: word("new.data.path.hint") });
  const input = path.querySelector("input");
  const use = actionButton(word("new.data.use"), () => useTyped(input.value.trim()));
  input.addEventListener("keydown", (event) => event.key === "Enter" && use.press());
  const browse = make("details", { toggle: () => browse.open && !browser.firstChild && open("") },
    make("summary", {}, word("new.data.browse")), browser);
  const onward = make("button", { class: "primary", click: next }, word("new.data.next"));

  function choose(data, rows) {
    input.value = data;
    path.setError("");
    if (data !== draft.values.data) draft.chooseData(data, rows);
    split.update();
    for (const radio of list.querySelectorAll("input")) radio.checked = radio.value === data;
    onward.disabled = false;
    check.replaceChildren(checkPanel({ draft, signal, kind: "data" }));
  }

  // The server says which folder a path is, or why it may not be used.
  async function useTyped(text) {
    try {
      const folder = await get(`/folders${query({ path: text })}`, { signal });
      if (!folder.path) throw new Error(word("new.data.path.empty"));
      choose(folder.path, folder.recognised);
      if (!fits(folder.recognised, draft)) path.setError(word("new.data.unknown"));
    } catch (error) {
      if (signal.aborted) return;
      path.setError([error.message, error.hint].filter(Boolean).join(". "));
      input.focus();
    }
  }

  async function open(folder) {
    browser.replaceChildren(skeleton(2));
    const listing = await get(`/folders${query({ path: folder })}`, { signal });
    browser.replaceChildren(folderList(listing, draft, open, useTyped));
    browser.querySelector("button")?.focus();
  }

  place.replaceChildren(make("p", {}, word("new.data.text", { task: taskName(draft.values.task) })),
    list, browse, make("div", { class: "typed" }, path, use), split, check,
    make("div", { class: "buttons" }, onward));
  onward.disabled = !draft.values.data;
  if (draft.values.data) choose(draft.values.data, []);
  const { datasets, complete } = await get("/datasets", { signal });
  list.replaceChildren(dataSetList(datasets, draft, choose), complete ? ""
    : make("p", { class: "hint" }, word("data.incomplete")));
}

// Returns the field of the share that validates, of a data set without validation images.
function splitField(draft) {
  const input = make("input", { type: "number", min: 0.01, max: 0.9, step: 0.01, input: () => {
    draft.setSetting("val_split", input.value === "" ? undefined : Number(input.value));
  } });
  const part = field(word("new.data.split"), input, { hint: word("new.data.split.hint") });
  part.update = () => {
    const { val_split } = draft.values.settings;
    part.hidden = val_split === undefined;
    input.value = val_split ?? "";
  };
  part.update();
  return part;
}

const fits = (rows, draft) => rows.some(({ task_types }) => {
  return task_types.some((type) => draft.isTask(type));
});

// Returns the data sets for the task as radio buttons, "" without one.
function dataSetList(datasets, draft, choose) {
  const isBroken = ({ problem }) => problem === "wrong_layout";
  const rows = datasets.filter((row) => fits([row], draft));
  rows.sort((a, b) => isBroken(a) - isBroken(b));
  if (!rows.length) {
    return emptyState(word("new.data.none"), word(`new.layout.${draft.values.task}`));
  }
  const items = rows.map((row) => make("label", { class: "choice row" },
    make("input", {
      type: "radio", name: "data", value: row.path, checked: row.path === draft.values.data,
      change: () => choose(row.path, [row]),
    }),
    make("span", { class: "choice-name" }, row.name || row.path),
    make("span", { class: "hint" }, dataFacts(row)), warningOf(row),
    make("small", { class: "path" }, row.path)));
  const legend = make("legend", {}, word("new.data.found"));
  return make("fieldset", { class: "choices rows" }, legend, items);
}

function folderList({ path, parent, folders, complete }, draft, open, useTyped) {
  const up = parent === null ? null
    : make("li", {}, make("button", { class: "quiet", click: () => open(parent) }, "../"));
  const rows = folders.map(({ name, path: folder, task_types }) => {
    const isData = fits([{ task_types }], draft);
    const tasks = task_types.map((task) => make("span", { class: "tag" }, taskName(task)));
    return make("li", {},
      make("button", { class: "quiet", click: () => open(folder) }, path ? `${name}/` : folder),
      tasks,
      isData ? make("button", { class: "small-button", click: () => useTyped(folder) },
        word("new.data.choose")) : null);
  });
  return make("div", { class: "browser" },
    make("p", { class: path ? "path" : null }, path || word("new.data.roots")),
    make("ul", {}, up, rows),
    rows.length ? null : make("p", { class: "hint" }, word("new.data.no.folders")),
    complete ? null : make("p", { class: "hint" }, word("new.data.more.folders")));
}

export const dataStep = {
  name: "data",
  isOpen: ({ task }) => Boolean(task),
  summary: ({ data }) => data && data.split("/").at(-1),
  draw,
};
