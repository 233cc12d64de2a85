"""Match the segments of two maps by their common pixels, as panopticapi does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

from visionloop.metrics.rows import Array, Columns

# "segment_map": tensor, "labels": array or tensor, ...
Segments: TypeAlias = Mapping[str, Any]  # type: ignore[explicit-any]

IOU_THRESHOLD = 0.5  # a pair above it is unique, since segments of one map do not overlap
IGNORED_SHARE = 0.5  # of a predicted segment in void and crowd, beyond which it is no mistake


def common_pixels(
    predictions: Segments, ground_truth: Sequence[Segments]
) -> list[tuple[Array, Array]]:
    """Count the common pixels of all segments of a batch on the device, with one copy to the host.

    On CUDA `bincount` has two more host syncs in each image.

    Args:
        predictions: {"segment_maps": B int32 [H, W], "labels": B int64 [P]}.
        ground_truth: B of {"segment_map": int32 [H, W], "labels": [T]}.

    Returns:
        (pixels int64 [T + 3, P + 3], labels int64 [P]) of each image. Rows are ground truth,
        columns predictions: number -1 or less, 0 (void), segments 1 to T or P, greater numbers.

    Raises:
        ValueError: for maps of different sizes.
    """
    maps, labels = predictions["segment_maps"], predictions["labels"]
    shapes, parts = [], []
    for truth, prediction, image_labels in zip(ground_truth, maps, labels, strict=True):
        target = truth["segment_map"]
        if target.shape != prediction.shape:
            raise ValueError(
                f"segment_maps: expected shape {tuple(target.shape)}, got {tuple(prediction.shape)}"
            )
        shape = (len(truth["labels"]) + 3, len(image_labels) + 3)
        cells = numbered(target.to(prediction.device), shape[0]).mul_(shape[1])
        cells.add_(numbered(prediction, shape[1]))
        shapes.append(shape)
        parts.append(torch.bincount(cells.flatten(), minlength=shape[0] * shape[1]))
        parts.append(image_labels.to(prediction.device))
    if not parts:
        return []
    values = torch.cat(parts).cpu().numpy()
    ends = np.cumsum([len(part) for part in parts])
    pieces = np.split(values, ends[:-1])
    return [(pieces[2 * i].reshape(shape), pieces[2 * i + 1]) for i, shape in enumerate(shapes)]


def numbered(segment_map: torch.Tensor, count: int) -> torch.Tensor:
    """Return the row of each pixel in the table of common pixels, a new int32 [H, W].

    Args:
        segment_map: int [H, W].
        count: number of rows, 3 more than segments.
    """
    return segment_map.to(torch.int32).clamp(-1, count - 2).add_(1)


def check_segments(
    owner: str, pixels: Array, true_labels: Array, labels: Array, num_classes: int
) -> None:
    """Raise ValueError unless the numbers in both maps and the labels belong together.

    Args:
        owner: the image, for the message.
        pixels: int64 [T + 3, P + 3], see `common_pixels`.
        true_labels: int64 [T].
        labels: int64 [P].
        num_classes: C.
    """
    for name, values, numbers in (
        ("ground truth", true_labels, pixels.sum(axis=1)),
        ("prediction", labels, pixels.sum(axis=0)),
    ):
        if numbers[0] or numbers[-1]:
            raise ValueError(
                f"{owner}, {name}: the segment map has numbers outside of 0 to {len(values)}, "
                f"the number of labels"
            )
        if not ((values >= 0) & (values < num_classes)).all():
            raise ValueError(
                f"{owner}, {name}: labels: expected 0 to {num_classes - 1}, "
                f"got {values.min()} to {values.max()}"
            )
    empty = np.flatnonzero(pixels[:, 2:-1].sum(axis=0) == 0)
    if len(empty):
        raise ValueError(
            f"{owner}, prediction: segment {empty[0] + 1} of class {labels[empty[0]]} has no pixel"
        )


def count_image(common: Array, truth: Segments, labels: Array, confusion: Array) -> Columns:
    """Count matched and other segments of one image.

    Args:
        common: int64 [T + 1, P + 1], pixels of ground-truth segments (rows) and predicted segments
            (columns); the first row and column are void.
        truth: {"labels" int64, "crowd" bool, "areas" int64 [T]}.
        labels: int64 [P].
        confusion: int64 [C + 1, C + 1], changed in place: segments by class, matched whatever their
            classes; the last column are missed ones, the last row those without a match.

    Returns:
        "iou" float64 [C], the sum over matches of a class; "tp", "fp", "fn" int64 [C]; "segments"
        int64 [C], ground-truth segments that are not crowd.
    """
    num_classes = len(confusion) - 1
    true_labels, crowd = truth["labels"], truth["crowd"]
    iou = segment_iou(common, truth["areas"])
    overlap = (iou > IOU_THRESHOLD) & ~crowd[:, None]
    matched = overlap & (true_labels[:, None] == labels)
    is_mistake = ~mostly_ignored(common, true_labels, crowd, labels, num_classes)

    def per_class(values: Array, weights: Array | None = None) -> Array:
        return np.bincount(values, weights, num_classes)

    rows = np.nonzero(matched)[0]
    rows_of, columns_of = np.nonzero(overlap)
    np.add.at(confusion, (true_labels[rows_of], labels[columns_of]), 1)
    confusion[:-1, -1] += per_class(true_labels[~overlap.any(axis=1) & ~crowd])
    confusion[-1, :-1] += per_class(labels[~overlap.any(axis=0) & is_mistake])
    return {
        "iou": per_class(true_labels[rows], iou[matched]),
        "tp": per_class(true_labels[rows]),
        "fp": per_class(labels[~matched.any(axis=0) & is_mistake]),
        "fn": per_class(true_labels[~matched.any(axis=1) & ~crowd]),
        "segments": per_class(true_labels[~crowd]),
    }


def segment_iou(common: Array, areas: Array) -> Array:
    """Return the intersection over union of all pairs of segments, float64 [T, P].

    The void pixels of a predicted segment are not part of the union.

    Args:
        common: int64 [T + 1, P + 1], see `count_image`.
        areas: int64 [T], of the ground-truth segments as annotated.
    """
    intersection = common[1:, 1:]
    predicted = common[:, 1:].sum(axis=0) - common[0, 1:]
    union = areas[:, None] + predicted - intersection
    # an annotated area may be smaller than the pixels in common
    return intersection / np.maximum(np.maximum(union, intersection), 1)


def mostly_ignored(
    common: Array, true_labels: Array, crowd: Array, labels: Array, num_classes: int
) -> Array:
    """Tell which predicted segments are mostly void or in the crowd of their class, bool [P].

    Args:
        common: int64 [T + 1, P + 1], see `count_image`.
        true_labels, crowd: int64 and bool [T].
        labels: int64 [P].
        num_classes: C.
    """
    crowd_row = np.zeros(num_classes, dtype=np.int64)  # the last crowd of each class; 0: none
    crowds = np.flatnonzero(crowd)
    crowd_row[true_labels[crowds]] = crowds + 1
    row = crowd_row[labels]
    segments = common[:, 1:]
    in_crowd = np.where(row > 0, segments[row, np.arange(len(labels))], 0)
    return (segments[0] + in_crowd) / segments.sum(axis=0) > IGNORED_SHARE
