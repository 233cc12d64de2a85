"""Which class is taken for which, what is missed, and what is found where there is nothing."""

import numpy as np

SHOWN_SCORE = 0.4  # predictions from here on are drawn
SAME_OBJECT = 0.5  # IoU


def find_partners(boxes, labels, crowd, found):
    """(hit bool [T], used bool [N]): the best prediction first takes the free box of its class that it overlaps most, from IoU 0.5 on.

    boxes: [T, 4] xyxy; found: "boxes" xyxy, "scores", "labels". A crowd is never missed, and what
    lies in one is not too many.
    """
    hit, used = crowd.copy(), np.zeros(len(found["boxes"]), dtype=bool)
    overlap = overlaps(found["boxes"], boxes, crowd) * (found["labels"][:, None] == labels)
    for i in np.argsort(-found["scores"], kind="stable"):
        free = np.where(hit & ~crowd, 0, overlap[i])
        wanted = np.where(crowd, 0, free)
        if wanted.max(initial=0) >= SAME_OBJECT:
            hit[wanted.argmax()] = used[i] = True
        elif free.max(initial=0) >= SAME_OBJECT:
            used[i] = True
    return hit, used


def overlaps(found, boxes, crowd):
    """float [N, T]: intersection over union, with a crowd over the prediction's own area. Both: xyxy."""
    sides = np.minimum(found[:, None, 2:], boxes[:, 2:]) - np.maximum(
        found[:, None, :2], boxes[:, :2]
    )
    common = sides.clip(0).prod(axis=2)
    own, others = (
        (found[:, 2:] - found[:, :2]).prod(axis=1)[:, None],
        (boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
    )
    return common / np.maximum(np.where(crowd, own, own + others - common), 1e-9)


NOTHING = "nothing"  # the last row and column: found where there is no box, and not found


def count_confusion(state, num_classes):
    """int64 [C + 1, C + 1]: true boxes by the class they were found as, of predictions with a score from 0.4 on at IoU 0.5.

    A box of the right class goes before one of another; of several the best score takes it, and
    each box once. The last column counts what was missed, the last row predictions without a box.
    Crowds do not count, nor does what lies in one. state: of `DetectionMetric`.
    """
    counts = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    truths, detections = (
        np.concatenate([[0], np.cumsum(state[column])])
        for column in ("num_truth", "num_detections")
    )
    for i in range(len(state["sample_ids"])):
        of_truth, of_found = slice(*truths[i : i + 2]), slice(*detections[i : i + 2])
        shown = state["scores"][of_found] >= SHOWN_SCORE
        found = {column: state[column][of_found][shown] for column in ("boxes", "scores", "labels")}
        found["boxes"] = to_corners(found["boxes"])
        boxes, labels, crowd = (
            state[f"truth_{column}"][of_truth] for column in ("boxes", "labels", "crowd")
        )
        boxes = to_corners(boxes)
        hit, used = find_partners(boxes, labels, crowd, found)
        right = labels[hit & ~crowd]
        np.add.at(counts, (right, right), 1)
        left = {column: values[~used] for column, values in found.items()}
        count_rest(counts, boxes[~hit], labels[~hit], left)
    return counts


def count_rest(counts, boxes, labels, found):
    """Count what has no partner of its own class. boxes: [T, 4] xyxy, none a crowd; found: "boxes" xyxy, "scores", "labels"."""
    overlap, free = (
        overlaps(found["boxes"], boxes, np.zeros(len(boxes), dtype=bool)),
        np.ones(len(boxes), dtype=bool),
    )
    for i in np.argsort(-found["scores"], kind="stable"):
        wanted = np.where(free, overlap[i], 0)
        row = -1
        if wanted.max(initial=0) >= SAME_OBJECT:
            free[wanted.argmax()] = False
            row = labels[wanted.argmax()]
        counts[row, found["labels"][i]] += 1
    np.add.at(counts, (labels[free], -1), 1)


def to_corners(boxes):
    """[N, 4] xywh -> xyxy."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
