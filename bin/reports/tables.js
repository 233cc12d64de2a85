// Tables with bars, and what is drawn with them: classes, time, settings.
import { colorBox, colorOf, copyable, duration, formatValue, grouped } from "./elements.js";
import { make, runName, say, scroll, section, shape, sum, whole } from "./elements.js";

export { duration, section, scroll, whole } from "./elements.js";

const PART_COLORS = 6;
const FIRST_ROWS = 200; // of a long table; a button shows all others
const cellOf = (cell) => (cell instanceof Node ? cell : make("td", {}, cell));
const headOf = (name) => (name instanceof Node ? name : make("th", { scope: "col" }, name));
const runHead = (run) => make("th", { scope: "col" }, runName(run));
export const head = (...names) => make("thead", {}, make("tr", {}, names.map(headOf)));
export function row(heading, cells, attributes = {}) {
  return make("tr", attributes, make("th", { scope: "row" }, heading), cells.map(cellOf));
}
export function wallTime(timeBreakdown) {
  return sum(Object.values(timeBreakdown.parts).map(({ seconds }) => seconds));
}

// Returns a table cell with a number and a bar behind it, as long as the number's share of `max`;
// counts have no bar.
function barCell(value, format, max, color) {
  const text = formatValue(format, value);
  if (format === "integer" || value === null) return make("td", {}, text);
  const width = `${Math.max(0, Math.min(100, max && (100 * value) / max)).toFixed(1)}%`;
  const bar = make("span", { style: { width, background: color } });
  return make("td", { class: "bar" }, bar, make("b", {}, text));
}

// Returns a table that a click on a heading sorts; another click reverses the order.
// columns: [{name, format, values, color}]. Rows are created when they are first shown.
export function sortedTable(first, rowNames, columns) {
  const largest = (values) => values.reduce((a, b) => Math.max(a, b || 0), 0);
  const maxima = columns.map(({ format, values }) => (format === "percent" ? 1 : largest(values)));
  const rows = rowNames.map(() => null);
  const rowOf = (i) => (rows[i] ??= row(rowNames[i], columns.map(({ values, format, color }, j) => {
    return barCell(values[i], format, maxima[j], color);
  })));
  const body = make("tbody"), order = rowNames.map((_, i) => i);
  let sorted = null, rising = true, limit = FIRST_ROWS;
  const all = make("button", { click: () => {
    limit = Infinity;
    show();
  } }, say("show all {n} rows", { n: whole(rowNames.length) }));
  function show() {
    body.replaceChildren(...order.slice(0, limit).map(rowOf));
    all.hidden = order.length <= limit;
  }
  function sort(j) {
    [rising, sorted] = [sorted === j ? !rising : j < 0, j];
    const values = j < 0 ? rowNames.map((_, i) => i) : columns[j].values;
    const missing = (i) => values[i] === null, sign = rising ? 1 : -1;
    const compare = (a, b) => missing(a) - missing(b) || sign * (values[a] - values[b]) || a - b;
    order.sort(compare);
    const way = rising ? "ascending" : "descending";
    headings.forEach((one, k) => one.setAttribute("aria-sort", k - 1 === j ? way : "none"));
    show();
  }
  const button = (name, k) => make("button", { click: () => sort(k - 1) }, name);
  const names = [first, ...columns.map(({ name }) => name)];
  const sortable = { scope: "col", "aria-sort": "none" };
  const headings = names.map((name, k) => make("th", sortable, button(name, k)));
  show();
  return scroll(make("table", { class: "sorted" }, head(...headings), body), all);
}

export function timeBreakdowns(runs) {
  const starts = runs.flatMap((run) => run.time_breakdowns.map((breakdown) => {
    return { run, breakdown, total: wallTime(breakdown) };
  }));
  if (!starts.length) return null;
  const parts = [...new Set(starts.flatMap(({ breakdown }) => Object.keys(breakdown.parts)))];
  const color = (part) => `var(--part-${parts.indexOf(part) % PART_COLORS})`;
  const nameOf = (part) => say(part.replace("_", " "));
  const heading = ({ run, breakdown }) => {
    const until = make("small", {}, ` ${say("to step {step}", { step: breakdown.step })}`);
    return make("th", { scope: "col" }, runName(run), until);
  };
  const cell = (part, { breakdown, total }) => {
    const entry = breakdown.parts[part];
    if (!entry) return "-";
    const share = make("small", {}, ` ${percentOf(entry.seconds, total).toFixed(1)} %`);
    return make("td", {}, duration(entry.seconds), share);
  };
  const name = (part) => make("span", { class: "run" }, colorBox(color(part)), nameOf(part));
  const rows = parts.map((part) => row(name(part), starts.map((start) => cell(part, start))));
  const all = row(say("total"), starts.map(({ total }) => duration(total)));
  const text = say("Wall time of each start of a run by part. A start that was killed has none.");
  const heads = head(say("part"), ...starts.map(heading));
  const table = make("table", {}, heads, make("tbody", {}, rows, all));
  const bars = starts.map((start) => timeBar(start, color, nameOf));
  return section("time_breakdown", say("Time breakdown"), make("p", {}, text), bars, scroll(table));
}

const percentOf = (seconds, total) => (total ? (100 * seconds) / total : 0);

// Returns a bar with the parts of a start, as long as their share of the time.
function timeBar({ run, breakdown, total }, color, nameOf) {
  let left = 0;
  const bars = Object.entries(breakdown.parts).map(([part, { seconds }]) => {
    const width = percentOf(seconds, total);
    const label = `${nameOf(part)} ${duration(seconds)}, ${width.toFixed(1)} %`;
    left += width;
    const box = { x: left - width, y: 0, width, height: 10, style: { fill: color(part) } };
    return shape("rect", box, shape("title", {}, label));
  });
  const label = say("time of {run}", { run: run.name });
  const box = { viewBox: "0 0 100 10", preserveAspectRatio: "none", role: "img" };
  const bar = shape("svg", { ...box, "aria-label": label }, bars);
  return make("div", { class: "time_breakdown" }, runName(run), bar);
}

