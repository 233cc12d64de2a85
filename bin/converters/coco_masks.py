"""Outlines of a COCO json as masks of class ids."""

import json
import os
from array import array
from functools import partial
from pathlib import Path

import numpy as np

from visionloop.bin.converters.masks import (
    IGNORED,
    MaskSplit,
    place_background,
    refuse_many,
    wrong_stated_size,
)
from visionloop.bin.converters.outlines import (
    BrokenOutline,
    area,
    check_corners,
    encode_polygons,
    encode_runs,
    paint,
)
from visionloop.datasets.detection.coco_columns import (
    SECTIONS,
    UNKNOWN,
    read_categories,
    read_images,
)
from visionloop.datasets.detection.index import choose_folder
from visionloop.datasets.detection.layout import find_annotations
from visionloop.datasets.detection.problems import Report
from visionloop.datasets.io.json_columns import column, look_up, show
from visionloop.datasets.io.layout import SPLIT_FOLDERS, DataLayoutError, shorten

SPLITS = ("train", "val", "test")
KEPT = ("id", "image_id", "category_id", "iscrowd", "segmentation")  # of an annotation


def read_coco_masks(source, findings, *, background):
    """{split: MaskSplit} of a folder with COCO jsons, as detection finds them, or of a single json.

    findings: takes what is broken; background: see place_background. Where annotations overlap, the
    smaller one lies on top; a crowd is ignored where nothing else lies on it. Raises
    DataLayoutError.
    """
    splits, classes = {}, None
    for split, path in find_jsons(source).items():
        report = Report(path)
        sections = _read_sections(path)
        categories = read_categories(sections["categories"], classes, report)
        images, row_of = read_images(sections["images"], report)
        for _, place, why in report.problems:
            findings.problem(place, why)
        if categories is None or not images:
            continue
        classes, category_ids = categories
        refuse_many(path, classes)
        ids, rest = place_background(classes, background)
        value_of = {key: ids.index(name) for name, key in zip(classes, category_ids, strict=True)}
        names = [os.fsdecode(name) for name in images["names"]]
        by_image = _sort(sections["annotations"], row_of, len(names), path, findings)
        entries = list(zip(names, by_image, images["sizes_hw"].tolist(), strict=True))
        draw = partial(_draw, json_file=path, value_of=value_of, rest=rest)
        folder = choose_folder(images["names"], _image_folders(path, split))
        splits[split] = MaskSplit(folder, names, entries, draw, ids, rest)
    return splits


def find_jsons(source):
    """{split: json file}; the only json is "train" where no file is named after a split."""
    source = Path(source)
    if source.is_file():
        return {"train": source}
    found = {
        split: path
        for split in SPLITS
        if (path := find_annotations(source, split)) and path.suffix == ".json"
    }
    if found:
        return found
    others = sorted([*source.glob("*.json"), *source.glob("annotations/*.json")])
    if len(others) != 1:
        there = (
            f"several json files ({shorten([path.name for path in others])})"
            if others
            else "no json"
        )
        raise DataLayoutError(
            source,
            f"holds {there}; expected train.json, or annotations/instances_train*.json, and the same for val",
        )
    return {"train": others[0]}


def _image_folders(json_file, split):
    """Folders that the file names of a json may be relative to, the likeliest first."""
    data = json_file.parent.parent if json_file.parent.name == "annotations" else json_file.parent
    names = dict.fromkeys([json_file.stem.removeprefix("instances_"), *SPLIT_FOLDERS[split]])
    folders = [
        *(data / name for name in names),
        *(data / "images" / name for name in names),
        data / "images",
        data,
    ]
    return [os.fspath(folder) for folder in folders]


