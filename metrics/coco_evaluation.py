"""COCO evaluation by pycocotools or faster-coco-eval, from columns in memory."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from visionloop.metrics.rows import Array, Columns

# one annotation in COCO's format: numbers, a list of four numbers, a mask
Annotation: TypeAlias = dict[str, Any]  # type: ignore[explicit-any]
# a mask in COCO's format: {"size": [height, width], "counts": compressed run lengths}
Rle: TypeAlias = dict[str, list[int] | bytes]
IouType: TypeAlias = Literal["bbox", "segm"]
Owner: TypeAlias = Literal["ground_truth", "detections"]

BACKENDS = ("pycocotools", "faster")
# the twelve numbers in the order of COCOeval.summarize
AP_KEYS = ("mAP", "mAP50", "mAP75", "mAP_small", "mAP_medium", "mAP_large")
SCORE_KEYS = (*AP_KEYS, "AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large")
# positions of "all" in params.areaRng and of 100 in params.maxDets
ALL_AREAS, MOST_DETECTIONS = 0, -1
MOST_AREAS = 255  # of masks in one call: pycocotools 2.0.11 puts their number into a uint8


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Result of COCO's evaluation; nan where COCO reports -1, without ground truth.

    Attributes:
        scores: {key of SCORE_KEYS: value}.
        average_precision: float64 [T, C] at T IoU thresholds from 0.5 to 0.95.
        precision: float64 [C, R] at IoU 0.5, no smaller than at any larger recall; 0 where the
            recall is not reached.
        thresholds: float64 [C, R], the score threshold that gives this recall; nan where it is not
            reached.
        recall: float64 [R]: 0, 0.01 .. 1.
    """

    scores: dict[str, float]
    average_precision: Array
    precision: Array
    thresholds: Array
    recall: Array


def backend_classes(backend: str) -> tuple[type[COCO], type[COCOeval]]:
    """Return (COCO, COCOeval) of pycocotools, or their counterparts in faster-coco-eval.

    Raises:
        ValueError: for an unknown backend, or one that is not installed.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "pycocotools":
        return COCO, COCOeval
    try:
        from faster_coco_eval import COCO as FasterCOCO
        from faster_coco_eval import COCOeval_faster
    except ImportError:
        raise ValueError(
            "backend faster: faster-coco-eval is not installed; pip install -e '.[fasteval]'"
        ) from None
    return FasterCOCO, COCOeval_faster


def run_coco_eval(
    columns: Columns,
    num_classes: int,
    backend: str = "pycocotools",
    *,
    iou_type: IouType = "bbox",
    all_areas_only: bool = False,
) -> COCOeval:
    """Return the COCOeval object after `evaluate`; its image and category ids count from 0.

    Args:
        columns: the columns of `DetectionMetric` or `MaskAveragePrecision`, sorted by sample id.
        num_classes: number of classes.
        backend: one of BACKENDS.
        iou_type: "bbox" for columns of boxes, "segm" for columns of masks.
        all_areas_only: leave out small, medium and large: a quarter of the work.
    """
    coco_class, eval_class = backend_classes(backend)
    images = _images(columns)
    shapes = mask_shapes if iou_type == "segm" else box_shapes
    ground_truth = _annotations(
        columns["num_ground_truth"], columns["ground_truth_labels"], shapes(columns, "ground_truth")
    )
    crowds, areas = (
        columns["ground_truth_crowd"].tolist(),
        columns["ground_truth_areas"].tolist(),
    )
    for annotation, crowd, area in zip(ground_truth, crowds, areas, strict=True):
        annotation.update(iscrowd=int(crowd), area=area)
    detections = _annotations(
        columns["num_detections"], columns["labels"], shapes(columns, "detections")
    )
    for annotation, score in zip(detections, columns["scores"].tolist(), strict=True):
        annotation.update(iscrowd=0, score=score)
    with contextlib.redirect_stdout(io.StringIO()):
        # images without any detection are in both: what is missed there counts
        evaluator = eval_class(
            _coco(coco_class, images, num_classes, ground_truth),
            _coco(coco_class, images, num_classes, detections),
            iou_type,
        )
        if all_areas_only:
            evaluator.params.areaRng = evaluator.params.areaRng[:1]
            evaluator.params.areaRngLbl = evaluator.params.areaRngLbl[:1]
        evaluator.evaluate()
    return evaluator


def summarize(evaluator: COCOeval) -> Evaluation:
    """Return the Evaluation of a COCOeval object after `evaluate`, over all areas."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.accumulate()
        evaluator.summarize()
    result, recall = evaluator.eval, evaluator.params.recThrs
    precision = np.asarray(result["precision"])[:, :, :, ALL_AREAS, MOST_DETECTIONS]  # [T, R, C]
    at_50 = precision[0].T
    largest_recall = np.asarray(result["recall"])[0, :, ALL_AREAS, MOST_DETECTIONS]
    thresholds = np.asarray(result["scores"])[0, :, :, ALL_AREAS, MOST_DETECTIONS].T
    return Evaluation(
        scores={
            key: _or_nan(value) for key, value in zip(SCORE_KEYS, evaluator.stats[:12], strict=True)
        },
        average_precision=np.where(precision[:, 0] < 0, np.nan, precision.mean(axis=1)),
        precision=np.where(at_50 < 0, np.nan, at_50),
        thresholds=np.where(recall <= largest_recall[:, None], thresholds, np.nan),
        recall=np.array(recall),
    )


