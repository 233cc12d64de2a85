"""Resuming from a checkpoint; its content is described in save.py.

start.py chooses the folder. `TrainState.from_json` reads the progress of the run from state.json,
`prepare_run` builds data and log from that step on, and `resume_from` loads the rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from visionloop.engine.checkpoints.folder import problems, read_state, step_folder_name
from visionloop.engine.checkpoints.save_shards import wait_for_write
from visionloop.engine.checkpoints.start import wait_until_visible
from visionloop.engine.checkpoints.stored_tensors import StoredTensors, is_sharded
from visionloop.engine.distributed import broadcast_object
from visionloop.engine.ema import named_state
from visionloop.engine.errors import UserError
from visionloop.engine.optim import load_state_by_name
from visionloop.engine.task import Task
from visionloop.engine.tensors import copy_rows, load_by_name
from visionloop.engine.types import TaskModule

if TYPE_CHECKING:
    from visionloop.engine.run import Run


def resume_from(run: Run, task: Task, folder: Path) -> None:
    """Load a checkpoint into a run that was prepared with its `TrainState`. All ranks."""
    state = read_state(folder)
    load_weights(run, task, folder, state["step"])
    run.precision.load_scaler_state(state["scaler"])
    run.last_save.step = state["step"]
    if run.world.is_main:
        run.data.skipped.extend(state["skipped"])


def reload_best(run: Run, task: Task) -> None:
    """Continue from the best weights so far, with their optimizer state and EMA. All ranks.

    The step count continues. Raises UserError when that checkpoint is damaged.
    """
    if run.state.best is None:
        return
    folder = run.checkpoints / step_folder_name(run.state.best["step"])
    if run.sharding:
        wait_for_write(run)
    damage: list[str] = []
    if run.world.is_main:
        run.writer.wait()
        damage = problems(folder)
    damage = broadcast_object(run.world, damage)
    if damage:
        raise UserError(
            f"{folder}: the best weights, to continue from, are damaged ({damage[0]})",
            code="bad_checkpoint",
            file=str(folder),
        )
    wait_until_visible(run.world, folder)
    load_weights(run, task, folder, run.state.best["step"])


def load_weights(run: Run, task: Task, folder: Path, step: int) -> None:
    """Load weights, optimizer state and EMA by name. Raises UserError where they do not fit.

    Both the run and the checkpoint may be sharded, over any number of ranks.

    Args:
        run: the run, which changes.
        task: its task.
        folder: the checkpoint.
        step: steps done there.
    """
    try:
        load_model(run, task, folder, step)
        with StoredTensors(folder, "optimizer") as optimizer:
            load_state_by_name(run.optimizer, run.module, optimizer)
        if run.ema:
            with StoredTensors(folder, "ema") as ema:
                run.ema.load(ema)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: {error}", code="bad_checkpoint", file=str(folder)) from None


def load_model(run: Run, task: Task, folder: Path, step: int) -> None:
    """Load the weights of the model alone, see `load_weights`."""
    if run.sharding and not is_sharded(folder):
        whole = task.build_model()
        task.load(whole, folder)
        copy_rows(run.module, whole.state_dict())
    else:
        load_module(task, run.module, folder, step, run.config.steps)


def load_module(task: Task, module: TaskModule, folder: Path, step: int, steps: int) -> None:
    """Load the weights of a checkpoint; of a sharded one, those rows that the module holds.

    Args:
        task: the task.
        module: its model, sharded only where the checkpoint is.
        folder: the checkpoint.
        step: steps done there.
        steps: of the whole run.

    Raises:
        ValueError: the weights are of another model.
        OSError: a file cannot be read.
    """
    if not is_sharded(folder):
        task.load(module, folder)
        return
    with StoredTensors(folder, "weights") as weights:
        load_by_name(named_state(module), weights, "the checkpoint")
    # what a task keeps in plain attributes is a function of the step
    task.before_step(module, max(0, step - 1), steps)
