"""How everything a run holds between two steps is put on disk."""

import time
from copy import copy

from safetensors import SafetensorError

from visionloop.engine.checkpoints.files import write_json
from visionloop.engine.checkpoints.folder import prune, step_folder_name, swap_best, write_folder
from visionloop.engine.checkpoints.writer import (
    cannot_write,
    host_copies,
    is_disk_error,
    save_tensors,
)
from visionloop.engine.data.loader import too_many_skipped
from visionloop.engine.distributed import gather_objects
from visionloop.engine.ema import ema_state
from visionloop.engine.optim import state_by_name
from visionloop.engine.system.fault_injection import reach


def save_checkpoint(run, task, step):
    """Write checkpoints/step_<step> whole, and best/ before it when the best score is of this step. All ranks; the main rank writes.

    The loop goes on once everything is copied to host memory; the last write of a run is waited
    for. `run.failure` is set on all ranks when this write or the one before it could not be done.
    After one that failed nothing newer is written: it may have held the best weights, which a newer
    checkpoint relies on.
    """
    with run.clock.measure("checkpointing"):
        skipped = sorted(
            {name for names in gather_objects(run.world, run.data.skipped) for name in names}
        )
        error = None
        if run.world.is_main:
            try:
                run.log.flush()
                run.writer.wait()  # one write at a time, and one copy in memory
                run.writer.start(prepare_write(run, task, step, state_of(run, task, step, skipped)))
                if run.ending or step == run.config.steps:
                    run.writer.wait()
            except (OSError, SafetensorError) as failed:
                if not is_disk_error(failed):
                    raise
                error = failed
        run.saved_at, run.saved_time, run.saving = step, time.monotonic(), False
        error = next((found for found in gather_objects(run.world, error) if found), None)
        too_many = too_many_skipped(
            skipped, len(run.data.dataset)
        )  # of all ranks; each knows its own already
        if error or too_many:
            run.failure = run.failure or (
                cannot_write(run.checkpoints, error) if error else too_many.as_user_error()
            )


def state_of(run, task, step, skipped):
    """The content of state.json."""
    return {
        "schema": 1,
        "step": step,
        "task": task.name,
        "scores": run.scores,
        "best": run.best,
        "evaluated_at": run.evaluated_at,
        "evaluations_since_best": run.evaluations_since_best,
        "out_of_patience": run.out_of_patience,
        "train_loss": run.train_loss,
        "scaler": run.precision.scaler_state(),
        "skipped": skipped,
        "settings": run.settings,
        "pieces": run.data.pieces,
    }


def prepare_write(run, task, step, state):
    """A function that writes everything as it is now; it holds copies of all that training changes."""
    module = copy(
        run.module
    )  # a task may write plain attributes too; a shallow copy keeps those of this moment
    weights = host_copies(run.module.state_dict())
    optimizer = host_copies(state_by_name(run.optimizer, run.module))
    average = host_copies(run.ema.tensors) if run.ema else None
    best_tensors = ema_state(run.module, average) if run.ema else weights
    best, keep, output, checkpoints = run.best, run.config.keep, run.output, run.checkpoints

    def fill(folder):
        task.save(module, weights, folder)
        reach("mid-write", folder)
        save_tensors(folder / "optimizer.safetensors", optimizer)
        if average:
            save_tensors(folder / "ema.safetensors", average)
        write_json(folder / "state.json", state)

    def write():
        # best/ first: a checkpoint that knows a best score never has an older best/ beside it
        if best is not None and best["step"] == step:
            swap_best(
                output / "best",
                lambda folder: task.save_best(module, best_tensors, folder, best["scores"]),
            )
        checkpoints.mkdir(exist_ok=True)
        write_folder(checkpoints / step_folder_name(step), fill)
        prune(checkpoints, keep, best["step"] if best else None, newest=step)

    return write
