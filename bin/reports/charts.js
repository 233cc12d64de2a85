// Charts, and helpers to create elements. Elements are created one by one and texts are set as text: no text of the object is interpreted as HTML.

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else if (name === "style") for (const [key, part] of Object.entries(value)) node.style.setProperty(key, part);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null));
  return node;
}

export const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const SVG = "http://www.w3.org/2000/svg";
export const shape = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

const RUN_COLORS = 8, FEW_POINTS = 25; // a curve of up to this many points has a dot at each
export const colorOf = (i) => (i < RUN_COLORS ? `var(--run-${i})` : `hsl(${(i * 137.5) % 360} 60% 50%)`);
export const colorBox = (color) => make("span", { class: "swatch", style: { background: color } });
export const swatch = (i) => colorBox(colorOf(i));

// Groups items with equal keys: [[item]], in the order of the first item of each group.
export function grouped(items, keyOf) {
  const groups = new Map();
  for (const item of items) groups.set(keyOf(item), [...(groups.get(keyOf(item)) || []), item]);
  return [...groups.values()];
}

export function formatValue(format, value) {
  if (value === null || value === undefined) return "-";
  if (format === "percent") return `${(100 * value).toFixed(2)} %`;
  if (format === "integer") return Math.round(value).toLocaleString("en");
  const size = Math.abs(value);
  if (size !== 0 && size < 1e-3) return value.toExponential(2);
  return size >= 1000 ? value.toFixed(1) : value.toFixed(4);
}

function niceTicks(low, high, count) {
  const power = 10 ** Math.floor(Math.log10((high - low) / count));
  const step = power * ([1, 2, 5].find((factor) => factor * power * count >= high - low) || 10);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-6); i * step <= high + 1e-6 * step; i++) ticks.push(i * step);
  return { ticks, step };
}

function logTicks(low, high) {
  const decades = Math.log10(high / low);
  if (decades < 1) return niceTicks(low, high, 5);
  const every = Math.ceil(decades / 5), ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const factor of decades < 2 ? [1, 2, 5] : [1]) {
      const tick = factor * 10 ** power;
      if (tick >= low && tick <= high && power % every === 0) ticks.push(tick);
    }
  }
  return { ticks, step: null };
}

function tickText(value, step, format) {
  if (format === "percent") return `${+(100 * value).toFixed(Math.max(0, Math.ceil(-Math.log10(100 * (step || value)) - 1e-9)))} %`;
  const size = Math.abs(value);
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(4)}M`;
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(4)}k`;
  if (size !== 0 && size < 1e-3) return value.toExponential(Math.abs(value / 10 ** Math.floor(Math.log10(size)) % 1) > 0.05 ? 1 : 0);
  return String(+value.toFixed(step ? Math.max(0, Math.ceil(-Math.log10(step) - 1e-9)) : 4));
}

// Exponential moving average with bias correction; gaps stay gaps.
function smooth(values, weight) {
  let sum = 0, mass = 0;
  return values.map((value) => {
    if (value === null) return null;
    [sum, mass] = [weight * sum + (1 - weight) * value, weight * mass + (1 - weight)];
    return sum / mass;
  });
}

// Returns the index of the step that is nearest to `target`.
function nearest(steps, target) {
  let best = 0;
  for (let i = 1; i < steps.length; i++) if (Math.abs(steps[i] - target) < Math.abs(steps[best] - target)) best = i;
  return best;
}

