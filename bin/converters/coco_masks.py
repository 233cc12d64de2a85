"""Reader of a COCO json's outlines as masks of class ids."""

import json
import os
from array import array
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

from visionloop.bin.converters.conversion import ConversionReport
from visionloop.bin.converters.masks import (
    IGNORED,
    Mask,
    MaskSplit,
    add_background,
    check_class_count,
    stated_size_problem,
)
from visionloop.bin.converters.outlines import (
    InvalidOutline,
    RunLengths,
    area,
    check_corners,
    encode_polygons,
    encode_runs,
    paint,
)
from visionloop.datasets.detection.annotation_files import find_annotations
from visionloop.datasets.detection.coco_categories import read_categories
from visionloop.datasets.detection.coco_columns import (
    SECTIONS,
    UNKNOWN,
    annotated_categories,
    given,
    read_images,
)
from visionloop.datasets.detection.index import locate_images
from visionloop.datasets.detection.layout import image_folders
from visionloop.datasets.detection.problems import CROWD_HINT, Report
from visionloop.datasets.io.json_columns import JsonObject, column, look_up, show
from visionloop.datasets.io.layout import DataLayoutError

SPLITS = ("train", "val", "test")
CROWD_NOTE = f"a crowd (iscrowd 1), its pixels are ignored; {CROWD_HINT}"
USED_KEYS = ("id", "image_id", "category_id", "iscrowd", "segmentation")  # of an annotation

# (name, annotations, stated (height, width)) of an image
CocoEntry: TypeAlias = tuple[str, list[JsonObject], Sequence[int]]


def read_coco_masks(
    source: str, report: ConversionReport, *, background: str
) -> dict[str, MaskSplit]:
    """Read the COCO jsons of a folder, found as for detection, or a single json.

    Where annotations overlap, the smaller one is on top; a crowd is ignored where no other
    annotation is.

    Args:
        source: folder or json file.
        report: receives the images and annotations that cannot be used.
        background: see add_background.

    Returns:
        {split: MaskSplit}.

    Raises:
        DataLayoutError: for files that are laid out otherwise.
    """
    splits: dict[str, MaskSplit] = {}
    classes: tuple[str, ...] | None = None
    for split, path in find_jsons(source).items():
        file_report = Report(path)
        sections = _read_sections(path)
        annotated = annotated_categories(sections["annotations"])
        categories = read_categories(sections["categories"], annotated, classes, file_report)
        images, row_of = read_images(sections["images"], file_report)
        for kind, place, why in file_report.problems:
            (report.add_problem if kind == "error" else report.add_note)(place, why)
        if categories is None or not row_of:
            continue
        classes, category_ids = categories
        check_class_count(path, classes)
        names, background_id = add_background(classes, background)
        value_of = {key: names.index(name) for name, key in zip(classes, category_ids, strict=True)}
        data = path.parent.parent if path.parent.name.lower() == "annotations" else path.parent
        folders = [os.fspath(folder) for folder in image_folders(data, path, split)]
        folder, names_on_disk = locate_images(images["names"], folders)
        files = [os.fsdecode(name) for name in names_on_disk]
        by_image = _group_by_image(sections["annotations"], row_of, len(files), path, report)
        entries = list(zip(files, by_image, images["sizes_hw"].tolist(), strict=True))
        draw = partial(_draw, json_file=path, value_of=value_of, background_id=background_id)
        splits[split] = MaskSplit(folder, files, entries, draw, names, background_id)
    return splits


def find_jsons(source: str) -> dict[str, Path]:
    """Return {split: json file}.

    A single json is "train" when no file is named after a split.
    """
    top = Path(source)
    if top.is_file():
        return {"train": top}
    files = {
        split: path
        for split in SPLITS
        if (path := find_annotations(top, split)) and path.suffix.lower() == ".json"
    }
    if not files:
        expected = "train.json, or annotations/instances_train*.json, and the same for val"
        raise DataLayoutError(top, f"no COCO json; expected {expected}, or a single one")
    return files


def _read_sections(path: Path) -> dict[str, list[JsonObject]]:
    """Return {section: list of objects}. Raises DataLayoutError."""
    try:
        data = json.loads(path.read_bytes(), object_hook=_compact)
    except OSError as error:
        raise DataLayoutError(path, error.strerror or str(error)) from None
    except (ValueError, RecursionError) as error:
        raise DataLayoutError(path, f"not json: {error}") from None
    for name in SECTIONS:
        entries = data.get(name) if isinstance(data, dict) else None
        if not isinstance(entries, list) or not all(type(entry) is dict for entry in entries):
            why = f"section {name!r} is {show(entries)}, expected a list of objects"
            raise DataLayoutError(path, why)
    return {name: data[name] for name in SECTIONS}


