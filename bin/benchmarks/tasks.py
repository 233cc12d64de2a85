"""The tasks as benchmarks need them: sample data, and settings under which every step does the same work."""

# what changes from step to step is held still: two loops take their turns at different moments, and
# see one step all the same. Segmentation's masks stay on, as a new model has them; its random
# points are drawn anew from the seed of each micro-batch. Of super-resolution nothing changes, and
# nothing of the sample data is left in the user's cache folder
STEADY = {
    "classification": {"drop_path": 0.0, "mixup": 0.0, "cutmix": 0.0},
    "detection": {"multi_scale": 0, "strong_share": 1.0},
    "segmentation": {"mask_annealing": "on"},
    "super_resolution": {"cache": "none"},
}
SIDE = {
    "super_resolution": "patch_size"
}  # the setting that --image-size stands for, where it is another
# no average, and neither evaluations nor checkpoints, unless a benchmark asks for them
ALONE = {"from_scratch": True, "workers": 0, "ema": False, "save_every": 0, "eval_every": 0}


def load_task_class(task_name):
    from visionloop.tasks.classification.task import ClassificationTask
    from visionloop.tasks.detection.task import DetectionTask
    from visionloop.tasks.segmentation.task import SegmentationTask
    from visionloop.tasks.super_resolution.task import SuperResolutionTask

    classes = (ClassificationTask, DetectionTask, SegmentationTask, SuperResolutionTask)
    return {task_class.name: task_class for task_class in classes}[task_name]


def sample_data(task_name, scratch):
    """The name of a new folder with the task's sample data. scratch: an empty folder."""
    from visionloop.datasets.synthetic.writers import WRITERS

    folder = scratch / "data"
    folder.mkdir()
    WRITERS[task_name](folder, 0)
    return str(folder)


def build_steady(task_name, flags):
    """(world, task, training set, validation set, settings, facts) of random weights and steady steps; see engine.train.build_data."""
    from visionloop.engine.distributed import join_world
    from visionloop.engine.train import build_data, resolve_settings

    task_class = load_task_class(task_name)
    world = join_world(flags["device"])
    side = {SIDE.get(task_name, "image_size"): flags.get("image_size")}
    settings = resolve_settings(
        task_class, ALONE | flags | {"image_size": None} | side | STEADY[task_name]
    )
    return world, *build_data(task_class, settings, world, {})
