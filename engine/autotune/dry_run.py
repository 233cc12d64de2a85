"""A run in miniature that is thrown away: what a step, an evaluation and a checkpoint take on this machine.

It is made of the same calls as the run itself, in a folder of its own beside the run's files. Since
schedules are functions of the step and of the number of steps, a few steps go through all of them.
The run afterwards draws its weights and its noise anew from its own seeds, and so it is the run
that would have been without a calibration.
"""

import contextlib
import io
import json
import shutil
import statistics
import time
from collections import Counter
from dataclasses import replace

import torch

from visionloop.engine.checkpoints.folder import step_folders
from visionloop.engine.checkpoints.start import CALIBRATION_FOLDER
from visionloop.engine.data.subsets import Subset, evenly_spaced
from visionloop.engine.distributed import barrier
from visionloop.engine.evaluation.evaluate import evaluate
from visionloop.engine.loop import fit
from visionloop.engine.prepare import prepare_run, set_process
from visionloop.engine.system.memory import give_back_freed_memory

WARM_UP = 2  # first steps, which allocate


class CalibrationRun:
    """What was seen, in seconds and bytes. steps: of each step in turn; evaluations: [(images, seconds)], fewer and more.

    contention: a factor, 1 on a machine without other work; sizes: of a "checkpoint" and of "best",
    and how the logs grow: "once", and with an "evaluation" that is drawn.
    """

    def __init__(self, run, start_seconds, rows, evaluations, sizes):
        self.start, self.evaluations, self.sizes = start_seconds, sorted(evaluations), sizes
        # by how much others that want the same cores slow the steps down; on a GPU the host waits
        # anyway
        wall, busy = run.clock.seconds["compute"], run.clock.busy["compute"]
        self.contention = (
            max(1.0, wall / busy) if run.world.device.type == "cpu" and busy > 0 else 1.0
        )
        self.first_loss = next((row["loss"] for row in rows if row["kind"] == "train"), None)
        self.steps = [row["step_ms"] / 1000 for row in rows if row["kind"] == "train"]
        saves = sum(row["kind"] == "eval" for row in rows) or 1
        self.save, self.last_save = (
            run.clock.seconds["checkpointing"] / saves,
            run.clock.last["checkpointing"],
        )

    @property
    def first_step(self):
        """A step on images that were not read before: of the first third, in which each image is new."""
        return undisturbed(self.steps[WARM_UP : max(WARM_UP + 1, len(self.steps) // 3)])

    @property
    def step(self):
        """A step on images that were read before."""
        return undisturbed(self.steps[max(WARM_UP, len(self.steps) // 3) :])

    def evaluation(self, images):
        """One evaluation of so many: a part that all have and a part for each image; at most as if all of it were for the images."""
        (fewer, less), (more, seconds) = self.evaluations[0], self.evaluations[-1]
        each = max(0.0, seconds - less) / (more - fewer) if more > fewer else seconds / more
        return min(seconds + each * (images - more), seconds * max(1.0, images / more))


def undisturbed(seconds):
    """What a step takes of these: other programs only ever slow it down, so a quick one counts, of the means of 4 in turn."""
    groups = sorted(
        statistics.mean(seconds[i : i + 4]) for i in range(0, max(1, len(seconds) - 3), 4)
    )
    return groups[
        len(groups) // 4
    ]  # not the quickest: a schedule may end with steps that have less to do


def calibrate(task, config, world, train_set, val, *, output, stop):
    """A CalibrationRun of config.steps steps, evaluations of `val` and one checkpoint with its best/; None when it was stopped. All ranks.

    It says nothing. Off the main rank a CalibrationRun knows little. Raises what the run would raise.
    """
    set_process(config)
    folder = output / CALIBRATION_FOLDER
    if world.is_main:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    barrier(world)
    config = replace(
        config, log_every=1, eval_every=0, save_every=0, patience=0, profile=None, resume=None
    )
    run, quiet = None, io.StringIO()
    try:
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            began = time.perf_counter()
            run = prepare_run(
                task,
                config,
                world,
                train_set,
                val,
                output=folder,
                settings={"task": task.name},
                start_step=0,
                evaluated_at=0,
                stop=stop,
            )
            started = time.perf_counter() - began
            fit(run, task)
            evaluations, written = [(len(val), run.clock.last["evaluation"])], [written_bytes(run)]
            if not run.ending and len(val) > 2:
                run.val = part_of(val, len(val) // 3)
                evaluate(run, task, config.steps)
                evaluations.append((len(run.val), run.clock.last["evaluation"]))
                written.append(written_bytes(run))
        if run.failure:
            raise run.failure
    finally:
        if run is not None:
            with contextlib.suppress(Exception):  # what went wrong is on its way
                run.writer.wait()
            run.data.close()
            with contextlib.redirect_stdout(quiet):
                run.log.close()
        rows = read_rows(folder)
        if world.is_main:
            shutil.rmtree(folder, ignore_errors=True)
    seen = (
        None if run.stopping else CalibrationRun(run, started, rows, evaluations, sizes_of(written))
    )
    del run
    give_back_freed_memory()
    if world.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(world.device)
    return seen


def written_bytes(run):
    """{"checkpoint": of one, "best", "record": of one, "board": all of TensorBoard}, bytes; nothing off the main rank."""
    if not run.world.is_main:
        return Counter()
    run.log.flush()
    found, checkpoints, records = (
        Counter(),
        step_folders(run.checkpoints),
        step_folders(run.output / "evaluations"),
    )
    for name, folders in (
        ("checkpoint", checkpoints),
        ("best", [(0, run.output / "best")]),
        ("record", records),
    ):
        found[name] = sum(folder_bytes(folder) for _, folder in folders) // max(1, len(folders))
    found["board"] = folder_bytes(run.output / "tensorboard")
    return found


def folder_bytes(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def sizes_of(written):
    """What a CalibrationRun says of them. written: of written_bytes after the checkpoint and, where there was another evaluation, after it."""
    first, last = written[0], written[-1]
    grown = last["board"] - first["board"] if len(written) > 1 else first["board"]
    return {
        "checkpoint": first["checkpoint"],
        "best": first["best"],
        "evaluation": grown + last["record"],
        "once": max(0, first["board"] - grown),
    }


def read_rows(folder):
    """The lines of its metrics.jsonl."""
    with contextlib.suppress(OSError):
        return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return []


def part_of(dataset, wanted):
    """At most so many samples of a dataset, spread over it."""
    return (
        dataset
        if wanted >= len(dataset)
        else Subset(dataset, evenly_spaced(len(dataset), max(1, wanted)))
    )
