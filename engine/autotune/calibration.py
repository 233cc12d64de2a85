"""Calibration run: measure the time of a step, an evaluation and a checkpoint on this machine.

It is a short run made of the same calls as the run itself, in a temporary folder inside the run's
folder. Since schedules are functions of the step and of the number of steps, a few steps pass
through all of them. The run afterwards draws weights and noise from its own seeds, so it equals a
run without a calibration.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from visionloop.engine.checkpoints.folder import step_folders
from visionloop.engine.checkpoints.start import CALIBRATION_FOLDER
from visionloop.engine.data.subsets import Subset, evenly_spaced
from visionloop.engine.distributed import barrier, broadcast_object
from visionloop.engine.evaluation.evaluate import evaluate
from visionloop.engine.loop import fit
from visionloop.engine.out_of_memory import carry_halvings, read_halvings
from visionloop.engine.prepare import prepare_run, set_process
from visionloop.engine.run import Run, RunSpec, TrainState
from visionloop.engine.system.memory import give_back_freed_memory
from visionloop.engine.types import JsonObject, SampleDataset

WARM_UP_STEPS = 2  # the first steps, which allocate


class CalibrationRun:
    """Measurements of a calibration run, in seconds and bytes.

    Args:
        run: the run, after its last step.
        start_seconds: time to prepare it.
        rows: lines of its metrics.jsonl, on the main rank.
        evaluations: [(images, seconds)] of its evaluations.
        sizes: of `file_sizes`.

    Attributes:
        contention: how much other programs slow the steps down, 1 on an idle machine.
        waiting_share: part of the time of the steps in which they waited for data.
        first_loss: loss of the first step, None off the main rank.
        save, last_save: seconds of a save, and of the last one, which is waited for.
    """

    def __init__(
        self,
        run: Run,
        start_seconds: float,
        rows: Sequence[JsonObject],
        evaluations: Sequence[tuple[int, float]],
        sizes: dict[str, int],
    ) -> None:
        self.start, self.evaluations, self.sizes = start_seconds, sorted(evaluations), sizes
        # on a GPU the host waits in any case
        wall, busy = run.clock.seconds["compute"], run.clock.busy["compute"]
        on_cpu = run.world.device.type == "cpu" and busy > 0
        self.contention = max(1.0, wall / busy) if on_cpu else 1.0
        waited = run.clock.seconds["data_wait"]
        self.waiting_share = waited / (waited + wall) if waited else 0.0
        train_rows = [row for row in rows if row["kind"] == "train"]
        self.first_loss: float | None = train_rows[0]["loss"] if train_rows else None
        self.steps: list[float] = [row["step_ms"] / 1000 for row in train_rows]
        saves = sum(row["kind"] == "eval" for row in rows) or 1
        self.save = run.clock.seconds["checkpointing"] / saves
        self.last_save = run.clock.last["checkpointing"]

    @property
    def first_step(self) -> float:
        """Seconds of a step on images that were not read before: those of the first third."""
        third = max(WARM_UP_STEPS + 1, len(self.steps) // 3)
        return undisturbed(self.steps[WARM_UP_STEPS:third])

    @property
    def step(self) -> float:
        """Seconds of a step on images that were read before."""
        return undisturbed(self.steps[max(WARM_UP_STEPS, len(self.steps) // 3) :])

    def evaluation(self, images: int) -> float:
        """Estimate the seconds of an evaluation of `images` images.

        A constant part plus a part for each image; at most what it would be without the first.
        """
        (fewer, less), (more, seconds) = self.evaluations[0], self.evaluations[-1]
        each = max(0.0, seconds - less) / (more - fewer) if more > fewer else seconds / more
        return min(seconds + each * (images - more), seconds * max(1.0, images / more))


def undisturbed(seconds: Sequence[float]) -> float:
    """Return the typical duration of a step on a machine without other work.

    Other programs only ever slow a step down, so a low quantile counts, of means of 4 steps.
    """
    means = sorted(
        statistics.mean(seconds[i : i + 4]) for i in range(0, max(1, len(seconds) - 3), 4)
    )
    # not the lowest: a schedule may end with steps that have less to do
    return means[len(means) // 4]


def calibrate(spec: RunSpec, stop: Callable[[], bool]) -> CalibrationRun | None:
    """Run `spec.config.steps` steps, an evaluation or two, and a checkpoint with its best/.

    All ranks; prints nothing. Off the main rank the result holds little.

    Args:
        spec: of the calibration run, with the run's own output folder.
        stop: called at each step; True stops.

    Returns:
        The measurements, None when it was stopped.

    Raises:
        UserError: any that the run itself would raise.
    """
    set_process(spec.config)
    folder, world = spec.output / CALIBRATION_FOLDER, spec.world
    if world.is_main:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    barrier(world)
    config = replace(
        spec.config, log_every=1, eval_every=0, save_every=0, patience=0, profile=None, resume=None
    )
    output = spec.output
    halvings = broadcast_object(world, read_halvings(output) if world.is_main else ())
    spec = replace(
        spec,
        config=config,
        output=folder,
        immutable_settings={"task": spec.task.name},
        halvings=halvings,
    )
    run = None
    try:
        with quiet():
            began = time.perf_counter()
            run = prepare_run(spec, state=TrainState(), stop=stop)
            start_seconds = time.perf_counter() - began
            evaluations, sizes = measure(run, spec)
        if run.ending.failure:
            raise run.ending.failure
    finally:
        if run is not None:
            with contextlib.suppress(Exception):  # another error is raised already
                run.writer.wait()
            run.data.close()
            with quiet():
                run.log.close()
        rows = read_rows(folder)
        if world.is_main:
            carry_halvings(folder, output)
            shutil.rmtree(folder, ignore_errors=True)
    result = None
    if not run.ending.stopping:
        result = CalibrationRun(run, start_seconds, rows, evaluations, file_sizes(sizes))
    del run
    give_back_freed_memory()
    if world.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(world.device)
    return result


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop what is printed inside the context."""
    discarded = io.StringIO()
    with contextlib.redirect_stdout(discarded), contextlib.redirect_stderr(discarded):
        yield


