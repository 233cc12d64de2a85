"""Index of a split for instance or panoptic segmentation, in one of three layouts.

1. COCO instances: the jsons that a detector reads, with outlines: `train.json` with the images in
   `train/`, `train/_annotations.coco.json`, `annotations/instances_train2017.json`, or
   `instances_train.json` beside `train/`.
2. COCO panoptic: `panoptic_train.json`, PNGs of segment ids in `panoptic_train/`, images in
   `train/`; json and PNGs may be below `annotations/`. An instance task takes the things, unless
   there is a json of instances too.
3. `images/train/`, `masks/train/`, `instances/train/` and `classes.json`, see class_masks.py.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from visionloop.datasets.detection.annotation_files import YAML_SUFFIXES, files_of_split, is_json
from visionloop.datasets.detection.layout import image_folders
from visionloop.datasets.detection.problems import Problem
from visionloop.datasets.io.layout import (
    SPLIT_FOLDERS,
    DataLayoutError,
    find_split,
    is_hidden,
    shorten,
    suggest_folder,
)
from visionloop.datasets.io.names import FileFinder
from visionloop.datasets.io.text import read_ends
from visionloop.datasets.segmentation.layout import MASKS
from visionloop.datasets.segments.annotation_files import (
    OBJECTS,
    PANOPTIC,
    find_source,
    instance_jsons,
    panoptic_folders,
)
from visionloop.datasets.segments.class_masks import find_mask_split
from visionloop.datasets.segments.coco_instances import inspect_instances
from visionloop.datasets.segments.coco_panoptic import inspect_panoptic
from visionloop.datasets.segments.index import Kind, SegmentsIndex

LABELME_KEY = b'"shapes"'
MASK_LAYOUT = "images/{0}/x.jpg with masks/{0}/x.png, instances/{0}/x.png and classes.json"
EXPECTED = {
    "instance": "{0}.json or instances_{0}.json with outlines and images in {0}/, "
    "panoptic_{0}.json, or " + MASK_LAYOUT,
    "panoptic": "panoptic_{0}.json with PNGs in panoptic_{0}/ and images in {0}/, or "
    + MASK_LAYOUT,
}


def find_segments_split(
    data: str | os.PathLike[str],
    split: str,
    kind: Kind,
    classes: Sequence[str] | None = None,
    *,
    need_images: bool = True,
) -> SegmentsIndex | None:
    """Read the SegmentsIndex of a split, or return None without the split.

    Args:
        data: the data folder.
        split: "train", "val" or "test".
        kind: "instance" or "panoptic".
        classes: names of the training split, which then give the labels.
        need_images: False for annotations alone (COCO instances only).

    Raises:
        DataLayoutError: one line with the first error.
    """
    inspected = inspect_segments_split(data, split, kind, classes, need_images=need_images)
    return None if inspected is None else _without_errors(*inspected)


def read_instances(json_file: str | os.PathLike[str]) -> SegmentsIndex:
    """Read the SegmentsIndex of a COCO json of instances, whose images may be missing.

    Raises:
        DataLayoutError: one line with the first error.
    """
    folders = [Path(json_file).parent]
    return _without_errors(*inspect_instances(json_file, folders, need_images=False))


def _without_errors(index: SegmentsIndex | None, problems: Sequence[Problem]) -> SegmentsIndex:
    """Return an index with its notes. Raises DataLayoutError for the first error."""
    for level, path, why in problems:
        if level == "error":
            raise DataLayoutError(path, why)
    assert index is not None, "no index and no error"
    return replace(index, notes=tuple(why for level, _, why in problems if level == "note"))


def require_segments_split(
    data: str | os.PathLike[str],
    split: str,
    kind: Kind,
    classes: Sequence[str] | None = None,
    *,
    need_images: bool = True,
) -> SegmentsIndex:
    """Read the SegmentsIndex of a split; arguments as for find_segments_split.

    Raises:
        DataLayoutError: also without the split, with what is there instead.
    """
    index = find_segments_split(data, split, kind, classes, need_images=need_images)
    if index is not None:
        return index
    present = sorted(entry.name for entry in os.scandir(data) if not is_hidden(entry.name))
    hint = _conversion_hint(Path(data), split, kind) or suggest_folder(
        data, lambda folder: find_source(folder, split, kind) or _has_masks(folder, split)
    )
    expected = EXPECTED[kind].format(SPLIT_FOLDERS[split][0])
    raise DataLayoutError(data, f"expected {expected}; found {shorten(present) or 'nothing'}{hint}")


def inspect_segments_split(
    data: str | os.PathLike[str],
    split: str,
    kind: Kind,
    classes: Sequence[str] | None = None,
    *,
    need_images: bool = True,
) -> tuple[SegmentsIndex | None, list[Problem]] | None:
    """Return (SegmentsIndex or None, all problems) of a split, or None without the split.

    Arguments as for find_segments_split.

    Raises:
        DataLayoutError: where it is not clear what the split is, and for an error of the third
            layout.
    """
    data = Path(data)
    source = find_source(data, split, kind)
    if source is None:
        if _is_yolo(data, split):
            return None
        # names the folder that is missing, where there are images and masks
        index = find_mask_split(data, split, kind, classes)
        return None if index is None else (index, [])
    # the folder of PNGs may hold files with the names of the images
    folders = image_folders(data, _without_prefix(source), split)
    if not source.name.lower().startswith(PANOPTIC):
        return inspect_instances(source, folders, classes, need_images=need_images)
    return inspect_panoptic(source, folders, panoptic_folders(data, source), kind, classes)


def _conversion_hint(data: Path, split: str, kind: Kind) -> str:
    """Return what to do with annotations of another form, or ""."""
    name = "panoptic" if kind == "panoptic" else "instances"
    if kind == "panoptic" and instance_jsons(data, split):
        return "; for the outlines that are there run bin/convert.py panoptic first"
    if _is_yolo(data, split):
        return f"; for outlines of YOLO run bin/convert.py {name} first"
    finder = FileFinder(data)
    for level in ("", *SPLIT_FOLDERS[split]):
        jsons = sorted(file for file in finder.names(level) if is_json(file))
        if jsons and LABELME_KEY in read_ends(data / level / jsons[0]):
            return f"; for files of LabelMe run bin/convert.py {name} first"
    return ""


def _is_yolo(data: Path, split: str) -> bool:
    """Return whether a folder without masks has YOLO's labels/ or its yaml."""
    if (data / MASKS).is_dir():
        return False
    files = files_of_split(data, split)
    return (data / "labels").is_dir() or any(path.suffix.lower() in YAML_SUFFIXES for path in files)


def _has_masks(data: Path, split: str) -> bool:
    """Return whether a folder holds files of object numbers for a split."""
    objects = data / OBJECTS
    return objects.is_dir() and find_split(objects, split) is not None


def _without_prefix(source: Path) -> Path:
    """Return the path of a json without "panoptic_" in its name."""
    is_panoptic = source.name.lower().startswith(PANOPTIC)
    return source.with_name(source.name[len(PANOPTIC) :]) if is_panoptic else source
