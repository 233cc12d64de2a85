"""Sample data of detection: several shapes on one texture, in COCO format.

Every image and its boxes are a function of (seed, split, number) only. The data is easy on purpose:
shapes are brighter than the ground, roughly upright and hardly occlude each other, so that a small
detector learns them within minutes on a CPU. It also has what code for real data must handle:
images of every size, images without a box, and a crowd.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from visionloop.datasets.synthetic.scenes import Scene, random_grid, shaded_patch
from visionloop.datasets.synthetic.shapes import OUTLINES

SPLITS = {"train": 240, "val": 60}  # images
SIDES = (160, 320)  # shortest and longest side in pixels, height and width drawn independently
# Ids with a gap, as in COCO: code that uses an id as a label fails at once.
CATEGORY_IDS = dict(zip(sorted(OUTLINES), (1, 2, 3, 5), strict=True))
MAX_SHAPES = 8
RADII = (0.06, 0.22)  # of the circumscribed circle, relative to the shorter side
MAX_ROTATION = np.pi / 6  # to either side
# every 30th validation image has a crowd: many small shapes of a kind under one box
CROWD_EVERY = 30
# radius of the crowd and of a shape in it, relative to the shorter side
CROWD_RADIUS, CROWD_MEMBER = 0.26, 0.06
CROWD_GRID = 4  # members along a side


def write_detection(
    folder: Path,
    seed: int,
    images: Mapping[str, int] = SPLITS,
    sides: tuple[int, int] = SIDES,
) -> None:
    """Write `train.json` and `val.json` in COCO format, `train/0000.jpg` and `val/0000.jpg`.

    folder: an empty folder; images: {split: number of images}; sides: shortest and longest side in
    pixels.
    """
    with tqdm(total=sum(images.values()), desc="sample data", unit="image", disable=None) as bar:
        for split_number, (split, count) in enumerate(images.items()):
            (folder / split).mkdir(parents=True)
            image_entries: list[dict[str, object]] = []
            annotations: list[dict[str, object]] = []
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


def draw_scene(
    generator: np.random.Generator, crowded: bool, sides: tuple[int, int] = SIDES
) -> tuple[NDArray[np.uint8], list[dict[str, object]]]:
    """Draw a texture with shapes on it.

    crowded: the first object is a crowd. Returns (uint8 [H, W, 3], annotations without ids).
    """
    height, width = (int(side) for side in generator.integers(*sides, size=2, endpoint=True))
    scene = Scene(shaded_patch(generator, height, width))
    objects = _Objects(scene)
    if crowded:
        objects.add_crowd(generator)
    for _ in range(generator.integers(MAX_SHAPES, endpoint=True)):
        objects.add_shape(generator)
    return scene.image(), objects.rows


class _Objects:
    """A scene and the annotations of its shapes, `rows`."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.rows: list[dict[str, object]] = []

    def add_shape(self, generator: np.random.Generator) -> None:
        """Paint and annotate one shape of a random kind, size and rotation, if there is room."""
        kind = sorted(OUTLINES)[generator.integers(len(OUTLINES))]
        radius = generator.uniform(*RADII) * self.scene.shorter
        center_xy = self.scene.find_room(generator, radius)
        if center_xy is not None:
            corners = self.paint(generator, kind, center_xy, radius)
            self.annotate(kind, corners, iscrowd=0)

    def add_crowd(self, generator: np.random.Generator) -> None:
        """Paint a grid of small shapes of one kind, some cells empty, with one box for all."""
        kind = sorted(OUTLINES)[generator.integers(len(OUTLINES))]
        shorter = self.scene.shorter
        center_xy = self.scene.find_room(generator, CROWD_RADIUS * shorter)
        assert center_xy is not None  # the crowd comes first, into an empty scene
        side = 2 * CROWD_MEMBER * shorter  # of a cell: the shapes touch
        corners = [
            self.paint(generator, kind, center_xy + offset_xy, CROWD_MEMBER * shorter)
            for offset_xy in random_grid(generator, CROWD_GRID, side)
        ]
        self.annotate(kind, np.concatenate(corners), iscrowd=1)

    def paint(
        self,
        generator: np.random.Generator,
        kind: str,
        center_xy: NDArray[np.float64],
        radius: float,
    ) -> NDArray[np.int64]:
        """Paint one shape.

        Returns its first and last covered pixel (coverage at least half), int64 [2, 2] (x, y).
        """
        (rows, columns), mask = self.scene.paint(generator, kind, center_xy, radius, MAX_ROTATION)
        covered_yx = np.argwhere(mask >= 0.5)
        return np.stack([covered_yx.min(0), covered_yx.max(0)])[:, ::-1] + (
            columns.start,
            rows.start,
        )

    def annotate(self, kind: str, corners: NDArray[np.int64], iscrowd: int) -> None:
        """Append the annotation of the box around the pixels `corners`, int64 [N, 2] (x, y)."""
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
