"""Scores class by class as a table: for the console, and for TensorBoard."""

import math

MOST_CLASSES = 100  # lines of a table on the console


def class_table(spec, per_class):
    """Lines: an empty one, then a class each in the order given; [] without classes. per_class: of `Task.per_class_scores`.

    Numbers as they are when whole, otherwise as `spec`, the task's first MetricSpec, shows them.
    """
    rows = class_rows(spec, per_class)[: 1 + MOST_CLASSES]
    if not rows:
        return []
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = [f"{row[0]:<{first}}  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(row[1:], others, strict=True)) for row in rows]
    left = len(per_class) - MOST_CLASSES
    return ["", *lines] + ([f"and {left} classes more: `evaluate --output FILE.json` lists all"] if left > 0 else [])


def class_markdown(spec, per_class):
    """The same of all classes as a markdown table."""
    heading, *rows = ([cell.replace("|", "\\|") for cell in row] for row in class_rows(spec, per_class))
    return "\n".join("| " + " | ".join(row) + " |" for row in (heading, ["---"] + ["---:"] * (len(heading) - 1), *rows))


def class_rows(spec, per_class):
    """[(class, cell, ..)], the headings first; [] without classes."""
    if not per_class:
        return []
    cells = [[str(value) if isinstance(value, int) else show(spec, value) for value in columns.values()] for columns in per_class.values()]
    return [("class", *next(iter(per_class.values()))), *((name, *row) for name, row in zip(per_class, cells, strict=True))]


def show(spec, value):
    """A value as its metric shows it; "-" where there is none, e.g. no object of this size."""
    return "-" if math.isnan(value) else spec.show(value)
