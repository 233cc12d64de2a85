"""Checks of a data folder that all tasks share: splits, unreadable images and duplicate images.

A report is {"errors": [{"path", "why"}], "warnings": [{"path", "why"}], "classes": {name: number}}
as `Task.check_data` returns it. Every check adds its problems to the report and carries on, so that
a user sees everything at once.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from tqdm import tqdm

from visionloop.datasets.detection.annotation_files import YAML_SUFFIXES
from visionloop.datasets.detection.problems import Problem
from visionloop.datasets.io.content import LostContent, lost_content
from visionloop.datasets.io.layout import DataLayoutError, shorten
from visionloop.datasets.io.reduced_jpeg import read_reduced_image
from visionloop.engine.types import JsonObject
from visionloop.tasks.splits import AnnotatedIndex, ImageIndex, SplitIndex, passed_over_files

Index = TypeVar("Index", bound=ImageIndex)
Listed = TypeVar("Listed", bound=SplitIndex)
Annotated = TypeVar("Annotated", bound=AnnotatedIndex)


def add_problem(
    report: JsonObject, severity: Literal["errors", "warnings"], path: str | Path, why: str
) -> None:
    """Add {"path", "why"} to the errors or the warnings of a report."""
    report[severity].append({"path": str(path), "why": why})


def find_splits(
    data: str | Path,
    val_split: float,
    report: JsonObject,
    *,
    find: Callable[[str], Listed | None],
    require: Callable[[str], Listed],
    missing: str,
    convert_to: str = ".jpg",
) -> dict[str, Listed]:
    """Index the splits of a data folder that can be read, and report problems of its layout.

    Args:
        data: the data folder.
        val_split: share of the training images that is set aside for validation; with 0 a missing
            validation split is an error.
        report: takes the problems.
        find: split -> its index, or None where there is no such split. Raises DataLayoutError.
        require: like `find`, but a missing split is a DataLayoutError.
        missing: message for a missing validation split.
        convert_to: suffix of the format that images in other formats should be converted to.

    Returns:
        {split: index}, of "train", "val" and "test".
    """
    indexes: dict[str, Listed] = {}
    absent, is_elsewhere = [], False
    for split in ("train", "val", "test"):
        try:
            index = (require if split == "train" else find)(split)
        except DataLayoutError as error:
            # a file that describes all splits is reported once
            if {"path": error.path, "why": error.why} not in report["errors"]:
                add_problem(report, "errors", error.path, error.why)
            if not Path(data).is_dir():
                return {}
            # when train/ itself is missing, a missing val/ is no further problem
            is_elsewhere |= split == "train" and Path(error.path) == Path(data)
            continue
        if index is None:
            absent.append(split)
        else:
            indexes[split] = index
    add_passed_over(report, indexes.values(), convert_to)
    if "val" in absent and not val_split and not is_elsewhere:
        add_problem(report, "errors", data, missing)
    return indexes


def inspect_splits(
    data: str,
    val_split: float,
    report: JsonObject,
    *,
    inspect: Callable[[str, Sequence[str] | None], tuple[Annotated | None, list[Problem]] | None],
    require: Callable[[str], object],
    missing: str,
) -> dict[str, Annotated]:
    """Index the splits of a data folder with annotations, and report all of their problems.

    Args:
        data: the data folder.
        val_split: share of the training images that is set aside for validation; with 0 a missing
            validation split is an error.
        report: takes the problems.
        inspect: (split, class names of train or None) -> (its index or None, problems), or None
            where there is no such split. Raises DataLayoutError.
        require: raises a DataLayoutError that says what was expected, for a missing split.
        missing: message for a missing validation split.

    Returns:
        {split: index} of the splits that can be read, of "train", "val" and "test"; the labels are
        those of train.
    """
    indexes: dict[str, Annotated] = {}
    absent = []
    for split in ("train", "val", "test"):
        classes = indexes["train"].classes if "train" in indexes else None
        try:
            inspected = inspect(split, classes)
            if inspected is None:
                absent.append(split)
                if split == "train":
                    require(split)
                continue
        except DataLayoutError as error:
            # a file that describes all splits is reported once
            if {"path": error.path, "why": error.why} not in report["errors"]:
                add_problem(report, "errors", error.path, error.why)
            if not Path(data).is_dir():
                return {}
            continue
        index, problems = inspected
        for kind, path, why in problems:
            severity: Literal["errors", "warnings"] = "errors" if kind == "error" else "warnings"
            # the description of a YOLO dataset is one file for all splits
            is_shared = Path(path).suffix.lower() in YAML_SUFFIXES
            add_problem(report, severity, path, f"{split}: {why}" if is_shared else why)
        if index is not None:
            indexes[split] = index
    if "train" in indexes and "val" in absent and not val_split:
        add_problem(report, "errors", data, missing)
    add_passed_over(report, indexes.values())
    return indexes


def add_passed_over(
    report: JsonObject, indexes: Iterable[SplitIndex], convert_to: str = ".jpg"
) -> None:
    """Add a warning for each folder with files that are no images; see `passed_over_files`."""
    for folder, why in passed_over_files(indexes, convert_to):
        add_problem(report, "warnings", folder, why)


def add_unmatched_files(
    report: JsonObject, folder: str | Path, paths: Sequence[str], description: str
) -> None:
    """Add a warning about files in `folder` that belong to no sample, if there are any.

    description: of the files, for the message, e.g. "masks without an image".
    """
    if paths:
        names = shorten([Path(path).name for path in paths])
        add_problem(report, "warnings", folder, f"{len(paths)} {description}: {names}")


def decode_all(
    indexes: Mapping[str, Index], report: JsonObject, *, skip_missing: bool = False
) -> Iterator[tuple[str, int, str, tuple[int, int], bytes]]:
    """Decode every image once, and report those that cannot be read or lose their content.

    JPEGs are decoded at a small size: that reads the whole file too, in 0.6 of the time.

    Args:
        indexes: {split: index}.
        report: takes the problems.
        skip_missing: report no files that do not exist, because an earlier check has done so.

    Yields:
        (split, row, path, (height, width), digest of the file) of each readable image. A path that
        a split lists twice comes once.
    """
    total = sum(map(len, indexes.values()))
    with tqdm(total=total, desc="reading images", unit="image", disable=None, leave=False) as bar:
        for split, index in indexes.items():
            processed = set()
            lost: dict[str, LostContent] = {}  # {name: content}
            for row in range(len(index)):
                path = index.path(row)
                bar.update()
                if path in processed or (skip_missing and not os.path.lexists(path)):
                    continue
                processed.add(path)
                try:
                    image, size_hw = read_reduced_image(path, min_side=1)
                    content = lost_content(path, image)
                    digest = hashlib.blake2b(Path(path).read_bytes(), digest_size=16).digest()
                except OSError as error:
                    why = getattr(error, "why", None) or error.strerror or str(error)
                    add_problem(report, "errors", path, why)
                    continue
                if content:
                    lost[index.name(row)] = content
                yield split, row, path, size_hw, digest
            report_lost_content(index, lost, report)


def report_lost_content(
    index: ImageIndex, lost: Mapping[str, LostContent], report: JsonObject
) -> None:
    """Add warnings about images whose content is in alpha or in the lowest of their values.

    Args:
        index: of a split.
        lost: {name of an image: its content}.
        report: takes the problems.
    """
    in_alpha = [name for name, content in lost.items() if content.in_alpha]
    if in_alpha:
        why = (
            f"{len(in_alpha)} of {len(index)} images have a single color without their alpha "
            f"channel, which is dropped: {shorten(in_alpha)}; paint them on a background"
        )
        add_problem(report, "warnings", index.folder, why)
    dark = {name: content for name, content in lost.items() if not content.in_alpha}
    for value_range in sorted({content.value_range for content in dark.values()}):
        names = [name for name, content in dark.items() if content.value_range == value_range]
        largest = max(dark[name].largest for name in names)
        darkness = "nearly black" if largest * 16 <= value_range + 1 else "dark"
        why = (
            f"{len(names)} of {len(index)} images are {darkness}, their largest value is "
            f"{largest} of {value_range}: {shorten(names)}; scale the values to the full range"
        )
        add_problem(report, "warnings", index.folder, why)


def report_copies(copies: Sequence[tuple[str, str, str]], report: JsonObject) -> None:
    """Add warnings about files with the same content.

    copies: [(split, class, path)] of files with one digest; class is "" for tasks whose images have
    none. Fewer than two are no duplicates.
    """
    if len(copies) < 2:
        return
    first_split, first_class, first_path = copies[0]
    classes, splits = {label for _, label, _ in copies}, Counter(split for split, _, _ in copies)
    for split, label, path in copies[1:]:
        same = f"the same image as {first_path}"
        if label != first_class:
            add_problem(report, "warnings", path, f"{same}, there of class {first_class}")
        elif split != first_split:
            if path == first_path:
                same = f"is in {first_split} too"
            why = f"{same}: {split} is not independent of {first_split}"
            add_problem(report, "warnings", path, why)
    if len(classes) == len(splits) == 1:
        others = shorten([Path(path).name for _, _, path in copies[1:]])
        where = f"{first_split}/{first_class}"
        why = f"{len(copies)} files with the same content in {where}: {others} too"
        add_problem(report, "warnings", first_path, why)
