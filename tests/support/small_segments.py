"""Instance and panoptic tasks of a few thousand weights, importable by the processes of tests.

With scenes that both tasks read: surfaces, objects that overlap, a crowd, void, and an image
without objects.
"""

import json
import os
from dataclasses import replace

import numpy as np
from PIL import Image
from segments_files import annotation, rectangle, run_lengths, segment_info, write_ids
from small_segmentation import SMALL

from visionloop.tasks.segmentation.instance.config import InstanceConfig
from visionloop.tasks.segmentation.instance.task import InstanceTask
from visionloop.tasks.segmentation.model import new_config
from visionloop.tasks.segmentation.panoptic.config import PanopticConfig
from visionloop.tasks.segmentation.panoptic.task import PanopticTask

# every pixel of the grid instead of random points; all queries masked, so that no mask is drawn
QUIET = {
    "model": "tiny",
    "from_scratch": True,
    "image_size": 32,
    "points": 0,
    "mask_annealing": "on",
    "scale_min": 0.5,
    "color": 0.0,
}
DATA = "SMALL_SEGMENTS_DATA"  # the variable with the data folder of the tasks below
# name -> (category id, color, is it of things)
CLASSES = {
    "car": (3, (200, 40, 40), 1),
    "dog": (4, (40, 200, 40), 1),
    "grass": (17, (40, 90, 160), 0),
    "sky": (25, (230, 230, 120), 0),
}
CATEGORIES = [{"id": key, "name": name, "isthing": is_thing}
              for name, (key, _, is_thing) in CLASSES.items()]  # fmt: skip
GRASS, SKY, CROWD = 70_000, 300, 16_000_000  # ids of segments in the PNGs
HEIGHT, WIDTH = 32, 40


class Small:
    """`tiny`, smaller."""

    @property
    def model_config(self):
        config = new_config("tiny")
        fields = SMALL | {"image_size": self.config.image_size}
        fields["num_queries"] = self.config.num_queries or SMALL["num_queries"]
        for name, value in fields.items():
            setattr(config, name, value)
        return config


class SmallInstanceTask(Small, InstanceTask): ...


class SmallPanopticTask(Small, PanopticTask): ...


def small_task(kind, data, **settings):
    """Return a task without randomness. kind: "instance" or "panoptic"."""
    if kind == "instance":
        return SmallInstanceTask(InstanceConfig(**QUIET | {"data": str(data)} | settings))
    return SmallPanopticTask(PanopticConfig(**QUIET | {"data": str(data)} | settings))


def make_instance_task():
    return small_task("instance", os.environ[DATA])


def make_panoptic_task():
    return small_task("panoptic", os.environ[DATA])


def make_noisy_panoptic_task():
    """Return a task with random points and with masks that are annealed during the run."""
    return small_task("panoptic", os.environ[DATA], points=200, mask_annealing="auto")


class SecondHalfEmpty:
    """No segment from the fifth image of a global batch on: the second of two ranks has none."""

    def collate(self, samples, step, offset):
        samples = [
            sample | {"segments": sample["segments"][:0]} if offset + i >= 4 else sample
            for i, sample in enumerate(samples)
        ]
        return super().collate(samples, step, offset)


class HalfEmptyInstance(SecondHalfEmpty, SmallInstanceTask): ...


class HalfEmptyPanoptic(SecondHalfEmpty, SmallPanopticTask): ...


def make_half_empty_instance_task():
    return HalfEmptyInstance(make_instance_task().config)


def make_half_empty_panoptic_task():
    return HalfEmptyPanoptic(make_panoptic_task().config)


def make_ignoring_instance_task():
    task = make_instance_task()
    return SmallInstanceTask(replace(task.config, mask_ignore=True))


def make_ignoring_panoptic_task():
    task = make_panoptic_task()
    return SmallPanopticTask(replace(task.config, mask_ignore=True))


# scenes --------------------


def write_scenes(folder, seed=0, images=None):
    """Write scenes as panoptic_*.json with PNGs and as instances_*.json, on the same images.

    seed: of all scenes; images: {split: number of images}.
    """
    for split, count in (images or {"train": 16, "val": 7}).items():
        panoptic, instances, entries = [], [], []
        (folder / split).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            name = f"{number:02}"
            generator = np.random.default_rng([seed, len(split), number])
            image, ids, segments, objects = draw_scene(generator, number % 4)
            Image.fromarray(image).save(folder / split / f"{name}.png")
            write_ids(folder / f"panoptic_{split}" / f"{name}.png", ids)
            entry = {"id": number + 1, "file_name": f"{name}.png"}
            entries.append(entry | {"width": WIDTH, "height": HEIGHT})
            panoptic.append({"image_id": number + 1, "file_name": f"{name}.png",
                             "segments_info": segments})  # fmt: skip
            for category, outline, crowd in objects:
                key = len(instances) + 1
                instances.append(annotation(key, number + 1, category, outline, iscrowd=crowd))
        things = [row for row in CATEGORIES if row["isthing"]]
        things = [{key: row[key] for key in ("id", "name")} for row in things]
        for prefix, annotations, categories in (
            ("panoptic", panoptic, CATEGORIES),
            ("instances", instances, things),
        ):
            content = {"images": entries, "annotations": annotations, "categories": categories}
            (folder / f"{prefix}_{split}.json").write_text(json.dumps(content))
    return folder


def draw_scene(generator, form):
    """Draw a scene.

    form: 0: two objects that overlap; 1: surfaces alone; 2: three objects, a crowd and void;
    3: one object and void.

    Returns:
        (image uint8 [H, W, 3]; ids [H, W] of the panoptic PNG; segments_info; the objects:
        (category id, outline, is it a crowd)).
    """
    ids = np.full((HEIGHT, WIDTH), GRASS)
    ids[: int(generator.integers(10, 20))] = SKY
    colors = np.where((ids == SKY)[..., None], CLASSES["sky"][1], CLASSES["grass"][1])
    categories, objects = {SKY: CLASSES["sky"][0], GRASS: CLASSES["grass"][0]}, []
    for number in range((2, 0, 3, 1)[form]):
        name = ("car", "dog")[int(generator.integers(2))]
        width, height = (int(side) for side in generator.integers(7, 12, 2))
        left, top = number * 9, int(generator.integers(2, 16))  # up to 3 columns in common
        area = np.s_[top : top + height, left : left + width]
        ids[area], colors[area] = number + 1, CLASSES[name][1]
        categories[number + 1] = CLASSES[name][0]
        objects.append((CLASSES[name][0], [rectangle(left, top, width, height)], 0))
    if form == 2:
        ids[26:, 30:], colors[26:, 30:] = CROWD, CLASSES["dog"][1]
        categories[CROWD] = CLASSES["dog"][0]
        objects.append((CLASSES["dog"][0], run_lengths(ids == CROWD), 1))
    if form >= 2:
        ids[:, 38:] = 0
    segments = [segment_info(int(key), categories[key], ids, iscrowd=int(key == CROWD))
                for key in np.unique(ids) if key]  # fmt: skip
    noise = generator.integers(-20, 21, (HEIGHT, WIDTH, 3))
    return np.clip(colors + noise, 0, 255).astype(np.uint8), ids, segments, objects
