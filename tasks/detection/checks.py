"""Checks of a detection data folder: all problems at once, over all splits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from visionloop.datasets.detection.dataset import size_mismatch
from visionloop.datasets.detection.layout import (
    inspect_detection_split,
    require_detection_split,
)
from visionloop.datasets.detection.problems import nothing_to_score, nothing_to_train
from visionloop.datasets.io.layout import shorten
from visionloop.tasks.checks import add_problem, decode_all, inspect_splits, report_copies
from visionloop.tasks.detection.data import NO_VALIDATION, require_data

if TYPE_CHECKING:
    from visionloop.datasets.detection.index import DetectionIndex
    from visionloop.engine.types import JsonObject

FEW_BOXES = 10  # of a class: with fewer, a score for it means little
COCO_EDGES = (32, 96)  # COCO's small, medium and large, by the side of a square of the same area
EDGES = (8, 16, 32, 96)
FINEST_STRIDE = 8  # pixels of the input of the model
MANY_TINY = 0.2  # share of boxes below the finest stride from which on a larger input pays
LARGEST_ZOOM = 1.5  # images that are enlarged further show nothing new


def check_detection_data(data: str | None, val_split: float, image_size: int) -> JsonObject:
    """Check a data folder with boxes; reads every image and writes nothing.

    Args:
        data: the folder.
        val_split: share of the training images that a run sets aside.
        image_size: side of the input of the model, for the sizes of boxes.

    Returns:
        {"errors": [{"path", "why"}], "warnings": [{"path", "why"}], "classes": {name: boxes of
        training}, "lines": [text about ids and the sizes of boxes]}.
    """
    data = require_data(data)
    report: JsonObject = {"errors": [], "warnings": [], "classes": {}, "lines": []}
    indexes = inspect_splits(
        data,
        val_split,
        report,
        inspect=partial(inspect_detection_split, data),
        require=partial(require_detection_split, data),
        missing=NO_VALIDATION,
    )
    are_read = not report["errors"]  # otherwise boxes may be missing for that reason alone
    sizes_hw = _check_images(indexes, report)
    if "train" in indexes:
        train = indexes["train"]
        _check_counts(train, are_read, report)
        _check_categories(indexes, report)
        _check_sizes(train, sizes_hw["train"], image_size, report)
    if are_read and "val" in indexes and (why := nothing_to_score(indexes["val"])):
        add_problem(report, "errors", indexes["val"].source, why)
    return report


def _check_images(
    indexes: Mapping[str, DetectionIndex], report: JsonObject
) -> dict[str, NDArray[np.int64]]:
    """Report images that are unreadable, of another size than annotated, or duplicates.

    Returns:
        {split: sizes as decoded, int64 [N, 2]}, 0 for an unreadable image.
    """
    sizes_hw = {
        split: np.zeros((len(index), 2), dtype=np.int64) for split, index in indexes.items()
    }
    copies_of = defaultdict(list)  # digest -> [(split, class, path)]
    for split, row, path, size_hw, digest in decode_all(indexes, report, skip_missing=True):
        sizes_hw[split][row] = size_hw
        copies_of[digest].append((split, "", path))
        why = size_mismatch(indexes[split], row, size_hw)
        if why:
            add_problem(report, "errors", path, why)
    for copies in copies_of.values():
        report_copies(copies, report)
    return sizes_hw


def _check_counts(train: DetectionIndex, are_read: bool, report: JsonObject) -> None:
    """Report classes with few boxes, and data without any where all could be read."""
    counts = np.bincount(train.labels[~train.crowd], minlength=len(train.classes)).tolist()
    report["classes"] = dict(zip(train.classes, counts, strict=True))
    if why := nothing_to_train(train):
        if are_read:
            add_problem(report, "errors", train.source, why)
        return
    few = [
        f"{count} of {name}" for name, count in report["classes"].items() if 0 < count < FEW_BOXES
    ]
    if few:
        why = f"few boxes: {shorten(few)}; a class should have at least {FEW_BOXES}"
        add_problem(report, "warnings", train.source, why)
    per_image = np.diff(train.offsets)
    report["lines"].append(
        f"{len(train)} images, {int((per_image == 0).sum())} of them without boxes; "
        f"{len(train.labels)} boxes in train, {per_image.mean():.1f} per image, "
        f"{per_image.max()} at most, {int(train.crowd.sum())} of crowds"
    )


def _check_categories(indexes: Mapping[str, DetectionIndex], report: JsonObject) -> None:
    """Report categories that differ between splits.

    A name that the training split does not have is an error that is reported earlier.
    """
    train, lines = indexes["train"], report["lines"]
    for split, index in indexes.items():
        keys = list(zip(index.classes, index.category_ids, train.category_ids, strict=True))
        unlisted = [name for name, key, _ in keys if key is None]
        if unlisted:
            why = f"does not list {len(unlisted)} categories of train: {shorten(unlisted)}"
            add_problem(report, "warnings", index.source, why)
        if any(key not in (None, train_key) for _, key, train_key in keys):
            lines.append(
                f"category ids of {split} differ from those of train; "
                "the classes are matched by name"
            )
    ids = [key for key in train.category_ids if isinstance(key, int)]
    if len(ids) == len(train.category_ids) and ids[-1] - ids[0] >= len(ids):
        skipped = ids[-1] - ids[0] + 1 - len(ids)
        lines.append(
            f"category ids run from {ids[0]} to {ids[-1]} without {skipped} of them; "
            f"labels are 0 to {len(ids) - 1}"
        )


def _check_sizes(
    train: DetectionIndex, sizes_hw: NDArray[np.int64], image_size: int, report: JsonObject
) -> None:
    """Report the sizes of boxes, in their images and in the input of the model.

    Many tiny boxes there are a warning.
    """
    sizes_hw = np.where(train.sizes_hw > 0, train.sizes_hw, sizes_hw)
    image_hw = sizes_hw[np.repeat(np.arange(len(train)), np.diff(train.offsets))]  # of each box
    is_used = ~train.crowd & (train.boxes[:, 2:] > 0).all(axis=1) & image_hw.all(axis=1)
    if not is_used.any():
        return
    sides = np.sqrt(train.boxes[is_used, 2:].prod(axis=1))
    report["lines"].append(f"boxes in their images: {describe_sides(sides, COCO_EDGES)}")
    sides *= image_size / np.sqrt(image_hw[is_used].prod(axis=1))
    report["lines"].append(f"boxes at {image_size} px: {describe_sides(sides, EDGES)}")
    tiny = (sides < FINEST_STRIDE).mean()
    if tiny > MANY_TINY:
        percentile = np.quantile(sides, MANY_TINY)
        larger = 32 * int(np.ceil(image_size * FINEST_STRIDE / percentile / 32))
        median_side = np.median(sizes_hw[sizes_hw.all(axis=1)].max(axis=1))
        advice = (
            f"consider --image-size {larger}"
            if larger <= LARGEST_ZOOM * median_side
            else "cut the images into smaller ones"
        )
        add_problem(
            report,
            "warnings",
            train.source,
            f"{100 * tiny:.0f} % of the boxes are smaller than {FINEST_STRIDE} x {FINEST_STRIDE} "
            f"px at {image_size} px, hard to detect at the strides of the model; {advice}",
        )


def describe_sides(sides: NDArray[np.float64], edges: Sequence[int]) -> str:
    """Return a line with the shares of sides below, between and above the edges, in pixels.

    Args:
        sides: float [N].
        edges: rising.
    """
    shares = np.histogram(sides, [0, *edges, np.inf])[0] / len(sides)
    ranges = (f"{low} to {high}" for low, high in pairwise(edges))
    words = [f"smaller than {edges[0]} px", *ranges, "larger"]
    return ", ".join(
        f"{100 * share:.0f} % {word}" for share, word in zip(shares, words, strict=True)
    )
