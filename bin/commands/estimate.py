"""What a run would take: time, memory and disk, from a few steps of it, an evaluation and a checkpoint that are thrown away."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from visionloop.engine.budget import LEAVING_SECONDS, Figures
from visionloop.engine.config import Setting, build
from visionloop.engine.continuing import DEFAULT_MICRO_BATCH, LENGTHS
from visionloop.engine.distributed import join_world
from visionloop.engine.fitting import settle
from visionloop.engine.gallery import pictures_due
from visionloop.engine.profiling import peak_gib
from visionloop.engine.rehearsal import part_of, rehearse
from visionloop.engine.settings import TrainConfig
from visionloop.engine.sizing import ROUGH_STEPS, cost, most_steps, plan_rehearsal, times
from visionloop.engine.stop import StopFlag
from visionloop.engine.value_types import AUTO, Seconds

TRIAL_SECONDS = 3.0  # for the steps that are tried, and as much for the evaluation
GIB = 2**30


@dataclass(frozen=True)
class Estimate:
    """config: a TrainConfig; first_loss: of the first step.

    memory_gib: the peak of a training process without its loader processes, on CUDA of the device; disk_gib: the most that the run's folder
    takes; seconds: of the whole command.
    """

    config: TrainConfig
    first_loss: float
    memory_gib: float
    disk_gib: float
    seconds: float

    def as_json(self):
        return {"memory_gib": round(self.memory_gib, 3), "disk_gib": round(self.disk_gib, 4), "seconds": round(self.seconds, 1)}


def estimate_run(task, given, train_set, val, *, getting_ready):
    """The Estimate of a run on one process. getting_ready: seconds that a command takes until it has its data.

    given: {name: Setting} as typed; without a length, of one epoch. Raises UserError for what training would refuse.
    """
    world = join_world(given["device"].value)
    found = {}
    if given["micro_batch"].value == AUTO:  # which may take minutes to find: here a size that most machines have room for
        found["micro_batch"] = min(given["batch_size"].value, DEFAULT_MICRO_BATCH)
    if all(given[name].value is None for name in LENGTHS):
        given = given | {"epochs": Setting(1.0, "default")}

    def resolve(steps=None):
        lengths = {"steps": steps} if steps else {}
        return build(TrainConfig, settle(task, given, world, train_set, {}, found | lengths)[0])

    def try_out(steps, pictures, scored):
        trial = resolve(steps)
        parts = part_of(train_set, max(pictures, trial.batch_size)), part_of(val, scored)
        with tempfile.TemporaryDirectory() as scratch:
            return rehearse(task, trial, world, *parts, output=Path(scratch), stop=StopFlag())

    rough = try_out(ROUGH_STEPS, len(train_set), resolve().eval_batch_size)
    seen = try_out(*plan_rehearsal(rough, TRIAL_SECONDS, resolve().batch_size, len(val)))
    figures = Figures(seen.start, seen.first_step, seen.step, seen.evaluation(len(val)), seen.save, seen.last_save)
    budget = given["budget"].value
    if budget:
        config = resolve(max(1, most_steps(resolve, figures, len(train_set), budget - getting_ready)))
    else:
        config = resolve()
    seconds = budget or getting_ready + cost(config, figures, len(train_set)) + LEAVING_SECONDS
    memory = peak_gib(world.device) + (0 if world.device.type == "cuda" else bytes_kept_later(train_set) / GIB)
    return Estimate(config, rough.first_loss, memory, folder_bytes(config, seen.sizes, seconds) / GIB, seconds)


def bytes_kept_later(dataset):
    """Of decoded pictures that a run will keep in this process besides those it keeps after a rehearsal."""
    if not hasattr(dataset, "kept_bytes"):
        return 0
    now, at_last = dataset.kept_bytes()
    return at_last - now


def folder_bytes(config, sizes, seconds):
    """The most that the folder of a run takes. sizes: of a Rehearsal.

    While a checkpoint is written, the newest --keep are still there, the best one often among them, and best/ may be there twice.
    """
    evaluations = times(config.steps, config.eval_every)
    saves = seconds // config.save_every if isinstance(config.save_every, Seconds) else times(config.steps, config.save_every)
    folders = min(max(evaluations, saves), config.keep + 1)
    every = config.eval_every or config.steps
    drawn = sum(pictures_due(step, config.eval_every, config.steps, config.batch_size) for step in range(every, config.steps + 1, every))
    logged = sizes["once"] + sizes["evaluation"] * drawn
    return folders * sizes["checkpoint"] + min(2, evaluations) * sizes["best"] + logged
