"""Timing of `predict` with a model that is loaded already, at the borders of its work."""

import io
import statistics
from collections.abc import Sequence
from contextlib import redirect_stderr
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from visionloop.bin.benchmarks.measurement import (
    MIB,
    interleaved,
    resident_growth_mib,
    synchronized_time,
)
from visionloop.bin.benchmarks.results import Row, Value
from visionloop.bin.benchmarks.tasks import build_steady_task, load_task_class
from visionloop.bin.commands.predict import PredictOptions, run_predict
from visionloop.bin.commands.predict_files import LINES, PredictionRows
from visionloop.engine.distributed import pick_device
from visionloop.engine.errors import USER_ERROR, UserError
from visionloop.engine.precision import build_precision
from visionloop.engine.task import Task


class Case(NamedTuple):
    """One way to run `predict`. tile: None for tasks without tiles, 0 for whole images."""

    precision: str
    tile: int | None
    batch_size: int

    def columns(self) -> Row:
        """Return {name: value} of what the task has."""
        return {name: value for name, value in self._asdict().items() if value is not None}


class Setup(NamedTuple):
    """The inputs that all cases share. model, images: folders; output: a folder to write."""

    task_name: str
    model: Path
    images: Path
    output: Path
    threads: int
    device: str | None


class PredictRun(NamedTuple):
    """A run of `predict` without loading.

    batches: clock times in seconds of each batch: first file opened, model begins, model done,
    results written; inputs: of the model, windows and tiles count.
    """

    batches: list[list[float]]
    seconds: float
    inputs: int


class TimedTask:
    """Stands for a task class in `run_predict` and reads the clock at the borders of its work.

    It returns a model that is loaded already and wraps methods of the task, so `run_predict` is run
    unchanged. tile: of the case.
    """

    def __init__(self, setup: Setup, tile: int | None) -> None:
        torch.set_num_threads(setup.threads)
        self.setup, self.device = setup, pick_device(setup.device)
        settings: Row = {} if tile is None else {"tile": tile}
        task_class = load_task_class(setup.task_name)
        task, self.module = task_class.load_trained(str(setup.model), **settings)
        self.task: Task = task
        self._read, self._predict = task.read_sample, task.predict
        self._write = task.write_predictions
        wrapped: Value = task  # its methods are replaced by ours, which call them
        wrapped.read_sample, wrapped.predict = self.read_sample, self.predict
        wrapped.write_predictions = self.write_predictions
        self._forward, self.module.forward = self.module.forward, self.forward
        self.marks: list[list[float]] = []
        self.inputs = 0
        self.now = partial(synchronized_time, self.device)

    def load_trained(self, folder: str) -> tuple[Task, torch.nn.Module]:
        return self.task, self.module

    def run(self, case: Case) -> PredictRun:
        """Run `predict`. Raises UserError where an image cannot be read."""
        self.marks, self.inputs, setup = [], 0, self.setup
        self.precision = build_precision(case.precision, self.device)
        began = self.now()
        with redirect_stderr(io.StringIO()):  # its progress bar and its last line
            options = PredictOptions(
                model=setup.model, input_path=setup.images, output=setup.output,
                batch_size=case.batch_size, device=setup.device, as_json=False, explanations=(),
                settings={},
            )  # fmt: skip
            code = run_predict(self, options)  # type: ignore[arg-type]  # stands for a task class
        seconds = self.now() - began
        if code == USER_ERROR:
            raise UserError("--input: an image cannot be read; `predict` names it", field="input")
        ends = [mark[0] for mark in self.marks[1:]]
        batches = [[*mark, end] for mark, end in zip(self.marks, ends, strict=False)]
        return PredictRun(batches, seconds, self.inputs)

    def read_sample(self, path: str) -> Row:
        if not self.marks or len(self.marks[-1]) == 3:  # the first file of a batch
            self.marks.append([self.now()])
        return self._read(path)

    def predict(self, module: torch.nn.Module, batch: Value) -> Value:
        self.marks[-1].append(self.now())
        predictions = self._predict(module, batch)
        self.marks[-1].append(self.now())
        return predictions

    def write_predictions(self, folder: Path, rows: Value) -> None:
        self.marks.append([self.now()])
        self._write(folder, rows)

    def forward(self, *args: torch.Tensor, **named: torch.Tensor) -> Value:
        self.inputs += len(args[0] if args else named["pixel_values"])
        # of the model alone: what is made of its outputs is fp32 in any precision
        with self.precision.autocast():
            return self._forward(*args, **named)


def write_random_model(task_name: str, model: str, data: str, folder: Path) -> None:
    """Write a folder that `predict --model` accepts: an architecture with random weights."""
    flags: Row = {"data": data, "model": model, "batch_size": 4, "steps": 1, "device": "cpu"}
    task = build_steady_task(task_name, flags | {"threads": 1, "precision": "fp32"}).task
    torch.manual_seed(0)
    module = task.build_model()
    folder.mkdir()
    task.save(module, module.state_dict(), folder)


def measure_cases(setup: Setup, cases: Sequence[Case], repeats: int) -> tuple[str, int, list[Row]]:
    """Return (type of the device, number of images, one row per case without resident memory)."""
    tasks = {tile: TimedTask(setup, tile) for tile in dict.fromkeys(case.tile for case in cases)}
    device = tasks[cases[0].tile].device.type
    rows: dict[Case, Row] = {}
    for case in cases:  # the first run of each warms up
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        inputs = tasks[case.tile].run(case).inputs
        number = sum(1 for _ in PredictionRows(setup.output / LINES))
        rows[case] = case.columns() | {"inputs_per_image": round(inputs / number, 2)}
        if device == "cuda":
            rows[case]["allocated_mib"] = round(torch.cuda.max_memory_allocated() / MIB, 1)
    runs: dict[Case, list[PredictRun]] = {case: [] for case in cases}
    for case in interleaved(cases, repeats):
        runs[case].append(tasks[case.tile].run(case))
    for case, row in rows.items():
        row |= time_figures(runs[case], number, case.batch_size)
    return device, number, list(rows.values())


def time_figures(runs: Sequence[PredictRun], number: int, batch_size: int) -> Row:
    """Return {figure: value} of the runs of a case with so many images; full batches if any."""
    batches = [batch for run in runs for batch in run.batches[: number // batch_size or 1]]
    times = 1000 * np.diff(np.array(batches), axis=1)  # [batches, (reading, model, writing)]
    reading, model, writing = np.median(times, axis=0).tolist()
    return {
        "batch_ms": round(float(np.median(times.sum(1))), 2),
        "batch_p95_ms": round(float(np.percentile(times.sum(1), 95)), 2),
        "reading_ms": round(reading, 2),
        "model_ms": round(model, 2),
        "writing_ms": round(writing, 2),
        "images_per_second": round(statistics.median(number / run.seconds for run in runs), 2),
    }


def measure_resident_mib(setup: Setup, case: Case) -> float:
    """Return MiB by which one run raises the peak of this process, with the model loaded before."""
    return resident_growth_mib(partial(TimedTask(setup, case.tile).run, case))
