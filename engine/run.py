"""Everything a run holds between two steps, and how it is taken back from disk."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from visionloop.engine.budget import ENOUGH, OVER, SHORT
from visionloop.engine.config.options import Seconds
from visionloop.engine.distributed import sum_over_ranks
from visionloop.engine.errors import UserError
from visionloop.engine.lr_schedule import due


@dataclass
class Run:
    """One run on one rank. `model` is what training calls, `module` is what is saved, evaluated and averaged."""

    config: Any
    output: Path
    world: Any
    module: Any
    model: Any
    optimizer: Any
    precision: Any
    ema: Any  # ExponentialMovingAverage or None
    trained_parameters: list
    trained_buffers: list  # BatchNorm statistics: a non-finite step must leave them as they were
    data: Any  # TrainingData
    val: Any  # dataset
    log: Any
    writer: Any  # CheckpointWriter
    clock: Any
    stop: Any  # StopFlag
    nonfinite_steps: Any
    profiler: Any
    best_metric: Any  # MetricSpec
    # {name: value} of those that must not change when the run continues, with the data's
    # fingerprint
    settings: dict
    start_step: int = 0
    reload_at: int | None = None  # the step before which the best weights so far are loaded
    # what a checkpoint's state.json holds besides
    scores: dict = field(default_factory=dict)
    best: dict | None = None
    evaluated_at: int = 0
    evaluations_since_best: int = 0
    train_loss: float | None = None
    # how the run ends
    saved_at: int | None = None
    saved_time: float = field(default_factory=time.monotonic)
    saving: bool = False  # a checkpoint after this step, because of the time
    stopping: bool = False
    out_of_patience: bool = False
    budget: Any = None  # Budget, on the main rank of a run that has one
    left: int = ENOUGH  # how much of it, as all ranks agreed
    failure: UserError | None = None

    @property
    def ending(self):
        """No more steps after this one."""
        return (
            self.stopping or self.out_of_patience or self.left == OVER or self.failure is not None
        )

    @property
    def checkpoints(self):
        return self.output / "checkpoints"

    def evaluation_due(self, step):
        """True at evaluation steps not evaluated yet: also for one that a stop interrupted, and before the best weights are reloaded.

        Where the time is up this is the last one, unless there was one the step before; where it is
        short that one alone is left.
        """
        every = 0 if self.left == SHORT else self.config.eval_every
        wanted = due(step, every, self.config.steps) or (
            step == self.reload_at and self.left != SHORT
        )
        wanted = wanted or (
            self.left == OVER and (self.best is None or step > self.evaluated_at + 1)
        )
        return 0 < step != self.evaluated_at and wanted and not self.stopping

    def save_due(self, step):
        """True at save steps, at a new best score and when the run ends."""
        if step == self.saved_at:
            return False
        is_best = self.best is not None and self.best["step"] == step
        every = 0 if isinstance(self.config.save_every, Seconds) else self.config.save_every
        return (
            self.ending
            or self.saving
            or is_best
            or (step > 0 and due(step, every, self.config.steps))
        )

    def wants_to_stop(self):
        """This rank's part of the answer: a signal, or a checkpoint that could not be written."""
        return self.stop() or self.writer.failed

    def wants_to_save(self):
        """True on the main rank once --save-every has passed, where it is in seconds: clocks differ, so one decides for all."""
        every = self.config.save_every
        return (
            self.world.is_main
            and isinstance(every, Seconds)
            and time.monotonic() - self.saved_time >= every
        )

    def time_left(self):
        """ENOUGH, SHORT or OVER on the main rank of a run with a budget: clocks differ, so one decides for all. ENOUGH elsewhere."""
        return self.budget.left(self.clock) if self.budget else ENOUGH

    def read_losses(self, losses):
        """{term: float} of the step just done, over all micro-batches and ranks. All ranks; syncs with the device."""
        totals = sum_over_ranks(self.world, [float(value) for value in losses.values()])
        read = {name: total / self.world.size for name, total in zip(losses, totals, strict=True)}
        self.train_loss = read["loss"]
        return read
