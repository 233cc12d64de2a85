"""Checks of a data folder of image classification: all problems at once, file by file."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visionloop.datasets.classification.image_folder import ImageFolderIndex, scan
from visionloop.datasets.io.layout import find_split, require_split
from visionloop.engine.types import JsonObject
from visionloop.tasks.checks import add_problem, decode_all, find_splits, report_copies
from visionloop.tasks.classification.data import NO_VALIDATION, require_data

MIN_IMAGES = 10  # images of a class below which its score means little
IMBALANCE = 10  # ratio of the largest class to the smallest that is worth a warning


def check_classification_data(data: str | None, val_split: float) -> JsonObject:
    """Check an image folder with splits. It reads every image and writes nothing.

    Args:
        data: the data folder.
        val_split: share of train/ that is set aside for validation.

    Returns:
        {"errors": [{"path", "why"}], "warnings": [{"path", "why"}], "classes": {name: training
        images}}.
    """
    folder = require_data(data)
    report: JsonObject = {"errors": [], "warnings": [], "classes": {}}
    indexes = _find_splits(folder, val_split, report)
    if "train" in indexes:
        train = indexes["train"]
        counts = np.bincount(train.labels, minlength=len(train.classes))
        report["classes"] = dict(zip(train.classes, counts.tolist(), strict=True))
        _check_counts(train, counts, report)
        _check_class_names(indexes, report)
    _check_files(indexes, report)
    return report


def _find_splits(data: str, val_split: float, report: JsonObject) -> dict[str, ImageFolderIndex]:
    def find(split: str) -> ImageFolderIndex | None:
        folder = find_split(data, split)
        return None if folder is None else scan(folder)

    def require(split: str) -> ImageFolderIndex:
        return scan(require_split(data, split))

    return find_splits(data, val_split, report, find=find, require=require, missing=NO_VALIDATION)


def _check_counts(train: ImageFolderIndex, counts: NDArray[np.int64], report: JsonObject) -> None:
    """Report a single class, classes with few images, and imbalance."""
    if len(train.classes) < 2:
        add_problem(report, "errors", train.folder, "only one class; expected at least two")
    for name, count in zip(train.classes, counts.tolist(), strict=True):
        if count < MIN_IMAGES:
            why = f"{count} images; a class needs at least {MIN_IMAGES}"
            add_problem(report, "warnings", Path(train.folder) / name, why)
    if counts.min() and counts.max() > IMBALANCE * counts.min():
        largest, smallest = train.classes[counts.argmax()], train.classes[counts.argmin()]
        why = (
            f"unbalanced classes: {counts.max()} images of {largest}, {counts.min()} of"
            f" {smallest}; consider --class-weights balanced"
        )
        add_problem(report, "warnings", train.folder, why)


def _check_class_names(indexes: Mapping[str, ImageFolderIndex], report: JsonObject) -> None:
    """Report classes of val/ and test/ that train/ lacks, and classes without images there."""
    classes = set(indexes["train"].classes)
    for split, index in indexes.items():
        for name in sorted(set(index.classes) - classes):
            why = f"no class of that name in train/ ({_similar_names(name, classes)})"
            add_problem(report, "errors", Path(index.folder) / name, why)
        for name in sorted(classes - set(index.classes)):
            add_problem(report, "warnings", index.folder, f"no images of class {name} in {split}/")


def _similar_names(name: str, classes: set[str]) -> str:
    """Return a hint: the class that differs in capitals or spaces alone, or the first classes."""
    for other in sorted(classes):
        if other.strip().lower() == name.strip().lower():
            return f"there is {other}: capitals and spaces count"
    return f"there are {', '.join(sorted(classes)[:5])}"


def _check_files(indexes: Mapping[str, ImageFolderIndex], report: JsonObject) -> None:
    """Report unreadable images, and images that are in two splits or in two classes."""
    copies = defaultdict(list)  # {digest of the file: [(split, class, path)]}
    for split, row, path, _, digest in decode_all(indexes, report):
        index = indexes[split]
        copies[digest].append((split, index.classes[index.labels[row]], path))
    for same in copies.values():
        report_copies(same, report)
