"""The preflight of a data folder: everything wrong with it at once, file by file."""

from collections import defaultdict
from pathlib import Path

import numpy as np

from visionloop.datasets.classification.image_folder import scan
from visionloop.datasets.io.layout import DataLayoutError, find_split, require_split
from visionloop.tasks.checks import decode_all, note, report_copies
from visionloop.tasks.classification.data import require_data

FEW = 10  # images of a class below which a score for it means little
IMBALANCE = 10  # times more images in the largest class than in the smallest


def check_folder_of_data(data, val_split):
    """{"errors": [{"path", "why"}], "warnings": [..], "classes": {name: training images}} of an image folder with splits.

    Reads every image: unreadable ones are errors, each by its path. Nothing is written.
    """
    require_data(data)
    found = {"errors": [], "warnings": [], "classes": {}}
    indexes = _scan_splits(data, val_split, found)
    if "train" in indexes:
        train = indexes["train"]
        counts = np.bincount(train.labels, minlength=len(train.classes))
        found["classes"] = dict(zip(train.classes, counts.tolist(), strict=True))
        _check_counts(train, counts, found)
        _check_class_names(indexes, found)
    _check_files(indexes, found)
    return found


def _scan_splits(data, val_split, found):
    """{split: index} of the splits that can be read; layout errors go into `found`."""
    indexes = {}
    for split in ("train", "val", "test"):
        try:
            folder = require_split(data, split) if split == "train" else find_split(data, split)
            if folder:
                indexes[split] = scan(folder)
        except DataLayoutError as error:
            note(found, "errors", error.path, error.why)
            if not Path(data).is_dir():
                return {}
    if "train" in indexes and find_split(data, "val") is None and not val_split:
        note(
            found,
            "errors",
            data,
            "no val/ folder; add one, or set a share of train/ aside with --val-split 0.2",
        )
    return indexes


def _check_counts(train, counts, found):
    if len(train.classes) < 2:
        note(found, "errors", train.folder, "one class alone; there is nothing to tell apart")
    for name, count in zip(train.classes, counts.tolist(), strict=True):
        if count < FEW:
            note(
                found,
                "warnings",
                Path(train.folder) / name,
                f"{count} images; a class wants at least {FEW}",
            )
    if counts.min() and counts.max() > IMBALANCE * counts.min():
        most, least = train.classes[counts.argmax()], train.classes[counts.argmin()]
        why = f"classes differ in size: {counts.max()} of {most}, {counts.min()} of {least}; consider --class-weights balanced"
        note(found, "warnings", train.folder, why)


def _check_class_names(indexes, found):
    known = set(indexes["train"].classes)
    for split, index in indexes.items():
        for name in sorted(set(index.classes) - known):
            note(
                found,
                "errors",
                Path(index.folder) / name,
                f"no class of that name in train/ ({_close_to(name, known)})",
            )
        for name in sorted(known - set(index.classes)):
            note(found, "warnings", index.folder, f"no images of class {name} in {split}/")


def _close_to(name, known):
    same = [other for other in sorted(known) if other.strip().lower() == name.strip().lower()]
    return (
        f"there is {same[0]}: capitals and spaces count"
        if same
        else f"there are {', '.join(sorted(known)[:5])}"
    )


def _check_files(indexes, found):
    """Report the images that cannot be read and those that are in two splits or in two classes."""
    places = defaultdict(list)  # digest -> [(split, class, path)]
    for split, row, path, _, digest in decode_all(indexes, found):
        index = indexes[split]
        places[digest].append((split, index.classes[index.labels[row]], path))
    for copies in places.values():
        report_copies(copies, found)
