"""`check`, the same for every task: the data, then a few steps, before hours are spent on a run."""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from visionloop.bin.commands.overfit import require_goal, run_overfit
from visionloop.bin.commands.sheet import require_png, write_sheet
from visionloop.engine.autotune.calibration import CalibrationRun, calibrate, part_of
from visionloop.engine.autotune.micro_batch import refuse_sharding
from visionloop.engine.autotune.precision import precision_line, resolve_precision
from visionloop.engine.autotune.shard import sharding_proposal
from visionloop.engine.autotune.steps import (
    ROUGH_STEPS,
    figures_of,
    is_precise,
    num_events,
    plan_calibration,
    run_seconds,
    steps_within,
)
from visionloop.engine.budget import LEAVING_SECONDS
from visionloop.engine.config.options import (
    AUTO,
    Seconds,
    Setting,
    Settings,
    SettingSource,
    build,
    duration_text,
)
from visionloop.engine.config.resolve import (
    DEFAULT_MICRO_BATCH,
    LENGTHS,
    ResolvedSettings,
    resolve_run,
)
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.data.augmentation import verify_augmentation
from visionloop.engine.data.forkserver import start_fork_server
from visionloop.engine.determinism import nondeterministic_operation
from visionloop.engine.distributed import join_world, pick_device
from visionloop.engine.errors import FINISHED, USER_ERROR, UserError
from visionloop.engine.evaluation.samples import images_due
from visionloop.engine.run import RunSpec
from visionloop.engine.seeding import seed_host
from visionloop.engine.system.profiling import peak_gib
from visionloop.engine.system.signals import StopFlag
from visionloop.engine.task import Task
from visionloop.engine.train import resolve_settings
from visionloop.engine.types import JsonObject, SampleDataset

CALIBRATION_SECONDS = 3.0  # for the steps that are measured, and as much for the evaluation
# share by which the first loss may differ from that of an untrained model
MAX_LOSS_DEVIATION = 0.5
MOST_ALIKE = 5  # problems with the same text that are printed
GIB = 2**30


@dataclass(frozen=True)
class Estimate:
    """Cost of a run on one process, from a few of its steps.

    resolved: settings of the run; first_loss: of the first step; memory_gib: the peak of a training
    process without its workers, on CUDA of the device; disk_gib: largest size of the run's folder;
    seconds: duration of the whole command.
    """

    resolved: ResolvedSettings
    first_loss: float
    memory_gib: float
    disk_gib: float
    seconds: float

    def as_json(self) -> JsonObject:
        return {
            "memory_gib": round(self.memory_gib, 3),
            "disk_gib": round(self.disk_gib, 4),
            "seconds": round(self.seconds, 1),
        }


