"""Content of metrics.jsonl, read on as the file grows: `train` lines as columns, others as objects.

A parsed line of 200 bytes takes 1 KiB of memory as an object and 150 bytes in columns.
"""

import json
import math
from array import array
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from visionloop.engine.checkpoints.files import finite
from visionloop.engine.types import JsonObject

NOT_CURVES = frozenset(("time", "step", "epoch", "kind"))
MAX_STEP = 2**53  # a larger number is not exact in a browser
NAN = math.nan


class Column(NamedTuple):
    """Values of one name, with their steps. nan: a number that was not finite."""

    steps: "array[int]"
    values: "array[float]"


class TrainingLog:
    """The `train` lines in order of step; of two lines of one step the last one counts.

    Attributes:
        steps: of all lines.
        columns: {name: numbers of the lines that have it}.
        last: the line of the highest step, {} before the first one.
    """

    def __init__(self) -> None:
        self.steps = array("q")
        self.columns: dict[str, Column] = {}
        self.last: JsonObject = {}

    def __len__(self) -> int:
        return len(self.steps)

    def add(self, line: JsonObject) -> None:
        """Add a line."""
        step: int = line["step"]
        if self.steps and step <= self.steps[-1]:
            self._insert(line)
            return
        self.steps.append(step)
        self.last = line
        columns = self.columns
        for name, value in line.items():
            if name in NOT_CURVES:
                continue
            if type(value) is not float:  # a page reads 100,000 lines: most values are floats
                if not is_point(value):
                    continue
                value = as_float(value)
            elif not math.isfinite(value):
                value = NAN
            column = columns.get(name)
            if column is None:
                column = columns[name] = Column(array("q"), array("d"))
            steps, values = column
            steps.append(step)
            values.append(value)

    def _insert(self, line: JsonObject) -> None:
        """Add a line that is not the last one; it replaces the line of its step."""
        step: int = line["step"]
        if step == self.steps[-1]:
            self.last = line
        place = bisect_left(self.steps, step)
        if self.steps[place] != step:
            self.steps.insert(place, step)
        for column in self.columns.values():
            place = bisect_left(column.steps, step)
            if place < len(column.steps) and column.steps[place] == step:
                del column.steps[place], column.values[place]
        for name, value in line.items():
            if name in NOT_CURVES or not is_point(value):
                continue
            column = self.columns.setdefault(name, Column(array("q"), array("d")))
            place = bisect_left(column.steps, step)
            column.steps.insert(place, step)
            column.values.insert(place, as_float(value))


@dataclass
class MetricsLog:
    """Content of a metrics.jsonl.

    Attributes:
        training: the `train` lines.
        others: {kind: {step: line}} of all other lines; the last one of a step counts.
        num_lines, invalid: number of lines, and the numbers of those that are not valid, from 1.
    """

    training: TrainingLog = field(default_factory=TrainingLog)
    others: dict[str, dict[int, JsonObject]] = field(default_factory=dict)
    num_lines: int = 0
    invalid: list[int] = field(default_factory=list)

    def feed(self, content: bytes) -> None:
        """Add lines. content: whole lines; a last one without its end is taken as it is."""
        for text in content.decode("utf-8", "replace").removesuffix("\n").split("\n"):
            self.num_lines += 1
            line = parse_line(text)
            if line is None:
                self.invalid.append(self.num_lines)
            elif line["kind"] == "train":
                self.training.add(line)
            else:
                self.others.setdefault(line["kind"], {})[line["step"]] = as_finite(line)

    def lines(self, kind: str) -> list[JsonObject]:
        """Return the lines of a kind other than `train`, in order of step."""
        by_step = self.others.get(kind, {})
        return [by_step[step] for step in sorted(by_step)]

    def notes(self, name: str) -> list[str]:
        """Return a note about lines of the file `name` that are not valid, [] without one."""
        if not self.invalid:
            return []
        if self.invalid == [self.num_lines]:
            return [f"{name}: the last line is incomplete and left out"]
        count = f"{len(self.invalid)} lines are not valid and left out"
        return [f"{name}: {count}, the first is line {self.invalid[0]}"]


def parse_line(text: str) -> JsonObject | None:
    """Return a line of metrics.jsonl, None for anything else."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    is_valid = (
        isinstance(line, dict)
        and isinstance(line.get("step"), int)
        and 0 <= line["step"] < MAX_STEP
        and isinstance(line.get("kind"), str)
    )
    return line if is_valid else None


def is_point(value: object) -> bool:
    """Return whether a value is a point of a curve: a number, or None for one not finite."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def as_float(value: float | None) -> float:
    """Return a number, nan for one that is not finite or too large."""
    if value is None:
        return NAN
    try:
        number = float(value)
    except OverflowError:
        return NAN
    return number if math.isfinite(number) else NAN


def as_finite(line: Mapping[str, object]) -> JsonObject:
    """Return a line with None for numbers that are not finite."""
    result = finite(line)
    assert isinstance(result, dict)
    return result
