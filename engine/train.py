"""`train`: from settings to a finished run, in this process. What the command line and a notebook both call."""

import contextlib
import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from visionloop.engine.autotune.fit import autotune_settings, resolve_budget
from visionloop.engine.budget import OVER, read_budget
from visionloop.engine.checkpoints.files import replace_file
from visionloop.engine.checkpoints.folder import read_state
from visionloop.engine.checkpoints.lock import RunLock
from visionloop.engine.checkpoints.resume import resume_from
from visionloop.engine.checkpoints.start import check_output, check_unchanged, find_start
from visionloop.engine.checkpoints.writer import cannot_write, is_disk_error
from visionloop.engine.config.options import build, resolve
from visionloop.engine.config.resolve import given_length, output_folder, settle
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.data.forkserver import start_fork_server
from visionloop.engine.data.subsets import Subset, evenly_spaced
from visionloop.engine.distributed import (
    broadcast_object,
    join_world,
    leave_world,
    lost_process,
    lost_why,
)
from visionloop.engine.errors import LostProcess, UserError
from visionloop.engine.logging.messages import log_startup, summary
from visionloop.engine.logging.run_files import stored_settings, write_run_files
from visionloop.engine.logging.status_file import failed_at_start, stopped_at_start
from visionloop.engine.loop import fit
from visionloop.engine.prepare import prepare_run, set_process
from visionloop.engine.system.signals import StopFlag


@dataclass(frozen=True)
class Result:
    """How a run ended. state: finished or stopped; scores: of the last evaluation; best: {"step", "metric", "score", "scores"} or None."""

    state: str
    step: int
    scores: dict
    best: dict | None
    output: Path


def resolve_settings(task_class, flags, config_file=None):
    """{name: Setting} of a training command; what depends on the data is still None."""
    return resolve(
        (task_class.config_class, TrainConfig),
        flags,
        recipe=task_class.recipe,
        config_file=config_file,
    )


def train(task_class, *, config_file=None, stop=None, began=None, **flags):
    """Train, or go on with, the run that these settings name. All ranks. Returns a Result; raises UserError for a mistake in the input.

    flags: any setting of the task's config class and of TrainConfig, e.g. data="images",
    model="tiny", epochs=10; began: when --budget began to run, by time.monotonic().
    """
    began, stop = time.monotonic() if began is None else began, stop or StopFlag()
    given = resolve_settings(task_class, flags, config_file)
    output = output_folder(given, task_class.name)
    if given["budget"].value is not None:
        given_length(given)  # before the data is read, which may take long
    if given["workers"].value != 0:
        # before the process group, whose threads a worker must not be forked beside
        start_fork_server()
    lock = None
    try:
        world = join_world(given["device"].value, given["process_timeout"].value)
        say = partial(print, flush=True) if world.is_main else lambda *_: None
        if world.is_main:
            check_output(output)
            lock = RunLock(output)
        known = (
            (
                find_start(output, given["resume"].value, say),
                stored_settings(output),
                read_budget(output),
            )
            if world.is_main
            else None
        )
        start, stored, record = broadcast_object(world, known)
        stored = stored if start else {}
        task, train_set, val, settings, immutable_settings = build_data(
            task_class, given, world, stored
        )
        state = read_state(start) if start else None
        budget = resolve_budget(
            given, settings, immutable_settings, state, record, output=output, began=began
        )
        if state:
            check_unchanged(state["settings"], immutable_settings, start)
            over = state["step"] == settings["steps"].value or state["out_of_patience"]
            if (over and state["evaluated_at"] == state["step"]) or (
                budget and budget.ended_at == state["step"]
            ):
                say(f"{output}: this run is finished ({state['step']} steps); nothing to do")
                return Result("finished", state["step"], state["scores"], state["best"], output)
        found = autotune_settings(
            task,
            given,
            world,
            train_set,
            val,
            stored,
            budget=budget,
            output=output,
            stop=stop,
            say=say,
        )
        if found is None:
            say("stopped before the first step; the same command begins again")
            if world.is_main:
                replace_file(output / "status.json", json.dumps(stopped_at_start()) + "\n")
            return Result("stopped", 0, {}, None, output)
        if found:
            settings, immutable_settings = settle(task, given, world, train_set, stored, found)
        if world.is_main:
            write_run_files(output, settings, immutable_settings, val)
        config, budget = build(TrainConfig, settings), budget if world.is_main else None
        return run_training(
            task,
            config,
            world,
            train_set,
            val,
            output=output,
            immutable_settings=immutable_settings,
            start=start,
            stop=stop,
            budget=budget,
        )
    except Exception as error:
        told = explained(error, output)
        if lock and isinstance(told, UserError) and not (output / "status.json").exists():
            with contextlib.suppress(OSError):
                if given["output"].value or given["run_name"].value:
                    # a platform that watches the folder learns why nothing began; what an earlier
                    # start wrote stays
                    replace_file(output / "status.json", json.dumps(failed_at_start(told)) + "\n")
                else:
                    # nobody asked for this folder: its name is made of the settings that were wrong
                    lock.discard()
        raise told from (None if told is error else error)
    finally:
        if lock:
            lock.release()
        leave_world()


