// Line charts.
import { logTicks, nearest, niceTicks, smooth, tickText, timeText, timeTicks } from "./axes.js";
import { colorBox, formatValue, make, say, shape } from "./elements.js";

export { colorBox, colorOf, duration, formatValue, grouped, make, shape } from "./elements.js";

const FEW_POINTS = 25; // a curve of up to this many points has a dot at each
const HEIGHT = 200, TOP = 10, BOTTOM = 172, CLICK_PIXELS = 5;
const WAYS = { ArrowRight: 1, ArrowLeft: -1 };

// Returns the smallest and the largest number.
function extent(numbers) {
  let low = Infinity, high = -Infinity;
  for (const number of numbers) {
    if (number < low) low = number;
    if (number > high) high = number;
  }
  return [low, high];
}

// Returns the scales of lines in a chart of this width, or null without a point.
function scales(lines, { log, format, weight, time }, width) {
  const usable = (value) => value !== null && value !== undefined && (!log || value > 0);
  const bands = (line) => (weight ? [] : [...(line.low || []), ...(line.high || [])]);
  let [low, high] = extent(lines.flatMap((line) => [...line.drawn, ...bands(line)]).filter(usable));
  if (low > high) return null;
  let [first, last] = extent(lines.flatMap(({ x, y }) => x.filter((_, i) => usable(y[i]))));
  if (low === high && log) [low, high] = [low / 2, high * 2];
  const margin = 0.1 * (Math.abs(high) || 1);
  if (low === high) [low, high] = [low - margin, high + margin];
  if (first === last) [first, last] = [first - 1, last + 1];
  const { ticks, step } = log ? logTicks(low, high) : niceTicks(low, high, 5);
  const labels = ticks.map((tick) => tickText(tick, step, format));
  const left = 14 + 6.5 * Math.max(2, ...labels.map((label) => label.length)), right = width - 12;
  const transform = log ? Math.log : (value) => value;
  const floor = transform(low), range = transform(high) - floor;
  const toX = (value) => left + ((value - first) / (last - first)) * (right - left);
  const toY = (value) => BOTTOM - ((transform(value) - floor) / range) * (BOTTOM - TOP);
  const count = Math.max(2, Math.floor((right - left) / (time ? 70 : 50)));
  const columns = time ? timeTicks(first, last, count) : niceTicks(first, last, count);
  const columnText = (tick) => (time ? timeText : tickText)(tick, columns.step);
  const names = columns.ticks.map(columnText);
  const shown = { ticks, labels, columns: columns.ticks, names };
  return { usable, toX, toY, left, right, first, last, ...shown };
}

// Returns a path through the usable points; a point without neighbors becomes a dot.
function path({ usable, toX, toY }, line, values) {
  let text = "";
  const dots = [];
  values.forEach((value, i) => {
    if (!usable(value)) return;
    const begins = i === 0 || !usable(values[i - 1]);
    const ends = i === values.length - 1 || !usable(values[i + 1]);
    text += `${begins ? "M" : "L"}${toX(line.x[i]).toFixed(1)},${toY(value).toFixed(1)}`;
    if ((!begins || !ends) && values.length > FEW_POINTS) return;
    const place = { cx: toX(line.x[i]), cy: toY(value), r: 2.2 };
    dots.push(shape("circle", { ...place, style: { fill: line.color } }));
  });
  const name = line.dashed ? "line dashed" : "line", style = { stroke: line.color };
  const drawn = shape("path", { d: text || "M0,0", class: name, style });
  return line.dashed ? [drawn] : [drawn, ...dots];
}

function band({ usable, toX, toY }, { x, low, high, color }) {
  const indices = x.map((_, i) => i).filter((i) => usable(low[i]) && usable(high[i]));
  const point = (values, i) => `${toX(x[i]).toFixed(1)},${toY(values[i]).toFixed(1)}`;
  const back = [...indices].reverse().map((i) => point(low, i));
  const points = [...indices.map((i) => point(high, i)), ...back].join(" ");
  return shape("polygon", { points, class: "band", style: { fill: color } });
}

// Returns the drawing of lines; plan.cursor is the vertical line at the selected point.
function drawing(plan, lines, weight) {
  const { ticks, labels, toX, toY, left, right, columns, names } = plan;
  const rows = ticks.flatMap((tick, i) => [
    shape("line", { x1: left, x2: right, y1: toY(tick), y2: toY(tick), class: "grid" }),
    shape("text", { x: left - 6, y: toY(tick) + 4, "text-anchor": "end" }, labels[i]),
  ]);
  const below = columns.map((tick, i) => {
    return shape("text", { x: toX(tick), y: BOTTOM + 18, "text-anchor": "middle" }, names[i]);
  });
  const bands = lines.filter((line) => line.low && line.high && !weight);
  const raw = weight ? lines : [];
  plan.cursor = shape("line", { y1: TOP, y2: BOTTOM, class: "cursor", visibility: "hidden" });
  const range = { y: TOP, height: BOTTOM - TOP, class: "range", visibility: "hidden" };
  plan.range = shape("rect", range);
  // an inner svg clips raw values outside the range of the smoothed curve
  const box = { x: left - 3, y: TOP - 3, width: right - left + 6, height: BOTTOM - TOP + 6 };
  const viewBox = `${box.x} ${box.y} ${box.width} ${box.height}`;
  const name = bands.length > 3 ? "inner many" : "inner";
  const inner = shape("svg", { ...box, viewBox, class: name });
  inner.append(
    plan.range,
    ...bands.map((line) => band(plan, line)),
    ...raw.map((line) => shape("g", { class: "raw" }, path(plan, line, line.y))),
    ...lines.flatMap((line) => path(plan, line, line.drawn)),
    plan.cursor,
  );
  return [...rows, ...below, inner];
}

// Returns a line chart; figure.redraw() draws it again, figure.update(lines) with other points,
// the values under the pointer stay.
//
// lines: [{name, color, x, y, low, high, dashed, run, seconds}], x rising, with a band from low to
//     high, or null; seconds: of each point, for an axis of time.
// options: called at every redraw, returns {format, log, weight (of smoothing, 0 to 1, 0: none),
//     hidden (a Set of runs), time (whether x is `seconds`)}.
// x: label of the axis. note: tooltip of the title. onPoint(x, run): called for a click or Enter on
//     a point. onRange(first, last): called for a range that is dragged over; null, null: for a
//     double click.
export function chart(title, lines, options, settings = {}) {
  const { x = say("step"), note = "", onPoint = null, onRange = null } = settings;
  const tip = make("div", { class: "tip", hidden: true });
  const label = say("{title} against {x}", { title, x });
  const svg = shape("svg", { tabindex: 0, role: "img", "aria-label": label });
  const caption = make("figcaption", { title: note || null }, title);
  const figure = make("figure", { class: onPoint ? "chart active" : "chart" }, caption, svg, tip);
  let plan = null, width = 0, at = null, pressed = null;

  function visibleLines({ weight, hidden, time }) {
    const isShown = (line) => !hidden.has(line.run) && line.x.length && (!time || line.seconds);
    const shown = lines.filter(isShown);
    return shown.map((line) => ({
      ...line,
      places: line.x,
      x: time ? line.seconds : line.x,
      drawn: weight ? smooth(line.y, weight) : line.y,
    }));
  }

  function redraw() {
    const now = options(), visible = visibleLines(now);
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    plan = scales(visible, now, width);
    if (!plan) {
      tip.hidden = true;
      const middle = { x: width / 2, y: 95, "text-anchor": "middle" };
      return svg.replaceChildren(shape("text", middle, say("no data")));
    }
    Object.assign(plan, { visible, time: now.time });
    svg.replaceChildren(...drawing(plan, visible, now.weight));
    if (!tip.hidden && at !== null) point(at);
  }

  const xText = (value) => (plan.time ? timeText(value, 0.1) : String(+value.toPrecision(7)));

  function describe({ name, color, x: places, drawn, low, high }) {
    const i = nearest(places, at), { format } = options();
    const text = (values) => formatValue(format, values[i]);
    const span = low && high && low[i] !== null ? ` (${text(low)} ${say("to")} ${text(high)})` : "";
    const far = places[i] === at ? "" : ` ${say("at")} ${xText(places[i])}`;
    return make("div", {}, colorBox(color), `${name} ${text(drawn)}${span}${far}`);
  }

  // Shows the values at the point that is nearest to `target`.
  function point(target) {
    if (!plan) return;
    const ends = plan.visible.map((line) => line.x[nearest(line.x, target)]);
    at = ends.reduce((a, b) => (Math.abs(b - target) < Math.abs(a - target) ? b : a));
    const heading = make("b", {}, `${plan.time ? say("time") : x} ${xText(at)}`);
    tip.replaceChildren(heading, ...plan.visible.map(describe));
    if (onPoint) tip.append(make("small", {}, settings.pointText || ""));
    const place = plan.toX(at);
    plan.cursor.setAttribute("x1", place);
    plan.cursor.setAttribute("x2", place);
    plan.cursor.setAttribute("visibility", "visible");
    tip.hidden = false;
    setLeft(Math.max(0, Math.min(place + 10, width - tip.offsetWidth)));
  }

  const setLeft = (pixels) => tip.style.setProperty("left", `${pixels}px`);

  function leave() {
    [tip.hidden, at] = [true, null];
    if (plan) plan.cursor.setAttribute("visibility", "hidden");
  }

  function choose() {
    if (at === null || !onPoint) return;
    const line = plan.visible.find((one) => one.x.includes(at));
    onPoint(line.places[line.x.indexOf(at)], line.run);
  }

  const valueAt = (event) => {
    const inside = event.clientX - svg.getBoundingClientRect().left;
    const share = (inside - plan.left) / (plan.right - plan.left);
    return plan.first + Math.max(0, Math.min(1, share)) * (plan.last - plan.first);
  };

  function move(event) {
    if (!plan) return;
    point(valueAt(event));
    if (pressed === null || !onRange || plan.time) return;
    const ends = [plan.toX(pressed.value), plan.toX(valueAt(event))].sort((a, b) => a - b);
    plan.range.setAttribute("x", ends[0]);
    plan.range.setAttribute("width", ends[1] - ends[0]);
    plan.range.setAttribute("visibility", "visible");
  }

  function release(event) {
    if (pressed === null || !plan) return;
    const { x: start, value } = pressed;
    pressed = null;
    plan.range.setAttribute("visibility", "hidden");
    if (Math.abs(event.clientX - start) <= CLICK_PIXELS) choose();
    else if (onRange && !plan.time) onRange(...[value, valueAt(event)].sort((a, b) => a - b));
  }

  // Moves from point to point with the arrow keys.
  function press(event) {
    if (event.key === "Escape") leave();
    if (event.key === "Enter") {
      event.preventDefault(); // else it would also press what has the focus afterwards
      choose();
    }
    const way = WAYS[event.key];
    if (!way || !plan) return;
    event.preventDefault();
    const all = new Set(plan.visible.flatMap((line) => line.x));
    const places = [...all].sort((a, b) => a - b);
    const i = at === null ? (way > 0 ? -1 : places.length) : places.indexOf(at);
    point(places[Math.max(0, Math.min(places.length - 1, i + way))]);
  }

  svg.addEventListener("pointermove", move);
  svg.addEventListener("pointerdown", (event) => {
    if (plan) pressed = { x: event.clientX, value: valueAt(event) };
    move(event);
  });
  svg.addEventListener("pointerup", release);
  svg.addEventListener("pointercancel", () => (pressed = null));
  svg.addEventListener("dblclick", () => onRange?.(null, null));
  for (const kind of ["pointerleave", "blur"]) svg.addEventListener(kind, leave);
  svg.addEventListener("keydown", press);
  new ResizeObserver(([entry]) => {
    const now = Math.round(entry.contentRect.width);
    if (!now || now === width) return;
    width = now;
    redraw();
  }).observe(figure);
  figure.redraw = () => width && redraw();
  figure.update = (now) => {
    lines = now;
    figure.redraw();
  };
  return figure;
}
