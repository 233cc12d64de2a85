import { colorBox, colorOf, formatValue, grouped, make, shape, swatch } from "./charts.js";

// Tables, bars and the confusion matrix.

export const section = (id, title, ...children) => make("section", { id }, make("h2", {}, title), ...children);
export const scroll = (...children) => make("div", { class: "scroll", tabindex: 0 }, ...children);
const PART_COLORS = 6, MAX_CONFUSIONS = 12;
export const wallTime = (time_breakdown) => sum(Object.values(time_breakdown.parts).map(({ seconds }) => seconds));
const cellOf = (cell) => (cell instanceof Node ? cell : make("td", {}, cell));
export const row = (heading, cells, attributes = {}) => make("tr", attributes, make("th", { scope: "row" }, heading), ...cells.map(cellOf));
const headOf = (name) => (name instanceof Node ? name : make("th", { scope: "col" }, name));
export const head = (...names) => make("thead", {}, make("tr", {}, ...names.map(headOf)));
export const runName = (run) => make("span", { class: "run" }, swatch(run.place), run.name);
const runHead = (run) => make("th", { scope: "col" }, runName(run));

export function duration(seconds) {
  if (seconds === null) return "-";
  const whole = Math.round(seconds), hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  if (hours) return `${hours} h ${String(minutes).padStart(2, "0")} min`;
  return minutes ? `${minutes} min ${String(whole % 60).padStart(2, "0")} s` : `${seconds.toFixed(1)} s`;
}

// Returns a table cell with a number and a bar behind it, as long as the number's share of `max`; counts have no bar.
function barCell(value, format, max, color) {
  if (format === "integer" || value === null) return make("td", {}, formatValue(format, value));
  const width = `${Math.max(0, Math.min(100, max && (100 * value) / max)).toFixed(1)}%`;
  return make("td", { class: "bar" }, make("span", { style: { width, background: color } }), make("b", {}, formatValue(format, value)));
}

// Returns a table that a click on a heading sorts; another click reverses the order. columns: [{name, format, values, color}].
export function sortedTable(first, rowNames, columns) {
  const body = make("tbody"), order = rowNames.map((_, i) => i);
  const maxOf = ({ format, values }) => (format === "percent" ? 1 : Math.max(...values.map((value) => value || 0)));
  const cells = columns.map((column) => column.values.map((value) => barCell(value, column.format, maxOf(column), column.color)));
  const rows = rowNames.map((name, i) => row(name, cells.map((column) => column[i])));
  let sorted = null, rising = true;
  function sort(j) {
    [rising, sorted] = [sorted === j ? !rising : j < 0, j];
    const values = j < 0 ? rowNames.map((_, i) => i) : columns[j].values;
    const missing = (i) => values[i] === null;
    order.sort((a, b) => missing(a) - missing(b) || (rising ? 1 : -1) * (values[a] - values[b]) || a - b);
    const way = rising ? "ascending" : "descending";
    headings.forEach((heading, k) => heading.setAttribute("aria-sort", k - 1 === j ? way : "none"));
    body.replaceChildren(...order.map((i) => rows[i]));
  }
  const button = (name, k) => make("button", { click: () => sort(k - 1) }, name);
  const names = [first, ...columns.map(({ name }) => name)];
  const headings = names.map((name, k) => make("th", { scope: "col", "aria-sort": "none" }, button(name, k)));
  body.append(...rows);
  return scroll(make("table", { class: "sorted" }, head(...headings), body));
}

