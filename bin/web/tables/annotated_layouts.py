"""Data sets that an annotation file describes: COCO's jsons and YOLO's data.yaml.

A COCO json with outlines is a data set of two tasks, and so is a panoptic one. Imports no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from visionloop.bin.web.tables.coco_files import CocoFiles
from visionloop.bin.web.tables.data_sets import (
    SPLITS,
    Budget,
    DataSet,
    count_images,
    data_set_of,
    require_small,
    wrong_layout,
)
from visionloop.datasets.detection.annotation_files import (
    YAML_SUFFIXES,
    files_of_split,
    find_annotations,
)
from visionloop.datasets.detection.yolo_description import read_description
from visionloop.datasets.io.layout import SPLIT_FOLDERS, DataLayoutError
from visionloop.datasets.segments.annotation_files import (
    PANOPTIC,
    find_source,
    instance_jsons,
    panoptic_folders,
    panoptic_jsons,
)

if TYPE_CHECKING:
    from visionloop.datasets.segments.index import Kind

# folders that may hold the jsons
JSON_FOLDERS = {
    "annotations",
    "images",
    *(name for names in SPLIT_FOLDERS.values() for name in names),
}


def annotated_data_sets(folder: Path, names: set[str], budget: Budget) -> list[DataSet]:
    """Return the data sets for detection, instance and panoptic segmentation in a folder.

    names: in the folder, in lower case.
    """
    files = CocoFiles()
    data_sets = [_detection(folder, budget, files)]
    if names & JSON_FOLDERS or any(name.endswith(".json") for name in names):
        data_sets.append(_segments(folder, "instance", budget, files))
        data_sets.append(_segments(folder, "panoptic", budget, files))
    return [data_set for data_set in data_sets if data_set]


def _detection(folder: Path, budget: Budget, files: CocoFiles) -> DataSet | None:
    """Recognise a COCO json or a YOLO data.yaml, as find_annotations does."""
    task, layout = "object_detection", "coco"
    try:
        if _is_for_segments_alone(folder):
            return None
        sources = {split: path for split in SPLITS if (path := find_annotations(folder, split))}
        if "train" not in sources:
            return None
        if sources["train"].suffix.lower() in YAML_SUFFIXES:
            layout = "yolo"
            return _yolo(folder, sources["train"], budget)
        contents = {split: files.read(path) for split, path in sources.items()}
    except DataLayoutError as error:
        return wrong_layout(folder, task, layout, error)
    counts = {split: content.images for split, content in contents.items()}
    classes = next((one.classes for one in contents.values() if one.classes), None)
    is_complete = classes is not None
    return data_set_of(folder, task, layout, counts, classes, budget, is_complete=is_complete)


def _is_for_segments_alone(folder: Path) -> bool:
    """Return whether the names of the jsons are those of segments, which no detector reads."""
    try:
        return not files_of_split(folder, *SPLITS) and any(
            instance_jsons(folder, split) or panoptic_jsons(folder, split) for split in SPLITS
        )
    except DataLayoutError:
        return False


def _segments(folder: Path, kind: Kind, budget: Budget, files: CocoFiles) -> DataSet | None:
    """Recognise a COCO json with outlines or a panoptic one, as find_segments_split does."""
    task, layout = f"{kind}_segmentation", "coco"
    try:
        sources = {split: path for split in SPLITS if (path := find_source(folder, split, kind))}
        if "train" not in sources:
            return None
        is_panoptic = sources["train"].name.lower().startswith(PANOPTIC)
        layout = "coco_panoptic" if is_panoptic else "coco"
        contents = {split: files.read(path) for split, path in sources.items()}
        if is_panoptic:
            for path in sources.values():
                _require_pngs(folder, path)
    except DataLayoutError as error:
        if kind == "instance" and not _is_for_segments_alone(folder):
            return None  # reported for detection
        return wrong_layout(folder, task, layout, error)
    if not is_panoptic and not contents["train"].has_outlines:
        return None
    counts = {split: content.images for split, content in contents.items()}
    train = contents["train"]
    classes = train.things if kind == "instance" else train.classes
    is_complete = all(content.is_counted for content in contents.values())
    return data_set_of(folder, task, layout, counts, classes, budget, is_complete=is_complete)


def _require_pngs(folder: Path, source: Path) -> None:
    """Raise DataLayoutError where a panoptic json has no folder of PNGs."""
    if not any(path.is_dir() for path in panoptic_folders(folder, source)):
        raise DataLayoutError(source, f"no folder {source.stem} with its PNGs")


def _yolo(folder: Path, source: Path, budget: Budget) -> DataSet:
    """Return the data set that a data.yaml describes. Raises DataLayoutError for a wrong one."""
    require_small(source)
    description = read_description(source)
    counts = {}
    for split in SPLITS:
        paths = [Path(description.resolve(entry)) for entry in description.splits.get(split, ())]
        if paths:
            counts[split] = sum(_yolo_images(path, budget) for path in paths)
    classes = len(description.classes)
    return data_set_of(folder, "object_detection", "yolo", counts, classes, budget)


def _yolo_images(path: Path, budget: Budget) -> int:
    """Return the number of images in a folder, or of the lines of a file that lists them."""
    if path.is_dir():
        return count_images(path, budget)
    require_small(path)
    return sum(bool(line.strip()) for line in path.read_bytes().splitlines())
