"""What a run tells: console, metrics.jsonl, TensorBoard, status.json. Exists on all ranks, silent off the main one."""

import contextlib
import json
import os
import sys
import time

from tqdm.auto import tqdm

from visionloop.engine.checkpoints.files import finite, replace_file
from visionloop.engine.config.options import duration_text
from visionloop.engine.evaluation.record import cut_records
from visionloop.engine.logging.console import class_table, is_watched
from visionloop.engine.logging.status_file import StatusFile
from visionloop.engine.logging.tensorboard import TensorBoardWriter
from visionloop.engine.system.profiling import peak_gib


class RunLog:
    """The voices of one run. The x axis everywhere is the optimizer step (steps done)."""

    def __init__(self, output, world, task, *, steps, start_step, evaluated_at, epoch_of):
        self.output, self.world, self.steps, self.epoch_of = output, world, steps, epoch_of
        self.metrics = {spec.key: spec for spec in task.metrics}
        self._start_step, self._second_step, self._bar, self._board, self._file, self.status = (
            start_step,
            None,
            None,
            None,
            None,
            None,
        )
        self._class_lines, self._scores, self.budget = (
            [],
            {},
            None,
        )  # budget: see budget.py, of a run that has one
        if not world.is_main:
            return
        cut_lines(output / "metrics.jsonl", start_step, evaluated_at)
        cut_records(output, evaluated_at)
        self._file = open(output / "metrics.jsonl", "a")  # noqa: SIM115 - open as long as the run
        self._board = TensorBoardWriter(output / "tensorboard", task, start_step)
        self.status = StatusFile(
            output / "status.json", step=start_step, epoch=epoch_of(start_step), steps=steps
        )
        if is_watched():
            self._bar = tqdm(total=steps, initial=start_step, unit="step", dynamic_ncols=True)

    def say(self, message):
        """One line on the console. Main rank only."""
        if self.world.is_main:
            tqdm.write(message, file=sys.stdout)
            sys.stdout.flush()

    def warn(self, message):
        if self.world.is_main:
            tqdm.write(f"warning: {message}", file=sys.stderr)

    def advance(self, step):
        """One more step done: the bar, and once, after 20 steps, when the run will end."""
        if self._bar is not None:
            self._bar.update()
        if step == self._start_step + 20 and self._bar is None:
            left = self._seconds_left(step)
            more = "" if self._scores or self.budget else "; evaluations come on top"
            self.say(
                f"step {step}/{self.steps}  expected end in {duration_text(left)}, at {_clock_in(left)}{more}"
            )
        elif step == self._start_step + 1:
            self._second_step = time.perf_counter()

    def _seconds_left(self, step, step_ms=0.0):
        """Until the end at the pace of this start, with the evaluations and saves that it has had."""
        done = (
            step - self._start_step - 1
        )  # the first step allocates and warms up; the host's clock is enough here
        a_step = (
            (time.perf_counter() - self._second_step) / done
            if self._second_step and done > 0
            else step_ms / 1000
        )
        left = (self.steps - step) * a_step
        return left if self.budget is None else max(0.0, min(left, self.budget.remaining()))

    def _told_score(self):
        """The score that picks best/, of the last evaluation and the best."""
        best = self.status.best
        if best is None or best["score"] is None:
            return ""
        spec, last = self.metrics[best["metric"]], self._scores.get(best["metric"])
        at_best = f"best {spec.show(best['score'])} at step {best['step']}"
        return (
            f"{spec.label} {at_best}  "
            if last is None
            else f"{spec.label} {spec.show(last)} ({at_best})  "
        )

    def training(self, step, losses, grad_norm, rates, clock, batch_size):
        """A log step. losses: {term: float} of this step, over all ranks; rates: {group: lr}."""
        step_ms, wait = clock.interval(step)
        if not self.world.is_main:
            return
        rate, memory = 1000 * batch_size / step_ms, peak_gib(self.world.device)
        top_rate = max(rates.values())
        self._line(
            step,
            "train",
            **losses,
            lr=top_rate,
            grad_norm=grad_norm,
            step_ms=round(step_ms, 3),
            data_wait=round(wait, 4),
        )
        scalars = {f"train/{name}": value for name, value in losses.items()} | {
            f"lr/{name}": value for name, value in rates.items()
        }
        scalars |= {
            "train/grad_norm": grad_norm,
            "perf/samples_per_second": rate,
            "perf/step_ms": step_ms,
        }
        self._board.scalars(
            step, scalars | {"perf/data_wait_percent": 100 * wait, "memory/peak_gib": memory}
        )
        left = self._seconds_left(step, step_ms)
        self.status.update(step=step, epoch=self.epoch_of(step), eta=time.time() + left)
        told, score = (
            f"loss {losses['loss']:.4f}  lr {top_rate:.2e}  {rate:.1f} samples/s",
            self._told_score(),
        )
        if (
            self._bar is not None
        ):  # which is cut at the terminal's edge: what people look for comes first
            self._bar.set_postfix_str(f"{score}ends {_clock_in(left)}  {told}")
        else:
            self.say(
                f"step {step}/{self.steps}  {told}  {score}ends in {duration_text(left)}, at {_clock_in(left)}"
            )

    def scores(self, step, scores, *, raw=None, intervals=None, train_loss=None, reference=None):
        """An evaluation. scores: of the weights that best/ may hold; raw: of the training weights, with EMA."""
        if not self.world.is_main:
            return
        self._scores, more = scores, {} if raw is None else {"metrics_raw": raw}
        self._line(
            step,
            "eval",
            train_loss=train_loss,
            val_loss=scores.get("val_loss"),
            metrics=scores,
            **more,
        )
        self._board.scalars(step, {f"eval/{key}": value for key, value in scores.items()})
        self._board.scalars(step, {f"eval_raw/{key}": value for key, value in (raw or {}).items()})
        self.say(
            f"step {step}/{self.steps}  evaluation: "
            + "  ".join(self._shown(scores, intervals or {}))
        )
        for label, value in (reference or {}).items():
            self.say(f"  {label}: {next(iter(self.metrics.values())).show(value)}")

    def _shown(self, scores, intervals):
        for key, value in scores.items():
            spec = self.metrics[key]
            span = (
                f" ({spec.show(intervals[key][0])} to {spec.show(intervals[key][1])})"
                if key in intervals
                else ""
            )
            yield f"{spec.label} {spec.show(value)}{span}"

    def classes(self, step, spec, per_class):
        """The scores of each class: a table in TensorBoard, and the lines that `say_classes` will print. spec: the first MetricSpec."""
        self._class_lines = class_table(spec, per_class)
        if self._board is not None:
            self._board.classes(step, spec, per_class)

    def say_classes(self):
        """The table of the last evaluation on the console."""
        for line in self._class_lines:
            self.say(line)

    def images(self, step, images):
        """images: {name: uint8 [H, W, 3]}, for TensorBoard."""
        if self._board is not None:
            self._board.images(step, images)

    def time_breakdown(self, step, time_breakdown):
        """Where the wall time of this start went."""
        if not self.world.is_main:
            return
        self._line(step, "time_breakdown", **time_breakdown)
        self._board.time_breakdown(step, time_breakdown)
        self.say(
            "time: "
            + ", ".join(
                f"{part} {100 * row['share']:.1f} %" for part, row in time_breakdown.items()
            )
        )

    def result(self, step, settings, scores):
        """The end of a whole run: TensorBoard is given what runs are compared by, and the model card of best/."""
        if self._board is not None and scores:
            card = self.output / "best" / "README.md"
            self._board.result(step, settings, scores, card.read_text() if card.is_file() else None)

    def flush(self):
        """Put what was said on disk, before a checkpoint that relies on it."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._board.flush()

    def close(self):
        """Put the rest on disk, where there is room."""
        if self._file is not None:
            for end in (self.flush, self._file.close, self._board.close):
                with contextlib.suppress(OSError):  # a full disk has been reported by then
                    end()
            self.status.close()
        if self._bar is not None:
            self._bar.close()

    def _line(self, step, kind, **content):
        row = {
            "time": time.time(),
            "step": step,
            "epoch": self.epoch_of(step),
            "kind": kind,
            **content,
        }
        self._file.write(json.dumps(finite(row)) + "\n")
        self._file.flush()


def cut_lines(path, step, evaluated_at):
    """Drop the lines after `step`, evaluations after `evaluated_at` (both will be written again), and a half-written last line."""
    if not path.exists():
        return
    last = {"train": step, "eval": evaluated_at, "time_breakdown": step - 1}
    kept = []
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row["step"] <= last[row["kind"]]:
            kept.append(line)
    replace_file(path, "".join(line + "\n" for line in kept))


def _clock_in(seconds):
    return time.strftime("%H:%M", time.localtime(time.time() + seconds))
