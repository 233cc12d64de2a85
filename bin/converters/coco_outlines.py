"""Reader of the outlines in COCO's instances jsons, one region for each annotation."""

import json
import os
from array import array
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from visionloop.bin.converters.conversion import ConversionReport
from visionloop.bin.converters.masks import stated_size_problem
from visionloop.bin.converters.outlines import (
    InvalidOutline,
    Region,
    area,
    encode_polygons,
    encode_runs,
)
from visionloop.datasets.detection.annotation_files import files_of_split, find_annotations
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
from visionloop.datasets.detection.problems import Report
from visionloop.datasets.io.json_columns import JsonObject, column, is_number, look_up, show
from visionloop.datasets.io.layout import DataLayoutError
from visionloop.datasets.segments.annotation_files import PANOPTIC, prefixed_jsons
from visionloop.datasets.segments.outlines import (
    DROPPED_POLYGON,
    EXPECTED,
    LARGEST_COORDINATE,
    NO_OUTLINE,
    Rle,
    no_usable_outline,
    usable_polygons,
    wrong_value,
)

SPLITS = ("train", "val", "test")
EMPTY = "covers no pixel, left out"
USED_KEYS = ("id", "image_id", "category_id", "iscrowd", "segmentation")  # of an annotation

# (name, annotations, stated (height, width)) of an image
CocoEntry: TypeAlias = tuple[str, list[JsonObject], Sequence[int]]
UsedCategories: TypeAlias = Callable[[Sequence[JsonObject]], set[Hashable]]


@dataclass(frozen=True, eq=False)
class CocoFile:
    """The images and annotations of a COCO json.

    Attributes:
        path: of the json.
        classes: names in order of label; those of the first split in all of them.
        category_ids: id of each class in this file, None for a class that it does not have.
        categories: the objects of the section.
        folder: of the images.
        names: paths of the images relative to the folder.
        entries: annotations of each image.
    """

    path: Path
    classes: tuple[str, ...]
    category_ids: tuple[int | str | None, ...]
    categories: list[JsonObject]
    folder: str
    names: list[str]
    entries: list[CocoEntry]

    @property
    def label_of(self) -> dict[int | str | None, int]:
        """{category id: label} of the classes in the file."""
        pairs = zip(self.category_ids, range(len(self.classes)), strict=True)
        return {key: label for key, label in pairs if key is not None}


def read_coco_files(
    jsons: Mapping[str, Path],
    report: ConversionReport,
    used_categories: UsedCategories = annotated_categories,
) -> dict[str, CocoFile]:
    """Read the COCO jsons of the splits, whose classes are those of the first one.

    Args:
        jsons: {split: json}.
        report: receives the images and annotations that cannot be used.
        used_categories: returns the category ids of annotations.

    Raises:
        DataLayoutError: for files that are laid out otherwise, or whose categories are wrong.
    """
    files: dict[str, CocoFile] = {}
    classes: tuple[str, ...] | None = None
    for split, path in jsons.items():
        file_report = Report(path)
        sections = read_sections(path)
        annotated = used_categories(sections["annotations"])
        categories = read_categories(sections["categories"], annotated, classes, file_report)
        images, row_of = read_images(sections["images"], file_report)
        for name in ("images", "categories"):
            if not sections[name]:
                is_lost = sections["annotations"] or sections["images"]
                add = file_report.error if is_lost else file_report.note
                add(f"section {name!r} is empty")
        errors = [why for kind, _, why in file_report.problems if kind == "error"]
        if categories is None and errors:  # not to be skipped: the whole split would be
            raise DataLayoutError(path, errors[0])
        for kind, place, why in file_report.problems:
            (report.add_problem if kind == "error" else report.add_note)(place, why)
        if categories is None or not row_of:
            continue
        classes, category_ids = categories
        folder, names_on_disk = locate_images(images["names"], folders_of_images(path, split))
        names = [os.fsdecode(name) for name in names_on_disk]
        by_image = _group_by_image(sections["annotations"], row_of, len(names), path, report)
        entries = list(zip(names, by_image, images["sizes_hw"].tolist(), strict=True))
        files[split] = CocoFile(
            path, classes, category_ids, sections["categories"], folder, names, entries
        )
    return files


def read_outlined_files(jsons: Mapping[str, Path], report: ConversionReport) -> dict[str, CocoFile]:
    """Read the COCO jsons of instances of the splits; see read_coco_files.

    Raises:
        DataLayoutError: also for a json in which no annotation has an outline.
    """
    files = read_coco_files(jsons, report)
    for file in files.values():
        annotations = [each for _, of_image, _ in file.entries for each in of_image]
        if annotations and not any(_may_have_outline(each) for each in annotations):
            raise DataLayoutError(file.path, no_usable_outline(len(annotations)))
    return files


