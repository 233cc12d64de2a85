"""Everything a run holds between two steps, and how it is put on disk and taken back."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from visionloop.engine.checkpoint import (
    load_tensors,
    prune,
    read_state,
    save_tensors,
    step_folder_name,
    swap_best,
    write_folder,
    write_json,
)
from visionloop.engine.distributed import barrier, gather_objects, sum_over_ranks
from visionloop.engine.ema import named_state
from visionloop.engine.errors import UserError
from visionloop.engine.optim import load_state_by_name, state_by_name
from visionloop.engine.schedule import due


@dataclass
class Run:
    """One run on one rank. `model` is what training calls, `module` is what is saved, evaluated and averaged."""

    config: Any
    output: Path
    world: Any
    module: Any
    model: Any
    optimizer: Any
    precision: Any
    average: Any  # WeightAverage or None
    trained_parameters: list
    trained_buffers: list  # BatchNorm statistics: a bad step must leave them as they were
    data: Any  # TrainingData
    val: Any  # dataset
    log: Any
    clock: Any
    stop: Any  # StopFlag
    bad_steps: Any
    profiler: Any
    best_metric: Any  # MetricSpec
    settings: dict  # {name: value} of those that must not change when the run continues, with the data's fingerprint
    start_step: int = 0
    reload_at: int | None = None  # the step before which the best weights so far are loaded
    # what a checkpoint's state.json holds besides
    scores: dict = field(default_factory=dict)
    best: dict | None = None
    evaluated_at: int = 0
    evaluations_since_best: int = 0
    train_loss: float | None = None
    # how the run ends
    saved_at: int | None = None
    stopping: bool = False
    out_of_patience: bool = False
    failure: UserError | None = None

    @property
    def ending(self):
        """No more steps after this one."""
        return self.stopping or self.out_of_patience or self.failure is not None

    @property
    def checkpoints(self):
        return self.output / "checkpoints"

    def evaluation_due(self, step):
        """True at evaluation steps not evaluated yet: also for one that a stop interrupted, and before the best weights are reloaded."""
        wanted = due(step, self.config.eval_every, self.config.steps) or step == self.reload_at
        return 0 < step != self.evaluated_at and wanted and not self.stopping

    def save_due(self, step):
        """True at save steps, at a new best score and when the run ends."""
        if step == self.saved_at:
            return False
        is_best = self.best is not None and self.best["step"] == step
        return self.ending or is_best or (step > 0 and due(step, self.config.save_every, self.config.steps))

    def read_losses(self, losses):
        """{term: float} of the step just done, over all micro-batches and ranks. All ranks; syncs with the device."""
        totals = sum_over_ranks(self.world, [float(value) for value in losses.values()])
        read = {name: total / self.world.size for name, total in zip(losses, totals, strict=True)}
        self.train_loss = read["loss"]
        return read

    def best_tensors(self):
        """{name in memory: tensor} of the weights that scores are about: the average if there is one. Tied names share a tensor."""
        first_names = {id(tensor): name for name, tensor in named_state(self.module).items()}
        live = self.module.state_dict(keep_vars=True)
        source = self.average.tensors if self.average else None
        return {name: (source[first_names[id(tensor)]] if source else tensor.detach()) for name, tensor in live.items()}

    def write_best(self, task):
        """Swap a new best/ in. Main rank writes."""
        if self.world.is_main:
            tensors, scores = self.best_tensors(), self.best["scores"]
            swap_best(self.output / "best", lambda folder: task.save_best(self.module, tensors, folder, scores))


def save_checkpoint(run, task, step):
    """Write checkpoints/step_<step> whole. All ranks enter, the main rank writes."""
    with run.clock.measure("checkpointing"):
        skipped = sorted({name for names in gather_objects(run.world, run.data.skipped) for name in names})
        if run.world.is_main:
            run.log.flush()
            state = {
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

            def fill(folder):
                task.save(run.module, run.module.state_dict(), folder)
                save_tensors(folder / "optimizer.safetensors", state_by_name(run.optimizer, run.module))
                if run.average:
                    save_tensors(folder / "averaged.safetensors", run.average.tensors)
                write_json(folder / "state.json", state)

            run.checkpoints.mkdir(exist_ok=True)
            write_folder(run.checkpoints / step_folder_name(step), fill)
            prune(run.checkpoints, run.config.keep, run.best["step"] if run.best else None)
        run.saved_at = step
        barrier(run.world)  # nobody goes on, or ends, before the checkpoint is whole


def load_weights(run, task, folder):
    """Weights, optimizer and average of a checkpoint folder, by name; returns its state.json."""
    task.load(run.module, folder)
    try:
        load_state_by_name(run.optimizer, run.module, load_tensors(folder / "optimizer.safetensors"))
        if run.average:
            run.average.load(load_tensors(folder / "averaged.safetensors"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: {error}", code="bad_checkpoint", file=str(folder)) from None
    return read_state(folder)


def resume_from(run, task, folder):
    """Put the run where the checkpoint was written."""
    state = load_weights(run, task, folder)
    run.precision.load_scaler_state(state["scaler"])
    run.start_step = run.saved_at = state["step"]
    run.scores, run.best, run.evaluated_at = state["scores"], state["best"], state["evaluated_at"]
    run.evaluations_since_best, run.train_loss = state["evaluations_since_best"], state["train_loss"]
    run.out_of_patience = state["out_of_patience"]
    run.data.skipped.extend(state["skipped"] if run.world.is_main else [])


def reload_best(run, task):
    """Go on from the best weights so far, with their optimizer and average; the step count goes on. All ranks."""
    if run.best is not None:
        load_weights(run, task, run.checkpoints / step_folder_name(run.best["step"]))
