"""Recognition of the data layouts of the four tasks. Imports no torch.

The rules are those of `datasets/`. Images are counted, not read: what is wrong with their contents
is said by `check`.
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from visionloop.datasets.detection.annotation_files import YAML_SUFFIXES, find_annotations
from visionloop.datasets.detection.yolo_description import read_description
from visionloop.datasets.io.folders import IMAGE_SUFFIXES
from visionloop.datasets.io.layout import SPLIT_FOLDERS, DataLayoutError, find_split, is_hidden
from visionloop.datasets.io.names import one_line
from visionloop.datasets.segmentation.class_file import read_class_file
from visionloop.datasets.super_resolution.lr_folders import (
    find_lr_folders,
    folders_in,
    hr_folder_name,
)

NO_VALIDATION = "no_validation"
WRONG_LAYOUT = "wrong_layout"
SPLITS = ("train", "val")
COCO_LISTS = ("images", "categories")
MAX_DESCRIPTION = 16 << 20  # bytes of a file with annotations or class names that is read
MAX_NAMES = 10_000  # entries of a folder that may be the top of a data set


class Budget:
    """Limits of a walk. A walk that has reached one goes on no further: its counts are too low.

    Args:
        entries: number of files and folders.
        seconds: from now.
    """

    def __init__(self, entries: int, seconds: float) -> None:
        self.entries, self.deadline = entries, time.monotonic() + seconds

    def spend(self) -> bool:
        """Count one entry. Returns False when nothing is left."""
        self.entries -= 1
        return not self.is_spent

    @property
    def is_spent(self) -> bool:
        return self.entries < 0 or time.monotonic() > self.deadline


@dataclass(frozen=True)
class DataSet:
    """A folder in the layout of a task.

    Attributes:
        path: of the folder.
        task_type: as platforms call it.
        layout: "class_folders", "coco", "yolo", "masks", "hr" or "hr_lr".
        images: {split: number of images}, without the splits that are not there.
        classes: number of classes; None without classes, or where counting them takes too long.
        is_complete: the numbers are exact; False: there are at least as many.
        problem: NO_VALIDATION, WRONG_LAYOUT or None.
        why: the problem in one line.
    """

    path: Path
    task_type: str
    layout: str
    images: Mapping[str, int] = field(default_factory=dict)
    classes: int | None = None
    is_complete: bool = True
    problem: str | None = None
    why: str | None = None


def recognise(folder: Path, budget: Budget) -> list[DataSet]:
    """Return the data sets that a folder is, at most one for each task; [] for none.

    A folder that cannot be read is none. A damaged data set has a `problem`.
    """
    try:
        names = _names_in(folder)
        if names is None:
            return []
        data_sets = [
            data_set
            for recognise_task in (_super_resolution, _detection, _segmentation)
            if (data_set := recognise_task(folder, names, budget))
        ]
        if not data_sets and (data_set := _classification(folder, names, budget)):
            data_sets.append(data_set)
    except (OSError, RecursionError):
        return []
    return data_sets


def _names_in(folder: Path) -> set[str] | None:
    """Return the names in a folder in lower case, None for one with more than MAX_NAMES."""
    names: set[str] = set()
    with os.scandir(folder) as entries:
        for entry in entries:
            names.add(entry.name.lower())
            if len(names) > MAX_NAMES:
                return None
    return names


def _classification(folder: Path, names: set[str], budget: Budget) -> DataSet | None:
    """Recognise `train/<class>/*.jpg`."""
    if names.isdisjoint(SPLIT_FOLDERS["train"]):
        return None
    task, layout = "image_classification", "class_folders"
    try:
        splits = {split: path for split in SPLITS if (path := find_split(folder, split))}
    except DataLayoutError as error:
        return DataSet(folder, task, layout, problem=WRONG_LAYOUT, why=one_line(str(error)))
    if "train" not in splits or not (classes := folders_in(splits["train"])):
        return None
    counts = {split: count_images(path, budget, depth=1) for split, path in splits.items()}
    if not counts["train"]:
        return None
    return _data_set(folder, task, layout, counts, len(classes), budget)


def _super_resolution(folder: Path, names: set[str], budget: Budget) -> DataSet | None:
    """Recognise `train/HR/*.png`, with or without `train/LR_x2/*.png`."""
    if names.isdisjoint(SPLIT_FOLDERS["train"]):
        return None
    try:
        splits = {split: path for split in SPLITS if (path := find_split(folder, split))}
    except DataLayoutError:
        return None  # reported for classification
    folders = {split: path / hr_folder_name(path) for split, path in splits.items()}
    if "train" not in folders or not folders["train"].is_dir():
        return None
    counts = {split: count_images(path, budget) for split, path in folders.items()}
    layout = "hr_lr" if find_lr_folders(splits["train"]) else "hr"
    return _data_set(folder, "super_resolution", layout, counts, None, budget)


def _segmentation(folder: Path, names: set[str], budget: Budget) -> DataSet | None:
    """Recognise `images/train/*.jpg` with `masks/train/*.png` and `classes.json`."""
    if not {"images", "masks"} <= names:
        return None
    task, layout = "semantic_segmentation", "masks"
    try:
        images = {split: path for split in SPLITS if (path := find_split(folder / "images", split))}
        class_file = folder / "classes.json"
        _require_small(class_file)
        classes = len(read_class_file(class_file).classes)
    except DataLayoutError as error:
        return DataSet(folder, task, layout, problem=WRONG_LAYOUT, why=one_line(str(error)))
    if "train" not in images:
        return None
    counts = {split: count_images(path, budget) for split, path in images.items()}
    return _data_set(folder, task, layout, counts, classes, budget)


def _detection(folder: Path, _: set[str], budget: Budget) -> DataSet | None:
    """Recognise a COCO json or a YOLO data.yaml, as find_annotations does."""
    task, layout = "object_detection", "coco"
    try:
        files = {split: path for split in SPLITS if (path := find_annotations(folder, split))}
        if "train" not in files:
            return None
        if files["train"].suffix.lower() in YAML_SUFFIXES:
            layout = "yolo"
            return _yolo(folder, files["train"], budget)
        counts, classes = {}, None
        for split, path in files.items():
            counts[split], in_file = _coco_counts(path)
            classes = classes or in_file
    except DataLayoutError as error:
        return DataSet(folder, task, layout, problem=WRONG_LAYOUT, why=one_line(str(error)))
    is_complete = classes is not None
    return _data_set(folder, task, layout, counts, classes, budget, is_complete=is_complete)


def _yolo(folder: Path, source: Path, budget: Budget) -> DataSet:
    """Return the data set that a data.yaml describes. Raises DataLayoutError for a wrong one."""
    _require_small(source)
    description = read_description(source)
    counts = {}
    for split in SPLITS:
        paths = [Path(description.resolve(entry)) for entry in description.splits.get(split, ())]
        if paths:
            counts[split] = sum(_yolo_images(path, budget) for path in paths)
    classes = len(description.classes)
    return _data_set(folder, "object_detection", "yolo", counts, classes, budget)


def _yolo_images(path: Path, budget: Budget) -> int:
    """Return the number of images in a folder, or of the lines of a file that lists them."""
    if path.is_dir():
        return count_images(path, budget)
    _require_small(path)
    return sum(bool(line.strip()) for line in path.read_bytes().splitlines())


def _coco_counts(path: Path) -> tuple[int, int | None]:
    """Return (images, classes) of a COCO json, (0, None) for a large one."""
    if path.stat().st_size > MAX_DESCRIPTION:
        return 0, None
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataLayoutError(path, f"not a json file ({error})") from None
    lists = [content.get(key) for key in COCO_LISTS] if isinstance(content, dict) else []
    counts = [len(rows) for rows in lists if isinstance(rows, list)]
    if len(counts) < len(COCO_LISTS):
        raise DataLayoutError(path, f"not a COCO json, which has the lists {', '.join(COCO_LISTS)}")
    return counts[0], counts[1]


def _require_small(path: Path) -> None:
    """Raise DataLayoutError for a file that is missing or too large to be read here."""
    if not path.is_file():
        raise DataLayoutError(path, "no such file")
    if path.stat().st_size > MAX_DESCRIPTION:
        raise DataLayoutError(path, "larger than 16 MiB; not read for the list of data sets")


def _data_set(
    folder: Path,
    task_type: str,
    layout: str,
    counts: Mapping[str, int],
    classes: int | None,
    budget: Budget,
    *,
    is_complete: bool = True,
) -> DataSet:
    """Return a data set whose folders are there, with the problem of missing images."""
    exact = is_complete and not budget.is_spent
    problem = why = None
    if exact and not counts.get("train"):
        problem, why = WRONG_LAYOUT, "no training images"
    elif "val" not in counts:
        problem = NO_VALIDATION
        why = "no validation images: give val_split, a share of the training images"
    return DataSet(folder, task_type, layout, counts, classes, exact, problem, why)


def count_images(folder: Path, budget: Budget, depth: int = 0) -> int:
    """Return the number of images below a folder, of those at least `depth` folders down.

    Links to folders are followed, once each. Names in hidden folders do not count.
    """
    count, waiting, seen = 0, [(str(folder), 0)], set()
    while waiting:
        path, level = waiting.pop()
        real = os.path.realpath(path)
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if not budget.spend():
                        return count
                    if is_hidden(entry.name):
                        continue
                    if level >= depth and entry.name.lower().endswith(IMAGE_SUFFIXES):
                        count += 1
                    elif entry.is_dir():
                        waiting.append((entry.path, level + 1))
        except OSError:
            continue  # a folder that cannot be listed has no images that can be read
    return count
