"""Sample data of panoptic segmentation: scenes of segments.py in the layout of COCO panoptic."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from visionloop.datasets.synthetic.segmentation import BAND, CLASSES, COLORS, GROUND
from visionloop.datasets.synthetic.segments import (
    CATEGORY_IDS,
    FIRST_OBJECT,
    SIDES,
    SPLITS,
    SegmentsScene,
    bounding_box,
    draw_scene,
)
from visionloop.datasets.synthetic.shapes import OUTLINES

DARKER = 0.94  # color of an object relative to that of the one before it


def write_panoptic(
    folder: Path,
    seed: int,
    images: Mapping[str, int] = SPLITS,
    sides: tuple[int, int] = SIDES,
) -> None:
    """Write `panoptic_train.json`, `panoptic_train/0000.png`, `train/0000.jpg`, the same for val.

    folder: an empty folder; images: {split: number of images}; sides: shortest and longest side in
    pixels. The ids in the PNGs are colors: viewers show the classes apart, and their objects.
    """
    categories = [
        {"id": key, "name": name, "isthing": int(name in OUTLINES), "color": _color(name, 0)}
        for name, key in CATEGORY_IDS.items()
    ]
    with tqdm(total=sum(images.values()), desc="sample data", unit="image", disable=None) as bar:
        for split_number, (split, count) in enumerate(images.items()):
            for name in (split, f"panoptic_{split}"):
                (folder / name).mkdir(parents=True)
            entries: list[dict[str, object]] = []
            annotations: list[dict[str, object]] = []
            for number in range(count):
                scene = draw_scene(
                    np.random.default_rng([seed, split_number, number]), number, sides
                )
                name, mask_name = f"{number:04}.jpg", f"{number:04}.png"
                Image.fromarray(scene.image).save(folder / split / name, quality=90)
                colors, segments = _segments(scene)
                Image.fromarray(colors).save(folder / f"panoptic_{split}" / mask_name)
                height, width = scene.ids.shape
                entry = {"id": number + 1, "file_name": name, "width": width, "height": height}
                entries.append(entry)
                row = {"image_id": number + 1, "file_name": mask_name, "segments_info": segments}
                annotations.append(row)
                bar.update()
            content = {"images": entries, "annotations": annotations, "categories": categories}
            (folder / f"panoptic_{split}.json").write_text(json.dumps(content) + "\n")


def _segments(scene: SegmentsScene) -> tuple[NDArray[np.uint8], list[dict[str, object]]]:
    """Return the ids of a scene as colors, uint8 [H, W, 3] and 0 for void, and its segments_info.

    Objects without a visible pixel are left out.
    """
    colors = np.zeros((*scene.ids.shape, 3), dtype=np.uint8)
    segments: list[dict[str, object]] = []
    names = {GROUND: CLASSES[GROUND], BAND: CLASSES[BAND]}
    objects = dict(enumerate(scene.objects, start=FIRST_OBJECT))
    names |= {value: item.kind for value, item in objects.items()}
    for value, name in names.items():
        mask = scene.ids == value
        if not mask.any():
            continue
        colors[mask] = red, green, blue = _color(name, value)
        segments.append(
            {
                "id": red + 256 * green + 65536 * blue,
                "category_id": CATEGORY_IDS[name],
                "iscrowd": int(value in objects and objects[value].is_crowd),
                "area": int(mask.sum()),
                "bbox": bounding_box(mask),
            }
        )
    return colors, segments


def _color(name: str, value: int) -> list[int]:
    """Return the color of a segment: that of its class, darker with its value in SegmentsScene."""
    return [round(channel * DARKER**value) for channel in COLORS[CLASSES.index(name)]]
