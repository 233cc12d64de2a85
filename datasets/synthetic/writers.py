"""Sample data of the tasks: shapes on real textures, written in each task's own layout on disk.

Every image is a function of (seed, split, number) alone: the same seed gives the same bytes with
the same versions. The world of classification is kept easy on purpose, so that a small model learns
it from nothing on a CPU within a minute or two: shapes are large, roughly upright and brighter than
the ground, which lies in shade.
"""

import numpy as np
from PIL import Image
from tqdm import tqdm

from visionloop.datasets.synthetic.detection import write_detection
from visionloop.datasets.synthetic.scenes import shaded_patch, shape_colours
from visionloop.datasets.synthetic.segmentation import write_segmentation
from visionloop.datasets.synthetic.shapes import OUTLINES, shape_mask
from visionloop.datasets.synthetic.super_resolution import write_super_resolution

SPLITS = {"train": 1200, "val": 240}  # images
SIDES = (64, 96)  # pixels, both included
LARGEST_ASPECT = (
    1.15  # longer over shorter side: evaluation squashes images to squares, and shapes with them
)
RADII = (0.38, 0.46)  # of the circle around a shape, as a share of the shorter side
LARGEST_TURN = np.pi / 10  # to either side


def write_classification(folder, seed, images=SPLITS, sides=SIDES):
    """One shape an image, its kind is the class: `train/<class>/0000.jpg`, `val/<class>/0000.jpg`.

    folder: a Path, empty; images: how many of each split, dealt out over the classes in turn;
    sides: shortest and longest, pixels.
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


def draw_scene(generator, kind, sides=SIDES):
    """A texture with one shape on it: uint8 [H, W, 3]. generator: a numpy Generator, the only source of chance."""
    height, width = random_size(generator, sides)
    ground = shaded_patch(generator, height, width)
    radius = generator.uniform(*RADII) * min(height, width)
    centre_xy = generator.uniform(radius, (width - radius, height - radius))
    angle = generator.uniform(-LARGEST_TURN, LARGEST_TURN)
    mask = shape_mask(kind, height, width, centre_xy=centre_xy, radius=radius, angle=angle)[
        ..., None
    ]
    shape = shape_colours(generator, ground, mask)
    return np.clip(ground * (1 - mask) + shape * mask, 0, 255).astype(np.uint8)


def random_size(generator, sides=SIDES):
    """(height, width), within these sides and LARGEST_ASPECT."""
    height = generator.integers(*sides, endpoint=True)
    width = np.clip(height * generator.uniform(1 / LARGEST_ASPECT, LARGEST_ASPECT), *sides)
    return int(height), int(width)


# A task's word -> function(folder, seed) that writes its data; all four know `images` and `sides`
# too.
WRITERS = {
    "classification": write_classification,
    "detection": write_detection,
    "segmentation": write_segmentation,
    "super_resolution": write_super_resolution,
}
