"""Implementations of the same scores, ours among them, on the same made-up answers."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from tqdm import tqdm

from visionloop.bin.benchmarks.turns import synchronised

LIBRARIES = ("torchmetrics", "faster_coco_eval")  # compared with where they are installed


@dataclass(frozen=True)
class Side:
    """One implementation. does: what it is, and how it is set to our conventions.

    start(): an object with `update(prepared)` and `compute() -> {score: number}`;
    prepare(predictions, batch): a batch in its own form, which is not timed; against: the side that
    its scores and time are compared with, None: with none; tolerance: of that, absolute.
    """

    does: str
    start: Callable
    prepare: Callable
    against: str | None = "ours"
    tolerance: float | None = 1e-6


@dataclass(frozen=True)
class Taken:
    """What one turn took, in seconds, and its scores."""

    update: float
    compute: float
    scores: dict


class Own:
    """One of our metrics."""

    def __init__(self, metric):
        self.metric, self.compute = metric, metric.compute

    def update(self, prepared):
        self.metric.update(*prepared)


def as_it_is(predictions, batch):
    return predictions, batch


def installed():
    """The names in LIBRARIES that can be imported."""
    return {name for name in LIBRARIES if find_spec(name)}


def sides_of(task_name, device, *, images, side, classes, batch_size):
    """(batches, {name: Side}) of metric_<task>.py. batches: [() -> (predictions, batch)], made when they are needed."""
    module = import_module(f"visionloop.bin.benchmarks.scores.{task_name}")
    counts = [min(batch_size, images - start) for start in range(0, images, batch_size)]
    number = classes or min(module.CLASSES, images)
    batches = [
        module.Answers(device, start * batch_size, count, number, side)
        for start, count in enumerate(counts)
    ]
    return batches, module.sides(number, installed())


def take(side, batches, device):
    """The Taken of one side on all batches."""
    metric, seconds = side.start(), 0.0
    for answers in tqdm(
        batches, desc=side.does.split(":")[0], unit="batch", disable=None, leave=False
    ):
        prepared = side.prepare(*answers.make())
        began = synchronised(device)
        metric.update(prepared)
        seconds += synchronised(device) - began
    began = synchronised(device)
    scores = metric.compute()
    return Taken(
        seconds,
        synchronised(device) - began,
        {name: float(score) for name, score in scores.items()},
    )


def worst_difference(name, scores, expected, tolerance):
    """The largest absolute difference of the scores that both have. AssertionError names one that is beyond the tolerance."""
    shared = [key for key in expected if key in scores]
    assert shared, f"{name} has none of the scores {', '.join(expected)}"
    worst = 0.0
    for key in shared:
        ours, theirs = expected[key], scores[key]
        difference = 0.0 if math.isnan(ours) and math.isnan(theirs) else abs(ours - theirs)
        assert difference <= tolerance, (
            f"{key}: {theirs} by {name}, expected {ours} to within {tolerance}"
        )
        worst = max(worst, difference)
    return worst
