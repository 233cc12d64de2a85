"""Instances in files: JSON lines and COCO results, written, and scored without a model."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_masks
from tqdm import tqdm

from visionloop.datasets.segments.coco_instances import rle_errors
from visionloop.datasets.segments.dataset import SegmentsDataset
from visionloop.datasets.segments.index import SegmentsIndex, group_by_row
from visionloop.datasets.segments.outlines import OutlineParser
from visionloop.engine.types import JsonObject, Predictions
from visionloop.metrics.coco_evaluation import mask_rles
from visionloop.metrics.mask_average_precision import MaskAveragePrecision
from visionloop.tasks.saved_predictions import (
    Row,
    match_entries,
    number_images,
    predictions_error,
    read_entries,
    read_line_objects,
    read_scores,
    write_results,
)
from visionloop.tasks.segmentation.segments.data import scored_ground_truth, scored_split

RESULTS, LINES = "coco_results.json", "predictions.jsonl"


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
        # of one mask at a time: with numpy 2 more than 255 are an OverflowError
        areas = [int(coco_masks.area(rle)) for rle in rles]
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


def save_scored_predictions(
    metric: MaskAveragePrecision, dataset: SegmentsDataset, path: str | Path
) -> None:
    """Write the instances of an evaluation as COCO results with the ids of the data.

    Scores are not rounded: scored again, they give the same metrics. An instance of a class that
    the annotations do not list has no id there, takes no part in the metrics, and is left out.
    """
    columns, index = metric.state(), dataset.index

    def entries() -> Iterable[JsonObject]:
        images = np.repeat(columns["sample_ids"], columns["num_detections"])
        image_ids = index.image_ids[images].tolist()
        labels, scores = columns["labels"].tolist(), columns["scores"].tolist()
        rles = mask_rles(columns, "detections")
        for image_id, label, score, rle in zip(image_ids, labels, scores, rles, strict=True):
            category_id, counts = index.category_ids[label], rle["counts"]
            assert isinstance(counts, bytes), "compressed by the metric"
            if category_id is not None:
                yield {
                    "image_id": image_id,
                    "category_id": category_id,
                    "segmentation": {"size": rle["size"], "counts": counts.decode("ascii")},
                    "score": score,
                }

    write_results(path, entries())


def score_saved_predictions(
    path: str | Path, *, data: str | Path, split: str
) -> tuple[SegmentsIndex, MaskAveragePrecision]:
    """Score a file of instances; see `Task.score_saved_predictions`.

    Equal scores are in the order of image ids, then as in the file, as in pycocotools.

    Args:
        path: predictions.jsonl of `predict` (any name that ends in .jsonl), its folder, or COCO
            results; a mask is a run-length encoding of either kind, or polygons.
        data: the data folder, or the annotations as a COCO json; then `split` has no meaning.
        split: "train", "val" or "test".

    Returns:
        (the annotations, whose classes and their order count; the metric).

    Raises:
        UserError: the file does not fit the data.
    """
    path = Path(path) / LINES if Path(path).is_dir() else Path(path)
    index = scored_split(data, split, "instance")
    if path.suffix == ".jsonl":
        key = "mask"
        rows, images, labels = read_line_objects(path, index, "segments")
    else:
        key, rows = "segmentation", read_entries(path)
        images, labels = match_entries(path, rows, index)
    scores = read_scores(path, rows)
    progress = tqdm(range(len(index)), desc="scoring", unit="image", disable=None, leave=False)
    ground_truth, sizes_hw = zip(*(scored_ground_truth(index, i) for i in progress), strict=True)
    rles = read_masks(path, rows, key, images, np.array(sizes_hw, dtype=np.int64))
    offsets, order = group_by_row(images, len(index))
    of_image = [order[start:stop] for start, stop in pairwise(offsets.tolist())]
    predictions = {
        "rles": [[rles[k] for k in chosen] for chosen in of_image],
        "labels": [torch.from_numpy(labels[chosen]) for chosen in of_image],
        "scores": [torch.from_numpy(scores[chosen]) for chosen in of_image],
    }
    batch = {
        "sample_ids": torch.from_numpy(np.argsort(np.argsort(index.image_ids, kind="stable"))),
        "sizes": torch.tensor(sizes_hw),
        "ground_truth": ground_truth,
    }
    metric = MaskAveragePrecision(len(index.classes))
    metric.update(predictions, batch)
    return index, metric


def read_masks(
    path: str | Path,
    rows: Sequence[Row],
    key: str,
    images: NDArray[np.int64],
    sizes_hw: NDArray[np.int64],
) -> list[bytes]:
    """Return the compressed run lengths of each row.

    Args:
        path: of the file, for messages.
        rows: instances with their position in the file.
        key: of the mask.
        images: int64 [N], the image of each.
        sizes_hw: int64 [M, 2] of the images.

    Raises:
        UserError: for the first mask that is none or is not of the size of its image.
    """
    parser = OutlineParser()
    for _, row in rows:
        parser({"segmentation": row.get(key)})
    outlines = parser.outlines()
    problems = dict(parser.problems)
    if len(outlines):
        is_empty = outlines.stops == outlines.starts
        fitting = rle_errors(outlines, is_empty, images, sizes_hw)
        none = "segmentation has no mask, expected {size, counts}"
        problems = dict.fromkeys(np.flatnonzero(is_empty).tolist(), none) | fitting | problems
    if problems:
        first = min(problems)
        why = problems[first].replace("segmentation", key, 1)
        more = f" ({len(problems)} such entries)" if len(problems) > 1 else ""
        raise predictions_error(path, f"{rows[first][0]}: {why}{more}")
    sizes = sizes_hw[images].tolist()
    return [outlines.rle(k, *size_hw)["counts"] for k, size_hw in enumerate(sizes)]