def measure(run: Run, spec: RunSpec) -> tuple[list[tuple[int, float]], list[Counter[str]]]:
    """Train to the end and evaluate once more on a third of the images.

    Returns:
        ([(images, seconds)] of the evaluations, [`written_bytes`] after each of them).
    """
    fit(run, spec.task)
    images = len(spec.val_set)
    evaluations, sizes = [(images, run.clock.last["evaluation"])], [written_bytes(run)]
    if not run.is_ending and images > 2:
        third = part_of(spec.val_set, images // 3)
        evaluate(replace(run, val_set=third), spec.task)
        evaluations.append((len(third), run.clock.last["evaluation"]))
        sizes.append(written_bytes(run))
    return evaluations, sizes


def written_bytes(run: Run) -> Counter[str]:
    """Return the bytes of a "checkpoint", of "best", of a "record" and of all of "tensorboard".

    Nothing off the main rank.
    """
    sizes: Counter[str] = Counter()
    if not run.world.is_main:
        return sizes
    run.log.flush()
    for name, folders in (
        ("checkpoint", step_folders(run.checkpoints)),
        ("best", [(0, run.output / "best")]),
        ("record", step_folders(run.output / "evaluations")),
    ):
        sizes[name] = sum(folder_bytes(folder) for _, folder in folders) // max(1, len(folders))
    sizes["tensorboard"] = folder_bytes(run.output / "tensorboard")
    return sizes


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def file_sizes(written: Sequence[Counter[str]]) -> dict[str, int]:
    """Return the bytes of a "checkpoint", of "best", and how the logs grow.

    The logs grow "once", and with each "evaluation" that is drawn.

    Args:
        written: of `written_bytes` after the checkpoint and after another evaluation, if any.
    """
    first, last = written[0], written[-1]
    grown = last["tensorboard"] - first["tensorboard"] if len(written) > 1 else first["tensorboard"]
    return {
        "checkpoint": first["checkpoint"],
        "best": first["best"],
        "evaluation": grown + last["record"],
        "once": max(0, first["tensorboard"] - grown),
    }


def read_rows(folder: Path) -> list[JsonObject]:
    """Return the lines of a folder's metrics.jsonl, [] when there is none."""
    with contextlib.suppress(OSError):
        return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return []


def part_of(dataset: SampleDataset, num_samples: int) -> SampleDataset:
    """Return at most `num_samples` samples of a dataset, evenly spaced."""
    if num_samples >= len(dataset):
        return dataset
    return Subset(dataset, evenly_spaced(len(dataset), max(1, num_samples)))
