"""Index of a detection split, and the folder of its images; see annotation_files.py."""

import os
from collections.abc import Sequence
from pathlib import Path

from visionloop.datasets.detection.annotation_files import (
    ROBOFLOW,
    YAML_SUFFIXES,
    find_annotations,
)
from visionloop.datasets.detection.index import DetectionIndex, inspect_coco, require_index
from visionloop.datasets.detection.problems import Problem
from visionloop.datasets.detection.yolo import inspect_yolo
from visionloop.datasets.io.layout import (
    SPLIT_FOLDERS,
    DataLayoutError,
    is_hidden,
    shorten,
    suggest_folder,
)
from visionloop.datasets.io.names import FileFinder
from visionloop.datasets.io.text import read_ends

MAX_FOLDERS = 200  # that are searched for images
# class names that labelImg, Label Studio and Darknet write without a description
NAME_FILES = ("classes.txt", "obj.names", "labels/classes.txt")
CVAT_HINT = "CVAT's own xml is not read: export the task as COCO"
EXPECTED = (
    "{0}.json with images in {0}/, {0}/"
    + ROBOFLOW
    + ", annotations/instances_{0}*.json, a YOLO data.yaml with {0}, or a single COCO json"
)


def find_detection_split(
    data: str | os.PathLike[str],
    split: str,
    classes: Sequence[str] | None = None,
    *,
    need_images: bool = True,
) -> DetectionIndex | None:
    """Read the DetectionIndex of a split, or return None without the split.

    Args:
        data: the data folder.
        split: "train", "val" or "test".
        classes: names of the training split, which then give the labels.
        need_images: False for annotations alone (COCO only).

    Raises:
        DataLayoutError: one line with the first error.
    """
    inspected = inspect_detection_split(data, split, classes, need_images=need_images)
    return require_index(*inspected) if inspected else None


def require_detection_split(
    data: str | os.PathLike[str],
    split: str,
    classes: Sequence[str] | None = None,
    *,
    need_images: bool = True,
) -> DetectionIndex:
    """Read the DetectionIndex of a split; arguments as for find_detection_split.

    Raises:
        DataLayoutError: also without the split, with what is there instead.
    """
    index = find_detection_split(data, split, classes, need_images=need_images)
    if index is None:
        present = sorted(entry.name for entry in os.scandir(data) if not is_hidden(entry.name))
        name = SPLIT_FOLDERS[split][0]
        hint = suggest_folder(data, lambda folder: find_annotations(folder, split))
        finder = FileFinder(data)
        if lists := [file for file in NAME_FILES if finder.find(file)]:
            hint = f"; for YOLO labels put the names of {lists[0]} into a data.yaml: names, train"
        levels = ("", "annotations", *SPLIT_FOLDERS["train"])
        files = (os.path.join(level, file) for level in levels for file in finder.names(level))
        if xml := next((file for file in files if file.endswith(".xml")), None):
            is_cvat = b"<annotations" in read_ends(os.path.join(data, xml))
            hint = f"; {CVAT_HINT}" if is_cvat else "; for Pascal VOC run bin/convert.py voc first"
        raise DataLayoutError(
            data, f"expected {EXPECTED.format(name)}; found {shorten(present) or 'nothing'}{hint}"
        )
    return index


def inspect_detection_split(
    data: str | os.PathLike[str],
    split: str,
    classes: Sequence[str] | None = None,
    *,
    need_images: bool = True,
) -> tuple[DetectionIndex | None, list[Problem]] | None:
    """Return (DetectionIndex or None, all problems) of a split, or None without the split.

    Arguments as for find_detection_split.

    Raises:
        DataLayoutError: where it is not clear what the split is.
    """
    source = find_annotations(data, split)
    if source is None:
        return None
    if source.suffix.lower() in YAML_SUFFIXES:
        return inspect_yolo(source, split, classes)
    folders = image_folders(Path(data), source, split)
    return inspect_coco(source, folders, classes, need_images=need_images)


def image_folders(data: Path, json_file: Path, split: str) -> list[Path]:
    """Return folders that the file names of a json may be relative to, the likeliest first."""
    if json_file.parent != data and json_file.parent.name.lower() != "annotations":
        return [json_file.parent, json_file.parent / "images", data]
    # train2017, train
    names = dict.fromkeys([json_file.stem.removeprefix("instances_"), *SPLIT_FOLDERS[split]])
    folders = [
        *(data / name for name in names),
        *(data / "images" / name for name in names),
        data / "images",
        data,
    ]
    is_of_split = any(word in json_file.stem.lower() for word in SPLIT_FOLDERS[split])
    return folders if is_of_split else [*folders, *_folders_below(data)]


def _folders_below(data: Path) -> list[Path]:
    """Return the folders of the first two levels, sorted."""
    below = sorted(path for path in [*data.glob("*/"), *data.glob("*/*/")] if path.is_dir())
    return [path for path in below if not is_hidden(path.name)][:MAX_FOLDERS]
