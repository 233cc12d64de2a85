"""Parser of a COCO json into columns, with all of its errors.

100 thousand annotations take about a second, most of it in the json parser. Outlines are dropped
while it parses: those of COCO's training split would take gigabytes.
"""

import json
import ntpath
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from visionloop.datasets.detection.coco_categories import read_categories, read_ids
from visionloop.datasets.detection.problems import Problem, Report
from visionloop.datasets.io.json_columns import (
    JsonObject,
    column,
    is_number,
    is_text,
    look_up,
    number_lists,
    numbers,
    show,
)
from visionloop.datasets.io.names import with_slashes
from visionloop.datasets.io.paths import Column

SECTIONS = ("images", "annotations", "categories")
# in place of an image's row or a class's label: there is none; the entry is reported separately
UNKNOWN, REJECTED = -1, -2


class ImageColumns(TypedDict):
    """The valid images; names: paths relative to their folder, the others as in DetectionIndex."""

    names: list[bytes]
    image_ids: NDArray[np.int64] | NDArray[np.str_]
    sizes_hw: NDArray[np.int64]


@dataclass(frozen=True)
class CocoColumns:
    """The valid entries of a COCO json.

    Attributes:
        classes, category_ids: see DetectionIndex.
        images: at least one.
        annotations: {"rows": the image of each box int64 [M], "labels", "boxes", "crowd", "areas"},
            in the order of the file, see `read_annotations`.
    """

    classes: tuple[str, ...]
    category_ids: tuple[int | str | None, ...]
    images: ImageColumns
    annotations: dict[str, Column]


def read_columns(
    json_file: str | os.PathLike[str], classes: Sequence[str] | None = None
) -> tuple[CocoColumns | None, list[Problem]]:
    """Return (columns, problems) of a COCO json.

    Args:
        json_file: the annotations.
        classes: names of the training split, which then give the labels.

    Returns:
        The columns are None when too little is valid to continue.
    """
    report = Report(json_file)
    sections = read_sections(json_file, report, _drop_outline)
    if sections is None:
        return None, report.problems
    annotated = annotated_categories(sections["annotations"])
    categories = read_categories(sections["categories"], annotated, classes, report)
    images, row_of = read_images(sections["images"], report)
    if categories is None or not images["names"]:
        return None, report.problems
    class_names, category_ids = categories
    label_of: dict[Hashable, int] = dict.fromkeys(column(sections["categories"], "id"), REJECTED)
    label_of |= {key: label for label, key in enumerate(category_ids) if key is not None}
    annotations = read_annotations(sections["annotations"], row_of, label_of, report)
    return CocoColumns(class_names, category_ids, images, annotations), report.problems


def read_sections(
    json_file: str | os.PathLike[str],
    report: Report,
    object_hook: Callable[[JsonObject], JsonObject],
) -> dict[str, list[JsonObject]] | None:
    """Return {section: list of objects}, or None.

    Args:
        json_file: the annotations.
        report: receives the problems.
        object_hook: of `json.loads`, called for every object while the file is parsed.
    """
    try:
        with open(json_file, "rb") as file:
            data = json.loads(file.read(), object_hook=object_hook)
    except OSError as error:
        report.error(error.strerror or str(error))
        return None
    except UnicodeDecodeError:
        report.error("not json: not text in UTF-8; save it as UTF-8")
        return None
    except (ValueError, RecursionError) as error:
        report.error(f"not json: {error}")
        return None
    if not isinstance(data, dict):
        report.error(f"holds {show(data)}, expected an object with {', '.join(SECTIONS)}")
        return None
    sections = {}
    for name in SECTIONS:
        entries = data.get(name)
        if not isinstance(entries, list):
            report.error(
                f"section {name!r} is {show(entries)}, expected a list"
                if name in data
                else f"no section {name!r}"
            )
            continue
        errors = [
            (f"{name}: entry {i}", f"is {show(entry)}, not an object")
            for i, entry in enumerate(entries)
            if type(entry) is not dict
        ]
        report.error_each(errors)
        sections[name] = [entry for entry in entries if type(entry) is dict] if errors else entries
        if not sections[name] and name != "annotations":
            report.error(f"section {name!r} is empty")
    return sections if len(sections) == len(SECTIONS) else None


def _drop_outline(entry: JsonObject) -> JsonObject:
    """Return an object without its outline, around which a missing box is put."""
    outline = entry.pop("segmentation", None)
    if outline and entry.get("bbox") in (None, []):
        entry["bbox"] = _box_around(outline)
    return entry


def _box_around(polygons: object) -> list[float] | None:
    """Return the box xywh around the polygons of an annotation, None for anything else."""
    if not isinstance(polygons, list) or not all(isinstance(each, list) for each in polygons):
        return None
    corners = [value for polygon in polygons for value in polygon]
    is_valid = len(corners) >= 6 and all(len(polygon) % 2 == 0 for polygon in polygons)
    if not is_valid or not all(map(is_number, corners)):
        return None
    left, top = min(corners[::2]), min(corners[1::2])
    return [left, top, max(corners[::2]) - left, max(corners[1::2]) - top]


def annotated_categories(annotations: Sequence[JsonObject]) -> set[Hashable]:
    """Return the category ids of annotations; ids that are lists or objects are left out."""
    ids = column(annotations, "category_id")
    return {key for key in ids if not isinstance(key, list | dict)}


