// Scales and ticks of charts, and what is done to a curve before it is drawn.

const TIME_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600];
const DAY = 86400;

export function niceTicks(low, high, count) {
  const power = 10 ** Math.floor(Math.log10((high - low) / count));
  const fits = (factor) => factor * power * count >= high - low;
  const step = power * ([1, 2, 5].find(fits) || 10);
  return { ticks: multiples(low, high, step), step };
}

function multiples(low, high, step) {
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-6); i * step <= high + 1e-6 * step; i++) {
    ticks.push(i * step);
  }
  return ticks;
}

// Ticks of seconds at whole minutes and hours.
export function timeTicks(low, high, count) {
  if (high - low < count) return niceTicks(low, high, count);
  const days = DAY * niceTicks(low / DAY, high / DAY, count).step;
  const step = TIME_STEPS.find((one) => one * count >= high - low) || days;
  return { ticks: multiples(low, high, step), step };
}

export function timeText(seconds, step) {
  const short = (value) => String(+value.toFixed(step < 1 ? 2 : 1));
  if (step < 60 && seconds < 600) return `${short(seconds)} s`;
  if (step < 3600 && seconds < 2 * 3600) return `${short(seconds / 60)} min`;
  return step < DAY ? `${short(seconds / 3600)} h` : `${short(seconds / DAY)} d`;
}

export function logTicks(low, high) {
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

const decimals = (step) => Math.max(0, Math.ceil(-Math.log10(step) - 1e-9));

export function tickText(value, step, format) {
  if (format === "percent") return `${+(100 * value).toFixed(decimals(100 * (step || value)))} %`;
  const size = Math.abs(value);
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(4)}M`;
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(4)}k`;
  if (size !== 0 && size < 1e-3) {
    const isRound = Math.abs((value / 10 ** Math.floor(Math.log10(size))) % 1) <= 0.05;
    return value.toExponential(isRound ? 0 : 1);
  }
  return String(+value.toFixed(step ? decimals(step) : 4));
}

// Exponential moving average with bias correction; gaps stay gaps.
export function smooth(values, weight) {
  let total = 0, mass = 0;
  return values.map((value) => {
    if (value === null) return null;
    [total, mass] = [weight * total + (1 - weight) * value, weight * mass + (1 - weight)];
    return total / mass;
  });
}

// Returns the index of the number that is nearest to `target`; the numbers rise.
export function nearest(numbers, target) {
  let low = 0, high = numbers.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (numbers[middle] < target) low = middle;
    else high = middle;
  }
  return Math.abs(numbers[high] - target) < Math.abs(numbers[low] - target) ? high : low;
}

// Returns a function from steps to seconds in training steps, or null without a measurement.
// steps, stepMs: of the curve of milliseconds per step, each the mean since the point before.
export function trainingClock(steps, stepMs) {
  if (!steps.length) return null;
  const at = [0], seconds = [0];
  let last = stepMs.find((value) => value !== null) ?? 0;
  steps.forEach((step, i) => {
    last = stepMs[i] ?? last;
    at.push(step);
    seconds.push(seconds.at(-1) + ((step - at.at(-2)) * last) / 1000);
  });
  return (step) => {
    let i = nearest(at, step);
    if (at[i] > step && i > 0) i -= 1;
    const j = Math.min(i + 1, at.length - 1);
    if (at[i] === at[j]) return seconds[i] + ((step - at[i]) * last) / 1000;
    return seconds[i] + ((step - at[i]) / (at[j] - at[i])) * (seconds[j] - seconds[i]);
  };
}
