"""Sample data of detection: several shapes on one texture, in COCO form.

Every image and its boxes are a function of (seed, split, number) alone. Kept easy on purpose,
like the sample data of classification: shapes are brighter than the ground, roughly upright and
hardly hide each other, so that a small detector learns them within minutes on a CPU. What real data
has and code trips over is in it too: images of every size, images without a box, and a crowd.
"""

import json

import numpy as np
from PIL import Image
from tqdm import tqdm

from visionloop.datasets.synthetic.scenes import Scene, shaded_patch
from visionloop.datasets.synthetic.shapes import OUTLINES

SPLITS = {"train": 240, "val": 60}  # images
SIDES = (160, 320)  # pixels, both included, each drawn for itself
# Ids with a gap, as in COCO itself: code that takes an id for a label fails at once.
CATEGORY_IDS = dict(zip(sorted(OUTLINES), (1, 2, 3, 5), strict=True))
MOST_SHAPES = 8
RADII = (0.06, 0.22)  # of the circle around a shape, as a share of the shorter side
LARGEST_TURN = np.pi / 6  # to either side
# one validation image of so many holds a crowd: many small shapes of a kind under one box, as
# nobody counted them
CROWD_EVERY = 30
CROWD_RADIUS, CROWD_MEMBER = (
    0.26,
    0.06,
)  # of the crowd and of a shape in it, as a share of the shorter side
CROWD_GRID = 4  # members along a side


def write_detection(folder, seed, images=SPLITS, sides=SIDES):
    """Write `train.json`, `val.json` in COCO form, and `train/0000.jpg`, `val/0000.jpg`.

    folder: a Path, empty; images: how many of each split; sides: shortest and longest, pixels.
    """
    with tqdm(total=sum(images.values()), desc="sample data", unit="image", disable=None) as bar:
        for split_number, (split, count) in enumerate(images.items()):
            (folder / split).mkdir(parents=True)
            image_entries, annotations = [], []
            for number in range(count):
                crowded = split == "val" and number % CROWD_EVERY == CROWD_EVERY - 1
                scene, objects = draw_scene(
                    np.random.default_rng([seed, split_number, number]), crowded, sides
                )
                name = f"{number:04}.jpg"
                Image.fromarray(scene).save(folder / split / name, quality=90)
                image_entries.append(
                    {
                        "id": number + 1,
                        "file_name": name,
                        "width": scene.shape[1],
                        "height": scene.shape[0],
                    }
                )
                for row in objects:
                    annotations.append({"id": len(annotations) + 1, "image_id": number + 1, **row})
                bar.update()
            categories = [
                {"id": category_id, "name": kind} for kind, category_id in CATEGORY_IDS.items()
            ]
            content = {
                "images": image_entries,
                "annotations": annotations,
                "categories": categories,
            }
            (folder / f"{split}.json").write_text(json.dumps(content) + "\n")


def draw_scene(generator, crowded, sides=SIDES):
    """A texture with shapes on it: (uint8 [H, W, 3], their annotations as dicts without ids).

    generator: a numpy Generator, the only source of chance; crowded: the first object is a crowd.
    """
    height, width = (int(side) for side in generator.integers(*sides, size=2, endpoint=True))
    scene = Scene(shaded_patch(generator, height, width))
    objects = _Objects(scene)
    if crowded:
        objects.add_crowd(generator)
    for _ in range(generator.integers(MOST_SHAPES, endpoint=True)):
        objects.add_shape(generator)
    return scene.image(), objects.rows


class _Objects:
    """A scene whose shapes are noted. rows: their annotations."""

    def __init__(self, scene):
        self.scene, self.rows = scene, []

    def add_shape(self, generator):
        """Paint one shape of a random kind, size and turn where there is room for it, and note its box."""
        kind = sorted(OUTLINES)[generator.integers(len(OUTLINES))]
        radius = generator.uniform(*RADII) * self.scene.shorter
        centre_xy = self.scene.find_room(generator, radius)
        if centre_xy is not None:  # a full image goes without it
            corners = self.paint(generator, kind, centre_xy, radius)
            self.note(kind, corners, iscrowd=0)

    def add_crowd(self, generator):
        """Paint a block of small shapes of one kind, some places left free, and note one box around them all."""
        kind = sorted(OUTLINES)[generator.integers(len(OUTLINES))]
        shorter = self.scene.shorter
        centre_xy = self.scene.find_room(generator, CROWD_RADIUS * shorter)
        side = 2 * CROWD_MEMBER * shorter  # of a cell: the members touch
        steps = (np.arange(CROWD_GRID) - (CROWD_GRID - 1) / 2) * side
        taken = generator.random((CROWD_GRID, CROWD_GRID)) < 0.8
        taken[0, 0] = taken[-1, -1] = True  # never an empty block
        cells = [
            (x, y)
            for row, y in zip(taken, steps, strict=True)
            for here, x in zip(row, steps, strict=True)
            if here
        ]
        corners = [
            self.paint(generator, kind, centre_xy + np.array(cell), CROWD_MEMBER * shorter)
            for cell in cells
        ]
        self.note(kind, np.concatenate(corners), iscrowd=1)

    def paint(self, generator, kind, centre_xy, radius):
        """Paint one shape: the outermost pixels that it covers at least half, int64 [2, (x, y)], both included."""
        (rows, columns), mask = self.scene.paint(generator, kind, centre_xy, radius, LARGEST_TURN)
        covered_yx = np.argwhere(mask >= 0.5)
        return np.stack([covered_yx.min(0), covered_yx.max(0)])[:, ::-1] + (
            columns.start,
            rows.start,
        )

    def note(self, kind, corners, iscrowd):
        """Append the annotation of the box around `corners`, int64 [N, (x, y)]: pixels that belong to it."""
        x, y = corners.min(0).tolist()
        width, height = (corners.max(0) - corners.min(0) + 1).tolist()
        box = [x, y, width, height]
        self.rows.append(
            {
                "category_id": CATEGORY_IDS[kind],
                "bbox": box,
                "area": width * height,
                "iscrowd": iscrowd,
            }
        )