def read_images(
    entries: Sequence[JsonObject], report: Report
) -> tuple[ImageColumns, dict[Hashable, int]]:
    """Return (columns, {image id: row}), both empty when the ids are wrong."""
    ids = read_ids(entries, "image", report)
    names: list[bytes] = []
    sizes: list[tuple[int, int]] = []
    row_of: dict[Hashable, int] = {}
    name_errors, size_errors = [], []
    for key, entry in zip(ids or [], entries if ids else [], strict=True):
        name, height, width = (given(entry.get(key)) for key in ("file_name", "height", "width"))
        name_why, size_why = wrong_name(name), _wrong_size(height, width)
        if name_why or size_why:
            name_errors += [(f"image {key!r}", name_why)] if name_why else []
            size_errors += [(f"image {key!r}", size_why)] if size_why else []
            row_of[key] = REJECTED
            continue
        row_of[key] = len(names)
        names.append(os.fsencode(os.path.normpath(str(name))))
        sizes.append((height, width) if height and width else (0, 0))
    report.error_each(name_errors)
    report.error_each(size_errors)
    return {
        "names": names,
        "image_ids": np.array([key for key in ids or [] if row_of[key] != REJECTED]),
        "sizes_hw": np.array(sizes, dtype=np.int64).reshape(-1, 2),
    }, row_of


def annotation_name(entry: JsonObject, position: int) -> str:
    """Return the name of an annotation for messages: by its id, or by its position without."""
    key = entry.get("id")
    return f"annotation at position {position}" if key is None else f"annotation {show(key)}"


def read_annotations(
    entries: Sequence[JsonObject],
    row_of: Mapping[Hashable, int],
    label_of: Mapping[Hashable, int],
    report: Report,
    entry_name: Callable[[JsonObject, int], str] = annotation_name,
) -> dict[str, Column]:
    """Return "rows", "labels", "boxes", "crowd", "areas" of the valid annotations, in their order.

    Args:
        entries: of the section.
        row_of: {image id: row, or REJECTED for an image that is left out}.
        label_of: {category id: label, or REJECTED for a category that is no class}.
        report: receives the problems.
        entry_name: returns the name of an entry, given its position too, for messages.

    Returns:
        Also "positions": int64, of the annotations among the entries.
    """
    image_ids, category_ids = column(entries, "image_id"), column(entries, "category_id")
    rows, labels = look_up(row_of, image_ids), look_up(label_of, category_ids)
    raw_boxes, raw_areas = column(entries, "bbox"), list(map(given, column(entries, "area")))
    boxes, is_box = number_lists(raw_boxes, 4)
    flags = [
        0 if flag is None else int(flag) if isinstance(flag, bool) else flag
        for flag in map(given, column(entries, "iscrowd"))
    ]
    crowd, is_flag = numbers(flags)
    is_flag &= (crowd == 0) | (crowd == 1)
    areas, is_area = numbers(raw_areas)
    absent = np.fromiter((area is None for area in raw_areas), dtype=bool, count=len(raw_areas))
    areas = np.where(absent, boxes[:, 2:].clip(0).prod(axis=1), areas)
    is_area = absent | (is_area & (areas >= 0))

    def add_errors(wrong: NDArray[np.bool_], describe: Callable[[int], str]) -> None:
        report.error_each(
            [
                (entry_name(entries[position], position), describe(position))
                for position in np.flatnonzero(wrong).tolist()
            ]
        )

    add_errors(rows == UNKNOWN, lambda k: f"image_id {show(image_ids[k])} is no image's id")
    add_errors(
        labels == UNKNOWN, lambda k: f"category_id {show(category_ids[k])} is no category's id"
    )
    add_errors(~is_box, lambda k: f"bbox is {show(raw_boxes[k])}, not four finite numbers")
    add_errors(~is_flag, lambda k: f"iscrowd is {show(flags[k])}, neither 0 nor 1")
    add_errors(~is_area, lambda k: f"area is {show(raw_areas[k])}, not a number of at least 0")
    valid = (rows >= 0) & (labels >= 0) & is_box & is_flag & is_area
    columns: dict[str, Column] = {
        "rows": rows,
        "labels": labels.astype(np.int32),
        "boxes": boxes,
        "crowd": crowd == 1,
        "areas": areas,
        "positions": np.arange(len(entries)),
    }
    return {name: values[valid] for name, values in columns.items()}


def wrong_name(name: object) -> str | None:
    """Return the problem of the name of an image or a mask, or None."""
    if not isinstance(name, str) or not is_text(name):
        return f"file_name is {show(name)}"
    if "://" in name:
        return f"file_name {show(name)} is a URL; download the images and write their names"
    if os.path.isabs(name) or ntpath.isabs(name) or ntpath.splitdrive(name)[0]:
        return (
            f"file_name {show(name)} is absolute, expected is one below the folder of images; "
            "remove the folders before it"
        )
    if os.path.normpath(with_slashes(name)).split(os.sep)[0] in ("..", "."):
        why = f"file_name {show(name)} leads out of the folder of images"
        return f"{why}; remove the folders before it"
    try:
        return "file_name holds a zero byte" if b"\0" in os.fsencode(name) else None
    except UnicodeEncodeError:
        return f"file_name {show(name)} is no text that a file can have for a name"


def _wrong_size(height: object, width: object) -> str | None:
    """Return the problem of an image's size, or None; 0 or a missing size are unknown."""
    if all(side is None or side == 0 or _is_side(side) for side in (height, width)):
        return None
    return f"height is {show(height)} and width {show(width)}, expected are whole numbers above 0"


def _is_side(side: object) -> bool:
    return (
        isinstance(side, int | float) and is_number(side) and 0 < side < 2**31 and side == int(side)
    )


def given(value: Any) -> Any:  # type: ignore[explicit-any]  # parsed JSON, checked by the caller
    """Return an optional value, None also for the NaN that pandas writes for null."""
    return None if value != value else value
