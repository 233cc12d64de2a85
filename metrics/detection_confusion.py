"""Match detections to ground-truth boxes and count them in a confusion matrix.

Both use one score and one IoU threshold, unlike average precision, which sweeps over them.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from visionloop.metrics.rows import Array

DRAWING_SCORE = 0.4  # predictions with a lower score are neither drawn nor counted
IOU_THRESHOLD = 0.5
BACKGROUND = "nothing"  # name of the last row (false positives) and column (missed boxes)


def match_boxes(
    boxes: NDArray[np.float64],
    labels: NDArray[np.int64],
    crowd: NDArray[np.bool_],
    predictions: Mapping[str, Array],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Match predictions to ground-truth boxes of their class greedily, by falling score.

    A prediction takes the free box that it overlaps most, from IoU 0.5 on. A crowd is never
    missed, and a prediction in a crowd is no false positive, as in COCO.

    Args:
        boxes: float [T, 4], xywh.
        labels: int [T].
        crowd: bool [T].
        predictions: {"boxes": float [N, 4] xywh, "scores": [N], "labels": int [N]}.

    Returns:
        (bool [T]: the box has a prediction, bool [N]: the prediction has a box or a crowd).
    """
    is_matched, is_used = crowd.copy(), np.zeros(len(predictions["boxes"]), dtype=bool)
    iou = box_iou(predictions["boxes"], boxes, crowd) * (predictions["labels"][:, None] == labels)
    for i in np.argsort(-predictions["scores"], kind="stable"):
        free = np.where(is_matched & ~crowd, 0, iou[i])
        free_boxes = np.where(crowd, 0, free)
        if free_boxes.max(initial=0) >= IOU_THRESHOLD:
            is_matched[free_boxes.argmax()] = is_used[i] = True
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


def count_confusion(state: Mapping[str, Array], num_classes: int) -> NDArray[np.int64]:
    """Count ground-truth boxes by the class they were predicted as, int64 [C + 1, C + 1].

    Predictions with a score from 0.4 on take part. A box of the right class goes before one of
    another class; of several predictions the one with the best score takes the box, and each box
    is taken once. The last column counts missed boxes, the last row predictions without a box.
    Crowds do not count, nor do predictions in one.

    Args:
        state: of `DetectionMetric.state`.
        num_classes: C.
    """
    counts = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    target_stops, detection_stops = (
        np.concatenate([[0], np.cumsum(state[column])])
        for column in ("num_ground_truth", "num_detections")
    )
    for i in range(len(state["sample_ids"])):
        target_rows = slice(*target_stops[i : i + 2])
        detection_rows = slice(*detection_stops[i : i + 2])
        is_counted = state["scores"][detection_rows] >= DRAWING_SCORE
        predictions = {
            column: state[column][detection_rows][is_counted]
            for column in ("boxes", "scores", "labels")
        }
        boxes, labels, crowd = (
            state[f"ground_truth_{column}"][target_rows] for column in ("boxes", "labels", "crowd")
        )
        is_matched, is_used = match_boxes(boxes, labels, crowd, predictions)
        right = labels[is_matched & ~crowd]
        np.add.at(counts, (right, right), 1)
        unmatched = {column: values[~is_used] for column, values in predictions.items()}
        count_errors(counts, boxes[~is_matched], labels[~is_matched], unmatched)
    return counts


def count_errors(
    counts: NDArray[np.int64],
    boxes: NDArray[np.float64],
    labels: NDArray[np.int64],
    predictions: Mapping[str, Array],
) -> None:
    """Count boxes without a match of their class: confused, missed and extra ones.

    Args:
        counts: int64 [C + 1, C + 1], changed in place.
        boxes: float [T, 4] xywh, none of them a crowd.
        labels: int [T].
        predictions: {"boxes": float [N, 4] xywh, "scores": [N], "labels": int [N]}.
    """
    iou = box_iou(predictions["boxes"], boxes, np.zeros(len(boxes), dtype=bool))
    is_free = np.ones(len(boxes), dtype=bool)
    for i in np.argsort(-predictions["scores"], kind="stable"):
        free = np.where(is_free, iou[i], 0)
        row = -1
        if free.max(initial=0) >= IOU_THRESHOLD:
            is_free[free.argmax()] = False
            row = labels[free.argmax()]
        counts[row, predictions["labels"][i]] += 1
    np.add.at(counts[:, -1], labels[is_free], 1)