export function time_breakdowns(runs) {
  const starts = runs.flatMap((run) => run.time_breakdowns.map((time_breakdown) => ({ run, time_breakdown, total: wallTime(time_breakdown) })));
  if (!starts.length) return null;
  const parts = [...new Set(starts.flatMap(({ time_breakdown }) => Object.keys(time_breakdown.parts)))];
  const color = (part) => `var(--part-${parts.indexOf(part) % PART_COLORS})`;
  const share = (seconds, total) => (total ? (100 * seconds) / total : 0);
  const bar = ({ run, time_breakdown, total }) => {
    let left = 0;
    const bars = Object.entries(time_breakdown.parts).map(([part, { seconds }]) => {
      const width = share(seconds, total), label = `${part.replace("_", " ")} ${duration(seconds)}, ${width.toFixed(1)} %`;
      left += width;
      return shape("rect", { x: left - width, y: 0, width, height: 10, style: { fill: color(part) } }, shape("title", {}, label));
    });
    const attributes = { viewBox: "0 0 100 10", preserveAspectRatio: "none", role: "img", "aria-label": `time of ${run.name}` };
    return make("div", { class: "time_breakdown" }, runName(run), shape("svg", attributes, bars));
  };
  const heading = ({ run, time_breakdown }) => make("th", { scope: "col" }, runName(run), make("small", {}, ` to step ${time_breakdown.step}`));
  const cell = (part, { time_breakdown, total }) => {
    const entry = time_breakdown.parts[part];
    return entry ? make("td", {}, duration(entry.seconds), make("small", {}, ` ${share(entry.seconds, total).toFixed(1)} %`)) : "-";
  };
  const name = (part) => make("span", { class: "run" }, colorBox(color(part)), part.replace("_", " "));
  const rows = parts.map((part) => row(name(part), starts.map((start) => cell(part, start))));
  const all = row("total", starts.map(({ total }) => duration(total)));
  const text = make("p", {}, "Wall time of each start of a run by part. A start that was killed has no time breakdown.");
  const table = make("table", {}, head("part", ...starts.map(heading)), make("tbody", {}, rows, all));
  return section("time_breakdown", "Time breakdown", text, ...starts.map(bar), scroll(table));
}

export function classTables(runs) {
  const evaluated = runs.filter((run) => run.last_evaluation && run.last_evaluation.classes);
  if (!evaluated.length) return null;
  const compared = grouped(evaluated, (run) => run.task).filter((group) => group.length > 1).map(comparedClasses);
  const tables = evaluated.map((run) => {
    const { step, classes } = run.last_evaluation;
    const columns = classes.columns.map(({ key, format }, j) => {
      return { name: key, format, values: classes.rows.map(({ values }) => values[j]), color: colorOf(run.place) };
    });
    const table = sortedTable("class", classes.rows.map(({ name }) => name), columns);
    return make("div", {}, make("h3", {}, runName(run), ` at step ${step}`), table);
  });
  const text = make("p", {}, "Scores of each class at the last evaluation. Click a heading to sort.");
  return section("classes", "Classes", text, ...compared, make("div", { class: "beside" }, tables));
}

// Returns a table of one score by class, with a column for each run.
function comparedClasses(runs) {
  const tables = runs.map((run) => run.last_evaluation.classes);
  const columns = [...new Map(tables.flatMap((table) => table.columns.map((column) => [column.key, column]))).values()];
  const names = [...new Set(tables.flatMap((table) => table.rows.map(({ name }) => name)))];
  const place = make("div");
  function choose({ key, format }) {
    const valuesOf = ({ columns: own, rows }) => {
      const j = own.findIndex((column) => column.key === key), values = new Map(rows.map((line) => [line.name, line.values[j]]));
      return names.map((name) => values.get(name) ?? null);
    };
    const selected = runs.map((run, k) => ({ name: run.name, format, values: valuesOf(tables[k]), color: colorOf(run.place) }));
    place.replaceChildren(sortedTable("class", names, selected));
  }
  const first = columns.find((column) => column.format !== "integer") || columns[0];
  const options = columns.map((column) => make("option", { selected: column === first }, column.key));
  const select = make("select", { change: () => choose(columns[select.selectedIndex]) }, options);
  choose(first);
  return make("div", { class: "compared" }, make("label", {}, "compare ", select), place);
}

