"""Console output: tables of scores by class, also for TensorBoard, and progress bars."""

import math
import re
import sys
import unicodedata
from collections.abc import Mapping

from tqdm.auto import tqdm

from visionloop.engine.metric import MetricSpec

# Unicode categories of letters that are combined with others
ZERO_WIDTH_CATEGORIES = ("Mn", "Me", "Cf")
MOST_CLASSES = 100  # rows of a table on the console


def class_table(spec: MetricSpec, per_class: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the lines of a table: an empty one, the headings, then one for each class.

    Args:
        spec: the task's first MetricSpec, which formats numbers that are not whole.
        per_class: the result of `Task.per_class_scores`; without classes there are no lines.
    """
    rows = class_rows(spec, per_class)[: 1 + MOST_CLASSES]
    if not rows:
        return []
    first, *others = (max(map(display_width, column)) for column in zip(*rows, strict=True))
    lines = [""]
    for name, *cells in rows:
        numbers = (f"{cell:>{width}}" for cell, width in zip(cells, others, strict=True))
        lines.append("  ".join([padded(name, first), *numbers]))
    more = len(per_class) - MOST_CLASSES
    if more > 0:
        lines.append(f"and {more} classes more: `evaluate --output FILE.json` lists all")
    return lines


def class_markdown(spec: MetricSpec, per_class: Mapping[str, Mapping[str, float]]) -> str:
    """Return the same of all classes as a markdown table."""
    heading, *rows = ([escaped(cell) for cell in row] for row in class_rows(spec, per_class))
    rule = ["---"] + ["---:"] * (len(heading) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in (heading, rule, *rows))


def display_width(text: str) -> int:
    """Return the columns that a text takes on a console.

    Letters of East Asia and emoji take two, marks above other letters none.
    """
    return sum(
        2
        if unicodedata.east_asian_width(letter) in "WF"
        else unicodedata.category(letter) not in ZERO_WIDTH_CATEGORIES
        for letter in text
    )


def padded(text: str, width: int) -> str:
    """Return the text with spaces behind it up to this width on a console."""
    return text + " " * (width - display_width(text))


def escaped(cell: str) -> str:
    """Return a cell of a markdown table that shows the text as it is."""
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", " ".join(cell.split()))


def class_rows(
    spec: MetricSpec, per_class: Mapping[str, Mapping[str, float]]
) -> list[tuple[str, ...]]:
    """Return [(class, cell, ..)], the headings first; [] without classes."""
    if not per_class:
        return []
    rows = [("class", *next(iter(per_class.values())))]
    for name, columns in per_class.items():
        cells = [
            str(value) if isinstance(value, int) else show(spec, value)
            for value in columns.values()
        ]
        rows.append((name, *cells))
    return rows


def show(spec: MetricSpec, value: float) -> str:
    """Format a value as its metric does; "-" where there is none, e.g. no object of this size."""
    return "-" if math.isnan(value) else spec.show(value)


def is_watched() -> bool:
    """Return True where progress bars are visible: in a terminal and in a notebook.

    The stderr of a notebook's kernel is no terminal.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return sys.stderr.isatty() or (shell is not None and "IPKernelApp" in shell.config)


def bar(*, total: int, desc: str, unit: str, leave: bool) -> tqdm:
    """Return a progress bar, disabled where it is not visible; arguments as of tqdm."""
    return tqdm(total=total, desc=desc, unit=unit, leave=leave, disable=not is_watched())
