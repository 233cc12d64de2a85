"""`train`: from settings to a finished run, in this process. What the command line and a notebook both call."""

import contextlib
import json
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from visionloop.engine.announcement import announce
from visionloop.engine.checkpoint import RunLock, read_state, replace_file
from visionloop.engine.config import build, fields_of, resolve
from visionloop.engine.continuing import check_output, check_unchanged, find_start, fixed_settings, output_folder, resolve_auto
from visionloop.engine.distributed import broadcast_object, join_world, leave_world, lost_process
from visionloop.engine.errors import LostProcess, UserError
from visionloop.engine.loader_server import start_loader_server
from visionloop.engine.loop import fit
from visionloop.engine.prepare import prepare_run, set_process
from visionloop.engine.run import resume_from
from visionloop.engine.runfiles import stored_settings, write_run_files
from visionloop.engine.saver import cannot_write, is_disk_error
from visionloop.engine.settings import TrainConfig
from visionloop.engine.status import failed_at_start
from visionloop.engine.stop import StopFlag


@dataclass(frozen=True)
class Result:
    """How a run ended. state: finished or stopped; scores: of the last evaluation; best: {"step", "metric", "score", "scores"} or None."""

    state: str
    step: int
    scores: dict
    best: dict | None
    output: Path


class Subset(torch.utils.data.Dataset):
    """Some samples of a dataset, for --overfit."""

    def __init__(self, dataset, indices):
        self.dataset, self.indices = dataset, indices

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, index):
        return self.dataset[int(self.indices[index])]

    def name(self, index):
        return self.dataset.name(int(self.indices[index]))

    def fingerprint(self):
        return f"{self.dataset.fingerprint()}/{len(self)}"


def spread_evenly(num_samples, wanted):
    """Indices of at most so many samples, int64 [n]; spread, because an index is often sorted by class."""
    return np.unique(np.linspace(0, num_samples - 1, min(wanted, num_samples)).round().astype(int))


def resolve_settings(task_class, flags, config_file=None):
    """{name: Setting} of a training command; what depends on the data is still None."""
    return resolve((task_class.config_class, TrainConfig), flags, recipe=task_class.recipe, config_file=config_file)


def train(task_class, *, config_file=None, stop=None, **flags):
    """Train, or go on with, the run that these settings name. All ranks. Returns a Result; raises UserError for a mistake in the input.

    flags: any setting of the task's config class and of TrainConfig, e.g. data="pictures", model="tiny", epochs=10.
    """
    settings = resolve_settings(task_class, flags, config_file)
    output = output_folder(settings, task_class.name)
    if settings["workers"].value != 0:
        start_loader_server()  # before the process group, whose threads a worker must not be forked beside
    lock = None
    try:
        world = join_world(settings["device"].value, settings["process_timeout"].value)
        say = partial(print, flush=True) if world.is_main else lambda *_: None
        if world.is_main:
            check_output(output)
            lock = RunLock(output)
        found = (find_start(output, settings["resume"].value, say), stored_settings(output)) if world.is_main else None
        start, stored = broadcast_object(world, found)
        task, train_set, val, settings, facts = build_data(task_class, settings, world, stored if start else {})
        config = build(TrainConfig, settings)
        if start:
            state = read_state(start)
            check_unchanged(state["settings"], facts, start)
            if state["evaluated_at"] == state["step"] and (state["step"] == config.steps or state["out_of_patience"]):
                say(f"{output}: this run is finished ({state['step']} steps); nothing to do")
                return Result("finished", state["step"], state["scores"], state["best"], output)
        if world.is_main:
            write_run_files(output, settings, facts, val)
        return run_training(task, config, world, train_set, val, output=output, facts=facts, start=start, stop=stop or StopFlag())
    except Exception as error:
        told = explained(error, output)
        # a platform that watches the folder learns why nothing began; what an earlier start wrote stays
        if lock and isinstance(told, UserError) and not (output / "status.json").exists():
            with contextlib.suppress(OSError):
                replace_file(output / "status.json", json.dumps(failed_at_start(told)) + "\n")
        raise told from (None if told is error else error)
    finally:
        if lock:
            lock.release()
        leave_world()