export function confusions(runs) {
  const evaluated = runs.filter((run) => run.last_evaluation && run.last_evaluation.confusion);
  if (!evaluated.length) return null;
  const text = make("p", {}, "Rows are the ground truth, columns the predictions. The color of a cell is its share of the row; hover over a cell for its count.");
  const blocks = evaluated.map(({ last_evaluation: { step, confusion }, ...run }) => {
    return make("div", {}, make("h3", {}, runName(run), ` at step ${step}`), matrix(confusion), mostConfused(confusion));
  });
  return section("confusion", "Confusion matrix", text, make("div", { class: "beside" }, blocks));
}

export const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
export const whole = (number) => number.toLocaleString("en");
const shareOf = (counts, i, j) => counts[i][j] / (sum(counts[i]) || 1);
// characters of Korean, Chinese and Japanese are nearly twice as wide
const places = (name) => [...name].reduce((number, letter) => number + (letter > "\u2e80" ? 1.8 : 1), 0);
const cut = (name) => (name.length > 16 ? `${name.slice(0, 15)}\u2026` : name);

// Returns the confusion matrix. Empty cells are not drawn: 200 classes would be 40,000 elements.
function matrix({ classes, counts, unit }) {
  const n = classes.length, size = n <= 12 ? 34 : n <= 30 ? 20 : n <= 60 ? 12 : 5, named = size > 5;
  const margin = named ? 8 + 6.6 * Math.max(...classes.map((name) => places(cut(name)))) : 4, side = margin + n * size + 2;
  const label = `confusion matrix of ${n} classes`;
  const svg = shape("svg", { class: "confusion", width: side, height: side, role: "img", "aria-label": label });
  svg.append(shape("rect", { x: margin, y: margin, width: n * size, height: n * size, class: "frame" }));
  counts.forEach((line, i) => line.forEach((count, j) => {
    if (!count) return;
    const x = margin + j * size, y = margin + i * size, share = shareOf(counts, i, j), strength = share ** 0.6;
    const opacity = (0.08 + 0.92 * strength).toFixed(3);
    svg.append(shape("rect", { x, y, width: size, height: size, class: i === j ? "right" : "wrong", "fill-opacity": opacity }));
    const middle = { x: x + size / 2, y: y + size / 2 + 4, "text-anchor": "middle", class: strength > 0.6 ? "on" : null };
    if (size > 30) svg.append(shape("text", middle, (100 * share).toFixed(0)));
  }));
  if (named) classes.forEach((name, i) => {
    const middle = margin + (i + 0.5) * size + 4, above = `translate(${middle} ${margin - 5}) rotate(-90)`;
    svg.append(shape("text", { x: margin - 5, y: middle, "text-anchor": "end" }, cut(name)));
    svg.append(shape("text", { transform: above }, cut(name)));
  });
  const text = make("p", { class: "cell-text", "aria-live": "polite" }, `${whole(sum(counts.flat()))} ${unit}`);
  function point(event) {
    const box = svg.getBoundingClientRect();
    const [i, j] = [event.clientY - box.top, event.clientX - box.left].map((place) => Math.floor((place - margin) / size));
    if (i < 0 || j < 0 || i >= n || j >= n) return;
    const share = `${(100 * shareOf(counts, i, j)).toFixed(1)} % of ${whole(sum(counts[i]))}`;
    text.textContent = `ground truth ${classes[i]}, prediction ${classes[j]}: ${whole(counts[i][j])} ${unit}, ${share}`;
  }
  for (const kind of ["pointermove", "pointerdown"]) svg.addEventListener(kind, point);
  return make("div", {}, scroll(svg), text);
}

