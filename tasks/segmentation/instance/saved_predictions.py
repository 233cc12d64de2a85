"""Predicted instances as files: JSON lines and COCO results, with masks as run lengths."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_masks

from visionloop.engine.types import JsonObject, Predictions
from visionloop.tasks.saved_predictions import number_images, write_results

RESULTS = "coco_results.json"


def describe(
    predictions: Predictions,
    sizes_hw: Sequence[Sequence[int]],
    names: Sequence[str],
    classes: Sequence[str],
) -> list[JsonObject]:
    """Return the rows of predictions.jsonl: the instances of each image, the best first.

    Args:
        predictions: {"rles": bytes of each mask, "labels": int64 [n], "scores": float32 [n]} of
            each image.
        sizes_hw: height and width of the images.
        names: of the files.
        classes: names in order of id.

    Returns:
        [{"file", "width", "height", "segments": [{"label", "id", "score", "area", "box", "mask"},
        ...]}]; id is that of the class, area in pixels, box xywh in pixels, mask COCO's compressed
        run lengths.
    """
    images = zip(
        names,
        sizes_hw,
        predictions["rles"],
        predictions["labels"],
        predictions["scores"],
        strict=True,
    )
    rows = []
    for name, (height, width), counts, labels, scores in images:
        rles = [{"size": [height, width], "counts": each} for each in counts]
        areas = np.asarray(coco_masks.area(rles)).tolist() if rles else []
        boxes = np.asarray(coco_masks.toBbox(rles)).tolist() if rles else []
        segments = [
            {
                "label": classes[label],
                "id": label,
                "score": round(score, 6),
                "area": area,
                "box": box,
                "mask": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
            }
            for label, score, area, box, rle in zip(
                labels.tolist(), scores.tolist(), areas, boxes, rles, strict=True
            )
        ]
        rows.append({"file": name, "width": width, "height": height, "segments": segments})
    return rows


def write_predictions(folder: str | Path, rows: Iterable[JsonObject]) -> None:
    """Write `coco_results.json` next to predictions.jsonl.

    An entry is {"image_id", "file_name", "category_id", "category_name", "segmentation", "score"};
    for the ids see `number_images`. category_id is the label in the model's config.json, from 0 on.
    """
    image_ids = number_images([row["file"] for row in rows])

    def entries() -> Iterable[JsonObject]:
        for image_id, row in zip(image_ids, rows, strict=True):
            for segment in row["segments"]:
                yield {
                    "image_id": image_id,
                    "file_name": row["file"],
                    "category_id": segment["id"],
                    "category_name": segment["label"],
                    "segmentation": segment["mask"],
                    "score": segment["score"],
                }

    write_results(Path(folder) / RESULTS, entries())
