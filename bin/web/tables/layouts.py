"""Recognition of the data layouts of the six tasks. Imports no torch.

The rules are those of `datasets/`. Images are counted, not read: what is wrong with their contents
is said by `check`.
"""

import os
from pathlib import Path

from visionloop.bin.web.tables.annotated_layouts import annotated_data_sets
from visionloop.bin.web.tables.data_sets import (
    SPLITS,
    Budget,
    DataSet,
    count_images,
    data_set_of,
    require_small,
    wrong_layout,
)
from visionloop.datasets.io.layout import SPLIT_FOLDERS, DataLayoutError, find_split
from visionloop.datasets.segmentation.class_file import read_class_file
from visionloop.datasets.segments.annotation_files import OBJECTS
from visionloop.datasets.super_resolution.lr_folders import (
    find_lr_folders,
    folders_in,
    hr_folder_name,
)

MAX_NAMES = 10_000  # entries of a folder that may be the top of a data set


def recognise(folder: Path, budget: Budget) -> list[DataSet]:
    """Return the data sets that a folder is, at most one for each task; [] for none.

    A folder that cannot be read is none. A damaged data set has a `problem`.
    """
    try:
        names = _names_in(folder)
        if names is None:
            return []
        data_sets = [
            *_super_resolution(folder, names, budget),
            *annotated_data_sets(folder, names, budget),
        ]
        known = {data_set.task_type for data_set in data_sets}
        masks = _masks(folder, names, budget)
        data_sets += [data_set for data_set in masks if data_set.task_type not in known]
        return data_sets or _classification(folder, names, budget)
    except (OSError, RecursionError):
        return []


def _names_in(folder: Path) -> set[str] | None:
    """Return the names in a folder in lower case, None for one with more than MAX_NAMES."""
    names: set[str] = set()
    with os.scandir(folder) as entries:
        for entry in entries:
            names.add(entry.name.lower())
            if len(names) > MAX_NAMES:
                return None
    return names


def _classification(folder: Path, names: set[str], budget: Budget) -> list[DataSet]:
    """Recognise `train/<class>/*.jpg`."""
    if names.isdisjoint(SPLIT_FOLDERS["train"]):
        return []
    task, layout = "image_classification", "class_folders"
    try:
        splits = {split: path for split in SPLITS if (path := find_split(folder, split))}
    except DataLayoutError as error:
        return [wrong_layout(folder, task, layout, error)]
    if "train" not in splits or not (classes := folders_in(splits["train"])):
        return []
    counts = {split: count_images(path, budget, depth=1) for split, path in splits.items()}
    if not counts["train"]:
        return []
    return [data_set_of(folder, task, layout, counts, len(classes), budget)]


def _super_resolution(folder: Path, names: set[str], budget: Budget) -> list[DataSet]:
    """Recognise `train/HR/*.png`, with or without `train/LR_x2/*.png`."""
    if names.isdisjoint(SPLIT_FOLDERS["train"]):
        return []
    try:
        splits = {split: path for split in SPLITS if (path := find_split(folder, split))}
    except DataLayoutError:
        return []  # reported for classification
    folders = {split: path / hr_folder_name(path) for split, path in splits.items()}
    if "train" not in folders or not folders["train"].is_dir():
        return []
    counts = {split: count_images(path, budget) for split, path in folders.items()}
    layout = "hr_lr" if find_lr_folders(splits["train"]) else "hr"
    return [data_set_of(folder, "super_resolution", layout, counts, None, budget)]


def _masks(folder: Path, names: set[str], budget: Budget) -> list[DataSet]:
    """Recognise `images/train/*.jpg` with `masks/train/*.png` and `classes.json`.

    With `instances/train/*.png` they are for instance segmentation too, and with "things" in
    `classes.json` for panoptic segmentation.
    """
    if not {"images", "masks"} <= names:
        return []
    layouts = {"semantic_segmentation": "masks"}
    if OBJECTS in names:
        layouts["instance_segmentation"] = "masks_instances"
    try:
        images = {split: path for split in SPLITS if (path := find_split(folder / "images", split))}
        class_file = folder / "classes.json"
        require_small(class_file)
        description = read_class_file(class_file)
        objects = find_split(folder / OBJECTS, "train") if OBJECTS in names else None
    except DataLayoutError as error:
        return [wrong_layout(folder, task, layout, error) for task, layout in layouts.items()]
    if "train" not in images:
        return []
    counts = {split: count_images(path, budget) for split, path in images.items()}
    classes = {"semantic_segmentation": len(description.classes)}
    things = description.classes if description.things is None else description.things
    if objects and things:
        classes["instance_segmentation"] = len(things)
    if objects and description.things is not None:
        layouts["panoptic_segmentation"] = "masks_instances"
        classes["panoptic_segmentation"] = len(description.classes)
    return [
        data_set_of(folder, task, layouts[task], counts, number, budget)
        for task, number in classes.items()
    ]
