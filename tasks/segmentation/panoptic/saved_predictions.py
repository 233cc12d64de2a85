"""Predicted segments as files: JSON lines, and COCO's panoptic json with PNGs of segment ids."""

import itertools
import json
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from visionloop.datasets.segments.dataset import SegmentsDataset
from visionloop.datasets.segments.id_maps import ids_to_rgb
from visionloop.engine.types import JsonObject, Predictions
from visionloop.metrics.panoptic_quality import PanopticQualityMetric
from visionloop.metrics.rows import Inputs
from visionloop.tasks.saved_predictions import PngNames, number_images

SEGMENTS, JSON = "segments", "panoptic.json"
# PNG of the segment map, its height and width, labels and areas of the segments
RecordedMap: TypeAlias = tuple[bytes, tuple[int, int], list[int], list[int]]


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
    return {SEGMENTS: (ids_to_rgb(each.cpu().numpy()) for each in predictions["segment_maps"])}


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
        "annotations": [
            {
                "image_id": image_id,
                "file_name": png_names.of(row["file"]),
                "segments_info": [
                    _segment_info(segment["segment"], segment["id"], segment["area"])
                    | {"bbox": segment["box"]}
                    for segment in row["segments"]
                ],
            }
            for image_id, row in zip(image_ids, rows, strict=True)
        ],
        "categories": _categories(classes, is_thing, range(len(classes))),
    }
    (Path(folder) / JSON).write_text(json.dumps(content) + "\n")


def _segment_info(segment: int, category_id: int | str, area: int) -> JsonObject:
    return {"id": segment, "category_id": category_id, "area": area, "iscrowd": 0}


def _categories(
    classes: Sequence[str], is_thing: Sequence[bool], ids: Sequence[int | str]
) -> list[JsonObject]:
    rows = zip(ids, classes, is_thing, strict=True)
    return [{"id": key, "name": name, "isthing": int(flag)} for key, name, flag in rows]


class RecordedPanopticQuality(PanopticQualityMetric):
    """Panoptic quality that keeps the predicted segments, for `evaluate --save-predictions`.

    They are no part of `state`: for an evaluation by one process.

    Attributes:
        recorded: {sample id: (PNG of the segment map, its height and width, labels, areas)}.
    """

    def __init__(self, is_thing: Sequence[bool]) -> None:
        """Make an empty metric; see PanopticQualityMetric."""
        super().__init__(is_thing)
        self.recorded: dict[int, RecordedMap] = {}

    def update(self, predictions: Inputs, batch: Inputs) -> None:
        """Add the images of a batch; see PanopticQualityMetric.update."""
        super().update(predictions, batch)
        columns = (predictions["segment_maps"], predictions["labels"])
        for sample_id, segment_map, labels in zip(
            batch["sample_ids"].tolist(), *columns, strict=True
        ):
            numbers = segment_map.cpu().numpy()
            height, width = numbers.shape
            file = BytesIO()
            Image.fromarray(ids_to_rgb(numbers)).save(file, "PNG")
            areas = np.bincount(numbers.ravel(), minlength=len(labels) + 1)[1:].tolist()
            self.recorded[sample_id] = file.getvalue(), (height, width), labels.tolist(), areas


def save_scored_predictions(
    metric: RecordedPanopticQuality, dataset: SegmentsDataset, path: str | Path
) -> None:
    """Write the segments of an evaluation in COCO's panoptic format, with the ids of the data.

    The PNGs go to the folder named like the json. A class that the annotations do not list gets an
    id of its own: its segments are wrong, and count.
    """
    index, path = dataset.index, Path(path)
    folder = path.with_suffix("")
    image_ids = index.image_ids.tolist()
    png_names = PngNames([index.name(i) for i in range(len(index))])
    free = (key for key in itertools.count() if key not in index.category_ids)
    ids = [next(free) if key is None else key for key in index.category_ids]
    content: JsonObject = {"images": [], "annotations": []}
    for i, (png, (height, width), labels, areas) in sorted(metric.recorded.items()):
        file = folder / png_names.of(index.name(i))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png)
        infos = [
            _segment_info(k, ids[label], area)
            for k, (label, area) in enumerate(zip(labels, areas, strict=True), 1)
        ]
        size = {"width": width, "height": height}
        content["images"].append({"id": image_ids[i], "file_name": index.name(i)} | size)
        content["annotations"].append(
            {
                "image_id": image_ids[i],
                "file_name": png_names.of(index.name(i)),
                "segments_info": infos,
            }
        )
    content["categories"] = _categories(index.classes, metric.is_thing.tolist(), ids)
    path.write_text(json.dumps(content) + "\n")