def run_training(task, config, world, train_set, val, *, output, facts, start, stop):
    """Prepare, resume from the checkpoint folder `start` (or None), train, save. All ranks. Returns a Result.

    config: a TrainConfig with nothing left to resolve; facts: what must not change when the run continues.
    """
    set_process(config)
    state = read_state(start) if start else None
    announce(task, config, world, train_set, val, state)
    stop.install()
    run = None
    try:
        run = prepare_run(
            task, config, world, train_set, val, output=output, settings=facts,
            start_step=state["step"] if state else 0, evaluated_at=state["evaluated_at"] if state else 0, stop=stop,
        )  # fmt: skip
        if start:
            resume_from(run, task, start)
        step = fit(run, task)
        return end_run(run, step)
    except Exception as error:
        told = explained(error, output)
        if run is not None and run.log.status is not None and error is not run.failure:
            known = told if isinstance(told, UserError) else UserError(f"{type(error).__name__}: {error}", code="defect")
            run.log.status.update(state="failed", error=known.as_dict())
        raise told from (None if told is error else error)
    finally:
        if run is not None:
            with contextlib.suppress(Exception):  # what went wrong is on its way; the thread is only not left alone
                run.writer.wait()
            run.data.close()
            run.log.close()
        stop.uninstall()


def explained(error, output):
    """The one line for what the machine is to blame for, as an error to raise; any other error as it is."""
    if is_disk_error(error, output):
        return cannot_write(output, error)
    if lost_process(error):
        first = re.sub(r"^\[[^]]*\] *", "", str(error).splitlines()[0]).split(". ")[0]  # without gloo's file name and advice
        why = f"another process of this run is gone or does not answer ({first}); the same command goes on from the newest checkpoint"
        return LostProcess(why, code="lost_process")
    return error


def build_data(task_class, settings, world, stored):
    """(task, train, val, resolved settings, settings that must not change): what needs the data to be known."""
    task = task_class(build(task_class.config_class, settings))
    train_set, val = task.build_datasets()
    for part, name in ((train_set, "training"), (val, "validation")):
        if not len(part):
            raise UserError(f"--data {task.config.data}: no {name} samples", field="data", file=task.config.data)
    overfit = settings["overfit"].value
    if overfit:
        chosen = spread_evenly(len(train_set), overfit)
        train_set, val = Subset(train_set, chosen), Subset(task.build_eval_dataset("train"), chosen)
    settings = resolve_auto(settings, len(train_set), world.device.type, stored, task_class.settle)
    task.config = build(task_class.config_class, settings)  # with what the length of the run decided
    known = fields_of(task_class.config_class, TrainConfig)
    facts = fixed_settings(settings, known, task=task.name, data_fingerprint=train_set.fingerprint())
    return task, train_set, val, settings, facts


def end_run(run, step):
    """Close the books. All ranks. Raises the run's failure, if any, after everything is saved."""
    run.profiler.finish()
    state = "failed" if run.failure else "stopped" if run.stopping else "finished"
    run.log.ledger(step, run.clock.ledger())
    if run.world.is_main:
        run.log.status.update(state=state, step=step, best=run.best, error=run.failure.as_dict() if run.failure else None, eta=None)
        if state == "finished":
            run.log.hparams(run.settings, run.scores)
    if run.failure:
        raise run.failure
    if state == "stopped":
        run.log.say(f"stopped and saved after step {step}; the same command goes on from there")
    elif run.best:
        run.log.say_classes()
        spec = run.best_metric
        run.log.say(f"finished: best {spec.label} {spec.show(run.best['score'])} at step {run.best['step']}, in {run.output / 'best'}")
    return Result(state, step, run.scores, run.best, run.output)
