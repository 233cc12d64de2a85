"""Reader of labelme annotations, one json beside each image, as masks of class ids."""

import json
import os
import re
from collections.abc import Mapping, Sequence
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
    Corners,
    InvalidOutline,
    check_corners,
    circle,
    encode_polygons,
    paint,
)
from visionloop.datasets.io.folders import walk_folder
from visionloop.datasets.io.images import IMAGE_SUFFIXES
from visionloop.datasets.io.json_columns import JsonObject, is_text, show
from visionloop.datasets.io.layout import DataLayoutError, find_split

SPLITS = ("train", "val", "test")
IGNORE_LABEL, BACKGROUND_LABEL = "__ignore__", "_background_"  # as labelme names them
WITHOUT_AREA = ("point", "line", "linestrip", "points")

# (json file, shapes, stated (height, width)) of an image
LabelmeEntry: TypeAlias = tuple[str, list[JsonObject], tuple[int | None, int | None]]


class InvalidFile(ValueError):
    """A json that cannot be used at all; the message is the reason."""


def read_labelme(source: str, report: ConversionReport, *, background: str) -> dict[str, MaskSplit]:
    """Read the jsons in train/, val/ and test/, or all as "train" without such folders.

    Where shapes overlap, the later one in the file is on top; those labelled `__ignore__` are
    ignored, those labelled `_background_` are the same as no annotation.

    Args:
        source: folder.
        report: receives the files and shapes that cannot be used.
        background: see add_background.

    Returns:
        {split: MaskSplit}.

    Raises:
        DataLayoutError: for a folder without annotations.
    """
    folders = {split: folder for split in SPLITS if (folder := find_split(source, split))}
    folders = folders or {"train": Path(source)}
    splits = {split: _read_folder(folder, report) for split, folder in folders.items()}
    if not any(splits.values()) and not report.problems:
        raise DataLayoutError(source, "no labelme json in it; expected one beside each image")
    labels = {
        shape["label"].strip()
        for entries in splits.values()
        for _, shapes, _ in entries.values()
        for shape in shapes
    }
    names = sorted(labels - {IGNORE_LABEL, BACKGROUND_LABEL})
    classes, background_id = add_background(names, background)
    check_class_count(source, classes)
    value_of = {name: value for value, name in enumerate(classes)}
    value_of |= {IGNORE_LABEL: IGNORED, BACKGROUND_LABEL: background_id}
    draw = partial(_draw, value_of=value_of, background_id=background_id)
    return {
        split: MaskSplit(
            folder=os.fspath(folders[split]),
            names=list(entries),
            entries=list(entries.values()),
            draw=draw,
            classes=classes,
            background_id=background_id,
        )
        for split, entries in splits.items()
    }


def _read_folder(top: Path, report: ConversionReport) -> dict[str, LabelmeEntry]:
    """Return {path of the image relative to the folder: LabelmeEntry}."""
    entries: dict[str, LabelmeEntry] = {}
    for level, files in walk_folder(top):
        jsons = [name for name in files if name.lower().endswith(".json")]
        annotated: set[str] = set()
        for name in jsons:
            path = os.path.join(level, name)
            try:
                image, entry = _read_entry(path, files, annotated)
            except InvalidFile as error:
                report.add_problem(path, str(error))
                continue
            if entry is None:
                report.add_note(path, "not a labelme json, skipped")
                continue
            annotated.add(image)
            key = os.path.normpath(os.path.join(os.path.relpath(level, top), image))
            entries[key] = entry
        stems = {_stem(name) for name in jsons}
        for name in files:
            is_image = name.lower().endswith(IMAGE_SUFFIXES)
            if is_image and name not in annotated and _stem(name) not in stems:
                path = os.path.join(level, name)
                report.add_note(path, "image without annotations, left out")
    return entries


def _read_entry(
    path: str, files: Sequence[str], annotated: set[str]
) -> tuple[str, LabelmeEntry | None]:
    """Return (image name, entry) of a json, ("", None) for another kind of json.

    Args:
        path: of the json.
        files: names of the files beside it.
        annotated: names of the images that have annotations already.

    Raises:
        InvalidFile: for a json that cannot be used.
    """
    data = _read_json(path)
    if data is None:
        return "", None
    image = _find_image(os.path.basename(path), data.get("imagePath"), files)
    if image in annotated:
        raise InvalidFile(f"{image} has annotations in another json too")
    return image, (path, data["shapes"], (data.get("imageHeight"), data.get("imageWidth")))


