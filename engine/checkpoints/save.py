"""Saving a checkpoint; resume.py reads it back.

A checkpoint is the folder checkpoints/step_<steps done>/ of a run. It holds all that training
changes, in safetensors and JSON files, so reading one cannot run code:

- the Hugging Face folder of `Task.save`: config.json, the training weights in model.safetensors,
  and what else the task writes;
- optimizer.safetensors: the optimizer's state as "<parameter>/<entry>", by name, so that it does
  not depend on the parameter groups;
- ema.safetensors: the EMA weights, of a run with --ema;
- state.json: the progress of the run (`TrainState`), the state of the fp16 scaler, the samples
  skipped as unreadable, the settings that must not change, and how the global batch of the last
  step was split into micro-batches;
- manifest.json: size and SHA-256 of every file.

A sharded run writes its tensors in shards (save_shards.py).

No generator state is saved: order, augmentation and noise are functions of (seed, epoch, index) and
(seed, step, offset). best/ is a Hugging Face folder of the weights with the best score.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from visionloop.engine.checkpoints.files import write_json
from visionloop.engine.checkpoints.folder import prune, step_folder_name, write_folder
from visionloop.engine.checkpoints.save_shards import start_sharded_write
from visionloop.engine.checkpoints.writer import (
    cannot_write,
    copy_to_host,
    is_disk_error,
    save_tensors,
)
from visionloop.engine.data.loader import too_many_skipped
from visionloop.engine.distributed import gather_objects
from visionloop.engine.ema import ema_state
from visionloop.engine.optim import state_by_name
from visionloop.engine.system.fault_injection import reach
from visionloop.engine.task import Task
from visionloop.engine.types import JsonObject

if TYPE_CHECKING:
    from visionloop.engine.run import Run


def save_checkpoint(run: Run, task: Task) -> None:
    """Save a checkpoint of this step, and best/ before it if this step has the best score.

    All ranks; the main rank writes. The loop continues once everything is copied to host memory;
    at the end of the run it waits for the write. `run.ending.failure` is set on all ranks when this
    write or the one before it failed. After a failed write no newer checkpoint is written: the
    failed one may have held the best weights, which a newer checkpoint relies on.
    """
    with run.clock.measure("checkpointing"):
        names_of_ranks = gather_objects(run.world, run.data.skipped)
        skipped = sorted({name for names in names_of_ranks for name in names})
        error = start_write(run, task, skipped)
        run.last_save.step, run.last_save.time = run.state.step, time.monotonic()
        run.last_save.is_outdated = False
        errors = [disk_error for disk_error in gather_objects(run.world, error) if disk_error]
        # over all ranks; each rank has checked its own samples already
        data_error = too_many_skipped(skipped, len(run.data.dataset))
        if run.ending.failure is None:
            if errors:
                run.ending.failure = cannot_write(run.checkpoints, errors[0])
            elif data_error:
                run.ending.failure = data_error.as_user_error()


def start_write(run: Run, task: Task, skipped: Sequence[str]) -> Exception | None:
    """Start the write of a checkpoint; return the disk error of this write or the one before.

    All ranks; where the weights are not sharded, the main rank writes alone.
    """
    is_last = run.is_ending or run.state.step == run.config.steps
    state = state_content(run, task, skipped)
    try:
        if run.world.is_main:
            run.log.flush()
        if run.sharding:
            waits = is_last or not run.config.save_async
            error = start_sharded_write(run, task, state, waits=waits)
            if error:
                raise error
        elif run.world.is_main:
            run.writer.wait()  # one write at a time, and one copy in host memory
            run.writer.start(prepare_write(run, task, state))
            if is_last:
                run.writer.wait()
    except (OSError, SafetensorError) as error:
        if not is_disk_error(error):
            raise
        return error
    return None


def state_content(run: Run, task: Task, skipped: Sequence[str]) -> JsonObject:
    """Return the content of state.json."""
    return {
        "schema": 1,
        "task": task.name,
        **asdict(run.state),
        "scaler": run.precision.scaler_state(),
        "skipped": skipped,
        "settings": run.immutable_settings,
        "micro_batches": run.data.plan.ranges(max(0, run.state.step - 1)),
    }


def prepare_write(run: Run, task: Task, state: JsonObject) -> Callable[[], None]:
    """Copy everything that training changes to the host; return a function that writes it.

    state: the content of state.json.
    """
    # a task may write plain attributes too; a shallow copy keeps those of this moment
    module = copy(run.module)
    buffers = run.writer.buffers
    if buffers:
        buffers.rewind()  # the write before is over
    weights = copy_to_host(run.module.state_dict(), buffers)
    optimizer = copy_to_host(state_by_name(run.optimizer, run.module), buffers)
    ema = copy_to_host(run.ema.tensors, buffers) if run.ema else None
    best_weights = weights if ema is None else ema_state(run.module, ema)
    step, best = run.state.step, run.state.best
    keep, keep_every = run.config.keep, run.config.keep_every
    output, checkpoints = run.output, run.checkpoints

    def fill(folder: Path) -> None:
        task.save(module, weights, folder)
        reach("mid-write", folder)
        save_tensors(folder / "optimizer.safetensors", optimizer)
        if ema is not None:
            save_tensors(folder / "ema.safetensors", ema)
        write_json(folder / "state.json", state)

    def write() -> None:
        # best/ first, so that it is never older than the best score in state.json
        if best is not None and best["step"] == step:
            write_folder(
                output / "best",
                lambda folder: task.save_best(module, best_weights, folder, best["scores"]),
            )
        checkpoints.mkdir(exist_ok=True)
        write_folder(checkpoints / step_folder_name(step), fill)
        best_step = best["step"] if best else None
        prune(checkpoints, keep, best_step, newest=step, keep_every=keep_every)

    return write
