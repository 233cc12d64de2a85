"""Writer of COCO panoptic data: a json, and a PNG of segment numbers for each image."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from tqdm import tqdm

from visionloop.bin.converters.conversion import ConversionReport, OutputFormat
from visionloop.bin.converters.outlines import Region, paint
from visionloop.bin.converters.segments.number_maps import write_numbers
from visionloop.bin.converters.segments.split import SegmentSplit, count_segments, read_regions
from visionloop.bin.converters.voc_masks import voc_colors
from visionloop.datasets.segments.outlines import Rle
from visionloop.engine.errors import UserError

COVERED = "is covered by others, left out"
VOID = -1  # while regions are painted: ignored, not to be filled with the background

Numbers: TypeAlias = NDArray[np.int32]  # [H, W], 0 for none


def panoptic_format(background: str | None) -> OutputFormat[SegmentSplit]:
    """Return the OutputFormat of panoptic data.

    Args:
        background: name of the class of stuff of the pixels without annotation; None: they are
            void.

    Raises:
        UserError: for an empty name.
    """
    if background is not None and not background.strip():
        why = "--background: is empty, expected the name of a class"
        raise UserError(why, field="background")
    return OutputFormat(
        partial(write_panoptic, background=background),
        count_segments,
        one="segment",
        many="segments",
        task="panoptic_segmentation",
    )


def write_panoptic(
    splits: dict[str, SegmentSplit],
    folder: Path,
    report: ConversionReport,
    *,
    background: str | None,
) -> dict[str, SegmentSplit]:
    """Write `panoptic_<split>.json` and `panoptic_<split>/*.png` for each split.

    Returns:
        {split: SegmentSplit} of the images that could be read.

    Raises:
        UserError: for a background that is a thing.
    """
    written: dict[str, SegmentSplit] = {}
    total = sum(map(len, splits.values()))
    with tqdm(total=total, desc="segments", unit="img", disable=None, leave=False) as progress:
        for split, index in splits.items():
            index, filling = _add_background(index, background)
            if all(index.things):
                why = (
                    "no class is stuff, and pixels without annotation are void; --background NAME "
                    "makes them a class of stuff"
                )
                report.add_note(f"panoptic_{split}.json", why)
            written[split] = _write_split(index, split, folder, filling, report, progress.update)
    return written


def _add_background(index: SegmentSplit, background: str | None) -> tuple[SegmentSplit, int | None]:
    """Return (split with the background among its classes, its label or None without one)."""
    if background is None:
        return index, None
    if background in index.classes:
        label = index.classes.index(background)
        if index.things[label]:
            why = f"--background: {background!r} is a class of things; name the others in --things"
            raise UserError(why, field="background")
        return index, label
    colors = None if index.colors is None else (*index.colors, (0, 0, 0))
    index = replace(
        index,
        classes=(*index.classes, background),
        things=(*index.things, False),
        category_ids=(*index.category_ids, max(index.category_ids, default=0) + 1),
        colors=colors,
    )
    return index, len(index.classes) - 1


def _write_split(
    index: SegmentSplit,
    split: str,
    folder: Path,
    filling: int | None,
    report: ConversionReport,
    advance: Callable[[], object],
) -> SegmentSplit:
    """Write the json and the PNGs of a split and return the images that have one.

    Args:
        index: the images.
        split: "train", "val" or "test".
        folder: to write to.
        filling: label of the pixels without annotation; None: they are void.
        report: receives what is left out.
        advance: called before each image.
    """
    images: list[Mapping[str, object]] = []
    annotations: list[Mapping[str, object]] = []
    rows, segments = [], 0
    image_of: dict[str, str] = {}
    for i in range(len(index)):
        advance()
        name = index.name(i)
        file_name = Path(name).with_suffix(".png").as_posix()
        other = image_of.setdefault(file_name, name)
        if other != name:
            why = f"{other} has the same name but for the suffix, and would have the same PNG"
            report.add_problem(index.path(i), why)
            continue
        read = read_regions(index, i, report)
        if read is None:
            continue
        (height, width), regions = read
        numbers, painted = paint_segments(regions, (height, width), index.things, filling)
        segments_info = _describe(numbers, painted, index.category_ids, report)
        path = folder / f"panoptic_{split}" / file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_numbers(path, numbers)
        key = len(images) + 1
        images.append({"id": key, "file_name": name, "width": width, "height": height})
        annotations.append(
            {"image_id": key, "file_name": file_name, "segments_info": segments_info}
        )
        rows.append(i)
        segments += len(segments_info)
    content = {"images": images, "annotations": annotations, "categories": _categories(index)}
    (folder / f"panoptic_{split}.json").write_text(json.dumps(content) + "\n", encoding="ascii")
    return replace(index.subset(rows), segments=segments)


def paint_segments(
    regions: Sequence[Region],
    size_hw: tuple[int, int],
    things: Sequence[bool],
    filling: int | None,
) -> tuple[Numbers, list[Region]]:
    """Return (number of the segment of each pixel, first region of each segment 1, 2, ...).

    Args:
        regions: from the lowest to the topmost.
        size_hw: (height, width) of the image.
        things: whether each class is a thing; the regions of other classes are one segment each.
        filling: label of the pixels without a region, or None.
    """
    numbers = np.zeros(size_hw, dtype=np.int32, order="F")
    painted: list[Region] = []
    stuff: dict[int, int] = {}
    for region in regions:
        if region.label is None:
            paint(numbers, region.outline, VOID)
            continue
        is_thing = things[region.label]
        number = len(painted) + 1 if is_thing else stuff.get(region.label, len(painted) + 1)
        if number > len(painted):
            painted.append(region if is_thing else replace(region, crowd=False))
        if not is_thing:
            stuff[region.label] = number
        paint(numbers, region.outline, number)
    if filling is not None and not numbers.all():
        number = stuff.get(filling, len(painted) + 1)
        if number > len(painted):
            no_outline = Rle(size=list(size_hw), counts=b"")
            painted.append(Region(filling, no_outline, "pixels without annotation"))
        numbers[numbers == 0] = number
    numbers[numbers == VOID] = 0
    return numbers, painted


def _describe(
    numbers: Numbers,
    painted: Sequence[Region],
    category_ids: Sequence[int],
    report: ConversionReport,
) -> list[Mapping[str, object]]:
    """Return the segments_info of the segments that have pixels."""
    areas = np.bincount(numbers.ravel(), minlength=len(painted) + 1).tolist()
    boxes = ndimage.find_objects(numbers, max_label=len(painted))
    segments_info: list[Mapping[str, object]] = []
    for number, (region, box) in enumerate(zip(painted, boxes, strict=True), 1):
        if box is None:
            report.add_note(region.place, COVERED)
            continue
        rows, columns = box
        assert region.label is not None, "ignored regions are no segments"
        segments_info.append(
            {
                "id": number,
                "category_id": category_ids[region.label],
                "iscrowd": int(region.crowd),
                "area": areas[number],
                "bbox": [
                    columns.start,
                    rows.start,
                    columns.stop - columns.start,
                    rows.stop - rows.start,
                ],
            }
        )
    return segments_info


def _categories(index: SegmentSplit) -> list[Mapping[str, object]]:
    """Return the categories in order of label; classes without a color get one of VOC's palette."""
    colors = index.colors or voc_colors(len(index.classes) + 1)[1:]  # the first one is black
    rows = zip(index.category_ids, index.classes, index.things, colors, strict=True)
    return [
        {"id": key, "name": name, "isthing": int(thing), "color": list(color)}
        for key, name, thing, color in rows
    ]
