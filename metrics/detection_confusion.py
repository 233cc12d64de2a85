"""Match detections to the ground truth and count them in a confusion matrix: boxes or masks.

Both use one score and one IoU threshold, unlike average precision, which sweeps over them.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from visionloop.metrics.coco_evaluation import IouType, Rle, mask_rles
from visionloop.metrics.rows import Array, Columns

DRAWING_SCORE = 0.4  # predictions with a lower score are neither drawn nor counted
IOU_THRESHOLD = 0.5
BACKGROUND = "nothing"  # name of the last row (false positives) and column (missed objects)


def match_boxes(
    boxes: NDArray[np.float64],
    labels: NDArray[np.int64],
    crowd: NDArray[np.bool_],
    predictions: Mapping[str, Array],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Match predictions to ground-truth boxes of their class; see `match_detections`.

    Args:
        boxes: float [T, 4], xywh.
        labels: int [T].
        crowd: bool [T].
        predictions: {"boxes": float [N, 4] xywh, "scores": [N], "labels": int [N]}.
    """
    iou = box_iou(predictions["boxes"], boxes, crowd)
    return match_detections(iou, labels, crowd, predictions)


def match_detections(
    iou: NDArray[np.float64],
    labels: NDArray[np.int64],
    crowd: NDArray[np.bool_],
    predictions: Mapping[str, Array],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Match predictions to the ground truth of their class greedily, by falling score.

    A prediction takes the free object that it overlaps most, from IoU 0.5 on. A crowd is never
    missed, and a prediction in a crowd is no false positive, as in COCO.

    Args:
        iou: float [N, T], see `box_iou` and `mask_iou`.
        labels: int [T].
        crowd: bool [T].
        predictions: {"scores": [N], "labels": int [N]}.

    Returns:
        (bool [T]: the object has a prediction, bool [N]: the prediction has an object or a crowd).
    """
    is_matched, is_used = crowd.copy(), np.zeros(len(iou), dtype=bool)
    iou = iou * (predictions["labels"][:, None] == labels)
    for i in np.argsort(-predictions["scores"], kind="stable"):
        free = np.where(is_matched & ~crowd, 0, iou[i])
        free_objects = np.where(crowd, 0, free)
        if free_objects.max(initial=0) >= IOU_THRESHOLD:
            is_matched[free_objects.argmax()] = is_used[i] = True
        elif free.max(initial=0) >= IOU_THRESHOLD:
            is_used[i] = True
    return is_matched, is_used


def box_iou(
    predicted: NDArray[np.float64], boxes: NDArray[np.float64], crowd: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the intersection over union of all pairs, float64 [N, T], as COCO computes it.

    With a crowd the intersection is divided by the area of the prediction alone.

    Args:
        predicted: float [N, 4], xywh.
        boxes: float [T, 4], xywh.
        crowd: bool [T].
    """
    pairs = [np.ascontiguousarray(one, dtype=np.float64) for one in (predicted, boxes)]
    iou = coco_mask.iou(*pairs, crowd.astype(np.uint8).tolist())
    return np.asarray(iou, dtype=np.float64).reshape(len(predicted), len(boxes))


def mask_iou(
    predicted: Sequence[Rle], masks: Sequence[Rle], crowd: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the intersection over union of all pairs, float64 [N, T], as COCO computes it.

    With a crowd the intersection is divided by the area of the prediction alone.

    Args:
        predicted: N masks.
        masks: T masks of the same image size.
        crowd: bool [T].
    """
    iou = coco_mask.iou(list(predicted), list(masks), crowd.astype(np.uint8).tolist())
    return np.asarray(iou, dtype=np.float64).reshape(len(predicted), len(masks))


def count_confusion(
    state: Columns, num_classes: int, iou_type: IouType = "bbox"
) -> NDArray[np.int64]:
    """Count ground-truth objects by the class they were predicted as, int64 [C + 1, C + 1].

    Predictions with a score from 0.4 on take part. An object of the right class goes before one of
    another class; of several predictions the one with the best score takes the object, and each
    object is taken once. The last column counts missed objects, the last row predictions without
    one. Crowds do not count, nor do predictions in one.

    Args:
        state: of `DetectionMetric.state`, or of `MaskAveragePrecision.state` for "segm".
        num_classes: C.
        iou_type: "bbox" or "segm".
    """
    counts = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    target_stops, detection_stops = (
        np.concatenate([[0], np.cumsum(state[column])])
        for column in ("num_ground_truth", "num_detections")
    )
    rles, true_rles = (
        mask_rles(state, owner) if iou_type == "segm" else []
        for owner in ("detections", "ground_truth")
    )
    for i in range(len(state["sample_ids"])):
        target_rows = slice(*target_stops[i : i + 2])
        detection_rows = slice(*detection_stops[i : i + 2])
        is_counted = state["scores"][detection_rows] >= DRAWING_SCORE
        predictions = {
            column: state[column][detection_rows][is_counted] for column in ("scores", "labels")
        }
        labels, crowd = (
            state[f"ground_truth_{column}"][target_rows] for column in ("labels", "crowd")
        )
        if iou_type == "segm":
            counted = [rles[detection_rows][j] for j in np.flatnonzero(is_counted)]
            iou = mask_iou(counted, true_rles[target_rows], crowd)
        else:
            boxes = state["boxes"][detection_rows][is_counted]
            iou = box_iou(boxes, state["ground_truth_boxes"][target_rows], crowd)
        count_image(counts, iou, labels, crowd, predictions)
    return counts


def count_image(
    counts: NDArray[np.int64],
    iou: NDArray[np.float64],
    labels: NDArray[np.int64],
    crowd: NDArray[np.bool_],
    predictions: Mapping[str, Array],
) -> None:
    """Count the objects of one image: right ones, then confused, missed and extra ones.

    Args:
        counts: int64 [C + 1, C + 1], changed in place.
        iou: float [N, T].
        labels: int [T].
        crowd: bool [T].
        predictions: {"scores": [N], "labels": int [N]}.
    """
    is_matched, is_used = match_detections(iou, labels, crowd, predictions)
    right = labels[is_matched & ~crowd]
    np.add.at(counts, (right, right), 1)
    is_free = ~is_matched
    for i in np.argsort(-predictions["scores"], kind="stable"):
        if is_used[i]:
            continue
        free = np.where(is_free, iou[i], 0)
        row = -1
        if free.max(initial=0) >= IOU_THRESHOLD:
            is_free[free.argmax()] = False
            row = labels[free.argmax()]
        counts[row, predictions["labels"][i]] += 1
    np.add.at(counts[:, -1], labels[is_free], 1)
