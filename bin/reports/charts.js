// Line charts.
import { logTicks, nearest, niceTicks, smooth, tickText, timeText, timeTicks } from "./axes.js";
import { colorBox, formatValue, make, say, shape } from "./elements.js";

export { colorBox, colorOf, duration, formatValue, grouped, make, shape } from "./elements.js";

const FEW_POINTS = 25; // a curve of up to this many points has a dot at each
const HEIGHT = 200, TOP = 10, BOTTOM = 172, RIGHT = 12, CLICK_PIXELS = 5;
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
  const left = 14 + 7 * Math.max(2, ...labels.map((label) => label.length)), right = width - RIGHT;
  const transform = log ? Math.log : (value) => value;
  const floor = transform(low), range = transform(high) - floor;
  const toX = (value) => left + ((value - first) / (last - first)) * (right - left);
  const toY = (value) => BOTTOM - ((transform(value) - floor) / range) * (BOTTOM - TOP);
  const count = Math.max(2, Math.floor((right - left) / (time ? 74 : 54)));
  const columns = time ? timeTicks(first, last, count) : niceTicks(first, last, count);
  const columnText = (tick) => (time ? timeText : tickText)(tick, columns.step);
  const names = columns.ticks.map(columnText);
  const shown = { ticks, labels, columns: columns.ticks, names };
  return { usable, toX, toY, left, right, first, last, ...shown };
}

// Returns a path through the usable points, and one of another style through those up to the step
// `line.shared`; a point without neighbors becomes a dot.
function path({ usable, toX, toY }, line, values) {
  let text = "", shared = "";
  const dots = [];
  const point = (i) => `${toX(line.x[i]).toFixed(1)},${toY(values[i]).toFixed(1)}`;
  const isShared = (i) => line.places[i] <= line.shared; // never without `shared`
  values.forEach((value, i) => {
    if (!usable(value)) return;
    const begins = i === 0 || !usable(values[i - 1]);
    const ends = i === values.length - 1 || !usable(values[i + 1]);
    if (isShared(i)) shared += `${begins ? "M" : "L"}${point(i)}`;
    else if (!begins && isShared(i - 1)) text += `M${point(i - 1)}L${point(i)}`;
    else text += `${begins ? "M" : "L"}${point(i)}`;
    if ((!begins || !ends) && values.length > FEW_POINTS) return;
    const place = { cx: toX(line.x[i]), cy: toY(value), r: 2.2 };
    dots.push(shape("circle", { ...place, style: { fill: line.color } }));
  });
  const name = line.dashed ? "line dashed" : "line", style = { stroke: line.color };
  const drawn = [shape("path", { d: text || "M0,0", class: name, style })];
  if (shared) drawn.push(shape("path", { d: shared, class: `${name} shared`, style }));
  return line.dashed ? drawn : [...drawn, ...dots];
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
    const x = Math.min(toX(tick), right + RIGHT - 3.6 * names[i].length); // within the drawing
    return shape("text", { x, y: BOTTOM + 18, "text-anchor": "middle" }, names[i]);
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

class LineChart {
  constructor(title, lines, options, settings) {
    this.x = settings.x ?? say("step");
    Object.assign(this, { lines, options, settings, width: 0 });
    this.plan = this.at = this.pressed = null;
    const label = say("{title} against {x}", { title, x: this.x });
    this.tip = make("div", { class: "tip", hidden: true });
    this.svg = shape("svg", { tabindex: 0, role: "img", "aria-label": label, ...this.handlers() });
    const caption = make("figcaption", { title: settings.note || null }, title);
    const name = settings.onPoint ? "chart active" : "chart";
    this.figure = make("figure", { class: name }, caption, this.svg, this.tip);
    this.figure.redraw = () => this.width && this.redraw();
    this.figure.update = (now) => {
      this.lines = now;
      this.figure.redraw();
    };
    new ResizeObserver(([entry]) => {
      const now = Math.round(entry.contentRect.width);
      if (!now || now === this.width) return;
      this.width = now;
      this.redraw();
    }).observe(this.figure);
  }

  handlers() {
    return {
      pointermove: (event) => this.move(event),
      pointerdown: (event) => {
        if (this.plan) this.pressed = { x: event.clientX, value: this.valueAt(event) };
        this.move(event);
      },
      pointerup: (event) => this.release(event),
      pointercancel: () => (this.pressed = null),
      pointerleave: () => this.leave(),
      blur: () => this.leave(),
      dblclick: () => this.settings.onRange?.(null, null),
      keydown: (event) => this.press(event),
    };
  }

  visibleLines({ weight, hidden, time }) {
    const isShown = (line) => !hidden.has(line.run) && line.x.length && (!time || line.seconds);
    return this.lines.filter(isShown).map((line) => ({
      ...line,
      places: line.x,
      x: time ? line.seconds : line.x,
      drawn: weight ? smooth(line.y, weight) : line.y,
    }));
  }

  redraw() {
    const now = this.options(), visible = this.visibleLines(now), { svg, width } = this;
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.plan = scales(visible, now, width);
    if (!this.plan) {
      this.tip.hidden = true;
      const middle = { x: width / 2, y: 95, "text-anchor": "middle" };
      svg.replaceChildren(shape("text", middle, say("no data")));
      return;
    }
    Object.assign(this.plan, { visible, time: now.time });
    svg.replaceChildren(...drawing(this.plan, visible, now.weight));
    if (!this.tip.hidden && this.at !== null) this.point(this.at);
  }

  xText(value) {
    return this.plan.time ? timeText(value, 0.1) : String(+value.toPrecision(7));
  }

  describe({ name, color, x: places, drawn, low, high }) {
    const i = nearest(places, this.at), { format } = this.options();
    const text = (values) => formatValue(format, values[i]);
    const span = low && high && low[i] !== null ? ` (${text(low)} ${say("to")} ${text(high)})` : "";
    const far = places[i] === this.at ? "" : ` ${say("at")} ${this.xText(places[i])}`;
    return make("div", {}, colorBox(color), `${name} ${text(drawn)}${span}${far}`);
  }

  // Shows the values at the point that is nearest to `target`.
  point(target) {
    const { plan, tip, settings } = this;
    if (!plan) return;
    const ends = plan.visible.map((line) => line.x[nearest(line.x, target)]);
    this.at = ends.reduce((a, b) => (Math.abs(b - target) < Math.abs(a - target) ? b : a));
    const heading = make("b", {}, `${plan.time ? say("time") : this.x} ${this.xText(this.at)}`);
    tip.replaceChildren(heading, ...plan.visible.map((line) => this.describe(line)));
    if (settings.onPoint) tip.append(make("small", {}, settings.pointText || ""));
    const place = plan.toX(this.at);
    plan.cursor.setAttribute("x1", place);
    plan.cursor.setAttribute("x2", place);
    plan.cursor.setAttribute("visibility", "visible");
    tip.hidden = false;
    const left = Math.max(0, Math.min(place + 10, this.width - tip.offsetWidth));
    tip.style.setProperty("left", `${left}px`);
  }

  leave() {
    [this.tip.hidden, this.at] = [true, null];
    if (this.plan) this.plan.cursor.setAttribute("visibility", "hidden");
  }

  choose() {
    if (this.at === null || !this.settings.onPoint) return;
    const line = this.plan.visible.find(({ x }) => x.includes(this.at));
    this.settings.onPoint(line.places[line.x.indexOf(this.at)], line.run);
  }

  // Returns the place on the axis under the pointer.
  valueAt(event) {
    const { left, right, first, last } = this.plan;
    const inside = event.clientX - this.svg.getBoundingClientRect().left;
    const share = (inside - left) / (right - left);
    return first + Math.max(0, Math.min(1, share)) * (last - first);
  }

  move(event) {
    const { plan, pressed } = this;
    if (!plan) return;
    this.point(this.valueAt(event));
    if (pressed === null || !this.settings.onRange || plan.time) return;
    const ends = [plan.toX(pressed.value), plan.toX(this.valueAt(event))].sort((a, b) => a - b);
    plan.range.setAttribute("x", ends[0]);
    plan.range.setAttribute("width", ends[1] - ends[0]);
    plan.range.setAttribute("visibility", "visible");
  }

  release(event) {
    const { plan, pressed, settings } = this;
    if (pressed === null || !plan) return;
    this.pressed = null;
    plan.range.setAttribute("visibility", "hidden");
    const ends = [pressed.value, this.valueAt(event)].sort((a, b) => a - b);
    if (Math.abs(event.clientX - pressed.x) <= CLICK_PIXELS) this.choose();
    else if (settings.onRange && !plan.time) settings.onRange(...ends);
  }

  // Moves from point to point with the arrow keys.
  press(event) {
    if (event.key === "Escape") this.leave();
    if (event.key === "Enter") {
      event.preventDefault(); // else it would also press what has the focus afterwards
      this.choose();
    }
    const way = WAYS[event.key];
    if (!way || !this.plan) return;
    event.preventDefault();
    const all = new Set(this.plan.visible.flatMap((line) => line.x));
    const places = [...all].sort((a, b) => a - b);
    const i = this.at === null ? (way > 0 ? -1 : places.length) : places.indexOf(this.at);
    this.point(places[Math.max(0, Math.min(places.length - 1, i + way))]);
  }
}

// Returns a line chart; figure.redraw() draws it again, figure.update(lines) with other points,
// the values under the pointer stay.
//
// lines: [{name, color, x, y, low, high, dashed, run, seconds}], x rising, with a band from low to
//     high, or null; seconds: of each point, for an axis of time.
// options: called at every redraw, returns {format, log, weight (of smoothing, 0 to 1, 0: none),
//     hidden (a Set of runs), time (whether x is `seconds`)}.
// settings: {x: label of the axis, note: tooltip of the title, onPoint(x, run): called for a click
//     or Enter on a point, pointText: what that does, onRange(first, last): called for a range that
//     is dragged over; null, null: for a double click}.
export function chart(title, lines, options, settings = {}) {
  return new LineChart(title, lines, options, settings).figure;
}
