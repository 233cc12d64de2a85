"""The engine's own way from files to batches, with a clock at each stage.

Stages are timed in CPU seconds of this process: what a core does in a second, whoever else uses the
machine. Loaders go by the clock.
"""

import copy
import math
import time
from dataclasses import replace
from functools import partial

import torch

from visionloop.engine.data.loader import TrainingData
from visionloop.engine.distributed import World
from visionloop.engine.errors import UserError
from visionloop.engine.seeding import COLLATE, SAMPLE, seed_host

CPU = World(0, 0, 1, torch.device("cpu"))


class Watched:
    """A callable object whose calls are timed, its own and those of its methods. seconds: so far."""

    def __init__(self, watched):
        self.watched, self.seconds = watched, 0.0

    def __call__(self, *arguments, **named):
        return self._timed(self.watched, *arguments, **named)

    def __getattr__(self, name):
        value = getattr(self.watched, name)
        return partial(self._timed, value) if callable(value) else value

    def _timed(self, function, *arguments, **named):
        began = time.process_time()
        result = function(*arguments, **named)
        self.seconds += time.process_time() - began
        return result


class StageTurns:
    """Batches of a task made in this process. seconds: {stage: [of each batch so far]}; whole: [of each batch], their sum."""

    def __init__(self, task, dataset):
        self.task, self.dataset = task, copy.copy(dataset)
        self.transform = self.dataset.transform = Watched(dataset.transform)
        self.seconds = {"read": [], "transform": [], "collate": [], "to_input": []}

    @property
    def whole(self):
        return [sum(stages) for stages in zip(*self.seconds.values(), strict=True)]

    def take(self, indices, turn):
        """Make the batch of these samples under seeds of this turn, up to what a network reads. Returns that; raises UserError."""
        self.task.before_sample(0, 1)
        before, began = self.transform.seconds, time.process_time()
        samples = []
        for index in indices:
            seed_host(SAMPLE, 0, turn, index)
            samples.append(self._read(index) | {"sample_id": torch.tensor(index)})
        made, transformed = time.process_time(), self.transform.seconds - before
        seed_host(COLLATE, 0, turn, 0)
        batch = self.task.collate(samples, turn, 0)
        collated = time.process_time()
        pixels = self.task.to_input(batch)
        ended = time.process_time()
        self._note(
            read=made - began - transformed,
            transform=transformed,
            collate=collated - made,
            to_input=ended - collated,
        )
        return pixels

    def _read(self, index):
        try:
            return self.dataset[index]
        except OSError as error:
            raise UserError(
                str(error), code="unreadable_sample", file=self.dataset.name(index)
            ) from None

    def _note(self, **seconds):
        for stage, value in seconds.items():
            self.seconds[stage].append(value)


class LoaderTurns:
    """The engine's TrainingData, started anew for each turn: idle workers would work ahead of their clock."""

    def __init__(self, task, dataset, config, batches, warm_up):
        self.task, self.dataset, self.config, self.batches, self.warm_up = (
            task,
            dataset,
            config,
            batches,
            warm_up,
        )

    def take(self, workers):
        """Seconds of a batch from a loader with so many processes, the batches before the clock starts left out."""
        loader = TrainingData(
            self.task, self.dataset, replace(self.config, workers=workers), CPU, 0
        )
        try:
            # each process has made its first one by then
            for _ in range(max(1, workers) * self.warm_up + workers):
                fetch(loader)
            began = time.perf_counter()
            for _ in range(self.batches):
                fetch(loader)
            return (time.perf_counter() - began) / self.batches
        finally:
            loader.close()


def fetch(loader):
    """The host batches of a TrainingData's next step. Raises UserError for a sample that cannot be read."""
    batches = loader.fetch(give_up=lambda: False)
    if batches is None:
        raise UserError(
            f"{loader.error.name}: {loader.error.why}",
            code="unreadable_sample",
            file=loader.error.name,
        )
    return batches


def mean_side(dataset, indices):
    """Root of the mean number of pixels of these files' images."""
    from visionloop.datasets.io.images import read_size

    return round(
        math.sqrt(
            sum(math.prod(read_size(dataset.name(index))) for index in indices) / len(indices)
        )
    )
