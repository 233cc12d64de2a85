"""Where one check of `selftest` happens: its device, its folder, and tiny data, models and runs for it."""

from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from visionloop.bin.benchmarks.tasks import load_task_class
from visionloop.datasets.synthetic.writers import WRITERS
from visionloop.engine.distributed import join_world
from visionloop.engine.optim import batch_norms
from visionloop.engine.prepare import prepare_run, set_process
from visionloop.engine.step import train_step
from visionloop.engine.system.signals import StopFlag
from visionloop.engine.testing.short_runs import CONFIG

IMAGES = {"train": 12, "val": 7}  # the last evaluation batch is smaller, also on two processes
SIDES = {
    "classification": 32,
    "detection": 96,
    "segmentation": 32,
    "super_resolution": 16,
}  # of the training images, in pixels
# the network draws nothing, and what the host draws for an image does not matter here
QUIET = {
    "classification": {"image_size": SIDES["classification"], "drop_path": 0.0},
    "detection": {
        "image_size": SIDES["detection"], "backbone_bn": "frozen", "denoising": 0, "photometric": 0.0, "zoom_out": 0.0, "iou_crop": 0.0,
    },
    "segmentation": {"image_size": SIDES["segmentation"], "points": 0, "mask_annealing": "on"},
    "super_resolution": {"mode": "classical", "scale": 2, "patch_size": SIDES["super_resolution"], "cache": "none"},
}  # fmt: skip


class NotPossible(Exception):
    """This machine lacks what a check needs."""


@dataclass(frozen=True)
class Trial:
    """One check's place. device: cuda, mps or cpu; folder: a new one; shared: where data is written once for all checks."""

    task_name: str | None
    device: str
    folder: Path
    shared: Path

    def data(self, task_name=None):
        """The folder of a task's sample data, a few images."""
        task_name = task_name or self.task_name
        folder = self.shared / task_name
        if not folder.exists():
            unfinished = folder.with_name(f"{task_name}.unfinished")
            unfinished.mkdir(parents=True)
            WRITERS[task_name](unfinished, 0, images=IMAGES)
            unfinished.rename(folder)
        return folder

    def devices(self):
        """How many processes can have a device of their own; on the CPU it is three, so that every check can be tried there."""
        return {"cuda": torch.cuda.device_count, "cpu": lambda: 3}.get(self.device, lambda: 1)()

    def need_devices(self, number):
        if self.devices() < number:
            raise NotPossible(f"{self.devices()} {self.device} device(s) here, {number} needed")

    def is_exact(self, task_name=None):
        """Whether two runs of the task compute the same bits here, with --deterministic."""
        nondeterministic_ops = load_task_class(task_name or self.task_name).nondeterministic_ops
        return self.device == "cpu" or (self.device == "cuda" and not nondeterministic_ops)


def tiny_task(task_name, data, **settings):
    """The task with its tiny model from random weights. settings: of its config class."""
    task_class = load_task_class(task_name)
    return task_class(
        task_class.config_class(
            **{"model": "tiny", "from_scratch": True, "data": str(data)} | settings
        )
    )


def quiet_task(task_name, data):
    """The same with noise off and BatchNorm frozen: pieces of any size add up to one gradient."""
    task = tiny_task(task_name, data, **QUIET[task_name])
    build = task.build_model
    task.build_model = lambda: frozen(build())
    return task


def frozen(module):
    """The same with every BatchNorm in evaluation mode."""
    for layer in batch_norms(module):
        layer.eval()
    return module


@contextmanager
def started(task, folder, device, **changes):
    """A Run of the task at its step 0. changes: of trials.CONFIG; without them an optimizer step is 8 samples in fp32."""
    config = replace(CONFIG, device=device, **changes)
    set_process(config)
    folder.mkdir(parents=True)
    sets = task.build_datasets()
    run = prepare_run(
        task, config, join_world(device), *sets, output=folder, settings={}, start_step=0, evaluated_at=0, stop=StopFlag()
    )  # fmt: skip
    try:
        yield run
    finally:
        run.data.close()
        run.log.close()


def take_step(run, task, step):
    """The next step of a started run: (loss, gradient norm)."""
    task.before_step(run.module, step, run.config.steps)
    micro_batches = run.data.fetch(give_up=lambda: False)
    count = {name: max(1.0, number) for name, number in task.count(micro_batches).items()}
    losses, grad_norm = train_step(run, task, micro_batches, count, step)
    return float(losses["loss"]), float(grad_norm)
