// The latest runs: search, filters, and a selection to compare.
import { make } from "/components/charts.js";
import { get, query } from "../api.js";
import {
  errorBox, icon, keepList, setText, stateBadge, taskIcon, taskName, TASKS,
} from "../parts.js";
import { ago, number, word } from "../words.js";
import { bestText } from "./home_jobs.js";

const STATES = ["running", "finished", "stopped", "failed", "lost"];
const ROWS = 50, MOST = 10, TYPING_MS = 250, INDENT_EM = 1.4;

function select(label, names, textOf, changed) {
  const all = make("option", { value: "" }, label);
  const options = names.map((name) => make("option", { value: name }, textOf(name)));
  return make("select", { "aria-label": label, change: changed }, all, options);
}

// Returns the row of a run; update(row, run) fills it.
function drawRow(run, selected, changed) {
  const parts = {
    check: make("input", { type: "checkbox", change: () => {
      if (parts.check.checked) selected.add(run.id);
      else selected.delete(run.id);
      changed();
    } }),
    name: make("a", { class: "name", href: `/runs/${run.id}` }),
    note: make("span", { class: "hint" }),
    about: make("td", { class: "about" }),
    state: stateBadge(run.state),
    step: make("td", { class: "number" }),
    best: make("td", { class: "number strong" }),
    started: make("td", { class: "soft" }),
  };
  const row = make("tr", {},
    make("td", { class: "check" }, make("label", { class: "hit" }, parts.check)),
    make("td", { class: "icon-cell" }, taskIcon(run.task)),
    make("th", { scope: "row" }, parts.name, parts.note),
    parts.about, make("td", { class: "state-cell" }, parts.state),
    parts.step, parts.best, parts.started);
  row.parts = parts;
  return row;
}

function updateRow({ parts }, run, selected) {
  parts.check.checked = selected.has(run.id);
  parts.check.setAttribute("aria-label", word("runs.select", { name: run.name }));
  parts.check.disabled = !parts.check.checked && selected.size >= MOST;
  setText(parts.name, run.depth ? `└ ${run.name}` : run.name);
  parts.name.style.marginInlineStart = `${Math.max(0, run.depth - 1) * INDENT_EM}em`;
  const source = run.branch && word("runs.branch", run.branch);
  setText(parts.note, [source, run.note].filter(Boolean).join(" · "));
  setText(parts.about, [run.model, run.data].filter(Boolean).join(" · "));
  parts.state.set(run.state);
  const all = run.steps && run.step !== run.steps ? ` / ${number(run.steps)}` : "";
  setText(parts.step, run.step === null ? "-" : `${number(run.step)}${all}`);
  setText(parts.best, run.best ? bestText(run) : "-");
  setText(parts.started, run.started ? ago(run.started) : "-");
}

// Returns the part; load() fetches and draws the rows, which `rows` holds.
export function runsPart(signal) {
  const selected = new Set(), problem = make("div"), nothing = make("p", { class: "hint" });
  let limit = ROWS, typing = null;
  const reload = () => part.load().catch((error) => {
    if (!signal.aborted) problem.replaceChildren(errorBox(error, { retry: reload }));
  });
  const search = make("input", { type: "search", placeholder: word("runs.search"), input: () => {
    clearTimeout(typing);
    typing = setTimeout(reload, TYPING_MS);
  } });
  search.setAttribute("aria-label", word("runs.search"));
  const task = select(word("runs.tasks"), TASKS, taskName, reload);
  const state = select(word("runs.states"), STATES, (name) => word(`state.${name}`), reload);
  const compare = make("a", { class: "button primary" }, icon("compare"), make("span"));
  const clear = make("button", { class: "quiet", click: () => {
    selected.clear();
    draw();
  } }, word("runs.clear"));
  const chosen = make("div", { class: "chosen", role: "status", hidden: true },
    make("span"), make("div", { class: "buttons end" }, clear, compare));
  const body = make("tbody"), total = make("p", { class: "hint" });
  const more = make("button", { click: () => {
    limit += ROWS;
    reload();
  } }, word("runs.more"));
  const names = ["name", "model", "state", "step", "best", "started"];
  const heads = names.map((name) => make("th", { scope: "col" }, word(`runs.${name}`)));
  const table = make("table", { class: "runs-table" },
    make("thead", {}, make("tr", {}, make("td"), make("td"), heads)), body);
  const part = make("section", { id: "runs" },
    make("div", { class: "line wrap" }, make("h2", { class: "grow" }, word("home.runs")),
      make("div", { class: "filters run-filters" }, search, task, state)),
    problem, chosen, make("div", { class: "scroll" }, table), nothing,
    make("div", { class: "line" }, total, more));
  part.rows = [];
  part.isFiltered = () => Boolean(search.value || task.value || state.value);

  function draw() {
    keepList(body, part.rows, (run) => run.id, (run) => drawRow(run, selected, draw),
      (row, run) => updateRow(row, run, selected));
    chosen.hidden = !selected.size;
    setText(chosen.firstChild, word("runs.chosen", { n: selected.size, most: MOST }));
    setText(compare.lastChild, word("runs.compare"));
    compare.classList.toggle("off", selected.size < 2);
    if (selected.size < 2) compare.removeAttribute("href");
    else compare.href = `/compare?runs=${[...selected].join(",")}`;
  }

  part.load = async () => {
    const chosenValue = (input) => input.value.trim() || null;
    const filters = { search: chosenValue(search), task: chosenValue(task) };
    const wanted = query({ ...filters, state: chosenValue(state), limit });
    const answer = await get(`/runs${wanted}`, { signal });
    part.rows = answer.runs;
    problem.replaceChildren();
    const count = answer.runs.length;
    const values = { n: number(count), total: number(answer.total) };
    setText(total, count ? word("runs.total", values) : "");
    setText(nothing, count ? "" : word(part.isFiltered() ? "runs.nomatch" : "runs.none"));
    table.hidden = !count;
    more.hidden = count >= answer.total;
    draw();
  };
  return part;
}
