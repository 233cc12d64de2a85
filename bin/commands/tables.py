"""Scores in columns, for people."""

import math

MOST_CLASSES = 100  # lines of a table


def score_table(task, scores, intervals, reference, pictures):
    """Lines: every score with its 95 % interval where there is one, and what a trivial answer would score."""
    rows = []
    for spec in task.metrics:
        if spec.key not in scores:
            continue
        low_high = intervals.get(spec.key)
        shown = f"{spec.show(low_high[0])} to {spec.show(low_high[1])}" if low_high else ""
        rows.append((spec.label, show(spec, scores[spec.key]), shown))
    rows += [(label, show(task.metrics[0], value), "") for label, value in reference.items()]
    width = max(len(label) for label, _, _ in rows)
    lines = [f"{pictures} pictures" + (", 95 % intervals by bootstrap over pictures" if intervals else "")]
    return lines + [f"{label:<{width}}  {value:>9}  {interval}".rstrip() for label, value, interval in rows]


def class_table(task, per_class):
    """Lines: an empty one, then a class each in the order given; [] without classes.

    Numbers as they are when whole, as the task's first score otherwise. per_class: of `Task.per_class_scores`.
    """
    if not per_class:
        return []
    rows = [("class", *next(iter(per_class.values())))]
    for name, columns in list(per_class.items())[:MOST_CLASSES]:
        rows.append((name, *(str(value) if isinstance(value, int) else show(task.metrics[0], value) for value in columns.values())))
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = [f"{row[0]:<{first}}  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(row[1:], others, strict=True)) for row in rows]
    left = len(per_class) - MOST_CLASSES
    return ["", *lines] + ([f"and {left} classes more: all of them with --output"] if left > 0 else [])


def show(spec, value):
    """A value as its metric shows it; "-" where there is none, e.g. no object of this size."""
    return "-" if math.isnan(value) else spec.show(value)