def run_training(
    task, config, world, train_set, val, *, output, immutable_settings, start, stop, budget=None
):
    """Prepare, resume from the checkpoint folder `start` (or None), train, save. All ranks. Returns a Result.

    config: a TrainConfig with nothing left to resolve; immutable_settings: what must not change when the run
    continues; budget: a Budget on the main rank of a run that has one.
    """
    set_process(config)
    state = read_state(start) if start else None
    log_startup(task, config, world, train_set, val, state)
    stop.install()
    run = None
    try:
        run = prepare_run(
            task, config, world, train_set, val, output=output, settings=immutable_settings,
            start_step=state["step"] if state else 0, evaluated_at=state["evaluated_at"] if state else 0, stop=stop,
        )  # fmt: skip
        run.budget = budget
        if start:
            resume_from(run, task, start)
        if run.world.is_main:
            run.log.budget = budget
            run.log.status.update(best=run.best)
        step = fit(run, task)
        return end_run(run, task, step)
    except Exception as error:
        told = explained(error, output)
        if run is not None and run.log.status is not None and error is not run.failure:
            known = (
                told
                if isinstance(told, UserError)
                else UserError(f"{type(error).__name__}: {error}", code="defect")
            )
            run.log.status.update(state="failed", error=known.as_dict())
        raise told from (None if told is error else error)
    finally:
        if run is not None:
            with contextlib.suppress(
                Exception
            ):  # what went wrong is on its way; the thread is only not left alone
                run.writer.wait()
            run.data.close()
            run.log.close()
        stop.uninstall()


def explained(error, output):
    """The one line for what the machine is to blame for, as an error to raise; any other error as it is."""
    if is_disk_error(error, output):
        return cannot_write(output, error)
    if lost_process(error):
        why = f"another process of this run is gone or does not answer ({lost_why(error)})"
        return LostProcess(
            f"{why}; the same command goes on from the newest checkpoint", code="lost_process"
        )
    return error


def build_data(task_class, settings, world, stored):
    """(task, train, val, resolved settings, settings that must not change): what needs the data to be known."""
    task = task_class(build(task_class.config_class, settings))
    train_set, val = task.build_datasets()
    for part, name in ((train_set, "training"), (val, "validation")):
        if not len(part):
            raise UserError(
                f"--data {task.config.data}: no {name} samples", field="data", file=task.config.data
            )
    overfit = settings["overfit"].value
    if overfit:
        chosen = evenly_spaced(len(train_set), overfit)
        train_set, val = Subset(train_set, chosen), Subset(task.build_eval_dataset("train"), chosen)
    return task, train_set, val, *settle(task, settings, world, train_set, stored)


def end_run(run, task, step):
    """Close the books. All ranks. Raises the run's failure, if any, after everything is saved."""
    run.profiler.finish()
    state = "failed" if run.failure else "stopped" if run.stopping else "finished"
    if run.budget:
        run.budget.ended_at = step if run.left == OVER and state == "finished" else None
        run.budget.write()
    run.log.time_breakdown(step, run.clock.time_breakdown())
    if run.world.is_main:
        run.log.status.update(
            state=state,
            step=step,
            best=run.best,
            error=run.failure.as_dict() if run.failure else None,
            eta=None,
        )
        if state == "finished":
            run.log.result(step, run.settings, run.scores)
    if run.failure:
        raise run.failure
    if state == "stopped":
        run.log.say(f"stopped and saved after step {step}; the same command goes on from there")
    elif run.best:
        if run.left == OVER and step < run.config.steps:
            run.log.say(f"the budget ended the run at step {step} of {run.config.steps}")
        run.log.say_classes()
        for line in summary(run, task, step) if run.world.is_main else ():
            run.log.say(line)
    return Result(state, step, run.scores, run.best, run.output)