def _or_nan(value: float) -> float:
    return float(value) if value > -1 else float("nan")


def box_shapes(columns: Columns, owner: Owner) -> list[Annotation]:
    """Return {"bbox", "area"} of each box of all images.

    Args:
        columns: the columns of `DetectionMetric`.
        owner: whose boxes.
    """
    boxes = columns["ground_truth_boxes" if owner == "ground_truth" else "boxes"].tolist()
    return [{"bbox": box, "area": box[2] * box[3]} for box in boxes]


def mask_shapes(columns: Columns, owner: Owner) -> list[Annotation]:
    """Return {"segmentation", "area"} of each mask of all images; arguments as in `mask_rles`."""
    rles = mask_rles(columns, owner)
    parts = [rles[i : i + MOST_AREAS] for i in range(0, len(rles), MOST_AREAS)]
    areas = [area for part in parts for area in coco_mask.area(part).tolist()]
    return [{"segmentation": rle, "area": area} for rle, area in zip(rles, areas, strict=True)]


def mask_rles(columns: Columns, owner: Owner) -> list[Rle]:
    """Return the masks of all images in COCO's format.

    Args:
        columns: the columns of `MaskAveragePrecision`.
        owner: whose masks.
    """
    prefix = "ground_truth_" if owner == "ground_truth" else ""
    size_of = np.repeat(np.arange(len(columns["sizes"])), columns[f"num_{owner}"]).tolist()
    sizes, content = columns["sizes"].tolist(), columns[f"{prefix}rles"].tobytes()
    stops = np.cumsum(columns[f"{prefix}rle_lengths"]).tolist()
    bounds = zip(size_of, [0, *stops], stops, strict=False)
    return [{"size": sizes[i], "counts": content[start:stop]} for i, start, stop in bounds]


def _images(columns: Columns) -> list[Annotation]:
    """Return one dict for each image; pycocotools asks for the sizes of images with masks."""
    images: list[Annotation] = [{"id": i} for i in range(len(columns["sample_ids"]))]
    if "sizes" in columns:
        for image, (height, width) in zip(images, columns["sizes"].tolist(), strict=True):
            image.update(height=height, width=width)
    return images


def _annotations(counts: Array, labels: Array, shapes: Sequence[Annotation]) -> list[Annotation]:
    """Return one dict for each object. Ids start at 1: COCOeval takes 0 for "not matched"."""
    image_of = np.repeat(np.arange(len(counts)), counts).tolist()
    columns = zip(image_of, labels.tolist(), shapes, strict=True)
    return [
        {"id": i, "image_id": image, "category_id": label, **shape}
        for i, (image, label, shape) in enumerate(columns, 1)
    ]


def _coco(
    coco_class: type[COCO],
    images: Sequence[Annotation],
    num_classes: int,
    annotations: list[Annotation],
) -> COCO:
    coco = coco_class()
    coco.dataset = {
        "images": images,
        "categories": [{"id": label} for label in range(num_classes)],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco
