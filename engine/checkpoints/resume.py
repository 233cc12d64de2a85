"""Everything a run holds between two steps, and how it is taken back from disk."""

from visionloop.engine.checkpoints.folder import problems, read_state, step_folder_name
from visionloop.engine.checkpoints.writer import load_tensors
from visionloop.engine.distributed import barrier
from visionloop.engine.errors import UserError
from visionloop.engine.optim import load_state_by_name


def load_weights(run, task, folder):
    """Weights, optimizer and average of a checkpoint folder, by name; returns its state.json."""
    task.load(run.module, folder)
    try:
        load_state_by_name(
            run.optimizer, run.module, load_tensors(folder / "optimizer.safetensors")
        )
        if run.ema:
            run.ema.load(load_tensors(folder / "ema.safetensors"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: {error}", code="bad_checkpoint", file=str(folder)) from None
    return read_state(folder)


def resume_from(run, task, folder):
    """Put the run where the checkpoint was written."""
    state = load_weights(run, task, folder)
    run.precision.load_scaler_state(state["scaler"])
    run.start_step = run.saved_at = state["step"]
    run.scores, run.best, run.evaluated_at = state["scores"], state["best"], state["evaluated_at"]
    run.evaluations_since_best, run.train_loss = (
        state["evaluations_since_best"],
        state["train_loss"],
    )
    run.out_of_patience = state["out_of_patience"]
    run.data.skipped.extend(state["skipped"] if run.world.is_main else [])


def reload_best(run, task):
    """Go on from the best weights so far, with their optimizer and average; the step count goes on. All ranks."""
    if run.best is None:
        return
    if run.world.is_main:
        run.writer.wait()
    barrier(run.world)
    folder = run.checkpoints / step_folder_name(run.best["step"])
    wrong = problems(folder)
    if wrong:
        raise UserError(
            f"{folder}: the best weights, to go on from, are damaged ({wrong[0]})",
            code="bad_checkpoint",
            file=str(folder),
        )
    load_weights(run, task, folder)
