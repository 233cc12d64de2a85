"""Curves of a run over its steps, reduced so that a page stays small."""

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from visionloop.bin.reports.metrics_log import TrainingLog
from visionloop.bin.reports.records import Intervals
from visionloop.bin.reports.run_folder import as_object, number_or_none
from visionloop.engine.types import JsonObject

MAX_POINTS = 2000
OPTIMIZER = ("lr", "grad_norm")
SPEED = ("step_ms", "data_wait")

Value = TypeVar("Value")


def training_curves(log: TrainingLog, most: int = MAX_POINTS) -> list[JsonObject]:
    """Return the curves of the `train` lines, each of at most `most` points.

    Returns:
        [{"name", "group", "logged", "gaps", "steps", "values", "low", "high"}]; logged: number of
        points; gaps: number of points that are not finite; low, high: None for a curve that was not
        reduced.
    """
    curves = []
    for name, column in log.columns.items():
        steps, values = np.array(column.steps), np.array(column.values)
        curves.append(
            {
                "name": name,
                "group": group_of(name),
                "logged": len(values),
                "gaps": int(np.isnan(values).sum()),
                **summarize(steps, values, most),
            }
        )
    return curves


def summarize(
    steps: NDArray[np.int64], values: NDArray[np.float64], most: int = MAX_POINTS
) -> JsonObject:
    """Reduce a curve to means over at most `most` / 2 equal intervals.

    Means and not a selection of the points, so that smoothing them is smoothing the run.

    Args:
        steps: [N] of the points.
        values: [N], nan for a gap; up to `most` points are returned as they are.
        most: limit of the number of points.

    Returns:
        {"steps", "values", "low", "high"}, None for nan; low, high: minimum and maximum of each
        interval, so that no spike is lost, or None for a curve that was not reduced.
    """
    number, parts = len(values), most // 2
    if number <= most:
        numbers = six_digits_of(values)
        return {"steps": steps.tolist(), "values": numbers, "low": None, "high": None}
    bounds = np.arange(parts + 1) * number // parts
    starts, lengths = bounds[:-1], np.diff(bounds)
    is_number = ~np.isnan(values)
    counts = np.add.reduceat(is_number.astype(np.int64), starts)
    filled = counts > 0
    sums = np.add.reduceat(np.where(is_number, values, 0.0), starts)
    low = np.minimum.reduceat(np.where(is_number, values, np.inf), starts)
    high = np.maximum.reduceat(np.where(is_number, values, -np.inf), starts)
    return {
        "steps": steps[starts + lengths // 2].tolist(),
        "values": six_digits_of(np.where(filled, sums / np.maximum(counts, 1), np.nan)),
        "low": six_digits_of(np.where(filled, low, np.nan)),
        "high": six_digits_of(np.where(filled, high, np.nan)),
    }


def six_digits_of(values: NDArray[np.float64]) -> list[float | None]:
    """Return numbers rounded to six digits, None for those that are not finite."""
    return [six_digits(value if isfinite(value) else None) for value in values.tolist()]


def equal_intervals(number: int, parts: int) -> list[range]:
    """Divide range(number) into `parts` ranges of equal length, up to one."""
    return [range(i * number // parts, (i + 1) * number // parts) for i in range(parts)]


def group_of(name: str) -> str:
    """Return the group of charts that a curve is shown in: loss, optimizer, speed or other."""
    if name == "loss" or name.startswith("loss_"):
        return "loss"
    if name.startswith(OPTIMIZER):
        return "optimizer"
    return "speed" if name in SPEED else "other"


def score_curves(lines: Sequence[JsonObject], intervals: Intervals) -> list[JsonObject]:
    """Return the curves of the `eval` lines.

    Args:
        lines: of metrics.jsonl in order of step.
        intervals: {step: {key: (low, high)}}.

    Returns:
        [{"key", "logged", "steps", "values", "raw", "low", "high"}]; raw: of the training weights,
        where `values` are those of the EMA weights; None for a list without any number.
    """
    keys = dict.fromkeys(key for line in lines for key in as_object(line.get("metrics")))
    return [score_curve(key, lines, intervals) for key in keys]


def score_curve(key: str, lines: Iterable[JsonObject], intervals: Intervals) -> JsonObject:
    """Return the curve of one score, see `score_curves`."""
    with_key = [line for line in lines if key in as_object(line.get("metrics"))]
    values = [number_or_none(line["metrics"][key]) for line in with_key]
    indices = thin(values)
    selected = [with_key[i] for i in indices]
    raw = [number_or_none(as_object(line.get("metrics_raw")).get(key)) for line in selected]
    bounds = [intervals.get(line["step"], {}).get(key) or (None, None) for line in selected]
    return {
        "key": key,
        "logged": len(values),
        "steps": [line["step"] for line in selected],
        "values": [six_digits(values[i]) for i in indices],
        "raw": none_if_empty([six_digits(value) for value in raw]),
        "low": none_if_empty([six_digits(low) for low, _ in bounds]),
        "high": none_if_empty([six_digits(high) for _, high in bounds]),
    }


def thin(values: Sequence[float | None], most: int = MAX_POINTS) -> list[int]:
    """Select at most `most` points of a curve so that neither a spike nor a gap is lost.

    Returns:
        Indices in increasing order: all of them, or the first, the last, and of each of equal
        intervals the minimum, the maximum and one gap (None).
    """
    if len(values) <= most:
        return list(range(len(values)))
    selected = {0, len(values) - 1}
    for interval in equal_intervals(len(values), (most - 2) // 3):
        numbers = [(value, j) for j in interval if (value := values[j]) is not None]
        if numbers:
            # of equal values the first one
            selected.add(min(numbers)[1])
            selected.add(max(numbers, key=lambda number: number[0])[1])
        if len(numbers) < len(interval):
            selected.add(next(j for j in interval if values[j] is None))
    return sorted(selected)


def six_digits(value: float | None) -> float | None:
    """Round a float to six digits: more than a chart shows, and a third of the bytes."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def none_if_empty(values: list[Value | None]) -> list[Value | None] | None:
    """Return a list as it is, None for one of None alone."""
    return values if any(value is not None for value in values) else None
