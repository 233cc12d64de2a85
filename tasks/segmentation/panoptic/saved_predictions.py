"""Predicted segments as files: JSON lines, and COCO's panoptic json with PNGs of segment ids."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from visionloop.engine.types import JsonObject, Predictions
from visionloop.tasks.saved_predictions import PngNames, number_images

SEGMENTS, JSON = "segments", "panoptic.json"


def describe(
    predictions: Predictions, names: Sequence[str], classes: Sequence[str]
) -> list[JsonObject]:
    """Return the rows of predictions.jsonl: the segments of each image, in order of their ids.

    Args:
        predictions: {"segment_maps": int32 [H, W], "labels": int64 [n], "scores": float32 [n]} of
            each image.
        names: of the files.
        classes: names in order of id.

    Returns:
        [{"file", "width", "height", "segments": [{"segment", "label", "id", "score", "area",
        "box"}, ...]}]; segment is the value in the PNG, id that of the class, area in pixels, box
        xywh in pixels.
    """
    images = zip(
        names,
        predictions["segment_maps"],
        predictions["labels"],
        predictions["scores"],
        strict=True,
    )
    rows = []
    for name, segment_map, labels, scores in images:
        numbers = segment_map.cpu().numpy()
        height, width = numbers.shape
        areas = np.bincount(numbers.ravel(), minlength=len(labels) + 1)[1:].tolist()
        parts = ndimage.find_objects(numbers, max_label=len(labels))
        segments = [
            {
                "segment": i + 1,
                "label": classes[label],
                "id": label,
                "score": round(score, 6),
                "area": area,
                "box": _box(part),
            }
            for i, (label, score, area, part) in enumerate(
                zip(labels.tolist(), scores.tolist(), areas, parts, strict=True)
            )
        ]
        rows.append({"file": name, "width": width, "height": height, "segments": segments})
    return rows


def _box(part: "tuple[slice[int, int, None], ...] | None") -> list[int]:
    """Return the box xywh of (rows, columns); of a segment without pixels, which has none, 0."""
    if part is None:
        return [0, 0, 0, 0]
    rows, columns = part
    return [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]


def prediction_files(
    predictions: Predictions,
) -> dict[str, Iterable[NDArray[np.uint8] | Image.Image]]:
    """Return the images that `predict` writes: {"segments": uint8 [H, W, 3], made one by one}.

    The value of a pixel is R + 256 G + 65536 B: 0 for none, i + 1 for segment i.
    """
    return {SEGMENTS: (to_rgb(each.cpu().numpy()) for each in predictions["segment_maps"])}


def to_rgb(numbers: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Return segment ids [H, W] as colors uint8 [H, W, 3], R + 256 G + 65536 B."""
    return np.stack([numbers >> shift & 255 for shift in (0, 8, 16)], axis=-1).astype(np.uint8)


def write_predictions(
    folder: str | Path,
    rows: Iterable[JsonObject],
    classes: Sequence[str],
    is_thing: Sequence[bool],
) -> None:
    """Write `panoptic.json` next to predictions.jsonl: COCO's format, with the PNGs of segments/.

    For the ids of images see `number_images`. category_id is the label in the model's config.json,
    from 0 on.
    """
    files = [row["file"] for row in rows]
    image_ids, png_names = number_images(files), PngNames(files)
    annotations = [
        {
            "image_id": image_id,
            "file_name": png_names.of(row["file"]),
            "segments_info": [
                {
                    "id": segment["segment"],
                    "category_id": segment["id"],
                    "area": segment["area"],
                    "bbox": segment["box"],
                    "iscrowd": 0,
                }
                for segment in row["segments"]
            ],
        }
        for image_id, row in zip(image_ids, rows, strict=True)
    ]
    content = {
        "images": [
            {
                "id": image_id,
                "file_name": row["file"],
                "width": row["width"],
                "height": row["height"],
            }
            for image_id, row in zip(image_ids, rows, strict=True)
        ],
        "annotations": annotations,
        "categories": [
            {"id": i, "name": name, "isthing": int(flag)}
            for i, (name, flag) in enumerate(zip(classes, is_thing, strict=True))
        ],
    }
    (Path(folder) / JSON).write_text(json.dumps(content) + "\n")
