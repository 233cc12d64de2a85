"""A training run: its inputs, its parts, its progress and the reasons why it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from visionloop.engine.budget import Budget, TimeLeft
from visionloop.engine.checkpoints.writer import CheckpointWriter
from visionloop.engine.config.branch_point import START, DataOrigin, origin_of
from visionloop.engine.config.options import Seconds
from visionloop.engine.config.resolve import ResolvedSettings
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.data.loader import TrainingData
from visionloop.engine.data.micro_batches import Halving
from visionloop.engine.distributed import World, gather_objects, sum_over_ranks
from visionloop.engine.ema import ExponentialMovingAverage
from visionloop.engine.errors import UserError
from visionloop.engine.logging.run_log import RunLog
from visionloop.engine.lr_schedule import due
from visionloop.engine.metric import MetricSpec
from visionloop.engine.nonfinite import NonFiniteSteps
from visionloop.engine.precision import Precision
from visionloop.engine.system.profiling import Clock, StepProfiler
from visionloop.engine.task import Task
from visionloop.engine.types import JsonObject, SampleDataset, Scores

if TYPE_CHECKING:
    from visionloop.engine.branches.source import Branch
    from visionloop.engine.sharding.fsdp import Sharding


@dataclass(frozen=True)
class RunSpec:
    """The inputs of a run, before anything is built from them.

    Attributes:
        task: the task, with its settings resolved.
        config: the engine's settings, with nothing left to resolve.
        world: this process among those of the run.
        train_set: training samples.
        val_set: validation samples.
        output: the folder of the run.
        immutable_settings: {name: value} of the settings that must not change when the run resumes,
            with the fingerprint of the data.
        halvings: the steps at which earlier starts ran out of memory.
        branch: the checkpoint of another run that this start begins with, None otherwise.
    """

    task: Task
    config: TrainConfig
    world: World
    train_set: SampleDataset
    val_set: SampleDataset
    output: Path
    immutable_settings: JsonObject
    halvings: tuple[Halving, ...] = ()
    branch: Branch | None = None

    def with_settings(self, resolved: ResolvedSettings) -> RunSpec:
        """Return the inputs of a run with other settings, and a copy of the task that has them."""
        task = copy(self.task)
        task.config = resolved.task_config
        return replace(
            self,
            task=task,
            config=resolved.train_config,
            immutable_settings=resolved.immutable_settings,
        )


@dataclass
class TrainState:
    """Progress of a run, the same on all ranks, as stored in `state.json` of a checkpoint.

    Attributes:
        step: optimizer steps done.
        scores: scores of the last evaluation.
        best: {"step", "metric", "score", "scores"} of the best evaluation, None before the first.
        evaluated_at: steps done at the last evaluation.
        evaluations_since_best: evaluations in a row without a better score.
        out_of_patience: early stopping: there were --patience of them.
        train_loss: training loss of the last step that was read, averaged over ranks.
        data_origin: where the sequence of samples begins.
    """

    step: int = 0
    scores: Scores = field(default_factory=dict)
    best: JsonObject | None = None
    evaluated_at: int = 0
    evaluations_since_best: int = 0
    out_of_patience: bool = False
    train_loss: float | None = None
    data_origin: DataOrigin = START

    @classmethod
    def from_json(cls, state: JsonObject) -> TrainState:
        """Read the content of a `state.json`, which holds more than this."""
        values = {item.name: state[item.name] for item in fields(cls) if item.name in state}
        return cls(**values | {"data_origin": origin_of(state)})


@dataclass
class Ending:
    """The reasons why a run ends, as all ranks agreed.

    Attributes:
        stopping: a stop was requested on some rank, or the run has failed: save and end.
        time_left: how much of --budget is left.
        failure: the error to raise once everything is saved.
    """

    stopping: bool = False
    time_left: TimeLeft = TimeLeft.ENOUGH
    failure: UserError | None = None


@dataclass
class LastSave:
    """The newest checkpoint, and whether the time for the next has come.

    Attributes:
        step: steps done at that checkpoint, None where it lacks the scores of its step.
        time: when it was written, by time.monotonic().
        is_outdated: --save-every seconds have passed since then, as all ranks agreed.
    """

    step: int | None = None
    time: float = field(default_factory=time.monotonic)
    is_outdated: bool = False


@dataclass(frozen=True)
class Run:
    """The parts of one run on one rank, which stay the same from the first step to the last.

    `model` is what training calls; `module` is what is saved, evaluated and averaged. The mutable
    parts are `state`, `ending` and `last_save`.
    """

    config: TrainConfig
    output: Path
    world: World
    module: nn.Module
    model: nn.Module
    sharding: Sharding | None  # of a run with --shard
    optimizer: torch.optim.Optimizer
    precision: Precision
    ema: ExponentialMovingAverage | None
    trained_parameters: list[nn.Parameter]
    # BatchNorm statistics: a non-finite step must leave them as they were
    trained_buffers: list[torch.Tensor]
    data: TrainingData
    val_set: SampleDataset
    log: RunLog
    writer: CheckpointWriter
    clock: Clock
    stop: Callable[[], bool]
    nonfinite_steps: NonFiniteSteps
    profiler: StepProfiler
    best_metric: MetricSpec
    immutable_settings: JsonObject
    start_step: int
    reload_at: int | None  # the step before which the best weights so far are loaded
    budget: Budget | None  # on the main rank of a run with --budget
    state: TrainState
    ending: Ending = field(default_factory=Ending)
    last_save: LastSave = field(default_factory=LastSave)

    @property
    def is_ending(self) -> bool:
        """True when no more steps follow."""
        return (
            self.ending.stopping
            or self.state.out_of_patience
            or self.ending.time_left is TimeLeft.OVER
            or self.ending.failure is not None
        )

    def gathered(self) -> AbstractContextManager[None]:
        """Return a context in which each rank may call the module alone. All ranks."""
        return self.sharding.gathered() if self.sharding else nullcontext()

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.output / "checkpoints"

    def evaluation_due(self) -> bool:
        """Return True at evaluation steps that are not evaluated yet.

        Also for an evaluation that a stop interrupted, and before the best weights are reloaded.
        When the time is over this is the last evaluation, unless there was one the step before;
        when the time is short only that last one is left.
        """
        step, time_left = self.state.step, self.ending.time_left
        if step in (0, self.state.evaluated_at) or self.ending.stopping:
            return False
        if time_left is TimeLeft.OVER and (
            self.state.best is None or step > self.state.evaluated_at + 1
        ):
            return True
        if time_left is TimeLeft.SHORT:
            return step == self.config.steps
        return step == self.reload_at or due(step, self.config.eval_every, self.config.steps)

    def save_due(self) -> bool:
        """Return True at save steps, at a new best score and when the run ends."""
        step, best, every = self.state.step, self.state.best, self.config.save_every
        if step == self.last_save.step:
            return False
        if self.is_ending or self.last_save.is_outdated:
            return True
        if best is not None and best["step"] == step:
            return True
        every = 0 if isinstance(every, Seconds) else every
        return step > 0 and any(
            due(step, interval, self.config.steps) for interval in (every, self.config.keep_every)
        )

    def stop_requested(self) -> bool:
        """Return True on a rank that wants to stop: a signal, or a checkpoint that failed."""
        return self.stop() or self.writer.failed

    def save_requested(self) -> bool:
        """Return True once --save-every seconds have passed; on the main rank, as clocks differ."""
        every = self.config.save_every
        return (
            self.world.is_main
            and isinstance(every, Seconds)
            and time.monotonic() - self.last_save.time >= every
        )

    def time_left(self) -> TimeLeft:
        """Return what is left of --budget; ENOUGH off the main rank, as clocks differ."""
        return self.budget.time_left(self.clock) if self.budget else TimeLeft.ENOUGH

    def unreadable_sample(self) -> UserError | None:
        """Return the error for a sample that a rank cannot read, None after a stop. All ranks."""
        errors = [error for error in gather_objects(self.world, self.data.error) if error]
        return errors[0].as_user_error() if errors else None

    def read_losses(self, losses: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """Read the losses of a step, averaged over ranks, to the host. All ranks; a host sync."""
        totals = sum_over_ranks(self.world, [float(value) for value in losses.values()])
        means = {name: total / self.world.size for name, total in zip(losses, totals, strict=True)}
        self.state.train_loss = means["loss"]
        return means
