"""Reader of COCO panoptic data as regions: a json, and a PNG of segment ids for each image."""

import os
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

from visionloop.bin.converters.coco_outlines import CocoFile, read_coco_files
from visionloop.bin.converters.conversion import ConversionReport
from visionloop.bin.converters.outlines import Region
from visionloop.bin.converters.segments.coco_categories import coco_splits, find_prefixed_jsons
from visionloop.bin.converters.segments.split import SegmentSplit
from visionloop.datasets.detection.coco_columns import annotated_categories, given, wrong_name
from visionloop.datasets.io.json_columns import JsonObject, show
from visionloop.datasets.io.layout import DataLayoutError, shorten
from visionloop.datasets.io.names import FileFinder, with_slashes
from visionloop.datasets.segmentation.dataset import mask_mismatch
from visionloop.datasets.segments.id_maps import read_ids
from visionloop.datasets.segments.outlines import Rle
from visionloop.datasets.segments.run_lengths import encode_numbers

PREFIX = "panoptic_"

# (name, annotations, stated (height, width)) of an image
PanopticEntry: TypeAlias = tuple[str, list[JsonObject], Sequence[int]]


def read_coco_panoptic(
    source: str, report: ConversionReport, *, things: Sequence[str] | None
) -> dict[str, SegmentSplit]:
    """Read panoptic_<split>*.json with the PNGs in a folder of the same name, or a single json.

    Args:
        source: folder or json.
        report: receives the images and annotations that cannot be used.
        things: names of the classes that are things, for categories without "isthing".

    Returns:
        {split: SegmentSplit}.

    Raises:
        DataLayoutError: for files that are laid out otherwise.
        UserError: see choose_things.
    """
    jsons = find_prefixed_jsons(source, PREFIX)
    if not jsons and Path(source).is_file():
        jsons = {"train": Path(source)}
    if not jsons:
        why = f"no COCO panoptic json; expected {PREFIX}train.json, also in annotations/"
        raise DataLayoutError(source, why)
    files = read_coco_files(jsons, report, _used_categories)
    readers = {
        split: (file, partial(_read, file=file, finder=FileFinder(_png_folder(file))))
        for split, file in files.items()
    }
    return coco_splits(readers, things, source)


def _used_categories(annotations: Sequence[JsonObject]) -> set[Hashable]:
    """Return the category ids of all segments."""
    lists = (annotation.get("segments_info") for annotation in annotations)
    infos = [info for infos in lists if isinstance(infos, list) for info in infos]
    return annotated_categories([info for info in infos if isinstance(info, dict)])


def _png_folder(file: CocoFile) -> Path:
    """Return the folder of the PNGs of a json. Raises DataLayoutError without one."""
    folder = file.path.with_suffix("")
    if not folder.is_dir():
        raise DataLayoutError(folder, f"no such folder; expected the PNGs of {file.path.name}")
    return folder


def _read(
    entry: PanopticEntry,
    size_hw: tuple[int, int],
    report: ConversionReport,
    *,
    file: CocoFile,
    finder: FileFinder,
) -> list[Region] | None:
    """Return the segments of an image, or None after adding a problem to the report.

    Raises UnreadableMask.
    """
    name, annotations, _ = entry
    try:
        png, infos = _check_annotation(annotations)
    except ValueError as error:
        report.add_problem(file.path, f"{name}: {error}")
        return None
    found = finder.find(os.path.normpath(with_slashes(png)))
    if found is None:
        why = f"{name}: its PNG {png} is not in {os.path.basename(finder.folder)}/"
        report.add_problem(file.path, why)
        return None
    path = os.path.join(finder.folder, found)
    numbers = read_ids(path)
    if mismatch := mask_mismatch(size_hw, numbers.shape):
        report.add_problem(path, mismatch)
        return None
    outlines = encode_numbers(numbers)
    outlines.pop(0, None)  # void
    problems_before = len(report.problems)
    regions = _match(infos, outlines, file, name, report)
    if len(report.problems) > problems_before:
        return None  # an entry with a wrong id would be a second problem of its pixels
    if unknown := sorted(outlines.keys() - {info["id"] for info in infos}):
        ids = shorten([str(key) for key in unknown])
        report.add_problem(path, f"holds the ids {ids}, which are not in segments_info")
        return None
    return regions


def _check_annotation(annotations: Sequence[JsonObject]) -> tuple[str, list[JsonObject]]:
    """Return (file name of the PNG, segments_info) of an image. Raises ValueError."""
    if len(annotations) != 1:
        raise ValueError(f"has {len(annotations)} annotations, expected one with segments_info")
    png, infos = annotations[0].get("file_name"), annotations[0].get("segments_info")
    if why := wrong_name(png):
        raise ValueError(f"{why}, in its annotation; expected that of a PNG")
    if not isinstance(infos, list) or not all(isinstance(info, dict) for info in infos):
        raise ValueError(f"segments_info is {show(infos)}, expected a list of objects")
    return str(png), infos


def _match(
    infos: Sequence[JsonObject],
    outlines: Mapping[int, Rle],
    file: CocoFile,
    name: str,
    report: ConversionReport,
) -> list[Region]:
    """Return the regions of the segments in segments_info; wrong entries are reported.

    outlines: {id: pixels} of the PNG.
    """
    counts = Counter(repr(info.get("id")) for info in infos)
    regions = []
    seen: set[str] = set()
    for info in infos:
        key = info.get("id")
        if repr(key) in seen:
            continue  # the first one is reported
        seen.add(repr(key))
        place = f"segment {show(key)} on {name}"
        if why := _problem(info, counts, file.label_of):
            report.add_problem(file.path, f"{place}: {why}")
        elif key not in outlines:
            report.add_note(f"{file.path}: {place}", "has no pixel in its PNG, left out")
        else:
            label, crowd = file.label_of[info["category_id"]], bool(given(info.get("iscrowd")))
            regions.append(
                Region(label, outlines[info["id"]], f"{file.path}: {place}", crowd=crowd)
            )
    return regions


def _is_id(key: object) -> bool:
    """Return whether a value can be the id of a segment."""
    return type(key) is int and 0 < key < 1 << 24


def _problem(
    info: JsonObject, counts: Mapping[str, int], label_of: Mapping[int | str | None, int]
) -> str | None:
    """Return the problem of an entry of segments_info, or None.

    counts: times that the id of each segment is there, by its text.
    """
    key, category, crowd = (info.get(name) for name in ("id", "category_id", "iscrowd"))
    if not _is_id(key):
        return f"id is {show(key)}, expected 1 to {(1 << 24) - 1}"
    if counts[repr(key)] > 1:
        return "the id is there twice"
    if isinstance(category, list | dict) or category is None or category not in label_of:
        return f"category_id {show(category)} is no category's id"
    if given(crowd) not in (None, 0, 1):
        return f"iscrowd is {show(crowd)}, neither 0 nor 1"
    return None