def _stem(name: str) -> str:
    """Return a file name without its suffix."""
    return os.path.splitext(name)[0]


def _read_json(path: str) -> JsonObject | None:
    """Return the content of a labelme json, None for another kind of json. Raises InvalidFile."""
    try:
        data = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise InvalidFile(error.strerror or str(error)) from None
    except (ValueError, RecursionError) as error:
        raise InvalidFile(f"not json: {error}") from None
    if not isinstance(data, dict) or "shapes" not in data:
        return None
    if not isinstance(data["shapes"], list):
        raise InvalidFile(f"'shapes' is {show(data['shapes'])}, expected a list")
    for number, shape in enumerate(data["shapes"], 1):
        label = shape.get("label") if isinstance(shape, dict) else shape
        if not isinstance(shape, dict) or not is_text(label):
            raise InvalidFile(f"shape {number}: label is {show(label)}")
    return data


def _find_image(json_name: str, image_path: object, files: Sequence[str]) -> str:
    """Return the name of the image beside a json.

    It is the last part of `imagePath`, or else the image that is named like the json. Raises
    InvalidFile.
    """
    if isinstance(image_path, str) and is_text(image_path):
        name = re.split(r"[/\\]", image_path)[-1]  # written on Windows, it has backslashes
        if name in files:
            return name
    same_stem = [
        name
        for name in files
        if _stem(name) == _stem(json_name) and name.lower().endswith(IMAGE_SUFFIXES)
    ]
    if len(same_stem) != 1:
        raise InvalidFile(f"its image {show(image_path)} is not beside it")
    return same_stem[0]


def _draw(
    entry: LabelmeEntry,
    size_hw: tuple[int, int],
    report: ConversionReport,
    *,
    value_of: Mapping[str, int],
    background_id: int,
) -> Mask | None:
    """Return the mask of an image, or None after adding a problem to the report."""
    path, shapes, stated_hw = entry
    problems_before = len(report.problems)
    if why := stated_size_problem(stated_hw, size_hw):
        report.add_problem(path, why)
        return None
    ids = np.full(size_hw, background_id, dtype=np.uint8)
    for number, shape in enumerate(shapes, 1):
        label = shape["label"].strip()
        kind = shape.get("shape_type") or "polygon"  # early versions had polygons only
        place = f"shape {number} ({label})"
        if kind in WITHOUT_AREA:
            report.add_note(f"{path}: {place}", f"a {kind} covers no pixel, left out")
            continue
        try:
            outline = encode_polygons([corners_of(kind, shape.get("points"), size_hw)], size_hw)
        except InvalidOutline as error:
            report.add_problem(path, f"{place}: {error}")
            continue
        paint(ids, outline, value_of[label])
    return ids if len(report.problems) == problems_before else None


def corners_of(kind: object, points: object, size_hw: tuple[int, int]) -> Corners:
    """Return a shape as a polygon, float64 [N, 2] in pixels. Raises InvalidOutline."""
    if not isinstance(points, list) or not all(
        isinstance(point, list) and len(point) == 2 for point in points
    ):
        raise InvalidOutline(f"points is {show(points)}, expected a list of [x, y]")
    corners = check_corners([value for point in points for value in point], size_hw)
    is_rotated = kind == "rectangle" and len(corners) == 4  # of newer versions
    if is_rotated or (kind == "polygon" and len(corners) >= 3):
        return corners
    if kind == "rectangle" and len(corners) == 2:
        (left, top), (right, bottom) = corners
        return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    if kind == "circle" and len(corners) == 2:
        return circle(*corners)
    if kind in ("polygon", "rectangle", "circle"):
        raise InvalidOutline(f"a {kind} with {len(corners)} points")
    raise InvalidOutline(f"shape_type is {show(kind)}, expected polygon, rectangle or circle")
