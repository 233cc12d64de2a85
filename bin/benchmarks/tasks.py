"""Tasks as benchmarks need them: sample data, and settings under which every step is equal work."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from visionloop.bin.benchmarks.results import Row, Value

if TYPE_CHECKING:
    from visionloop.engine.config.options import Settings
    from visionloop.engine.config.resolve import ResolvedSettings
    from visionloop.engine.distributed import World
    from visionloop.engine.run import Run
    from visionloop.engine.task import Task
    from visionloop.engine.types import SampleDataset

# Whatever changes during a run is held constant: two interleaved loops reach a step at different
# moments and must see the same one. Segmentation's masks stay on, as for a new model; its random
# points are drawn from the seed of each micro-batch. Super-resolution changes nothing; it leaves
# nothing of the sample data in the user's cache folder.
STEADY: dict[str, Row] = {
    "classification": {"drop_path": 0.0, "mixup": 0.0, "cutmix": 0.0},
    "detection": {"multi_scale": 0, "strong_share": 1.0},
    "segmentation": {"mask_annealing": "on"},
    "instance_segmentation": {"mask_annealing": "on"},
    "panoptic_segmentation": {"mask_annealing": "on"},
    "super_resolution": {"cache": "none"},
}
SIZE_SETTING = {"super_resolution": "patch_size"}  # of --image-size, where it has another name
# no EMA, evaluation or checkpoint unless a benchmark asks for it
BARE: Row = dict(from_scratch=True, workers=0, ema=False, save_every=0, eval_every=0)


class BuiltTask(NamedTuple):
    """The result of engine.train.build_data, with the world."""

    world: "World"
    task: "Task"
    train_set: "SampleDataset"
    val_set: "SampleDataset"
    resolved: "ResolvedSettings"


def load_task_class(task_name: str) -> "type[Task]":
    """Import and return the Task of a name."""
    from visionloop.tasks.classification.task import ClassificationTask
    from visionloop.tasks.detection.task import DetectionTask
    from visionloop.tasks.segmentation.instance.task import InstanceTask
    from visionloop.tasks.segmentation.panoptic.task import PanopticTask
    from visionloop.tasks.segmentation.semantic.task import SemanticTask
    from visionloop.tasks.super_resolution.task import SuperResolutionTask

    classes = (
        ClassificationTask,
        DetectionTask,
        SemanticTask,
        InstanceTask,
        PanopticTask,
        SuperResolutionTask,
    )
    return {task_class.name: task_class for task_class in classes}[task_name]


def sample_data(
    task_name: str, scratch: Path, images: dict[str, int] | None = None, side: int | None = None
) -> str:
    """Write sample data below `scratch` and return the folder.

    images: {split: number}, None: the default; side: of all images in pixels, None: mixed.
    """
    from visionloop.datasets.synthetic.writers import WRITERS

    folder = scratch / "data"
    folder.mkdir(parents=True)
    options: Row = {"images": images} if images else {}
    options |= {"sides": (side, side)} if side else {}
    WRITERS[task_name](folder, 0, **options)
    return str(folder)


def build_task(task_name: str, flags: Row) -> BuiltTask:
    """Build a task with random weights to come. flags: {setting: value} of `train`."""
    from visionloop.engine.distributed import join_world
    from visionloop.engine.train import build_data, resolve_settings

    task_class, world = load_task_class(task_name), join_world(flags["device"])
    size = {"image_size": None, SIZE_SETTING.get(task_name, "image_size"): flags.get("image_size")}
    settings = resolve_settings(task_class, BARE | flags | size)
    return BuiltTask(world, *build_data(task_class, settings, world, {}))


def new_task(task_name: str, model: str) -> "tuple[Task, Settings]":
    """Return a task without data, with random weights to come, and its settings."""
    from visionloop.engine.config.options import build
    from visionloop.engine.train import resolve_settings

    task_class = load_task_class(task_name)
    settings = resolve_settings(task_class, {"model": model, "from_scratch": True})
    return task_class(build(task_class.config_class, settings)), settings


def default_precision(task_name: str, model: str, device: str | None) -> str:
    """Return the precision of `train` without --precision, from random weights on a device."""
    from visionloop.engine.autotune.precision import resolve_precision
    from visionloop.engine.distributed import World, pick_device

    world = World(0, 0, 1, pick_device(device))
    return str(resolve_precision(*new_task(task_name, model), world, {})["precision"].value)


def build_steady_task(task_name: str, flags: Row) -> BuiltTask:
    """Build a task whose steps are all equal work."""
    return build_task(task_name, flags | STEADY[task_name])


def prepare_steady_run(built: BuiltTask, output: Path, **changes: Value) -> "Run":
    """Prepare a run at step 0 as the engine does. All ranks.

    output: a new folder for what the run writes; changes: to the resolved TrainConfig.
    """
    from visionloop.engine.prepare import prepare_run, set_process
    from visionloop.engine.run import RunSpec, TrainState
    from visionloop.engine.system.signals import StopFlag

    config = replace(built.resolved.train_config, **changes)
    set_process(config)
    output.mkdir(parents=True)
    spec = RunSpec(
        built.task, config, built.world, built.train_set, built.val_set, output,
        built.resolved.immutable_settings,
    )  # fmt: skip
    return prepare_run(spec, state=TrainState(), stop=StopFlag())