// Returns a line chart. lines: [{name, color, x, y, low, high, dashed, run}] with a band from low to high, or null;
// options: called at every redraw, returns {format, log, weight (of smoothing, 0 to 1, 0: none), hidden (a Set of runs)};
// x: label of the axis; note: tooltip of the title.
export function chart(title, lines, options, { x = "step", note = "" } = {}) {
  const tip = make("div", { class: "tip", hidden: true });
  const svg = shape("svg", { tabindex: 0, role: "img", "aria-label": `${title} against ${x}` });
  const figure = make("figure", { class: "chart" }, make("figcaption", { title: note || null }, title), svg, tip);
  let plan = null, width = 0, at = null;

  function scales(visible) {
    const { log, format, weight } = options();
    const usable = (value) => value !== null && value !== undefined && (!log || value > 0);
    const ys = visible.flatMap((line) => [...line.drawn, ...((!weight && line.low) || []), ...((!weight && line.high) || [])]).filter(usable);
    const xs = visible.flatMap((line) => line.x.filter((_, i) => usable(line.y[i])));
    if (!ys.length) return null;
    const smallest = (values) => values.reduce((a, b) => Math.min(a, b)), largest = (values) => values.reduce((a, b) => Math.max(a, b));
    let [low, high, first, last] = [smallest(ys), largest(ys), smallest(xs), largest(xs)];
    if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - 0.1 * Math.abs(low), high + 0.1 * (Math.abs(high) || 1)];
    if (first === last) [first, last] = [first - 1, last + 1];
    const { ticks, step } = log ? logTicks(low, high) : niceTicks(low, high, 5);
    const labels = ticks.map((tick) => tickText(tick, step, format));
    const left = 14 + 6.5 * Math.max(2, ...labels.map((label) => label.length)), right = width - 12, top = 10, bottom = 172;
    const transform = log ? Math.log : (value) => value;
    const toX = (value) => left + ((value - first) / (last - first)) * (right - left);
    const toY = (value) => bottom - ((transform(value) - transform(low)) / (transform(high) - transform(low))) * (bottom - top);
    return { usable, ticks, labels, toX, toY, left, right, top, bottom, first, last };
  }

  // Returns a path through the usable points; a point without neighbors becomes a dot.
  function path({ usable, toX, toY }, line, values) {
    let text = "", dots = [];
    values.forEach((value, i) => {
      if (!usable(value)) return;
      const begins = i === 0 || !usable(values[i - 1]), ends = i === values.length - 1 || !usable(values[i + 1]);
      text += `${begins ? "M" : "L"}${toX(line.x[i]).toFixed(1)},${toY(value).toFixed(1)}`;
      if ((!begins || !ends) && values.length > FEW_POINTS) return;
      dots.push(shape("circle", { cx: toX(line.x[i]), cy: toY(value), r: 2.2, style: { fill: line.color } }));
    });
    const drawn = shape("path", { d: text || "M0,0", class: line.dashed ? "line dashed" : "line", style: { stroke: line.color } });
    return line.dashed ? [drawn] : [drawn, ...dots];
  }

  function band({ usable, toX, toY }, line) {
    const indices = line.x.map((_, i) => i).filter((i) => usable(line.low[i]) && usable(line.high[i]));
    const edge = (values, order) => order.map((i) => `${toX(line.x[i]).toFixed(1)},${toY(values[i]).toFixed(1)}`);
    const points = [...edge(line.high, indices), ...edge(line.low, [...indices].reverse())].join(" ");
    return shape("polygon", { points, class: "band", style: { fill: line.color } });
  }

  function redraw() {
    const { weight, hidden } = options();
    const drawn = ({ y }) => (weight ? smooth(y, weight) : y);
    const visible = lines.filter((line) => !hidden.has(line.run)).map((line) => ({ ...line, drawn: drawn(line) }));
    svg.setAttribute("viewBox", `0 0 ${width} 200`);
    plan = scales(visible);
    [tip.hidden, at] = [true, null];
    if (!plan) return svg.replaceChildren(shape("text", { x: width / 2, y: 95, "text-anchor": "middle" }, "no data"));
    const { ticks, labels, toX, toY, left, right, bottom, first, last } = plan;
    const rows = ticks.flatMap((tick, i) => [
      shape("line", { x1: left, x2: right, y1: toY(tick), y2: toY(tick), class: "grid" }),
      shape("text", { x: left - 6, y: toY(tick) + 4, "text-anchor": "end" }, labels[i]),
    ]);
    const { ticks: columns, step } = niceTicks(first, last, Math.max(2, Math.floor((right - left) / 50)));
    const xLabels = columns.map((tick) => shape("text", { x: toX(tick), y: bottom + 18, "text-anchor": "middle" }, tickText(tick, step)));
    const bands = visible.filter((line) => line.low && line.high && !weight).map((line) => band(plan, line));
    const raw = weight ? visible.map((line) => shape("g", { class: "raw" }, path(plan, line, line.y))) : [];
    plan.cursor = shape("line", { y1: plan.top, y2: bottom, class: "cursor", visibility: "hidden" });
    plan.visible = visible;
    // an inner svg clips raw values outside the range of the smoothed curve
    const [x, y, wide, high] = [left - 3, plan.top - 3, right - left + 6, bottom - plan.top + 6];
    const className = bands.length > 3 ? "inner many" : "inner", viewBox = `${x} ${y} ${wide} ${high}`;
    const inner = shape("svg", { x, y, width: wide, height: high, viewBox, class: className });
    inner.append(...bands, ...raw.flat(), ...visible.flatMap((line) => path(plan, line, line.drawn)), plan.cursor);
    svg.replaceChildren(...rows, ...xLabels, inner);
  }

  // Shows the values at the step that is nearest to `target`.
  function point(target) {
    if (!plan) return;
    const steps = plan.visible.map((line) => line.x[nearest(line.x, target)]);
    at = steps[nearest(steps, target)];
    const describe = ({ name, color, x: places, drawn, low, high }) => {
      const i = nearest(places, at), text = (values) => formatValue(options().format, values[i]);
      const span = low && high && low[i] !== null ? ` (${text(low)} to ${text(high)})` : "";
      const far = places[i] === at ? "" : ` at ${+places[i].toPrecision(7)}`;
      return make("div", {}, colorBox(color), `${name} ${text(drawn)}${span}${far}`);
    };
    tip.replaceChildren(make("b", {}, `${x} ${+at.toPrecision(7)}`), ...plan.visible.map(describe));
    const place = plan.toX(at);
    plan.cursor.setAttribute("x1", place);
    plan.cursor.setAttribute("x2", place);
    plan.cursor.setAttribute("visibility", "visible");
    tip.hidden = false;
    tip.style.left = `${Math.max(0, Math.min(place + 10, width - tip.offsetWidth))}px`;
  }

  function leave() {
    tip.hidden = true;
    if (plan) plan.cursor.setAttribute("visibility", "hidden");
  }

  function follow(event) {
    if (!plan) return;
    const inside = event.clientX - svg.getBoundingClientRect().left;
    point(plan.first + ((inside - plan.left) / (plan.right - plan.left)) * (plan.last - plan.first));
  }

  // Moves from point to point with the arrow keys.
  function press(event) {
    const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") leave();
    if (!way || !plan) return;
    event.preventDefault();
    const steps = [...new Set(plan.visible.flatMap((line) => line.x))].sort((a, b) => a - b);
    const i = at === null ? (way > 0 ? -1 : steps.length) : steps.indexOf(at);
    point(steps[Math.max(0, Math.min(steps.length - 1, i + way))]);
  }

  for (const kind of ["pointermove", "pointerdown"]) svg.addEventListener(kind, follow);
  for (const kind of ["pointerleave", "blur"]) svg.addEventListener(kind, leave);
  svg.addEventListener("keydown", press);
  new ResizeObserver(([entry]) => {
    const now = Math.round(entry.contentRect.width);
    if (!now || now === width) return;
    width = now;
    redraw();
  }).observe(figure);
  figure.redraw = () => width && redraw();
  return figure;
}