export function classTables(runs) {
  const evaluated = runs.filter((run) => run.last_evaluation && run.last_evaluation.classes);
  if (!evaluated.length) return null;
  const groups = grouped(evaluated, (run) => run.task).filter((group) => group.length > 1);
  const tables = evaluated.map((run) => {
    const { step, classes } = run.last_evaluation, color = colorOf(run.place);
    const columns = classes.columns.map(({ key, format }, j) => {
      return { name: say(key), format, values: classes.rows.map(({ values }) => values[j]), color };
    });
    const table = sortedTable(say("class"), classes.rows.map(({ name }) => name), columns);
    const heading = make("h3", {}, runName(run), ` ${say("at step {step}", { step })}`);
    return make("div", {}, heading, table);
  });
  const text = say("Scores of each class at the last evaluation. Click a heading to sort.");
  const compared = groups.map(comparedClasses), beside = make("div", { class: "beside" }, tables);
  return section("classes", say("Classes"), make("p", {}, text), compared, beside);
}

// Returns a table of one score by class, with a column for each run.
function comparedClasses(runs) {
  const tables = runs.map((run) => run.last_evaluation.classes);
  const all = tables.flatMap((table) => table.columns.map((column) => [column.key, column]));
  const columns = [...new Map(all).values()];
  const names = [...new Set(tables.flatMap((table) => table.rows.map(({ name }) => name)))];
  const place = make("div");
  function choose({ key, format }) {
    const valuesOf = ({ columns: own, rows }) => {
      const j = own.findIndex((column) => column.key === key);
      const values = new Map(rows.map((line) => [line.name, line.values[j]]));
      return names.map((name) => values.get(name) ?? null);
    };
    const selected = runs.map((run, k) => {
      return { name: run.name, format, values: valuesOf(tables[k]), color: colorOf(run.place) };
    });
    place.replaceChildren(sortedTable(say("class"), names, selected));
  }
  const first = columns.find((column) => column.format !== "integer") || columns[0];
  const options = columns.map((one) => make("option", { selected: one === first }, one.key));
  const select = make("select", { change: () => choose(columns[select.selectedIndex]) }, options);
  choose(first);
  return make("div", { class: "compared" }, make("label", {}, say("compare "), select), place);
}

// Returns a table of named values with a column for each run.
// valueOf(run, name): {value, source} or undefined.
function valueTable(runs, names, valueOf, marked) {
  const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const source = (one) => (one.source ? make("small", {}, ` ${one.source}`) : null);
  const cell = (one) => (one ? make("td", {}, text(one.value), source(one)) : "-");
  const rows = names.map((name) => {
    const cells = runs.map((run) => cell(valueOf(run, name)));
    return row(name, cells, { class: marked.has(name) ? "differs" : null });
  });
  const body = make("tbody", {}, rows);
  return scroll(make("table", { class: "values" }, head("", ...runs.map(runHead)), body));
}

function differing(runs, names, valueOf) {
  const textOf = (run, name) => JSON.stringify((valueOf(run, name) || {}).value);
  return new Set(names.filter((name) => new Set(runs.map((run) => textOf(run, name))).size > 1));
}

export function settings(runs) {
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.settings)))].sort();
  if (!names.length) return null;
  const several = runs.length > 1, valueOf = (run, name) => run.settings[name];
  const differs = differing(runs, names, valueOf);
  const isSet = (run, name) => valueOf(run, name) && valueOf(run, name).source !== "default";
  const isChosen = (name) => !differs.has(name) && runs.some((run) => isSet(run, name));
  const chosen = names.filter(isChosen);
  const rest = names.filter((name) => !differs.has(name) && !chosen.includes(name));
  const part = (title, list, open) => {
    if (!list.length) return null;
    const heading = make("summary", {}, `${title} (${list.length})`);
    return make("details", { open }, heading, valueTable(runs, list, valueOf, differs));
  };
  const isEqual = several && !differs.size;
  return section("settings", say("Settings"),
    isEqual ? make("p", {}, say("All settings are equal.")) : null,
    part(say("Different between runs"), [...differs], true),
    part(several ? say("Equal, not the default") : say("Not the default"), chosen, !several),
    part(say("Defaults"), rest, false));
}

export function environments(runs) {
  const all = new Set(runs.flatMap((run) => Object.keys(run.environment)));
  const names = [...all].filter((name) => name !== "command");
  if (!names.length) return null;
  const has = (run, name) => name in run.environment;
  const valueOf = (run, name) => (has(run, name) ? { value: run.environment[name] } : undefined);
  const table = valueTable(runs, names, valueOf, differing(runs, names, valueOf));
  return section("environment", say("Environment"), table);
}

export function repeats(runs) {
  const paragraph = (text) => make("p", {}, text);
  const block = (run) => {
    const { command, from_settings: fromSettings, commit } = run.repeat;
    const checkout = commit ? `git checkout ${commit}\n` : "";
    const typed = command && [
      paragraph(say("Run the same command with another output folder:")),
      copyable(checkout + command),
    ];
    const read = fromSettings && [
      paragraph(say("Or use the resolved settings of the run:")), copyable(fromSettings),
    ];
    const nothing = paragraph(say("The folder does not hold the command of the run."));
    const parts = typed || read ? [...(typed || []), ...(read || [])] : [nothing];
    return make("div", {}, make("h3", {}, runName(run)), parts);
  };
  return section("repeat", say("How to repeat"), runs.map(block));
}