def _compact(entry: JsonObject) -> JsonObject:
    """Return an annotation with the used keys alone and its polygons as arrays.

    Lists of numbers would take four times the memory.
    """
    if "segmentation" not in entry:
        return entry
    entry = {key: entry[key] for key in USED_KEYS if key in entry}
    if isinstance(entry["segmentation"], list):
        entry["segmentation"] = [_to_array(polygon) for polygon in entry["segmentation"]]
    return entry


def _to_array(polygon: object) -> object:
    """Return a list of numbers as an array; anything else as it is, it is reported when drawn."""
    try:
        return array("d", polygon)  # type: ignore[call-overload]  # refuses other types at run time
    except (TypeError, OverflowError):
        return polygon


def _group_by_image(
    annotations: Sequence[JsonObject],
    row_of: Mapping[Hashable, int],
    num_images: int,
    path: Path,
    report: ConversionReport,
) -> list[list[JsonObject]]:
    """Return the annotations of each image, in the order of the file."""
    by_image: list[list[JsonObject]] = [[] for _ in range(num_images)]
    rows = look_up(row_of, column(annotations, "image_id")).tolist()
    for entry, row in zip(annotations, rows, strict=True):
        if row >= 0:
            by_image[row].append(entry)
        elif row == UNKNOWN:
            why = f"image_id {show(entry.get('image_id'))} is no image's id"
            report.add_problem(path, f"annotation {show(entry.get('id'))}: {why}")
    return by_image


def _draw(
    entry: CocoEntry,
    size_hw: tuple[int, int],
    report: ConversionReport,
    *,
    json_file: Path,
    value_of: Mapping[int | str | None, int],
    background_id: int,
) -> Mask | None:
    """Return the mask of an image, or None after adding a problem to the report."""
    name, annotations, stated_hw = entry
    problems_before = len(report.problems)
    if why := stated_size_problem(stated_hw, size_hw):
        report.add_problem(json_file, f"{name}: {why}")
        return None
    layers = []
    for annotation in annotations:
        place = f"annotation {show(annotation.get('id'))} on {name}"
        try:
            value = _mask_value(annotation, value_of)
            outline = encode(annotation.get("segmentation"), size_hw)
        except InvalidOutline as error:
            report.add_problem(json_file, f"{place}: {error}")
            continue
        if outline is None or not area(outline):
            report.add_note(f"{json_file}: {place}", "covers no pixel, left out")
            continue
        if value == IGNORED:
            report.add_note(f"{json_file}: {place}", CROWD_NOTE)
        layers.append((outline, value))
    if len(report.problems) > problems_before:
        return None
    ids = np.full(size_hw, background_id, dtype=np.uint8)
    # crowds first, then from large to small; among equals in the order of the file
    for outline, value in sorted(layers, key=lambda layer: (layer[1] != IGNORED, -area(layer[0]))):
        paint(ids, outline, value)
    return ids


def _mask_value(annotation: JsonObject, value_of: Mapping[int | str | None, int]) -> int:
    """Return the class id of an annotation, or IGNORED for a crowd. Raises InvalidOutline."""
    key, crowd = annotation.get("category_id"), given(annotation.get("iscrowd"))
    if isinstance(key, list | dict) or key is None or key not in value_of:
        raise InvalidOutline(f"category_id {show(key)} is no category's id")
    if crowd not in (None, 0, 1):
        raise InvalidOutline(f"iscrowd is {show(crowd)}, neither 0 nor 1")
    return IGNORED if crowd else value_of[key]


def encode(segmentation: object, size_hw: tuple[int, int]) -> RunLengths | None:
    """Return the run lengths of a COCO "segmentation".

    None when no polygon has three corners. Raises InvalidOutline.
    """
    if isinstance(segmentation, dict):
        return encode_runs(segmentation, size_hw)
    if not isinstance(segmentation, list) or not segmentation:
        raise InvalidOutline(f"segmentation is {show(segmentation)}: no outline")
    if not all(isinstance(polygon, array | list) for polygon in segmentation):
        raise InvalidOutline("segmentation is a list of numbers, expected a list of polygons")
    outlines = [check_corners(polygon, size_hw) for polygon in segmentation]
    polygons = [corners for corners in outlines if len(corners) >= 3]
    return encode_polygons(polygons, size_hw) if polygons else None
