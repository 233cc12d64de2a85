"""Training curves between two steps, for a chart that is zoomed in."""

from bisect import bisect_left, bisect_right

from visionloop.bin.reports.curves import training_curves
from visionloop.bin.reports.metrics_log import Column, TrainingLog
from visionloop.engine.types import JsonObject


def curves_between(
    log: TrainingLog, first: int | None, last: int | None, points: int
) -> list[JsonObject]:
    """Return the curves from step `first` to step `last`, each of at most `points` points.

    One point beside each end is among them where there is one, so that the lines reach the edges.
    """
    part = TrainingLog()
    for name, column in log.columns.items():
        start = 0 if first is None else max(0, bisect_left(column.steps, first) - 1)
        end = len(column.steps) if last is None else bisect_right(column.steps, last) + 1
        part.columns[name] = Column(column.steps[start:end], column.values[start:end])
    return training_curves(part, points)
