"""Sample data of the tasks: shapes on real textures, written in each task's own layout on disk.

Every picture is a function of (seed, split, number) alone: the same seed gives the same bytes with the same versions.
The world is kept easy on purpose, so that a small model learns it from nothing on a CPU within a minute or two: shapes are
large, roughly upright and brighter than the ground, which lies in shade.
"""

import numpy as np
from PIL import Image
from tqdm import tqdm

from visionloop.datasets.shapes import OUTLINES, shape_mask
from visionloop.datasets.textures import random_patch

SPLITS = {"train": 1200, "val": 240}  # pictures
SIDES = (64, 96)  # pixels, both included
LARGEST_ASPECT = 1.15  # longer over shorter side: evaluation squashes pictures to squares, and shapes with them
RADII = (0.38, 0.46)  # of the circle around a shape, as a share of the shorter side
LARGEST_TURN = np.pi / 10  # to either side
GROUND_CONTRAST, GROUND_BRIGHTNESS = 0.4, 0.5  # of the texture as photographed
SMALLEST_STEP = 90  # luma of a shape above what it covers, of 255
GRAIN = 0.15  # how much of a texture shows in the shape's colour
LUMA = np.array([0.299, 0.587, 0.114])


def write_classification(folder, seed, pictures=SPLITS):
    """One shape a picture, its kind is the class: `train/<class>/0000.jpg`, `val/<class>/0000.jpg`.

    folder: a Path, empty; pictures: how many of each split, dealt out over the classes in turn.
    """
    classes = sorted(OUTLINES)
    with tqdm(total=sum(pictures.values()), desc="sample data", unit="picture", disable=None) as bar:
        for split_number, (split, count) in enumerate(pictures.items()):
            for kind in classes:
                (folder / split / kind).mkdir(parents=True)
            for number in range(count):
                kind = classes[number % len(classes)]
                scene = draw_scene(np.random.default_rng([seed, split_number, number]), kind)
                Image.fromarray(scene).save(folder / split / kind / f"{number // len(classes):04}.jpg", quality=90)
                bar.update()


def draw_scene(generator, kind):
    """A texture with one shape on it: uint8 [H, W, 3]. generator: a numpy Generator, the only source of chance."""
    height, width = random_size(generator)
    ground = shaded(random_patch(generator, height, width).astype(np.float64))
    radius = generator.uniform(*RADII) * min(height, width)
    centre_xy = generator.uniform(radius, (width - radius, height - radius))
    angle = generator.uniform(-LARGEST_TURN, LARGEST_TURN)
    mask = shape_mask(kind, height, width, centre_xy=centre_xy, radius=radius, angle=angle)[..., None]

    covered = (ground * mask).sum((0, 1)) / mask.sum()
    grain = random_patch(generator, height, width).astype(np.float64)
    shape = (1 - GRAIN) * brighter_colour(generator, covered) + GRAIN * grain
    return np.clip(ground * (1 - mask) + shape * mask, 0, 255).astype(np.uint8)


def random_size(generator):
    """(height, width), within SIDES and LARGEST_ASPECT."""
    height = generator.integers(*SIDES, endpoint=True)
    width = np.clip(height * generator.uniform(1 / LARGEST_ASPECT, LARGEST_ASPECT), *SIDES)
    return int(height), int(width)


def shaded(ground):
    """The texture with less light and less contrast. ground: float64 [H, W, 3] in 0..255."""
    mean = ground.mean((0, 1))
    return GROUND_BRIGHTNESS * (mean + GROUND_CONTRAST * (ground - mean))


def brighter_colour(generator, than):
    """A random RGB colour whose luma is at least SMALLEST_STEP above that of `than`; shaded ground leaves room for it."""
    while True:
        colour = generator.uniform(0, 255, 3)
        if (colour - than) @ LUMA >= SMALLEST_STEP:
            return colour


# A task's word -> function(folder, seed) that writes its data.
WRITERS = {"classification": write_classification}