def _read_sections(path):
    """{section: list of objects}. Raises DataLayoutError."""
    try:
        data = json.loads(path.read_bytes(), object_hook=_compact)
    except OSError as error:
        raise DataLayoutError(path, error.strerror or str(error)) from None
    except (ValueError, RecursionError) as error:
        raise DataLayoutError(path, f"not json: {error}") from None
    for name in SECTIONS:
        entries = data.get(name) if isinstance(data, dict) else None
        if not isinstance(entries, list) or not all(type(entry) is dict for entry in entries):
            raise DataLayoutError(
                path, f"section {name!r} is {show(entries)}, expected a list of objects"
            )
    return data


def _compact(entry):
    """An annotation without what masks do not need, its corners as arrays: lists of numbers would take four times as much."""
    if "segmentation" not in entry:
        return entry
    entry = {key: entry[key] for key in KEPT if key in entry}
    if isinstance(entry["segmentation"], list):
        entry["segmentation"] = [_numbers(polygon) for polygon in entry["segmentation"]]
    return entry


def _numbers(polygon):
    try:
        return array("d", polygon)
    except (TypeError, OverflowError):  # named when it is drawn
        return polygon


def _sort(annotations, row_of, num_images, path, findings):
    """The annotations of each image, in the file's order."""
    by_image = [[] for _ in range(num_images)]
    for entry, row in zip(
        annotations, look_up(row_of, column(annotations, "image_id")).tolist(), strict=True
    ):
        if row >= 0:
            by_image[row].append(entry)
        elif row == UNKNOWN:
            why = f"image_id {show(entry.get('image_id'))} is no image's id"
            findings.problem(path, f"annotation {show(entry.get('id'))}: {why}")
    return by_image


def _draw(entry, size_hw, findings, *, json_file, value_of, rest):
    """The mask of an image, or None. entry: (name, annotations, (height, width) as told)."""
    name, annotations, said_hw = entry
    problems = len(findings.problems)
    if why := wrong_stated_size(said_hw, size_hw):
        return findings.problem(json_file, f"{name}: {why}")
    layers = []
    for annotation in annotations:
        place = f"annotation {show(annotation.get('id'))} on {name}"
        try:
            value = _value(annotation, value_of)
            outline = encode(annotation.get("segmentation"), size_hw)
        except BrokenOutline as error:
            findings.problem(json_file, f"{place}: {error}")
            continue
        if outline is None or not area(outline):
            findings.note(f"{json_file}: {place}", "covers no pixel, left out")
            continue
        layers.append((outline, value))
    if len(findings.problems) > problems:
        return None
    ids = np.full(size_hw, rest, dtype=np.uint8)
    # crowds lie lowest, then the largest; among equals the file's order
    for outline, value in sorted(layers, key=lambda layer: (layer[1] != IGNORED, -area(layer[0]))):
        paint(ids, outline, value)
    return ids


def _value(annotation, value_of):
    """What an annotation's pixels are to be: its class's id, or IGNORED for a crowd."""
    key, crowd = annotation.get("category_id"), annotation.get("iscrowd", 0)
    if isinstance(key, list | dict) or key is None or key not in value_of:
        raise BrokenOutline(f"category_id {show(key)} is no category's id")
    if crowd not in (0, 1):
        raise BrokenOutline(f"iscrowd is {show(crowd)}, neither 0 nor 1")
    return IGNORED if crowd else value_of[key]


def encode(segmentation, size_hw):
    """The run lengths of COCO's "segmentation", None when no polygon has three corners. Raises BrokenOutline."""
    if isinstance(segmentation, dict):
        return encode_runs(segmentation, size_hw)
    if not isinstance(segmentation, list) or not segmentation:
        raise BrokenOutline(f"segmentation is {show(segmentation)}: no outline")
    if not all(isinstance(polygon, array | list) for polygon in segmentation):
        raise BrokenOutline("segmentation is a list of numbers, expected a list of polygons")
    polygons = [
        polygon
        for polygon in (check_corners(polygon, size_hw) for polygon in segmentation)
        if len(polygon) >= 3
    ]
    return encode_polygons(polygons, size_hw) if polygons else None
