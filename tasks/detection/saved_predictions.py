"""Detections in files: read from JSON lines or COCO results, scored without model or images."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from visionloop.datasets.detection.index import DetectionIndex, read_coco
from visionloop.datasets.detection.layout import require_detection_split
from visionloop.datasets.io.json_columns import column, look_up, number_lists, numbers, show
from visionloop.datasets.io.layout import DataLayoutError
from visionloop.engine.errors import UserError
from visionloop.engine.types import JsonObject
from visionloop.metrics.detection import DetectionMetric
from visionloop.metrics.rows import Columns
from visionloop.tasks.saved_predictions import (
    Row,
    match_images,
    number_images,
    predictions_error,
    read_entries,
    read_lines,
    require_images,
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
    """Read COCO results.

    Images and classes are matched by "image_id" and "category_id"; where all entries have
    "file_name" and "category_name", by these: the ids of `predict` are its own.

    Raises UserError for the first entry that does not fit.
    """
    rows = read_entries(path)
    entries = [entry for _, entry in rows]
    label_of: dict[Hashable, int]
    has_names = all("file_name" in entry and "category_name" in entry for entry in entries)
    if has_names:
        image_key, class_key = "file_name", "category_name"
        images = match_images(
            column(entries, image_key), [index.name(i) for i in range(len(index))]
        )
        label_of = {key: label for label, key in enumerate(index.classes)}
    else:
        image_key, class_key = "image_id", "category_id"
        row_of: dict[Hashable, int] = {key: row for row, key in enumerate(index.image_ids.tolist())}
        images = look_up(row_of, column(entries, image_key))
        label_of = {key: label for label, key in enumerate(index.category_ids)}
    labels = look_up(label_of, column(entries, class_key))
    raise_first(path, rows, images < 0, image_key, f"no image of {index.source}")
    return images, *read_boxes(path, rows, labels, (class_key, "bbox"), index)


def read_predictions(path: str | Path, index: DetectionIndex) -> Detections:
    """Read the JSON lines that `predict` writes; returns and raises as `read_results`.

    A line about an image that could not be read has no detections.
    """
    lines = read_lines(path)
    rows: list[Row] = []
    images: list[int] = []
    image_of_line = require_images(path, lines, index).tolist()
    for (position, line), image in zip(lines, image_of_line, strict=True):
        check_size(path, position, line, index.sizes_hw[image].tolist())
        detections = line.get("detections", [] if "error" in line else None)
        if not isinstance(detections, list) or not all(isinstance(one, dict) for one in detections):
            raise predictions_error(
                path, f"{position}: detections is {show(detections)}, expected a list of objects"
            )
        rows += [(f"{position}: detection {i}", one) for i, one in enumerate(detections)]
        images += [image] * len(detections)
    label_of: dict[Hashable, int] = {name: label for label, name in enumerate(index.classes)}
    labels = look_up(label_of, column([one for _, one in rows], "label"))
    boxes = read_boxes(path, rows, labels, ("label", "box"), index)
    return np.array(images, dtype=np.int64), *boxes


def check_size(path: str | Path, position: str, line: JsonObject, size_hw: Sequence[int]) -> None:
    """Raise UserError if a line has another image size than the annotations: another image."""
    line_hw = [line.get("height"), line.get("width")]
    if None not in line_hw and all(size_hw) and line_hw != list(size_hw):
        raise predictions_error(
            path,
            f"{position}: height is {show(line_hw[0])} and width {show(line_hw[1])}, "
            f"the annotations say {size_hw[0]} and {size_hw[1]}",
        )


def read_boxes(
    path: str | Path,
    rows: Sequence[Row],
    labels: NDArray[np.int64],
    keys: tuple[str, str],
    index: DetectionIndex,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return (labels, boxes, scores) of rows, see `read_results`. Raises UserError.

    Args:
        path: of the file, for messages.
        rows: detections with their position in the file.
        labels: int64 [N], negative for an unknown class.
        keys: of the class and of the box.
        index: the annotations.
    """
    entries = [entry for _, entry in rows]
    boxes, is_box = number_lists(column(entries, keys[1]), 4)
    scores, is_score = numbers(column(entries, "score"))
    raise_first(path, rows, labels < 0, keys[0], f"no class of {index.source}")
    raise_first(path, rows, ~is_box, keys[1], "not four finite numbers")
    raise_first(path, rows, ~is_score, "score", "not a finite number")
    return labels, boxes, scores


def raise_first(
    path: str | Path, rows: Sequence[Row], wrong: NDArray[np.bool_], key: str, reason: str
) -> None:
    """Raise UserError for the first row that is `wrong` (bool [N]), with the number of others."""
    if wrong.any():
        position, entry = rows[int(wrong.argmax())]
        more = f" ({wrong.sum()} such entries)" if wrong.sum() > 1 else ""
        raise predictions_error(
            path, f"{position}: {key} is {show(entry.get(key))}, {reason}{more}"
        )


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
