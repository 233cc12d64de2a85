"""`check`, the same for every task: the data, then a run in miniature, before hours are spent on them."""

import json
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from visionloop.bin.commands.overfit import require_goal, run_overfit
from visionloop.bin.commands.sheet import require_png, write_sheet
from visionloop.engine.autotune.dry_run import calibrate, part_of
from visionloop.engine.autotune.steps import ROUGH_STEPS, cost, most_steps, plan_calibration, times
from visionloop.engine.budget import LEAVING_SECONDS, Figures
from visionloop.engine.config.options import AUTO, Seconds, Setting, build, duration_text
from visionloop.engine.config.resolve import DEFAULT_MICRO_BATCH, LENGTHS, settle
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.distributed import join_world, pick_device
from visionloop.engine.errors import FINISHED, USER_ERROR, UserError
from visionloop.engine.evaluation.samples import images_due
from visionloop.engine.seeding import seed_host
from visionloop.engine.system.profiling import peak_gib
from visionloop.engine.system.signals import StopFlag
from visionloop.engine.train import resolve_settings

# What a run would take: time, memory and disk, from a few steps of it, an evaluation and a
# checkpoint that are thrown away.

TRIAL_SECONDS = 3.0  # for the steps that are tried, and as much for the evaluation
GIB = 2**30


@dataclass(frozen=True)
class Estimate:
    """config: a TrainConfig; first_loss: of the first step.

    memory_gib: the peak of a training process without its workers, on CUDA of the device;
    disk_gib: the most that the run's folder takes; seconds: of the whole command.
    """

    config: TrainConfig
    first_loss: float
    memory_gib: float
    disk_gib: float
    seconds: float

    def as_json(self):
        return {
            "memory_gib": round(self.memory_gib, 3),
            "disk_gib": round(self.disk_gib, 4),
            "seconds": round(self.seconds, 1),
        }


def estimate_run(task, given, train_set, val, *, getting_ready):
    """The Estimate of a run on one process. getting_ready: seconds that a command takes until it has its data.

    given: {name: Setting} as typed; without a length, of one epoch. Raises UserError for what
    training would refuse.
    """
    world = join_world(given["device"].value)
    found = {}
    if (
        given["micro_batch"].value == AUTO
    ):  # which may take minutes to find: here a size that most machines have room for
        found["micro_batch"] = min(given["batch_size"].value, DEFAULT_MICRO_BATCH)
    if all(given[name].value is None for name in LENGTHS):
        given = given | {"epochs": Setting(1.0, "default")}

    def resolve(steps=None):
        lengths = {"steps": steps} if steps else {}
        return build(TrainConfig, settle(task, given, world, train_set, {}, found | lengths)[0])

    def try_out(steps, images, scored):
        trial = resolve(steps)
        parts = part_of(train_set, max(images, trial.batch_size)), part_of(val, scored)
        with tempfile.TemporaryDirectory() as scratch:
            return calibrate(task, trial, world, *parts, output=Path(scratch), stop=StopFlag())

    rough = try_out(ROUGH_STEPS, len(train_set), resolve().eval_batch_size)
    seen = try_out(*plan_calibration(rough, TRIAL_SECONDS, resolve().batch_size, len(val)))
    figures = Figures(
        seen.start, seen.first_step, seen.step, seen.evaluation(len(val)), seen.save, seen.last_save
    )
    budget = given["budget"].value
    if budget:
        config = resolve(
            max(1, most_steps(resolve, figures, len(train_set), budget - getting_ready))
        )
    else:
        config = resolve()
    seconds = budget or getting_ready + cost(config, figures, len(train_set)) + LEAVING_SECONDS
    memory = peak_gib(world.device) + (
        0 if world.device.type == "cuda" else bytes_kept_later(train_set) / GIB
    )
    return Estimate(
        config, rough.first_loss, memory, folder_bytes(config, seen.sizes, seconds) / GIB, seconds
    )


def bytes_kept_later(dataset):
    """Of decoded images that a run will keep in this process besides those it keeps after a calibration."""
    if not hasattr(dataset, "kept_bytes"):
        return 0
    now, at_last = dataset.kept_bytes()
    return at_last - now


