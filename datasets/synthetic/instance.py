"""Sample data of instance segmentation: scenes of segments.py in the layout of COCO instances."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from tqdm import tqdm

from visionloop.datasets.synthetic.segments import (
    CATEGORY_IDS,
    SIDES,
    SPLITS,
    SceneObject,
    bounding_box,
    draw_scene,
)
from visionloop.datasets.synthetic.shapes import OUTLINES


def write_instances(
    folder: Path,
    seed: int,
    images: Mapping[str, int] = SPLITS,
    sides: tuple[int, int] = SIDES,
) -> None:
    """Write `train.json` and `val.json` of COCO instances, `train/0000.jpg` and `val/0000.jpg`.

    folder: an empty folder; images: {split: number of images}; sides: shortest and longest side in
    pixels. Masks are run-length encoded, those of crowds as lists of numbers like COCO's own.
    """
    categories = [{"id": CATEGORY_IDS[kind], "name": kind} for kind in sorted(OUTLINES)]
    with tqdm(total=sum(images.values()), desc="sample data", unit="image", disable=None) as bar:
        for split_number, (split, count) in enumerate(images.items()):
            (folder / split).mkdir(parents=True)
            entries: list[dict[str, object]] = []
            annotations: list[dict[str, object]] = []
            for number in range(count):
                scene = draw_scene(
                    np.random.default_rng([seed, split_number, number]), number, sides
                )
                name = f"{number:04}.jpg"
                Image.fromarray(scene.image).save(folder / split / name, quality=90)
                height, width = scene.ids.shape
                entry = {"id": number + 1, "file_name": name, "width": width, "height": height}
                entries.append(entry)
                for item in scene.objects:
                    row = {"id": len(annotations) + 1, "image_id": number + 1}
                    annotations.append(row | _annotation(item))
                bar.update()
            content = {"images": entries, "annotations": annotations, "categories": categories}
            (folder / f"{split}.json").write_text(json.dumps(content) + "\n")


def _annotation(item: SceneObject) -> dict[str, object]:
    """Return the annotation of an object, without its own id and that of the image."""
    return {
        "category_id": CATEGORY_IDS[item.kind],
        "segmentation": {
            "size": list(item.mask.shape),
            "counts": _run_lengths(item.mask) if item.is_crowd else _compressed(item.mask),
        },
        "area": int(item.mask.sum()),
        "bbox": bounding_box(item.mask),
        "iscrowd": int(item.is_crowd),
    }


def _compressed(mask: NDArray[np.bool_]) -> str:
    """Return COCO's compressed run-length encoding of a mask, bool [H, W]."""
    encoded: dict[str, bytes] = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return encoded["counts"].decode()


def _run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """Return the lengths of the runs of a mask, bool [H, W], column by column from a 0 on."""
    pixels = mask.T.reshape(-1)
    changes = np.flatnonzero(np.diff(pixels, prepend=False))
    lengths: list[int] = np.diff(changes, prepend=0, append=len(pixels)).tolist()
    return lengths
