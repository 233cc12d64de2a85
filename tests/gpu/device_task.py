"""Tiny tasks, sample data and started runs on a given device, for the tests of this folder."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from visionloop.datasets.synthetic.writers import WRITERS
from visionloop.engine.batch import Normalizers
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.distributed import World
from visionloop.engine.optim import batch_norms
from visionloop.engine.prepare import prepare_run, set_process
from visionloop.engine.run import Run, TrainState
from visionloop.engine.step import train_step
from visionloop.engine.system.signals import StopFlag
from visionloop.engine.task import Task
from visionloop.engine.testing.short_runs import CONFIG, first_step, score, spec_of, train_steps
from visionloop.tasks.classification.task import ClassificationTask
from visionloop.tasks.detection.task import DetectionTask
from visionloop.tasks.segmentation.instance.task import InstanceTask
from visionloop.tasks.segmentation.panoptic.task import PanopticTask
from visionloop.tasks.segmentation.semantic.task import SemanticTask
from visionloop.tasks.super_resolution.task import SuperResolutionTask

TASKS: dict[str, type[Task]] = {
    "classification": ClassificationTask,
    "detection": DetectionTask,
    "segmentation": SemanticTask,
    "instance_segmentation": InstanceTask,
    "panoptic_segmentation": PanopticTask,
    "super_resolution": SuperResolutionTask,
}
IMAGES = {"train": 12, "val": 7}  # the last evaluation batch is smaller, also on two ranks
# side of the training images in pixels
SIDES = {
    "classification": 32,
    "detection": 96,
    "segmentation": 32,
    "instance_segmentation": 32,
    "panoptic_segmentation": 32,
    "super_resolution": 16,
}
EOMT = ("segmentation", "instance_segmentation", "panoptic_segmentation")
# nothing is drawn at random inside the network, so micro-batches of any size give one gradient
QUIET = {
    "classification": {"image_size": 32, "drop_path": 0.0},
    "detection": {
        "image_size": 96,
        "backbone_bn": "frozen",
        "denoising": 0,
        "photometric": 0.0,
        "zoom_out": 0.0,
        "iou_crop": 0.0,
    },
    **{name: {"image_size": 32, "points": 0, "mask_annealing": "on"} for name in EOMT},
    "super_resolution": {"mode": "classical", "scale": 2, "patch_size": 16, "cache": "none"},
}
# every feature that might cause a host sync
NOISY = {
    "classification": {"image_size": 32, "drop_path": 0.1},
    # more boxes in an image than are denoised
    "detection": {"image_size": 96, "multi_scale": 1, "strong_share": 1.0, "denoising": 2},
    **{name: {"image_size": 32, "mask_annealing": "auto"} for name in EOMT},
    "super_resolution": {"mode": "compressed", "scale": 4, "patch_size": 16, "cache": "none"},
}


def write_data(folder: Path, task_name: str) -> Path:
    """Write sample data of a few images at the first call; return its folder."""
    target = folder / task_name
    if not target.exists():
        target.mkdir(parents=True)
        WRITERS[task_name](target, 0, images=IMAGES)
    return target


def tiny_task(task_name: str, data: Path, **settings: object) -> Task:
    """Return the task with its model `tiny` from random weights. settings: of its config class."""
    task_class = TASKS[task_name]
    defaults = {"model": "tiny", "from_scratch": True, "data": str(data)}
    return task_class(task_class.config_class(**defaults | settings))


def quiet_task(task_name: str, data: Path) -> Task:
    """Return the tiny task without noise and with every BatchNorm frozen."""
    task = tiny_task(task_name, data, **QUIET[task_name])
    build = task.build_model

    def build_frozen() -> torch.nn.Module:
        module = build()
        for layer in batch_norms(module):
            layer.eval()
        return module

    task.build_model = build_frozen
    return task


@contextmanager
def started(
    task: Task, folder: Path, device: str, world: World | None = None, **changes: object
) -> Iterator[Run]:
    """Yield a run of the task at its step 0.

    world: default that of this process; changes: of the config of short runs, which takes
    optimizer steps of 8 samples in fp32.
    """
    config = replace(CONFIG, device=device, **changes)
    set_process(config)
    folder.mkdir(parents=True)
    spec = spec_of(task, folder, config=config, world=world)
    run = prepare_run(spec, state=TrainState(), stop=StopFlag())
    try:
        yield run
    finally:
        run.data.close()
        run.log.close()


def take_step(run: Run, task: Task, step: int) -> tuple[float, float]:
    """Take the next step of a started run; return (loss, gradient norm)."""
    task.before_step(run.module, step, run.config.steps)
    micro_batches = run.data.fetch(should_stop=lambda: False)
    counts = task.count_normalizers(micro_batches)
    normalizers = Normalizers({name: max(1.0, number) for name, number in counts.items()})
    losses, grad_norm = train_step(run, task, micro_batches, normalizers, step)
    return float(losses["loss"]), float(grad_norm)


def fp32_errors(device: str) -> dict[str, float]:
    """Return the relative error of a matrix product and of a convolution in fp32 on the device."""
    generator, errors = torch.Generator().manual_seed(0), {}
    for name, operation, shapes in (
        ("product", torch.matmul, ((512, 512), (512, 512))),
        ("convolution", torch.conv2d, ((2, 64, 32, 32), (64, 64, 3, 3))),
    ):
        operands = [torch.randn(shape, generator=generator) for shape in shapes]
        exact = operation(*(tensor.double() for tensor in operands))
        result = operation(*(tensor.to(device) for tensor in operands)).cpu()
        errors[name] = float((result - exact).norm() / exact.norm())
    return errors


def is_exact(task_name: str, device: str) -> bool:
    """Return whether two runs with --deterministic compute the same bytes on the device."""
    return device == "cpu" or (device == "cuda" and task_name != "detection")


def size_setting(task_name: str) -> dict[str, int]:
    """Return the setting that makes the training images of the task small."""
    name = "patch_size" if task_name == "super_resolution" else "image_size"
    return {name: SIDES[task_name]}


def step_and_scores(make_task: Callable[[], Task], config: TrainConfig) -> dict[str, object]:
    """Return the first step and the scores of new weights. All ranks; spawned ones import this."""
    return {"step": first_step(make_task, config), "scores": score(make_task, config.device)}


CUDA, METAL = (pytest.param(name, marks=pytest.mark.gpu) for name in ("cuda", "mps"))
on_devices = pytest.mark.parametrize("device", ["cpu", CUDA])


def on_tasks(*cpu_tasks: str) -> pytest.MarkDecorator:
    """Parametrize a test with every task on CUDA, and with these tasks on the CPU."""
    cases = [pytest.param(name, "cpu", id=f"{name}-cpu") for name in cpu_tasks]
    for name in TASKS:
        cases.append(pytest.param(name, "cuda", id=f"{name}-cuda", marks=pytest.mark.gpu))
    return pytest.mark.parametrize(("task_name", "device"), cases)


def need_gpus(device: str, number: int) -> None:
    """Skip the test where fewer GPUs are visible than it needs."""
    if device == "cuda" and torch.cuda.device_count() < number:
        pytest.skip(f"{torch.cuda.device_count()} GPU(s) visible, {number} needed")


# for `on_ranks`, whose processes can import this module and not a test --------------------


def contexts_after_a_step(make_task: Callable[[], Task], config: TrainConfig) -> list[int]:
    """Return the GPUs on which this process has a CUDA context after a step. All ranks."""
    first_step(make_task, config)
    return [i for i in range(torch.cuda.device_count()) if torch._C._cuda_hasPrimaryContext(i)]


def train_runs(
    make_task: Callable[[], Task],
    folder: str,
    config: TrainConfig,
    runs: list[tuple[str, dict[str, object], int | None]],
) -> None:
    """Train runs one after the other. All ranks.

    runs: (name of its folder, changes to `config`, the step after which to stop or None).
    """
    for name, changes, stop_after in runs:
        changed = replace(config, **changes)
        train_steps(make_task(), Path(folder) / name, config=changed, stop_after=stop_after)
