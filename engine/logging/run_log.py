"""The log of a run: console, metrics.jsonl, TensorBoard and status.json.

It exists on all ranks and writes nothing off the main one.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from visionloop.engine.budget import Budget
from visionloop.engine.checkpoints.files import finite, replace_file
from visionloop.engine.config.options import duration_text
from visionloop.engine.data.micro_batches import Halving
from visionloop.engine.distributed import World
from visionloop.engine.evaluation.record import cut_records
from visionloop.engine.logging.console import is_watched
from visionloop.engine.logging.messages import halving_line
from visionloop.engine.logging.status_file import StatusFile
from visionloop.engine.logging.tensorboard import TensorBoardWriter
from visionloop.engine.metric import MetricSpec
from visionloop.engine.system.profiling import Clock, peak_gib
from visionloop.engine.task import Task
from visionloop.engine.types import JsonObject, Scores

ESTIMATE_AFTER_STEPS = 20  # the first line about the expected end


class _Outputs(NamedTuple):
    """The outputs of the main rank besides the console."""

    metrics_file: TextIO
    board: TensorBoardWriter
    status: StatusFile


class RunLog:
    """The log of one run. The x axis everywhere is the optimizer step (steps done).

    Args:
        output: the folder of the run.
        world: this process; the main rank writes.
        task: its metrics and charts.
        steps: length of the run.
        start_step: steps done at this start; what an earlier start logged later is removed.
        evaluated_at: steps done at the last evaluation; likewise for evaluations.
        epoch_of: maps a step to its epoch.

    Attributes:
        budget: of a run with --budget, on the main rank.
    """

    def __init__(
        self,
        output: Path,
        world: World,
        task: Task | type[Task],
        *,
        steps: int,
        start_step: int,
        evaluated_at: int,
        epoch_of: Callable[[int], int],
    ) -> None:
        self.output, self.world, self.steps, self.epoch_of = output, world, steps, epoch_of
        self.metrics = {spec.key: spec for spec in task.metrics}
        self.budget: Budget | None = None
        self._start_step = start_step
        self._second_step_began: float | None = None
        self._scores: Scores = {}
        self._logged_halvings: set[Halving] = set()
        self._bar: tqdm | None = None
        self._outputs: _Outputs | None = None
        if not world.is_main:
            return
        cut_lines(output / "metrics.jsonl", start_step, evaluated_at)
        cut_records(output, evaluated_at)
        self._outputs = _Outputs(
            open(output / "metrics.jsonl", "a"),  # noqa: SIM115 - open as long as the run
            TensorBoardWriter(output / "tensorboard", task, start_step),
            StatusFile(
                output / "status.json", step=start_step, epoch=epoch_of(start_step), steps=steps
            ),
        )
        if is_watched():
            self._bar = tqdm(total=steps, initial=start_step, unit="step", dynamic_ncols=True)

    @property
    def status(self) -> StatusFile | None:
        """The status file; None off the main rank."""
        return self._outputs.status if self._outputs else None

    def update_status(self, **changes: object) -> None:
        """Change fields of status.json, see `StatusFile.update`."""
        if self._outputs:
            self._outputs.status.update(**changes)

    def info(self, message: str) -> None:
        """Print one line on the console."""
        if self.world.is_main:
            tqdm.write(message, file=sys.stdout)
            sys.stdout.flush()

    def warn(self, message: str) -> None:
        """Print one line on stderr."""
        if self.world.is_main:
            tqdm.write(f"warning: {message}", file=sys.stderr)

    def advance(self, step: int) -> None:
        """Count one more step: move the bar, and print once when the run is expected to end."""
        if self._bar is not None:
            self._bar.update()
        if step == self._start_step + ESTIMATE_AFTER_STEPS and self._bar is None:
            left = self._seconds_left(step)
            more = "" if self._scores or self.budget else ", plus evaluations"
            self.info(
                f"step {step}/{self.steps}  expected end in {duration_text(left)}, "
                f"at {_clock_in(left)}{more}"
            )
        elif step == self._start_step + 1:
            # the first step allocates and warms up; the host's clock is enough here
            self._second_step_began = time.perf_counter()

    def _seconds_left(self, step: int, step_ms: float = 0.0) -> float:
        """Estimate the seconds to the end from this start, its evaluations and saves included."""
        done = step - self._start_step - 1
        if self._second_step_began and done > 0:
            seconds_per_step = (time.perf_counter() - self._second_step_began) / done
        else:
            seconds_per_step = step_ms / 1000
        left = (self.steps - step) * seconds_per_step
        return left if self.budget is None else max(0.0, min(left, self.budget.remaining()))

    def halvings(self, step: int, halvings: Sequence[Halving]) -> None:
        """Log those of the halvings of the micro-batch that are at this step, each once.

        A resumed run comes to the same steps again and logs the same lines.
        """
        for halving in halvings:
            if halving.step != step or halving in self._logged_halvings:
                continue
            self._logged_halvings.add(halving)
            self.warn(halving_line(halving, is_first=halving == halvings[0]))
            if self._outputs:
                sizes = {"before": halving.before, "micro_batch": halving.micro_batch}
                self._line(step, "out_of_memory", **sizes)
                self._outputs.board.scalars(step, {"memory/micro_batch": halving.micro_batch})

    def _best_score_text(self) -> str:
        """Format the score that picks best/, of the last evaluation and of the best."""
        best = self.status.best if self.status else None
        if best is None or best["score"] is None:
            return ""
        spec, last = self.metrics[best["metric"]], self._scores.get(best["metric"])
        at_best = f"best {spec.show(best['score'])} at step {best['step']}"
        if last is None:
            return f"{spec.label} {at_best}  "
        return f"{spec.label} {spec.show(last)} ({at_best})  "

    def training(
        self,
        step: int,
        losses: Mapping[str, float],
        grad_norm: float,
        lrs: Mapping[str, float],
        clock: Clock,
        batch_size: int,
    ) -> None:
        """Log the training of a step.

        Args:
            step: optimizer steps done.
            losses: {term: value} of this step, averaged over all ranks.
            grad_norm: the gradient norm before clipping.
            lrs: {parameter group: learning rate}.
            clock: its interval since the last log step gives the speed.
            batch_size: samples of one step.
        """
        step_ms, wait = clock.interval(step)
        if self._outputs is None:
            return
        peak = peak_gib(self.world.device)
        samples_per_second, lr = 1000 * batch_size / step_ms, max(lrs.values())
        speed = {"step_ms": round(step_ms, 3), "data_wait": round(wait, 4)}
        self._line(step, "train", **losses, lr=lr, grad_norm=grad_norm, **speed)
        scalars = {
            **{f"train/{name}": value for name, value in losses.items()},
            **{f"lr/{name}": value for name, value in lrs.items()},
            "train/grad_norm": grad_norm,
            "perf/samples_per_second": samples_per_second,
            "perf/step_ms": step_ms,
            "perf/data_wait_percent": 100 * wait,
            "memory/peak_gib": peak,
        }
        self._outputs.board.scalars(step, scalars)
        left = self._seconds_left(step, step_ms)
        self.update_status(
            step=step, epoch=self.epoch_of(step), eta=time.time() + left, peak_gib=round(peak, 3)
        )
        text = f"loss {losses['loss']:.4f}  lr {lr:.2e}  {samples_per_second:.1f} samples/s"
        score = self._best_score_text()
        if self._bar is not None:
            # cut at the terminal's edge: what people look for comes first
            self._bar.set_postfix_str(f"{score}ends {_clock_in(left)}  {text}")
        else:
            self.info(
                f"step {step}/{self.steps}  {text}  {score}ends in {duration_text(left)}, "
                f"at {_clock_in(left)}"
            )

    def scores(
        self,
        step: int,
        scores: Scores,
        *,
        raw: Scores | None = None,
        intervals: Mapping[str, tuple[float, float]] | None = None,
        train_loss: float | None = None,
        reference: Scores | None = None,
    ) -> None:
        """Log an evaluation.

        Args:
            step: optimizer steps done.
            scores: of the weights that best/ may hold.
            raw: of the training weights, None without EMA.
            intervals: {metric key: (low, high)}.
            train_loss: training loss of this step.
            reference: {label: score} of a trivial predictor.
        """
        if self._outputs is None:
            return
        self._scores = scores
        row = {"train_loss": train_loss, "val_loss": scores.get("val_loss"), "metrics": scores}
        if raw is not None:
            row["metrics_raw"] = raw
        self._line(step, "eval", **row)
        board = self._outputs.board
        board.scalars(step, {f"eval/{key}": value for key, value in scores.items()})
        board.scalars(step, {f"eval_raw/{key}": value for key, value in (raw or {}).items()})
        text = "  ".join(self._score_texts(scores, intervals or {}))
        self.info(f"step {step}/{self.steps}  evaluation: {text}")
        first_metric = next(iter(self.metrics.values()))
        for label, value in (reference or {}).items():
            self.info(f"  {label}: {first_metric.show(value)}")

    def _score_texts(
        self, scores: Scores, intervals: Mapping[str, tuple[float, float]]
    ) -> Iterator[str]:
        for key, value in scores.items():
            spec = self.metrics[key]
            text = f"{spec.label} {spec.show(value)}"
            if key in intervals:
                low, high = intervals[key]
                text += f" ({spec.show(low)} to {spec.show(high)})"
            yield text

    def classes(
        self, step: int, spec: MetricSpec, per_class: Mapping[str, Mapping[str, float]]
    ) -> None:
        """Log the scores of each class to TensorBoard.

        Args:
            step: optimizer steps done.
            spec: the task's first MetricSpec.
            per_class: the result of `Task.per_class_scores`.
        """
        if self._outputs:
            self._outputs.board.classes(step, spec, per_class)

    def images(self, step: int, images: Mapping[str, NDArray[np.uint8]]) -> None:
        """Log {name: uint8 [H, W, 3]} to TensorBoard."""
        if self._outputs:
            self._outputs.board.images(step, images)

    def time_breakdown(self, step: int, time_breakdown: Mapping[str, Mapping[str, float]]) -> None:
        """Log where the wall time of this start went; see `Clock.time_breakdown`."""
        if self._outputs is None:
            return
        self._line(step, "time_breakdown", **time_breakdown)
        self._outputs.board.time_breakdown(step, time_breakdown)
        parts = (f"{part} {100 * row['share']:.1f} %" for part, row in time_breakdown.items())
        self.info("time: " + ", ".join(parts))

    def result(self, step: int, settings: JsonObject, scores: Scores) -> None:
        """Log the end of a finished run to TensorBoard: settings, scores, the card of best/."""
        if self._outputs and scores:
            path = self.output / "best" / "README.md"
            card = path.read_text() if path.is_file() else None
            self._outputs.board.result(step, settings, scores, card)

    def flush(self) -> None:
        """Force the log to the disk, before a checkpoint that relies on it."""
        if self._outputs:
            self._outputs.metrics_file.flush()
            os.fsync(self._outputs.metrics_file.fileno())
            self._outputs.board.flush()

    def close(self) -> None:
        """Write the rest, where there is room, and end the heartbeat."""
        if self._outputs:
            for end in (self.flush, self._outputs.metrics_file.close, self._outputs.board.close):
                with contextlib.suppress(OSError):  # a full disk has been reported by then
                    end()
            self._outputs.status.close()
        if self._bar is not None:
            self._bar.close()

    def _line(self, step: int, kind: str, **content: object) -> None:
        """Write one line of metrics.jsonl. Main rank only."""
        assert self._outputs is not None
        place = {"time": time.time(), "step": step, "epoch": self.epoch_of(step), "kind": kind}
        self._outputs.metrics_file.write(json.dumps(finite(place | content)) + "\n")
        self._outputs.metrics_file.flush()


def cut_lines(path: Path, step: int, evaluated_at: int) -> None:
    """Remove the lines of metrics.jsonl that a resumed run will write again."""
    if path.exists():
        replace_file(path, retained_lines(path.read_text(), step, evaluated_at))


def retained_lines(text: str, step: int, evaluated_at: int) -> str:
    """Return the lines of a metrics.jsonl until a checkpoint.

    Without lines after `step`, evaluations after `evaluated_at`, and a half-written last line.
    """
    last = {
        "train": step,
        "eval": evaluated_at,
        "time_breakdown": step - 1,
        "out_of_memory": step - 1,
    }
    retained = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row["step"] <= last[row["kind"]]:
            retained.append(line)
    return "".join(line + "\n" for line in retained)


def _clock_in(seconds: float) -> str:
    return time.strftime("%H:%M", time.localtime(time.time() + seconds))
