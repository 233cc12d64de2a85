"""Reader of labelme annotations, one json for each image, as masks of class ids."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

from visionloop.bin.converters.conversion import ConversionReport
from visionloop.bin.converters.image_files import ImageFiles
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
    Region,
    check_corners,
    circle,
    encode_bitmap,
    encode_polygons,
    paint,
)
from visionloop.datasets.io.json_columns import JsonObject, is_text, show
from visionloop.datasets.io.layout import DataLayoutError, find_split
from visionloop.datasets.io.names import class_name, path_stem, with_slashes
from visionloop.datasets.io.paths import files_below

SPLITS = ("train", "val", "test")
IGNORE_LABEL, BACKGROUND_LABEL = "__ignore__", "_background_"  # as labelme names them
WITH_FOUR_CORNERS = ("rectangle", "oriented_rectangle", "rotation")  # X-AnyLabeling's name
WITHOUT_AREA = ("point", "line", "linestrip", "points")

# (json file, shapes, stated (height, width)) of an image
LabelmeEntry: TypeAlias = tuple[str, list[JsonObject], tuple[int | None, int | None]]


class InvalidFile(ValueError):
    """A json that cannot be used at all; the message is the reason."""


@dataclass(frozen=True, eq=False)
class LabelmeFiles:
    """The labelme jsons of a source.

    Attributes:
        folders: {split: folder of the images}.
        entries: {split: {path of the image relative to the folder: annotations}}.
        names: of the classes, sorted.
    """

    folders: dict[str, Path]
    entries: dict[str, dict[str, LabelmeEntry]]
    names: list[str]


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
    files = read_labelme_files(source, report)
    classes, background_id = add_background(files.names, background)
    check_class_count(source, classes)
    value_of = {name: value for value, name in enumerate(classes)}
    value_of |= {IGNORE_LABEL: IGNORED, BACKGROUND_LABEL: background_id}
    draw = partial(_draw, value_of=value_of, background_id=background_id)
    return {
        split: MaskSplit(
            folder=os.fspath(files.folders[split]),
            names=list(entries),
            entries=list(entries.values()),
            classes=classes,
            draw=draw,
            background_id=background_id,
        )
        for split, entries in files.entries.items()
    }


def read_labelme_files(source: str, report: ConversionReport) -> LabelmeFiles:
    """Read the jsons of all splits; see read_labelme."""
    folders = {split: folder for split in SPLITS if (folder := find_split(source, split))}
    folders = folders or {"train": Path(source)}
    splits = {split: _read_folder(folder, report) for split, folder in folders.items()}
    if not any(splits.values()) and not report.problems:
        raise DataLayoutError(source, "no labelme json in it; expected one beside each image")
    labels = {
        class_name(shape["label"])
        for entries in splits.values()
        for _, shapes, _ in entries.values()
        for shape in shapes
    }
    return LabelmeFiles(folders, splits, sorted(labels - {IGNORE_LABEL, BACKGROUND_LABEL}))


def _read_folder(top: Path, report: ConversionReport) -> dict[str, LabelmeEntry]:
    """Return {path of the image relative to the folder: LabelmeEntry}."""
    entries: dict[str, LabelmeEntry] = {}
    images = ImageFiles(top)
    jsons = list(files_below(top, (".json",)))
    for name in jsons:
        path = os.path.join(top, name)
        try:
            data = _read_json(path)
            if data is None:
                report.add_note(path, "not a labelme json, skipped")
                continue
            image = _find_image(name, data, images)
            if image in entries:
                raise InvalidFile(f"{image} has annotations in another json too")
        except InvalidFile as error:
            report.add_problem(path, str(error))
            continue
        stated_hw = data.get("imageHeight"), data.get("imageWidth")
        entries[image] = (path, data["shapes"], stated_hw)
    stems = {path_stem(os.path.basename(name)) for name in jsons}
    for name in images.names:
        if name not in entries and path_stem(os.path.basename(name)) not in stems:
            report.add_note(os.path.join(top, name), "image without annotations, left out")
    return entries


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


def _find_image(json_name: str, data: JsonObject, images: ImageFiles) -> str:
    """Return the path of the image of a json, both relative to one folder.

    It is the last part of `imagePath` beside the json, or all of it, or the image that is named
    like the json, or the only image of one of these names in any folder. Raises InvalidFile.
    """
    level, image_path = os.path.dirname(json_name), data.get("imagePath")
    stem = os.path.splitext(json_name)[0]
    candidates = [images.find(stem)]
    if isinstance(image_path, str) and is_text(image_path):
        image_path = with_slashes(image_path)  # written on Windows, it has backslashes
        for path in (os.path.basename(image_path), image_path):
            if image := images.find_path(os.path.join(level, path)):
                return image
        name = os.path.splitext(os.path.basename(image_path))[0]
        candidates.append(images.find(os.path.join(level, name)))
    for found in candidates:
        if len(found) == 1:
            return found[0]
    where = f"is not beside it, nor the only one of its name below {images.folder}"
    if data.get("imageData"):
        where += ", but embedded as imageData: write it as a file beside the json"
    raise InvalidFile(f"its image {show(data.get('imagePath'))} {where}")


def _draw(
    entry: LabelmeEntry,
    size_hw: tuple[int, int],
    report: ConversionReport,
    *,
    value_of: Mapping[str, int],
    background_id: int,
) -> Mask | None:
    """Return the mask of an image, or None after adding a problem to the report."""
    regions = regions_of(entry, size_hw, report, label_of=value_of)
    if regions is None:
        return None
    ids = np.full(size_hw, background_id, dtype=np.uint8, order="F")
    for region in regions:
        paint(ids, region.outline, IGNORED if region.label is None else region.label)
    return ids


def regions_of(
    entry: LabelmeEntry,
    size_hw: tuple[int, int],
    report: ConversionReport,
    *,
    label_of: Mapping[str, int | None],
) -> list[Region] | None:
    """Return the regions of an image in the order of its file, where later ones are on top.

    Args:
        entry: annotations of the image.
        size_hw: (height, width) of the image.
        report: receives the problems.
        label_of: {name of a class: label}.

    Returns:
        None after adding a problem to the report.
    """
    path, shapes, stated_hw = entry
    problems_before = len(report.problems)
    if why := stated_size_problem(stated_hw, size_hw):
        report.add_problem(path, why)
        return None
    regions = []
    for number, shape in enumerate(shapes, 1):
        label = class_name(shape["label"])
        kind = shape.get("shape_type") or "polygon"  # early versions had polygons only
        place = f"shape {number} ({label})"
        if kind in WITHOUT_AREA:
            report.add_note(f"{path}: {place}", f"a {kind} covers no pixel, left out")
            continue
        try:
            corners = corners_of(kind, shape.get("points"), size_hw)
            if kind == "mask":
                outline, polygons = encode_bitmap(shape.get("mask"), corners, size_hw), None
            else:
                outline = encode_polygons([corners], size_hw)
                polygons = [corners.reshape(-1).tolist()]
        except InvalidOutline as error:
            report.add_problem(path, f"{place}: {error}")
            continue
        regions.append(
            Region(
                label_of[label],
                outline,
                f"{path}: {place}",
                polygons=polygons,
                group=shape.get("group_id"),
            )
        )
    return regions if len(report.problems) == problems_before else None


def corners_of(kind: object, points: object, size_hw: tuple[int, int]) -> Corners:
    """Return a shape as a polygon, float64 [N, 2] in pixels; of a mask the two corners.

    Raises InvalidOutline.
    """
    if not isinstance(points, list) or not all(
        isinstance(point, list) and len(point) == 2 for point in points
    ):
        raise InvalidOutline(f"points is {show(points)}, expected a list of [x, y]")
    corners = check_corners([value for point in points for value in point], size_hw)
    is_rotated = kind in WITH_FOUR_CORNERS and len(corners) == 4
    is_bitmap = kind == "mask" and len(corners) == 2
    if is_rotated or is_bitmap or (kind == "polygon" and len(corners) >= 3):
        return corners
    if kind == "rectangle" and len(corners) == 2:
        (left, top), (right, bottom) = corners
        return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    if kind == "circle" and len(corners) == 2:
        return circle(*corners)
    if kind in ("polygon", "circle", "mask", *WITH_FOUR_CORNERS):
        raise InvalidOutline(f"a {kind} with {len(corners)} points")
    raise InvalidOutline(f"shape_type is {show(kind)}, expected polygon, rectangle, circle or mask")