def _may_have_outline(annotation: JsonObject) -> bool:
    """Return whether an annotation has an outline, or one that is an error of its own."""
    segmentation = annotation.get("segmentation")
    try:
        if isinstance(segmentation, list):
            return bool(usable_polygons(segmentation)[0])
        return given(segmentation) is not None
    except ValueError:
        return True


def folders_of_images(path: Path, split: str) -> list[str]:
    """Return folders that the images of a json may be in, the likeliest first."""
    data = path.parent.parent if path.parent.name.lower() == "annotations" else path.parent
    named = path.with_name(path.name.removeprefix("panoptic_"))
    folders = image_folders(data, named, split)
    # the PNGs of panoptic data may be called like the images
    is_panoptic = named != path
    pngs = path.with_suffix("")
    return [os.fspath(folder) for folder in folders if not (is_panoptic and folder == pngs)]


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


def require_json_files(top: Path) -> None:
    """Raise DataLayoutError for a json of a split that is a folder, or a link to no file."""
    for split in SPLITS:
        files_of_split(top, split)
        prefixed_jsons(top, split, PANOPTIC)


def read_sections(path: Path) -> dict[str, list[JsonObject]]:
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


def regions_of(
    entry: CocoEntry,
    size_hw: tuple[int, int],
    report: ConversionReport,
    *,
    json_file: Path,
    label_of: Mapping[int | str | None, int],
) -> list[Region] | None:
    """Return the regions of an image from the lowest to the topmost.

    Crowds are first, then regions from large to small; among equals in the order of the file.

    Returns:
        None after adding a problem to the report.
    """
    name, annotations, stated_hw = entry
    problems_before = len(report.problems)
    if why := stated_size_problem(stated_hw, size_hw):
        report.add_problem(json_file, f"{name}: {why}")
        return None
    regions = []
    for annotation in annotations:
        place = f"annotation {show(annotation.get('id'))} on {name}"
        try:
            label, crowd = _check_label(annotation, label_of)
            outline, polygons, dropped = encode(annotation.get("segmentation"), size_hw)
        except InvalidOutline as error:
            report.add_problem(json_file, f"{place}: {error}")
            continue
        if dropped:
            report.add_note(f"{json_file}: {place}", DROPPED_POLYGON)
        if outline is None or not area(outline):
            report.add_note(f"{json_file}: {place}", NO_OUTLINE if outline is None else EMPTY)
            continue
        regions.append(
            Region(label, outline, f"{json_file}: {place}", crowd=crowd, polygons=polygons)
        )
    if len(report.problems) > problems_before:
        return None
    return sorted(regions, key=lambda region: (not region.crowd, -area(region.outline)))


def _check_label(
    annotation: JsonObject, label_of: Mapping[int | str | None, int]
) -> tuple[int, bool]:
    """Return (label, whether it is a crowd) of an annotation. Raises InvalidOutline."""
    key, crowd = annotation.get("category_id"), given(annotation.get("iscrowd"))
    if isinstance(key, list | dict) or key is None or key not in label_of:
        raise InvalidOutline(f"category_id {show(key)} is no category's id")
    if crowd not in (None, 0, 1):
        raise InvalidOutline(f"iscrowd is {show(crowd)}, neither 0 nor 1")
    return label_of[key], bool(crowd)


def encode(
    segmentation: object, size_hw: tuple[int, int]
) -> tuple[Rle | None, list[list[float]] | None, int]:
    """Return (run lengths, polygons, number of polygons left out) of a COCO "segmentation".

    The run lengths are None without a usable outline, the polygons when there are run lengths in
    the file. Raises InvalidOutline.
    """
    if isinstance(segmentation, dict):
        return encode_runs(segmentation, size_hw), None, 0
    if given(segmentation) is None:
        return None, None, 0
    if not isinstance(segmentation, list):
        raise InvalidOutline(f"segmentation is {show(segmentation)}, {EXPECTED}")
    try:
        usable, dropped = usable_polygons(segmentation)
    except ValueError as error:
        raise InvalidOutline(str(error)) from None
    for value in (value for polygon in usable for value in polygon):
        is_pixels = isinstance(value, int | float) and abs(value) <= LARGEST_COORDINATE
        if not is_number(value) or not is_pixels:
            raise InvalidOutline(wrong_value(value))
    polygons = [np.array(polygon, dtype=np.float64).reshape(-1, 2) for polygon in usable]
    if not polygons:
        return None, None, dropped
    corners = [polygon.reshape(-1).tolist() for polygon in polygons]
    return encode_polygons(polygons, size_hw), corners, dropped