def folder_bytes(config, sizes, seconds):
    """The most that the folder of a run takes. sizes: of a CalibrationRun.

    While a checkpoint is written, the newest --keep are still there, the best one often among them,
    and best/ may be there twice.
    """
    evaluations = times(config.steps, config.eval_every)
    saves = (
        seconds // config.save_every
        if isinstance(config.save_every, Seconds)
        else times(config.steps, config.save_every)
    )
    folders = min(max(evaluations, saves), config.keep + 1)
    every = config.eval_every or config.steps
    drawn = sum(
        images_due(step, config.eval_every, config.steps, config.batch_size)
        for step in range(every, config.steps + 1, every)
    )
    logged = sizes["once"] + sizes["evaluation"] * drawn
    return folders * sizes["checkpoint"] + min(2, evaluations) * sizes["best"] + logged


FAR_OFF = 0.5  # share by which the first loss may miss its expected value


def run_check(task_class, flags, *, config_file, as_json, sheet=None, began=None):
    """Print every error and warning at once, then what the run would cost. Returns the exit code: 2 with an error.

    sheet: a .png to write training images to; began: when the command was started, by
    time.monotonic(). With --overfit N, N images are overfitted, which takes minutes.
    """
    getting_ready = time.monotonic() - began if began else 0.0
    settings = resolve_settings(task_class, flags, config_file)
    task = task_class(build(task_class.config_class, settings))
    if sheet:
        require_png(sheet)
    if settings["overfit"].value:
        require_goal(task)
    found = task.check_data()
    lines, say = (
        found.pop("lines", []),
        partial(print, file=sys.stderr if as_json else sys.stdout, flush=True),
    )
    estimate = {"memory_gib": None, "disk_gib": None, "seconds": None}
    if not found["errors"]:  # a step on data with known errors would only repeat them
        try:
            tried, more = try_out(task, settings, found, sheet, getting_ready)
            estimate, lines = tried.as_json(), lines + more
            if tried.config.overfit:
                learned, why = run_overfit(
                    task, tried.config, device=pick_device(tried.config.device), say=say
                )
                lines += [learned] if learned else []
                found["errors"] += [{"path": settings["data"].value, "why": why}] if why else []
        except UserError as error:
            found["errors"].append(
                {"path": error.file or settings["data"].value, "why": str(error)}
            )
    for kind in ("errors", "warnings"):
        for row in found[kind]:
            print(f"{kind[:-1]}: {row['path']}: {row['why']}", file=sys.stderr)
    if as_json:
        print(json.dumps(found | {"estimate": estimate}))
    else:
        lines = [f"{name}: {count}" for name, count in found["classes"].items()] + lines
        print(
            "\n".join(
                [*lines, f"{len(found['errors'])} error(s), {len(found['warnings'])} warning(s)"]
            )
        )
    return USER_ERROR if found["errors"] else FINISHED


def try_out(task, given, found, sheet, getting_ready):
    """(Estimate, lines for people) of a run in miniature. getting_ready: seconds that this process took to be ready for the data."""
    began = time.monotonic()
    seed_host(given["seed"].value)
    train, val = task.build_datasets()
    getting_ready += time.monotonic() - began
    lines = []
    if sheet:
        write_sheet(task, train, build(TrainConfig, given), sheet)
        lines.append(f"written: {sheet}")
    estimate = estimate_run(task, given, train, val, getting_ready=getting_ready)
    lines.append(f"{len(train)} training and {len(val)} validation images")
    expected, first = task.expected_first_loss(), estimate.first_loss
    if expected is not None:
        lines.append(f"loss at initialisation {first:.3f}, expected {expected:.3f}")
        if not abs(first - expected) <= FAR_OFF * expected:
            why = f"the loss at initialisation is {first:.3f}, far from the {expected:.3f} of a model that knows nothing"
            found["warnings"].append({"path": task.config.model, "why": why})
    length = (
        "steps"
        if any(given[name].value for name in LENGTHS)
        else "steps (one epoch: no length is given)"
    )
    told = estimate.as_json()
    lines.append(
        f"{estimate.config.steps} {length} on one process: about {duration_text(told['seconds'])}, "
        f"{told['memory_gib']} GiB of memory, {told['disk_gib']} GiB on disk"
    )
    return estimate, lines
