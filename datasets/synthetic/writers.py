"""Writers of sample data for each task: shapes on real textures, in the layout of the task.

Every image is a function of (seed, split, number) only: the same seed gives the same bytes with
the same versions. Classification is easy on purpose, so that a small model learns it from random
weights on a CPU within a minute or two: shapes are large, roughly upright and brighter than the
darkened ground.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from visionloop.datasets.synthetic.detection import write_detection
from visionloop.datasets.synthetic.instance import write_instances
from visionloop.datasets.synthetic.panoptic import write_panoptic
from visionloop.datasets.synthetic.scenes import shaded_patch, shape_colors
from visionloop.datasets.synthetic.segmentation import write_segmentation
from visionloop.datasets.synthetic.shapes import OUTLINES, shape_mask
from visionloop.datasets.synthetic.super_resolution import write_super_resolution

SPLITS = {"train": 1200, "val": 240}  # images
SIDES = (64, 96)  # shortest and longest side in pixels
# longer over shorter side: evaluation resizes images to squares, and the shapes with them
MAX_ASPECT = 1.15
RADII = (0.38, 0.46)  # of the circumscribed circle, relative to the shorter side
MAX_ROTATION = np.pi / 10  # to either side


def write_classification(
    folder: Path,
    seed: int,
    images: Mapping[str, int] = SPLITS,
    sides: tuple[int, int] = SIDES,
) -> None:
    """Write `train/<class>/0000.jpg` and `val/<class>/0000.jpg`: one shape each, the class.

    folder: an empty folder; images: {split: number of images}, distributed over the classes in
    turn; sides: shortest and longest side in pixels.
    """
    classes = sorted(OUTLINES)
    with tqdm(total=sum(images.values()), desc="sample data", unit="image", disable=None) as bar:
        for split_number, (split, count) in enumerate(images.items()):
            for kind in classes:
                (folder / split / kind).mkdir(parents=True)
            for number in range(count):
                kind = classes[number % len(classes)]
                scene = draw_scene(np.random.default_rng([seed, split_number, number]), kind, sides)
                Image.fromarray(scene).save(
                    folder / split / kind / f"{number // len(classes):04}.jpg", quality=90
                )
                bar.update()


def draw_scene(
    generator: np.random.Generator, kind: str, sides: tuple[int, int] = SIDES
) -> NDArray[np.uint8]:
    """Draw a texture with one shape on it, uint8 [H, W, 3]."""
    height, width = random_size(generator, sides)
    ground = shaded_patch(generator, height, width)
    radius = generator.uniform(*RADII) * min(height, width)
    center_xy = generator.uniform(radius, (width - radius, height - radius))
    angle = generator.uniform(-MAX_ROTATION, MAX_ROTATION)
    mask = shape_mask(kind, height, width, center_xy=center_xy, radius=radius, angle=angle)
    mask = mask[..., None]  # [H, W, 1]
    shape = shape_colors(generator, ground, mask)
    return np.clip(ground * (1 - mask) + shape * mask, 0, 255).astype(np.uint8)


def random_size(generator: np.random.Generator, sides: tuple[int, int] = SIDES) -> tuple[int, int]:
    """Return a random (height, width) within these sides and MAX_ASPECT."""
    height = generator.integers(*sides, endpoint=True)
    width = np.clip(height * generator.uniform(1 / MAX_ASPECT, MAX_ASPECT), *sides)
    return int(height), int(width)


# {task: writer(folder, seed, images, sides)}
WRITERS: dict[str, Callable[..., None]] = {  # type: ignore[explicit-any]  # defaults differ
    "classification": write_classification,
    "detection": write_detection,
    "instance_segmentation": write_instances,
    "panoptic_segmentation": write_panoptic,
    "segmentation": write_segmentation,
    "super_resolution": write_super_resolution,
}
