"""Checks of a data folder that semantic, instance and panoptic segmentation share."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from visionloop.datasets.io.images import read_orientation
from visionloop.datasets.io.layout import shorten
from visionloop.engine.types import JsonObject
from visionloop.tasks.checks import add_problem, decode_all, report_copies
from visionloop.tasks.splits import ImageIndex

SizesHW = dict[int, tuple[int, int]]  # {row: (height, width)} of the images that can be read


def check_images(
    indexes: Mapping[str, ImageIndex],
    report: JsonObject,
    drawn: str,
    *,
    skip_missing: bool = False,
) -> dict[str, SizesHW]:
    """Report unreadable, duplicate and rotated images.

    Args:
        indexes: {split: index}.
        report: takes the problems.
        drawn: what belongs to the images, for messages, e.g. "masks".
        skip_missing: report no files that do not exist, because an earlier check has done so.

    Returns:
        {split: {row: (height, width)}} of the images that can be read.
    """
    sizes_hw: dict[str, SizesHW] = {split: {} for split in indexes}
    copies, rotated = defaultdict(list), defaultdict(list)
    decoded = decode_all(indexes, report, skip_missing=skip_missing)
    for split, row, path, size_hw, digest in decoded:
        sizes_hw[split][row] = size_hw
        copies[digest].append((split, "", path))
        if is_rotated_in_place(path, size_hw):
            rotated[split].append(indexes[split].name(row))
    for split, names in rotated.items():
        why = f"{len(names)} images are rotated by EXIF and keep their size: {shorten(names)}"
        add_problem(
            report,
            "warnings",
            indexes[split].folder,
            f"{why}; sizes cannot tell whether their {drawn} were drawn upright, look at them",
        )
    for paths in copies.values():
        report_copies(paths, report)
    return sizes_hw


def is_rotated_in_place(path: str, size_hw: tuple[int, int]) -> bool:
    """Return True when EXIF rotates or mirrors an image in a way that its size does not show.

    size_hw: (height, width) of the upright image.

    Raises:
        UnreadableImage: see `read_orientation`.
    """
    orientation = read_orientation(path)
    return 1 < orientation < 5 or (orientation >= 5 and size_hw[0] == size_hw[1])


def percent(share: float) -> str:
    """Return a share with two digits: "100 %", "33 %", "0.25 %"."""
    return f"{100 * share:{'.0f' if share >= 0.1 else '.2g'}} %"


def check_other_splits(
    indexes: Mapping[str, ImageIndex],
    classes: Sequence[str],
    present: Mapping[str, NDArray[np.int64]],
    unit: str,
    report: JsonObject,
) -> None:
    """Report classes that a split does not share with train.

    Args:
        indexes: {split: index}, one of them of "train".
        classes: names in order of id.
        present: {split: int64 [K]}, how often each class is there.
        unit: what is counted, for messages, e.g. "pixel".
        report: takes the problems.
    """
    for split in [split for split in indexes if split != "train"]:
        counts = (present["train"].tolist(), present[split].tolist())
        rows = list(zip(classes, *counts, strict=True))
        unlearned = [name for name, in_train, in_split in rows if in_split and not in_train]
        unscored = [name for name, in_train, in_split in rows if in_train and not in_split]
        if unlearned:
            why = f"{split} has classes that train does not have: {shorten(unlearned)}"
            add_problem(report, "warnings", indexes[split].folder, why)
        if unscored:
            why = f"{split} has no {unit} of {shorten(unscored)}; they get no score"
            add_problem(report, "warnings", indexes[split].folder, why)
