"""Detections in files: read from JSON lines or COCO results, scored without model or images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from visionloop.datasets.detection.index import DetectionIndex, read_coco
from visionloop.datasets.detection.layout import require_detection_split
from visionloop.datasets.io.json_columns import column, number_lists
from visionloop.datasets.io.layout import DataLayoutError
from visionloop.engine.errors import UserError
from visionloop.engine.types import JsonObject
from visionloop.metrics.detection import DetectionMetric
from visionloop.metrics.rows import Columns
from visionloop.tasks.saved_predictions import (
    Row,
    match_entries,
    number_images,
    raise_first,
    read_entries,
    read_line_objects,
    read_scores,
    write_results,
)

if TYPE_CHECKING:
    from visionloop.datasets.detection.dataset import DetectionDataset

RESULTS = "coco_results.json"
# images int64 [N], labels int64 [N], boxes float64 [N, 4] xywh in pixels, scores float64 [N]
Detections: TypeAlias = tuple[
    NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]
]


def score_file(
    path: str | Path, *, data: str | Path, split: str
) -> tuple[DetectionIndex, DetectionMetric]:
    """Score a file of detections; see `Task.score_saved_predictions`.

    Args:
        path: predictions.jsonl of `predict` (any name that ends in .jsonl), or COCO results.
        data: a data folder, or the annotations as a COCO json; then `split` has no meaning.
        split: "train", "val" or "test".

    Returns:
        (the annotations, whose classes and their order count; the metric).
    """
    index = read_ground_truth(data, split)
    detections = (read_predictions if Path(path).suffix == ".jsonl" else read_results)(path, index)
    metric = DetectionMetric(len(index.classes))
    metric.merge([metric_state(index, *detections)])
    return index, metric


def read_ground_truth(data: str | Path, split: str) -> DetectionIndex:
    """Read the annotations to compare with, without the images. Raises UserError."""
    try:
        if Path(data).suffix == ".json" and Path(data).is_file():
            return read_coco(data, Path(data).parent, need_images=False)
        return require_detection_split(data, split, need_images=False)
    except DataLayoutError as error:
        raise UserError(str(error), code="bad_layout", file=error.path, field="data") from None


def read_results(path: str | Path, index: DetectionIndex) -> Detections:
    """Read COCO results; for the matching see `match_entries`.

    Raises UserError for the first entry that does not fit.
    """
    rows = read_entries(path)
    images, labels = match_entries(path, rows, index)
    return images, labels, *read_boxes(path, rows, "bbox")


def read_predictions(path: str | Path, index: DetectionIndex) -> Detections:
    """Read the JSON lines that `predict` writes; returns and raises as `read_results`."""
    rows, images, labels = read_line_objects(path, index, "detections")
    return images, labels, *read_boxes(path, rows, "box")


def read_boxes(
    path: str | Path, rows: Sequence[Row], key: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (boxes, scores) of detections, see `read_results`. Raises UserError.

    Args:
        path: of the file, for messages.
        rows: detections with their position in the file.
        key: of the box.
    """
    entries = [entry for _, entry in rows]
    boxes, is_box = number_lists(column(entries, key), 4)
    raise_first(path, rows, ~is_box, key, "not four finite numbers")
    return boxes, read_scores(path, rows)


def metric_state(
    index: DetectionIndex,
    images: NDArray[np.int64],
    labels: NDArray[np.int64],
    boxes: NDArray[np.float64],
    scores: NDArray[np.float64],
) -> Columns:
    """Return a state of `DetectionMetric` with all images of the index, without losses.

    Boxes are in float64 as read. Equal scores are in the order of image ids, then as in the
    file, as in pycocotools: scores in files are often rounded.
    """
    order = np.argsort(images, kind="stable")
    boxes = boxes[order]
    boxes[:, 2:] = boxes[:, 2:].clip(0)
    rank_of_image = np.argsort(np.argsort(index.image_ids, kind="stable"))
    return {
        "sample_ids": rank_of_image,
        "losses": np.full(len(index), np.nan),
        "has_loss": np.zeros(len(index), dtype=bool),
        "num_ground_truth": np.diff(index.offsets),
        "num_detections": np.bincount(images, minlength=len(index)),
        "ground_truth_boxes": index.boxes,
        "ground_truth_labels": index.labels,
        "ground_truth_crowd": index.crowd,
        "ground_truth_areas": index.areas,
        "boxes": boxes,
        "scores": scores[order],
        "labels": labels[order],
    }


def save_scored_predictions(
    metric: DetectionMetric, dataset: DetectionDataset, path: str | Path
) -> None:
    """Write the detections of an evaluation as COCO results with the ids of the data.

    Numbers are not rounded: scored again, they give the same metrics. A detection of a class that
    the annotations do not list has no id there, takes no part in the metrics, and is left out.
    """
    columns, index = metric.state(), dataset.index
    stops = columns["num_detections"].cumsum().tolist()
    image_ids = index.image_ids.tolist()

    def entries() -> Iterable[JsonObject]:
        images = columns["sample_ids"].tolist()
        for image, start, stop in zip(images, [0, *stops[:-1]], stops, strict=True):
            rows = (columns[key][start:stop].tolist() for key in ("labels", "boxes", "scores"))
            for label, box, score in zip(*rows, strict=True):
                category_id = index.category_ids[label]
                if category_id is not None:
                    yield {
                        "image_id": image_ids[image],
                        "category_id": category_id,
                        "bbox": box,
                        "score": score,
                    }

    write_results(path, entries())


def write_predictions(folder: str | Path, rows: Iterable[JsonObject]) -> None:
    """Write `coco_results.json` next to predictions.jsonl.

    An entry is {"image_id", "file_name", "category_id", "category_name", "bbox", "score"}.
    For the ids see `number_images`. category_id is the label in the model's
    config.json, from 0 on. A dataset may have other ids, so `score_file` matches by the names.
    """
    image_ids = number_images([row["file"] for row in rows])

    def entries() -> Iterable[JsonObject]:
        for image_id, row in zip(image_ids, rows, strict=True):
            for one in row["detections"]:
                yield {
                    "image_id": image_id,
                    "file_name": row["file"],
                    "category_id": one["id"],
                    "category_name": one["label"],
                    "bbox": one["box"],
                    "score": one["score"],
                }

    write_results(Path(folder) / RESULTS, entries())
