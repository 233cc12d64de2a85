"""The judge of object detection: pycocotools, or faster-coco-eval, fed from columns in memory."""

import contextlib
import io
from dataclasses import dataclass

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

BACKENDS = ("pycocotools", "faster")
# the twelve numbers in the order in which COCOeval.summarize gives them
SCORE_KEYS = ("mAP", "mAP50", "mAP75", "mAP_small", "mAP_medium", "mAP_large")
SCORE_KEYS += ("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large")
ALL_AREAS, MOST_DETECTIONS = 0, -1  # where "all" stands in params.areaRng and 100 in params.maxDets


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What COCO says of the detections; nan stands where it says -1, that there is nothing to find."""

    scores: dict  # {key of SCORE_KEYS: float}
    average_precision: np.ndarray  # float64 [T, C]: T IoU thresholds from 0.5 to 0.95
    # float64 [C, R] at IoU 0.5, no smaller than at any larger recall; 0 where the recall is not
    # reached
    precision: np.ndarray
    # float64 [C, R]: the score down to which detections count for this recall; nan where it is not
    # reached
    thresholds: np.ndarray
    recall: np.ndarray  # float64 [R]: 0, 0.01 .. 1


def backend_classes(backend):
    """(COCO, COCOeval) of pycocotools, or their counterparts in faster-coco-eval. Raises ValueError for a backend that is not there."""
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


def evaluated(rows, num_classes, backend="pycocotools", *, all_areas_only=False):
    """The COCOeval object after `evaluate`. Images and classes are known to it by their position.

    rows: the columns of `DetectionMetric`, sorted by sample id; all_areas_only: leave out small,
    medium and large, a quarter of the work.
    """
    coco_class, eval_class = backend_classes(backend)
    images = range(len(rows["sample_ids"]))
    truth = _annotations(rows["num_truth"], rows["truth_boxes"], rows["truth_labels"])
    for annotation, crowd, area in zip(
        truth, rows["truth_crowd"].tolist(), rows["truth_areas"].tolist(), strict=True
    ):
        annotation.update(iscrowd=int(crowd), area=area)
    detected = _annotations(rows["num_detections"], rows["boxes"], rows["labels"])
    for annotation, score in zip(detected, rows["scores"].tolist(), strict=True):
        annotation.update(
            iscrowd=0, area=annotation["bbox"][2] * annotation["bbox"][3], score=score
        )
    with contextlib.redirect_stdout(io.StringIO()):
        # images without any detection stand in both: what is missed there counts
        sides = [
            _coco(coco_class, images, num_classes, annotations) for annotations in (truth, detected)
        ]
        evaluator = eval_class(*sides, "bbox")
        if all_areas_only:
            evaluator.params.areaRng = evaluator.params.areaRng[:1]
            evaluator.params.areaRngLbl = evaluator.params.areaRngLbl[:1]
        evaluator.evaluate()
    return evaluator


def summed_up(evaluator):
    """The Evaluation of a COCOeval object after `evaluate`, over all areas."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.accumulate()
        evaluator.summarize()
    measured, recall = evaluator.eval, evaluator.params.recThrs
    precision = np.asarray(measured["precision"])[:, :, :, ALL_AREAS, MOST_DETECTIONS]  # [T, R, C]
    at_50, largest_recall = (
        precision[0].T,
        np.asarray(measured["recall"])[0, :, ALL_AREAS, MOST_DETECTIONS],
    )
    thresholds = np.asarray(measured["scores"])[0, :, :, ALL_AREAS, MOST_DETECTIONS].T
    return Evaluation(
        scores={
            key: _or_nan(value) for key, value in zip(SCORE_KEYS, evaluator.stats[:12], strict=True)
        },
        average_precision=np.where(precision[:, 0] < 0, np.nan, precision.mean(axis=1)),
        precision=np.where(at_50 < 0, np.nan, at_50),
        thresholds=np.where(recall <= largest_recall[:, None], thresholds, np.nan),
        recall=np.array(recall),
    )


def _or_nan(value):
    return float(value) if value > -1 else float("nan")


def _annotations(counts, boxes, labels):
    """One dict per box. Ids start at 1: COCOeval takes 0 for "not matched"."""
    image_of = np.repeat(np.arange(len(counts)), counts).tolist()
    columns = zip(image_of, boxes.tolist(), labels.tolist(), strict=True)
    return [
        {"id": i, "image_id": image, "bbox": box, "category_id": label}
        for i, (image, box, label) in enumerate(columns, 1)
    ]


def _coco(coco_class, images, num_classes, annotations):
    coco = coco_class()
    coco.dataset = {
        "images": [{"id": image} for image in images],
        "categories": [{"id": label} for label in range(num_classes)],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco
