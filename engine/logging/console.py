"""Scores class by class as a table: for the console, and for TensorBoard."""

import math
import re
import sys
import unicodedata

from tqdm.auto import tqdm

MARKS = ("Mn", "Me", "Cf")  # kinds of letters that stand above or beside others
MOST_CLASSES = 100  # lines of a table on the console


def class_table(spec, per_class):
    """Lines: an empty one, then a class each in the order given; [] without classes. per_class: of `Task.per_class_scores`.

    Numbers as they are when whole, otherwise as `spec`, the task's first MetricSpec, shows them.
    """
    rows = class_rows(spec, per_class)[: 1 + MOST_CLASSES]
    if not rows:
        return []
    first, *others = (max(map(display_width, column)) for column in zip(*rows, strict=True))
    numbers = [
        "  ".join(f"{cell:>{width}}" for cell, width in zip(row[1:], others, strict=True))
        for row in rows
    ]
    lines = [f"{padded(row[0], first)}  {rest}" for row, rest in zip(rows, numbers, strict=True)]
    left = len(per_class) - MOST_CLASSES
    return ["", *lines] + (
        [f"and {left} classes more: `evaluate --output FILE.json` lists all"] if left > 0 else []
    )


def class_markdown(spec, per_class):
    """The same of all classes as a markdown table."""
    heading, *rows = ([escaped(cell) for cell in row] for row in class_rows(spec, per_class))
    return "\n".join(
        "| " + " | ".join(row) + " |"
        for row in (heading, ["---"] + ["---:"] * (len(heading) - 1), *rows)
    )


def display_width(text):
    """Columns that a text takes on a console: letters of East Asia and emoji take two, marks above others none."""
    return sum(
        2
        if unicodedata.east_asian_width(letter) in "WF"
        else unicodedata.category(letter) not in MARKS
        for letter in text
    )


def padded(text, width):
    """The text with spaces behind it up to this width on a console."""
    return text + " " * (width - display_width(text))


def escaped(cell):
    """A cell of a markdown table that shows the text as it is."""
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", " ".join(cell.split()))


def class_rows(spec, per_class):
    """[(class, cell, ..)], the headings first; [] without classes."""
    if not per_class:
        return []
    cells = [
        [str(value) if isinstance(value, int) else show(spec, value) for value in columns.values()]
        for columns in per_class.values()
    ]
    return [
        ("class", *next(iter(per_class.values()))),
        *((name, *row) for name, row in zip(per_class, cells, strict=True)),
    ]


def show(spec, value):
    """A value as its metric shows it; "-" where there is none, e.g. no object of this size."""
    return "-" if math.isnan(value) else spec.show(value)


# Bars of progress: in a terminal and in a notebook, nowhere else.


def is_watched():
    """Whether somebody sees a bar grow: stderr is a terminal, or this is a notebook's kernel, whose stderr is none."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return sys.stderr.isatty() or (shell is not None and "IPKernelApp" in shell.config)


def bar(**options):
    """A tqdm bar where `is_watched`, else one that shows nothing."""
    return tqdm(disable=not is_watched(), **options)
