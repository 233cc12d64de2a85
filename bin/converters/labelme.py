"""Annotations of labelme, one json beside each image, as masks of class ids."""

import json
import os
import re
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
    check_corners,
    circle,
    encode_polygons,
    paint,
)
from visionloop.datasets.io.images import IMAGE_SUFFIXES
from visionloop.datasets.io.json_columns import is_text, show
from visionloop.datasets.io.layout import DataLayoutError, find_split, is_hidden

SPLITS = ("train", "val", "test")
IGNORE_LABEL, BACKGROUND_LABEL = "__ignore__", "_background_"  # words of labelme's own
WITHOUT_AREA = ("point", "line", "linestrip", "points")


class _BrokenFile(ValueError):
    """A json that cannot be used at all; the message says why."""


def read_labelme(source, findings, *, background):
    """{split: MaskSplit} of the jsons in train/, val/ and test/, or of all as "train" where there are no such folders.

    findings: takes what is broken; background: see place_background. Where shapes overlap, the
    later one in the file lies on top; those labelled `__ignore__` are ignored, those labelled
    `_background_` are as if nothing were there. Raises DataLayoutError.
    """
    folders = {split: folder for split in SPLITS if (folder := find_split(source, split))} or {
        "train": Path(source)
    }
    found = {split: _read_folder(folder, findings) for split, folder in folders.items()}
    if not any(found.values()) and not findings.problems:
        raise DataLayoutError(source, "no json of labelme in it; expected one beside each image")
    labels = {
        shape["label"].strip()
        for images in found.values()
        for _, shapes, _ in images.values()
        for shape in shapes
    }
    classes, rest = place_background(sorted(labels - {IGNORE_LABEL, BACKGROUND_LABEL}), background)
    refuse_many(source, classes)
    value_of = {name: value for value, name in enumerate(classes)} | {
        IGNORE_LABEL: IGNORED,
        BACKGROUND_LABEL: rest,
    }
    draw = partial(_draw, value_of=value_of, rest=rest)
    return {
        split: MaskSplit(
            os.fspath(folders[split]), list(images), list(images.values()), draw, classes, rest
        )
        for split, images in found.items()
    }


def _read_folder(folder, findings):
    """{image's path relative to the folder: (json file, shapes, (height, width) as told)}."""
    images = {}
    for level, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        files = sorted(name for name in files if not is_hidden(name))
        annotated = set()
        for name in files:
            if not name.lower().endswith(".json"):
                continue
            path = os.path.join(level, name)
            try:
                data = _read_json(path)
                if data is None:
                    findings.note(path, "no json of labelme, passed over")
                    continue
                image = _find_image(name, data.get("imagePath"), files)
                if image in annotated:
                    raise _BrokenFile(f"{image} has annotations in another json too")
                annotated.add(image)
            except _BrokenFile as error:
                findings.problem(path, str(error))
                continue
            key = os.path.normpath(os.path.join(os.path.relpath(level, folder), image))
            images[key] = (
                path,
                data["shapes"],
                (data.get("imageHeight"), data.get("imageWidth")),
            )
        jsons = {_stem(name) for name in files if name.lower().endswith(".json")}
        for name in files:
            if (
                name.lower().endswith(IMAGE_SUFFIXES)
                and name not in annotated
                and _stem(name) not in jsons
            ):
                findings.note(os.path.join(level, name), "image without annotations, left out")
    return images


def _stem(name):
    return os.path.splitext(name)[0]


def _read_json(path):
    """The content of a labelme json, None where it is another kind of json. Raises _BrokenFile."""
    try:
        data = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise _BrokenFile(error.strerror or str(error)) from None
    except (ValueError, RecursionError) as error:
        raise _BrokenFile(f"not json: {error}") from None
    if not isinstance(data, dict) or "shapes" not in data:
        return None
    if not isinstance(data["shapes"], list):
        raise _BrokenFile(f"'shapes' is {show(data['shapes'])}, expected a list")
    for number, shape in enumerate(data["shapes"], 1):
        if not isinstance(shape, dict) or not is_text(shape.get("label")):
            raise _BrokenFile(
                f"shape {number}: label is {show(shape.get('label') if isinstance(shape, dict) else shape)}"
            )
    return data


def _find_image(json_name, image_path, files):
    """The name of the image beside a json: the last part of `imagePath`, or else the one that is called like the json."""
    if (
        is_text(image_path) and (name := re.split(r"[/\\]", image_path)[-1]) in files
    ):  # written on Windows, it has backslashes
        return name
    named_alike = [
        name
        for name in files
        if _stem(name) == _stem(json_name) and name.lower().endswith(IMAGE_SUFFIXES)
    ]
    if len(named_alike) != 1:
        raise _BrokenFile(f"its image {show(image_path)} is not beside it")
    return named_alike[0]


def _draw(entry, size_hw, findings, *, value_of, rest):
    """The mask of an image, or None. entry: (json file, shapes, (height, width) as told)."""
    path, shapes, said_hw = entry
    problems = len(findings.problems)
    if why := wrong_stated_size(said_hw, size_hw):
        return findings.problem(path, why)
    ids = np.full(size_hw, rest, dtype=np.uint8)
    for number, shape in enumerate(shapes, 1):
        label, kind = (
            shape["label"].strip(),
            shape.get("shape_type") or "polygon",
        )  # early versions knew polygons only
        place = f"shape {number} ({label})"
        if kind in WITHOUT_AREA:
            findings.note(f"{path}: {place}", f"a {kind} covers no pixel, left out")
            continue
        try:
            outline = encode_polygons([corners_of(kind, shape.get("points"), size_hw)], size_hw)
        except BrokenOutline as error:
            findings.problem(path, f"{place}: {error}")
            continue
        paint(ids, outline, value_of[label])
    return ids if len(findings.problems) == problems else None


def corners_of(kind, points, size_hw):
    """A shape as polygon, float64 [N, 2] in pixels. Raises BrokenOutline."""
    if not isinstance(points, list) or not all(
        isinstance(point, list) and len(point) == 2 for point in points
    ):
        raise BrokenOutline(f"points is {show(points)}, expected a list of [x, y]")
    corners = check_corners([value for point in points for value in point], size_hw)
    if (kind == "polygon" and len(corners) >= 3) or (
        kind == "rectangle" and len(corners) == 4
    ):  # newer versions turn rectangles
        return corners
    if kind == "rectangle" and len(corners) == 2:
        (left, top), (right, bottom) = corners
        return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    if kind == "circle" and len(corners) == 2:
        return circle(*corners)
    if kind in ("polygon", "rectangle", "circle"):
        raise BrokenOutline(f"a {kind} with {len(corners)} points")
    raise BrokenOutline(f"shape_type is {show(kind)}; read are polygon, rectangle and circle")