def estimate_run(
    task: Task,
    raw_settings: Settings,
    train_set: SampleDataset,
    val_set: SampleDataset,
    *,
    startup_seconds: float,
) -> Estimate:
    """Estimate a run on one process from steps, an evaluation and a checkpoint that are deleted.

    raw_settings: of the command line; without a length, one epoch is estimated; startup_seconds:
    from the start of the command until it has its data. Raises UserError for what training would
    refuse.
    """
    if raw_settings["workers"].value != 0:
        # before the GPU is used, beside whose threads a worker must not be forked
        start_fork_server()
    world = join_world(raw_settings["device"].value)
    raw_settings = resolve_precision(task, raw_settings, world, {})
    measured = {}
    if raw_settings["micro_batch"].value == AUTO:
        if raw_settings["shard"].value != AUTO:  # which divides nothing on one process
            refuse_sharding(raw_settings["shard"].value)
        # measuring it may take minutes: this is a size that most machines have memory for
        measured["micro_batch"] = min(raw_settings["batch_size"].value, DEFAULT_MICRO_BATCH)
    if all(raw_settings[name].value is None for name in LENGTHS):
        raw_settings = raw_settings | {"epochs": Setting(1.0, SettingSource.DEFAULT)}

    def resolved(steps: int | None = None) -> ResolvedSettings:
        length = {"steps": steps} if steps else {}
        device = world.device.type
        return resolve_run(task, raw_settings, train_set, device, {}, measured | length)

    def run_calibration(steps: int, train_images: int, val_images: int) -> CalibrationRun:
        settings = resolved(steps)
        batch_size = settings.train_config.batch_size
        with tempfile.TemporaryDirectory() as scratch:
            spec = RunSpec(
                task=task,
                config=settings.train_config,
                world=world,
                train_set=part_of(train_set, max(train_images, batch_size)),
                val_set=part_of(val_set, val_images),
                output=Path(scratch),
                immutable_settings=settings.immutable_settings,
            ).with_settings(settings)
            try:
                calibration = calibrate(spec, StopFlag())
            except RuntimeError as error:
                raise nondeterministic_operation(error) or error from None
        assert calibration is not None, "a calibration run that was stopped"
        return calibration

    settings = resolved()
    config = settings.train_config
    rough = run_calibration(ROUGH_STEPS, len(train_set), config.eval_batch_size)
    steps, train_images, val_images = plan_calibration(
        rough, CALIBRATION_SECONDS, config.batch_size, len(val_set)
    )
    if is_precise(rough, steps, val_images):  # a model whose steps take long
        calibration = rough
    else:
        calibration = run_calibration(steps, train_images, val_images)
    figures, budget = figures_of(calibration, len(val_set)), raw_settings["budget"].value
    if budget:
        available = budget - startup_seconds
        steps = steps_within(
            lambda steps: resolved(steps).train_config, figures, len(train_set), available
        )
        settings, seconds = resolved(max(1, steps)), float(budget)
    else:
        seconds = startup_seconds + run_seconds(config, figures, len(train_set)) + LEAVING_SECONDS
    memory = peak_gib(world.device)
    if world.device.type != "cuda":
        memory += uncached_bytes(train_set) / GIB
    disk = folder_bytes(settings.train_config, calibration.sizes, seconds) / GIB
    assert rough.first_loss is not None
    return Estimate(settings, rough.first_loss, memory, disk, seconds)


def uncached_bytes(dataset: SampleDataset) -> int:
    """Return the bytes of decoded images that a run will cache and a calibration run has not."""
    if not hasattr(dataset, "cached_bytes"):
        return 0
    now, in_the_end = dataset.cached_bytes()
    return int(in_the_end - now)


def folder_bytes(config: TrainConfig, sizes: dict[str, int], seconds: float) -> float:
    """Return the largest size of the folder of a run. sizes: of a CalibrationRun.

    While a checkpoint is written, the newest --keep are still there, the best one often among them,
    and best/ may be there twice.
    """
    evaluations = num_events(config.steps, config.eval_every)
    if isinstance(config.save_every, Seconds):
        saves = seconds // config.save_every
    else:
        saves = num_events(config.steps, config.save_every)
    kept = config.steps // config.keep_every if config.keep_every else 0
    folders = min(max(evaluations, saves), config.keep + 1) + kept
    every = config.eval_every or config.steps
    with_images = sum(
        images_due(step, config.eval_every, config.steps, config.batch_size)
        for step in range(every, config.steps + 1, every)
    )
    logs = sizes["once"] + sizes["evaluation"] * with_images
    return folders * sizes["checkpoint"] + min(2, evaluations) * sizes["best"] + logs


def run_check(
    task_class: type[Task],
    flags: JsonObject,
    *,
    config_file: str | None,
    as_json: bool,
    sheet: str | None = None,
    has_estimate: bool = True,
    began: float | None = None,
) -> int:
    """Print every error and warning at once, then the cost of the run. Returns the exit code.

    It is 2 with an error. sheet: a .png file to write training images to; has_estimate: False
    without steps that are measured; began: start of the command, on the clock of time.monotonic().
    With --overfit N, training on N images takes minutes.
    """
    startup_seconds = time.monotonic() - began if began else 0.0
    print_line = partial(print, file=sys.stderr if as_json else sys.stdout, flush=True)
    settings = resolve_settings(task_class, flags, config_file)
    task = task_class(build(task_class.config_class, settings))
    if sheet:
        require_png(sheet)
    if settings["overfit"].value:
        require_goal(task)
        has_estimate = True  # it resolves the settings that the training takes
    report = task.check_data()
    lines = report.pop("lines", [])
    estimate = {"memory_gib": None, "disk_gib": None, "seconds": None}
    if not report["errors"]:  # a step on data with known errors would only repeat them
        try:
            result, more = check_run(
                task, settings, report, sheet, startup_seconds if has_estimate else None
            )
            lines += more
            if result is not None:
                estimate = result.as_json()
            if settings["overfit"].value:
                assert result is not None, "an estimate is left out with --overfit"
                config = result.resolved.train_config
                device = pick_device(config.device)
                success, why = run_overfit(task, config, device=device, print_line=print_line)
                lines += [success] if success else []
                report["errors"] += [{"path": settings["data"].value, "why": why}] if why else []
        except UserError as error:
            if error.details:
                print(error.details, file=sys.stderr)
            path = error.file or settings["data"].value
            why = str(error).removeprefix(f"{path}: ")
            report["errors"].append({"path": path, "why": why})
    for line in problem_lines(report):
        print(line, file=sys.stderr)
    if as_json:
        print(json.dumps(report | {"estimate": estimate}))
    else:
        classes = [f"{name}: {count}" for name, count in report["classes"].items()]
        totals = f"{len(report['errors'])} error(s), {len(report['warnings'])} warning(s)"
        print("\n".join([*classes, *lines, totals]))
    return USER_ERROR if report["errors"] else FINISHED


