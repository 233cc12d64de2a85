"""A training dataset as `train` would build it, and sample images of any size for it."""

import os
from contextlib import contextmanager
from dataclasses import replace

import click

from visionloop.bin.benchmarks.tasks import ALONE, SIDE, load_task_class

ENDLESS = 1_000_000  # steps: augmentation stays what it is at the start of a run


def build_training(task_name, flags, given):
    """(task, training set, TrainConfig) by the settings `flags`, with random weights on the CPU. given: [NAME=VALUE], which win."""
    from visionloop.engine.config.options import build, fields_of
    from visionloop.engine.config.train_config import TrainConfig
    from visionloop.engine.distributed import join_world
    from visionloop.engine.train import build_data, resolve_settings

    task_class = load_task_class(task_name)
    known = fields_of(task_class.config_class, TrainConfig)
    side = {"image_size": None, SIDE.get(task_name, "image_size"): flags["image_size"]}
    fixed = {"steps": ENDLESS, "device": "cpu", "threads": 1, "cache": "none"}
    settings = resolve_settings(
        task_class, flags | side | ALONE | fixed | read_settings(given, known)
    )
    task, dataset, _, settings, _ = build_data(task_class, settings, join_world("cpu"), {})
    config = build(TrainConfig, settings)
    return task, dataset, replace(config, micro_batch=config.batch_size)


def read_settings(texts, known):
    """{name: value} of [NAME=VALUE]. known: of engine.config.fields_of. Raises click.BadParameter for what is none."""
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or name not in known:
            raise click.BadParameter(
                f"--set {text}: expected NAME=VALUE with a setting of this task's `train`"
            )
        switches = {"true": True, "false": False} if known[name][1] is bool else {}
        values[name] = switches.get(value, value)
    return values


def write_sample(task_name, scratch, images, side):
    """The name of a new folder with sample data: so many training images, of this side in pixels, None: as ever."""
    from visionloop.datasets.synthetic.writers import WRITERS

    folder = scratch / "data"
    folder.mkdir()
    sides = {} if side is None else {"sides": (side, side)}
    WRITERS[task_name](folder, 0, images={"train": images, "val": 8}, **sides)
    return str(folder)


@contextmanager
def cache_beside(scratch, own):
    """With own, the cache of decoded images lies in `scratch` until the end of the block: nobody wants those of sample data."""
    before = os.environ.get("XDG_CACHE_HOME")
    if own:
        import huggingface_hub.constants  # noqa: F401  its cache stays where it is: it reads the variable once

        os.environ["XDG_CACHE_HOME"] = str(scratch / "cache")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("XDG_CACHE_HOME", None)
        else:
            os.environ["XDG_CACHE_HOME"] = before
