"""`train`: from settings to a finished run, in this process, for the command line and notebooks."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from visionloop.engine.augmentation import require_same_augmentation
from visionloop.engine.autotune.fit import autotune_settings, resolve_budget
from visionloop.engine.autotune.precision import precision_line, resolve_precision
from visionloop.engine.beginning import find_beginning
from visionloop.engine.branches.source import inherited_settings
from visionloop.engine.branches.take_over import state_at_branch, take_over, write_beginning
from visionloop.engine.budget import Budget, TimeLeft
from visionloop.engine.checkpoints.dataset_record import require_same_data, write_dataset_record
from visionloop.engine.checkpoints.files import replace_file
from visionloop.engine.checkpoints.folder import read_state
from visionloop.engine.checkpoints.lock import RunLock
from visionloop.engine.checkpoints.resume import resume_from
from visionloop.engine.checkpoints.start import check_output, check_unchanged
from visionloop.engine.checkpoints.writer import cannot_write, is_disk_error
from visionloop.engine.config.branch_point import START, DataOrigin
from visionloop.engine.config.options import Settings, build, fields_of, resolve
from visionloop.engine.config.resolve import (
    ResolvedSettings,
    given_length,
    output_folder,
    resolve_run,
)
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.data.augmentation import verify_augmentation
from visionloop.engine.data.forkserver import start_fork_server
from visionloop.engine.data.subsets import Subset, evenly_spaced
from visionloop.engine.determinism import deterministic_algorithms, nondeterministic_operation
from visionloop.engine.distributed import (
    World,
    broadcast_object,
    is_lost_process,
    join_world,
    leave_world,
    lost_process_reason,
)
from visionloop.engine.errors import LostProcess, UserError
from visionloop.engine.logging.messages import (
    final_summary,
    log_startup_summary,
    nondeterministic_line,
)
from visionloop.engine.logging.run_files import write_augmentation, write_run_files
from visionloop.engine.logging.status_file import failed_at_start, stopped_at_start
from visionloop.engine.loop import fit
from visionloop.engine.out_of_memory import SMALLER, read_halvings
from visionloop.engine.prepare import prepare_run, set_process
from visionloop.engine.run import Run, RunSpec, TrainState
from visionloop.engine.system.memory import is_out_of_memory
from visionloop.engine.system.signals import StopFlag
from visionloop.engine.task import Task
from visionloop.engine.types import JsonObject, SampleDataset, Scores


@dataclass(frozen=True)
class Result:
    """The end of a run.

    Attributes:
        state: "finished" or "stopped".
        step: optimizer steps done.
        scores: of the last evaluation.
        best: {"step", "metric", "score", "scores"} of the best evaluation, or None.
        output: the folder of the run.
    """

    state: str
    step: int
    scores: Scores
    best: JsonObject | None
    output: Path


def resolve_settings(
    task_class: type[Task], flags: Mapping[str, object], config_file: str | Path | None = None
) -> Settings:
    """Return {name: Setting} of a command line; what depends on the data is still None.

    A branch has the settings of its source where the command line gives no others.
    """
    classes = (task_class.config_class, TrainConfig)
    resolve_with = partial(resolve, classes, recipe=task_class.recipe, config_file=config_file)
    settings = resolve_with(flags)
    if settings["branch"].value is None and settings["extend"].value is None:
        return settings
    flags, base = inherited_settings(settings, flags, fields_of(*classes), task_class.name)
    return resolve_with(flags, base=base)


def train(
    task_class: type[Task],
    *,
    config_file: str | Path | None = None,
    stop: StopFlag | None = None,
    began: float | None = None,
    **flags: object,
) -> Result:
    """Start the run of these settings, or resume it if its folder exists. All ranks.

    Args:
        task_class: the task.
        config_file: json file of settings, as settings.json of another run.
        stop: a flag that stops the run after the step in flight, besides SIGTERM and SIGINT.
        began: when --budget began, by time.monotonic() (default: now).
        flags: settings of the task's config class and of TrainConfig, e.g. data="images",
            model="tiny", epochs=10.

    Raises:
        UserError: a mistake in the input, or a failure that a user can fix.
    """
    began = time.monotonic() if began is None else began
    stop = stop or StopFlag()
    raw_settings = resolve_settings(task_class, flags, config_file)
    output = output_folder(raw_settings, task_class.name)
    if raw_settings["budget"].value is not None:
        given_length(raw_settings)  # before the data is read, which may take long
    if raw_settings["workers"].value != 0:
        # before the process group: workers must not be forked while its threads run
        start_fork_server()
    lock = None
    try:
        # around the process group too, which reads the switches once
        with deterministic_algorithms(raw_settings["deterministic"].value):
            world = join_world(raw_settings["device"].value, raw_settings["process_timeout"].value)
            if world.is_main:
                check_output(output)
                lock = RunLock(output)
            return start_or_resume(task_class, raw_settings, world, output, stop=stop, began=began)
    except Exception as error:
        cause = translate_error(error, output)
        if lock and isinstance(cause, UserError) and not (output / "status.json").exists():
            with contextlib.suppress(OSError):
                if raw_settings["output"].value or raw_settings["run_name"].value:
                    # a platform that watches the folder reads here why the run did not start;
                    # files of an earlier start are kept
                    replace_file(output / "status.json", json.dumps(failed_at_start(cause)) + "\n")
                else:
                    # no folder was requested: its name is made of the settings that were wrong
                    lock.discard()
        raise cause from (None if cause is error else error)
    finally:
        if lock:
            lock.release()
        leave_world(failed=sys.exc_info()[0] is not None)


def start_or_resume(
    task_class: type[Task],
    raw_settings: Settings,
    world: World,
    output: Path,
    *,
    stop: StopFlag,
    began: float,
) -> Result:
    """Find the checkpoint to start from, resolve and measure what is missing, then train.

    All ranks; see `train`.
    """
    report: Callable[[str], object] = partial(print, flush=True) if world.is_main else print_nothing
    begin = find_beginning(raw_settings, world, output, report)
    start, state, stored, branch = begin.checkpoint, begin.state, begin.stored, begin.branch
    if branch and state:
        raw_settings = branch.lengthened(raw_settings, state)
    task, train_set, val_set, resolved = build_data(
        task_class, raw_settings, world, stored, begin.data_origin
    )
    raw_settings = raw_settings | {"precision": resolved.settings["precision"]}
    budget = resolve_budget(raw_settings, resolved, state, begin.budget, output=output, began=began)
    if branch and state:
        branch.check_classes(train_set, task.config.data)
        branch = branch.changes_to(state, resolved.immutable_settings, task.config.data)
    elif start and state:
        require_same_data(
            state["settings"].get("data_fingerprint"),
            resolved.immutable_settings["data_fingerprint"],
            train_set,
            data=task.config.data,
            run=start.parent.parent,
            checkpoint=start,
        )
        require_same_augmentation(
            state["settings"], resolved.immutable_settings, task.config.augment, start
        )
        check_unchanged(state["settings"], resolved.immutable_settings, start)
        if is_finished(state, resolved.settings["steps"].value, budget):
            report(f"{output}: this run is finished ({state['step']} steps); nothing to do")
            return Result("finished", state["step"], state["scores"], state["best"], output)
    if line := precision_line(raw_settings["precision"], resumed=state is not None):
        report(line)
    config = resolved.train_config
    if line := verify_augmentation(train_set, output, seed=config.seed, workers=config.workers):
        report(line)

    def resolve_measured(measured: Mapping[str, object]) -> ResolvedSettings:
        origin = begin.data_origin(train_set, raw_settings)
        device = world.device.type
        return resolve_run(task, raw_settings, train_set, device, stored, measured, origin)

    spec = RunSpec(
        task=task,
        config=resolved.train_config,
        world=world,
        train_set=train_set,
        val_set=val_set,
        output=output,
        immutable_settings=resolved.immutable_settings,
        branch=branch,
    )
    measured = autotune_settings(
        spec, raw_settings, stored, resolve_measured, budget=budget, stop=stop, report=report
    )
    if measured is None:
        report("stopped before the first step; the same command starts again")
        if world.is_main:
            replace_file(output / "status.json", json.dumps(stopped_at_start()) + "\n")
        return Result("stopped", 0, {}, None, output)
    if measured:
        resolved = resolve_measured(measured)
        task.config = resolved.task_config
        spec = replace(
            spec, config=resolved.train_config, immutable_settings=resolved.immutable_settings
        )
    if world.is_main:
        immutable = resolved.immutable_settings
        write_run_files(output, resolved.settings, immutable, val_set, world.device)
        write_dataset_record(output, train_set, task.config.data, immutable["data_fingerprint"])
        write_augmentation(output, train_set)
    return run_training(spec, start=start, stop=stop, budget=budget if world.is_main else None)


def print_nothing(_message: str) -> None:
    """Replace `print` on ranks other than the main one."""


def is_finished(state: JsonObject, steps: int, budget: Budget | None) -> bool:
    """Return True when a checkpoint is the end of a run.

    Args:
        state: state.json of the checkpoint.
        steps: steps of the whole run.
        budget: of the run, None without one.
    """
    if budget and budget.ended_at == state["step"]:
        return True
    is_last = state["step"] == steps or state["out_of_patience"]
    return is_last and state["evaluated_at"] == state["step"]


def build_data(
    task_class: type[Task],
    raw_settings: Settings,
    world: World,
    stored: JsonObject,
    origin_of: Callable[[SampleDataset, Settings], DataOrigin] | None = None,
) -> tuple[Task, SampleDataset, SampleDataset, ResolvedSettings]:
    """Build the task and its datasets, and resolve the settings that depend on the data.

    Args:
        task_class: the task.
        raw_settings: of the command line.
        world: the processes of the run.
        stored: the run's settings.json, {} for a new run.
        origin_of: returns where the samples of a run begin that is no new one.

    Returns:
        (task with its settings resolved, training set, validation set, resolved settings).
    """
    task = task_class(build(task_class.config_class, raw_settings))
    train_set, val_set = task.build_datasets()
    for dataset, name in ((train_set, "training"), (val_set, "validation")):
        if not len(dataset):
            data = task.config.data
            raise UserError(f"--data {data}: no {name} samples", field="data", file=data)
    overfit = raw_settings["overfit"].value
    if overfit:
        chosen = evenly_spaced(len(train_set), overfit)
        train_set = Subset(train_set, chosen)
        val_set = Subset(task.build_eval_dataset("train"), chosen)
    settings = resolve_precision(task, raw_settings, world, stored)
    origin, device = START, world.device.type
    if origin_of:
        origin = origin_of(train_set, settings)
    resolved = resolve_run(task, settings, train_set, device, stored, origin=origin)
    task.config = resolved.task_config
    return task, train_set, val_set, resolved


def run_training(
    spec: RunSpec, *, start: Path | None, stop: StopFlag, budget: Budget | None = None
) -> Result:
    """Prepare a run, resume it from a checkpoint, train and save. All ranks.

    Args:
        spec: the inputs of the run.
        start: the checkpoint folder to resume from, or None.
        stop: the flag that stops the run; signals are caught while it trains.
        budget: of a run with --budget, on the main rank.
    """
    task, output, branch = spec.task, spec.output, spec.branch
    if branch and spec.world.is_main:
        write_beginning(spec)
    halvings = read_halvings(output) if spec.world.is_main else ()
    spec = replace(spec, halvings=broadcast_object(spec.world, halvings))
    set_process(spec.config)
    content = read_state(start) if start else None
    log_startup_summary(spec, content)
    stop.install()
    run = None
    try:
        state = TrainState.from_json(content) if content else TrainState()
        state = state_at_branch(spec) if branch else state
        run = prepare_run(spec, state=state, stop=stop, budget=budget)
        operations = task.nondeterministic_ops(run.module) if spec.config.deterministic else ()
        if operations:
            run.log.info(nondeterministic_line(operations))
        if branch:
            take_over(run, task, spec)
        elif start:
            resume_from(run, task, start)
        run.log.update_status(best=state.best)
        fit(run, task)
        return end_run(run, task)
    except Exception as error:
        cause = translate_error(error, output)
        if run is not None and error is not run.ending.failure:
            reported = cause
            if not isinstance(reported, UserError):
                reported = UserError(f"{type(error).__name__}: {error}", code="defect")
            run.log.update_status(state="failed", error=reported.as_dict())
        raise cause from (None if cause is error else error)
    finally:
        if run is not None:
            # the error that matters is being raised already; only wait for the thread
            with contextlib.suppress(Exception):
                run.writer.cancel()
                run.writer.wait()
            run.data.close()
            run.log.close()
        stop.uninstall()


def translate_error(error: Exception, output: Path) -> Exception:
    """Return a UserError where a user can fix the error; any other error unchanged."""
    if is_disk_error(error, output):
        return cannot_write(output, error)
    if is_lost_process(error):
        reason = lost_process_reason(error)
        return LostProcess(
            f"another process of this run is gone or does not respond ({reason}); "
            "the same command resumes from the newest checkpoint",
            code="lost_process",
        )
    if is_out_of_memory(error):
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return UserError(f"out of memory ({reason}); {SMALLER}", code="no_memory", hint=SMALLER)
    return nondeterministic_operation(error) or error


def end_run(run: Run, task: Task) -> Result:
    """Log the end of a run. All ranks. Raises the run's failure, if there is one."""
    run.profiler.finish()
    state, ending = run.state, run.ending
    status = "failed" if ending.failure else "stopped" if ending.stopping else "finished"
    is_over = ending.time_left is TimeLeft.OVER
    if run.budget:
        run.budget.ended_at = state.step if is_over and status == "finished" else None
        run.budget.write()
    run.log.time_breakdown(state.step, run.clock.time_breakdown())
    run.log.update_status(
        state=status,
        step=state.step,
        best=state.best,
        error=ending.failure.as_dict() if ending.failure else None,
        eta=None,
    )
    if status == "finished":
        run.log.result(state.step, run.immutable_settings, state.scores)
    if ending.failure:
        raise ending.failure
    if status == "stopped":
        run.log.info(f"stopped and saved after step {state.step}; the same command resumes there")
    elif state.best:
        if is_over and state.step < run.config.steps:
            run.log.info(f"the budget ended the run at step {state.step} of {run.config.steps}")
        for line in final_summary(run, task) if run.world.is_main else ():
            run.log.info(line)
    return Result(status, state.step, state.scores, state.best, run.output)
