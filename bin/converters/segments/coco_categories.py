"""Places of COCO's segmentation jsons, and what their categories say of things and stuff."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from visionloop.bin.converters.coco_outlines import SPLITS, CocoFile
from visionloop.bin.converters.segments.split import (
    ReadRegions,
    SegmentSplit,
    choose_things,
    numbered,
)
from visionloop.datasets.io.json_columns import JsonObject, show
from visionloop.datasets.io.layout import DataLayoutError, shorten
from visionloop.datasets.segments.annotation_files import prefixed_jsons

Color: TypeAlias = tuple[int, int, int]


def find_prefixed_jsons(source: str, prefix: str) -> dict[str, Path]:
    """Return {split: json} of the files prefix_<split>*.json in a folder or its annotations/.

    A single json is "train" when none is named after a split.

    Args:
        source: folder, or such a json.
        prefix: "instances_" or "panoptic_".

    Raises:
        DataLayoutError: for two jsons of one split.
    """
    top = Path(source)
    if not top.is_dir():
        return {"train": top} if top.is_file() and top.name.lower().startswith(prefix) else {}
    jsons: dict[str, Path] = {}
    for split in SPLITS:
        files = prefixed_jsons(top, split, prefix)
        if len(files) > 1:
            names = shorten([str(path.relative_to(top)) for path in files])
            raise DataLayoutError(top, f"holds {names} for the split {split!r}; keep one")
        if files:
            jsons[split] = files[0]
    found = [
        path for level in ("", "annotations") for path in (top / level).glob(f"{prefix}*.json")
    ]
    return jsons or ({"train": found[0]} if len(found) == 1 else {})


def coco_splits(
    files: Mapping[str, tuple[CocoFile, ReadRegions]],
    things: Sequence[str] | None,
    source: str,
) -> dict[str, SegmentSplit]:
    """Return {split: SegmentSplit} of COCO jsons.

    Category ids and colors are those of the first split.

    Args:
        files: {split: (json, reader of its regions)}.
        things: names of the things on the command line, or None.
        source: for messages.

    Raises:
        DataLayoutError: for an "isthing" that is neither 0 nor 1.
        UserError: see choose_things.
    """
    if not files:
        return {}
    first = next(iter(files.values()))[0]
    by_id = {category.get("id"): category for category in first.categories}
    categories = [by_id[key] for key in first.category_ids]
    stated = _stated_things(categories, first)
    is_thing = choose_things(first.classes, things, source, stated)
    category_ids, colors = _whole_ids(first), _colors(categories)
    return {
        split: SegmentSplit(
            folder=file.folder,
            names=file.names,
            entries=file.entries,
            classes=first.classes,
            read=read,
            things=is_thing,
            category_ids=category_ids,
            colors=colors,
        )
        for split, (file, read) in files.items()
    }


def _stated_things(categories: Sequence[JsonObject], file: CocoFile) -> list[bool] | None:
    """Return "isthing" of each category; None where no category has it."""
    values = [category.get("isthing") for category in categories]
    if all(value is None for value in values):
        return None
    for category, value in zip(categories, values, strict=True):
        if value not in (0, 1):
            name = f"category {show(category.get('id'))}"
            raise DataLayoutError(file.path, f"{name}: isthing is {show(value)}, expected 0 or 1")
    return [bool(value) for value in values]


def _whole_ids(file: CocoFile) -> tuple[int, ...]:
    """Return the ids of the categories, or 1, 2, ... where they are text or below 1."""
    ids = tuple(key for key in file.category_ids if isinstance(key, int) and key > 0)
    return ids if len(ids) == len(file.classes) else numbered(file.classes)


def _colors(categories: Sequence[JsonObject]) -> tuple[Color, ...] | None:
    """Return "color" of each category; None unless all have one."""
    colors: list[Color] = []
    for category in categories:
        color = category.get("color")
        if not isinstance(color, list) or len(color) != 3:
            return None
        red, green, blue = color
        if not all(type(part) is int and 0 <= part < 256 for part in color):
            return None
        colors.append((red, green, blue))
    return tuple(colors)