function mostConfused({ classes, counts, unit }) {
  const pairs = counts.flatMap((line, i) => line.map((count, j) => ({ count, i, j }))).filter(({ count, i, j }) => i !== j && count);
  if (!pairs.length) return make("p", {}, "No class was confused with another.");
  const worst = pairs.sort((a, b) => b.count - a.count).slice(0, MAX_CONFUSIONS);
  const share = (i, j) => `${(100 * shareOf(counts, i, j)).toFixed(1)} %`;
  const rows = worst.map(({ count, i, j }) => row(classes[i], [classes[j], whole(count), share(i, j)]));
  const caption = make("caption", {}, "Most frequent confusions");
  return scroll(make("table", {}, caption, head("ground truth", "prediction", unit, "share of the ground truth"), make("tbody", {}, rows)));
}

// Returns a table of named values with a column for each run. valueOf(run, name): {value, source} or undefined.
function valueTable(runs, names, valueOf, marked) {
  const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const source = (setting) => (setting.source ? make("small", {}, ` ${setting.source}`) : null);
  const cell = (setting) => (setting ? make("td", {}, text(setting.value), source(setting)) : "-");
  const rows = names.map((name) => row(name, runs.map((run) => cell(valueOf(run, name))), { class: marked.has(name) ? "differs" : null }));
  return scroll(make("table", { class: "values" }, head("", ...runs.map(runHead)), make("tbody", {}, rows)));
}

function differing(runs, names, valueOf) {
  const textOf = (run, name) => JSON.stringify((valueOf(run, name) || {}).value);
  return new Set(names.filter((name) => new Set(runs.map((run) => textOf(run, name))).size > 1));
}

export function settings(runs) {
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.settings)))].sort(), several = runs.length > 1;
  if (!names.length) return null;
  const valueOf = (run, name) => run.settings[name], differs = differing(runs, names, valueOf);
  const isNotDefault = (run, name) => valueOf(run, name) && valueOf(run, name).source !== "default";
  const notDefault = names.filter((name) => !differs.has(name) && runs.some((run) => isNotDefault(run, name)));
  const rest = names.filter((name) => !differs.has(name) && !notDefault.includes(name));
  const part = (title, list, open) => {
    if (!list.length) return null;
    return make("details", { open }, make("summary", {}, `${title} (${list.length})`), valueTable(runs, list, valueOf, differs));
  };
  const equal = several && !differs.size ? make("p", {}, "All settings are equal.") : null;
  const others = [part(several ? "Equal, not the default" : "Not the default", notDefault, !several), part("Defaults", rest, false)];
  return section("settings", "Settings", equal, part("Different between runs", [...differs], true), ...others);
}

export function environments(runs) {
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.environment)))].filter((name) => name !== "command");
  if (!names.length) return null;
  const valueOf = (run, name) => (name in run.environment ? { value: run.environment[name] } : undefined);
  return section("environment", "Environment", valueTable(runs, names, valueOf, differing(runs, names, valueOf)));
}

// Returns a text with a button that selects it and copies it to the clipboard where the browser allows that.
export function copyable(text) {
  const block = make("pre", { tabindex: 0 }, text);
  const button = make("button", { click: async () => {
    getSelection().selectAllChildren(block);
    await navigator.clipboard.writeText(text);
    button.textContent = "copied";
  } }, "copy");
  return make("div", { class: "copy" }, block, button);
}

export function repeats(runs) {
  const block = (run) => {
    const { command, from_settings: fromSettings, commit } = run.repeat;
    const typed = command && [make("p", {}, "Run the same command with another output folder:"),
      copyable(commit ? `git checkout ${commit}\n${command}` : command)];
    const read = fromSettings && [make("p", {}, "Or use the resolved settings of the run:"), copyable(fromSettings)];
    const nothing = typed || read ? [] : [make("p", {}, "The folder does not hold the command of the run.")];
    return make("div", {}, make("h3", {}, runName(run)), ...(typed || []), ...(read || []), ...nothing);
  };
  return section("repeat", "How to repeat", ...runs.map(block));
}