def problem_lines(report: JsonObject) -> Iterator[str]:
    """Yield a line for each error, then for each warning; of many that are alike for the first."""
    for kind in ("errors", "warnings"):
        paths_of: dict[str, list[str]] = {}
        for row in report[kind]:
            paths_of.setdefault(row["why"], []).append(row["path"])
        for why, paths in paths_of.items():
            yield from (f"{kind[:-1]}: {path}: {why}" for path in paths[:MOST_ALIKE])
            if (more := len(paths) - MOST_ALIKE) > 0:
                yield f"{kind[:-1]}: {more} more like this, which --json lists: {why}"


def check_run(
    task: Task,
    raw_settings: Settings,
    report: JsonObject,
    sheet: str | None,
    startup_seconds: float | None,
) -> tuple[Estimate | None, list[str]]:
    """Estimate the run, check its first loss and resolve the task's settings.

    Returns (estimate, lines for people). report: of `Task.check_data`, to which warnings are added;
    startup_seconds: of this process until it was ready to read the data; None: write the sheet
    only, without an estimate.
    """
    began = time.monotonic()
    seed_host(raw_settings["seed"].value)
    train_set, val_set = task.build_datasets()
    reading_seconds = time.monotonic() - began
    lines = [f"{len(train_set)} training and {len(val_set)} validation images"]
    if line := verify_augmentation(train_set, None, seed=raw_settings["seed"].value, workers=0):
        lines.append(line)
    if sheet:
        write_sheet(task, train_set, build(TrainConfig, raw_settings), sheet)
        lines.append(f"written: {sheet}")
    if startup_seconds is None:
        return None, lines
    startup_seconds += reading_seconds
    config, device = build(TrainConfig, raw_settings), pick_device(raw_settings["device"].value)
    if config.shard == "none" and (why := sharding_proposal(task, config, device)):
        report["warnings"].append({"path": task.config.model, "why": why})
    estimate = estimate_run(task, raw_settings, train_set, val_set, startup_seconds=startup_seconds)
    task.config = estimate.resolved.task_config  # with what the length of the run decides
    expected, first = task.expected_first_loss(), estimate.first_loss
    if expected is not None:
        lines.append(f"loss at initialization {first:.3f}, expected {expected:.3f}")
        if not abs(first - expected) <= MAX_LOSS_DEVIATION * expected:
            why = f"the loss at initialization is {first:.3f}, far from {expected:.3f}, that of an "
            why += "untrained model"
            report["warnings"].append({"path": task.config.model, "why": why})
    if line := precision_line(estimate.resolved.settings["precision"]):
        lines.append(line)
    has_length = any(raw_settings[name].value for name in LENGTHS)
    length = "steps" if has_length else "steps (one epoch, because no length is given)"
    steps, cost = estimate.resolved.train_config.steps, estimate.as_json()
    lines.append(
        f"{steps} {length} on one process: about {duration_text(cost['seconds'])}, "
        f"{cost['memory_gib']} GiB of memory, {cost['disk_gib']} GiB on disk"
    )
    if (shard := estimate.resolved.train_config.shard) != "none":
        where = " of a node" if shard == "node" else ""
        lines.append(
            f"--shard {shard}: this one process held all weights, gradients, moments and EMA; of N "
            f"processes{where} each holds 1/N of them"
        )
    return estimate, lines
