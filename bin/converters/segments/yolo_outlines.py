"""Reader of YOLO's outlines as regions: data.yaml, and `class x1 y1 x2 y2 ...` for each object."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from visionloop.bin.converters.conversion import ConversionReport
from visionloop.bin.converters.outlines import Region, area, encode_polygons
from visionloop.bin.converters.segments.split import SegmentSplit, choose_things, numbered
from visionloop.datasets.detection.annotation_files import YAML_SUFFIXES, find_annotations
from visionloop.datasets.detection.problems import Report
from visionloop.datasets.detection.yolo_description import (
    YoloDescription,
    list_images,
    read_description,
)
from visionloop.datasets.detection.yolo_files import find_label_files
from visionloop.datasets.detection.yolo_labels import OUTLINE_SLACK, LabelParser, Outline
from visionloop.datasets.io.layout import DataLayoutError

SPLITS = ("train", "val", "test")
DECIMALS = 3  # of a pixel, in polygons

YoloEntry: TypeAlias = tuple[str, list[Outline]]  # (label file, outlines in shares of the image)


def read_yolo_outlines(
    source: str, report: ConversionReport, *, things: Sequence[str] | None
) -> dict[str, SegmentSplit]:
    """Read a YOLO folder whose label files hold outlines. The smaller one is on top.

    Args:
        source: folder with data.yaml, images/ and labels/.
        report: receives the lines that are no outlines.
        things: names of the classes that are things; None: all.

    Returns:
        {split: SegmentSplit}.

    Raises:
        DataLayoutError: for a folder that is laid out otherwise.
        UserError: see choose_things.
    """
    splits: dict[str, SegmentSplit] = {}
    classes: tuple[str, ...] | None = None
    for split in SPLITS:
        path = find_yaml(source, split)
        if path is None:
            continue
        description = read_description(path)
        classes = classes or description.classes
        if description.classes != classes:
            raise DataLayoutError(path, "has other names than the description of another split")
        if description.keypoints and description.keypoints[0]:
            raise DataLayoutError(path, "kpt_shape: its lines are keypoints, expected outlines")
        folder, names, entries = _read_split(description, split, report)
        splits[split] = SegmentSplit(
            folder=folder,
            names=names,
            entries=entries,
            classes=classes,
            read=_read,
            things=choose_things(classes, things, source),
            category_ids=numbered(classes),
        )
    if not splits:
        why = "no YOLO data in it; expected data.yaml with names, train and val"
        raise DataLayoutError(source, why)
    return splits


def find_yaml(source: str | os.PathLike[str], split: str) -> Path | None:
    """Return the YOLO description of a split, None without one. Raises DataLayoutError."""
    path = find_annotations(source, split)
    return path if path and path.suffix.lower() in YAML_SUFFIXES else None


def _read_split(
    description: YoloDescription, split: str, report: ConversionReport
) -> tuple[str, list[str], list[YoloEntry]]:
    """Return (folder, names, entries) of the images whose label files have no error."""
    folder, names, _ = list_images(description, split)
    file_report = Report(description.source)
    here = os.path.dirname(os.path.abspath(description.source))
    texts = find_label_files([os.path.join(folder, name) for name in names], here, file_report)
    parser = LabelParser(len(description.classes), description.keypoints)
    valid_names, entries = [], []
    for name, text in zip(names, texts, strict=True):
        outlines, errors = parser.read_outlines(text) if text else ([], [])
        for number, why in errors:
            report.add_problem(f"{text}:{number}", why)
        if not errors:
            valid_names.append(name)
            entries.append((text or "", outlines))
    if parser.clipped:
        most = f"{100 * OUTLINE_SLACK:g} %"
        why = f"{parser.clipped} outlines that reach up to {most} out of the image are clipped"
        file_report.note(f"{split}: {why}")
    if why_not := parser.readings.problem():
        file_report.error(why_not)
    for kind, place, why in file_report.problems:
        (report.add_problem if kind == "error" else report.add_note)(place, why)
    return folder, valid_names, entries


def _read(entry: YoloEntry, size_hw: tuple[int, int], report: ConversionReport) -> list[Region]:
    """Return the objects of an image from large to small."""
    text, outlines = entry
    regions = []
    for number, (label, shares) in enumerate(outlines, 1):
        corners = np.array(shares, dtype=np.float64).reshape(-1, 2) * size_hw[::-1]
        corners = corners.round(DECIMALS)
        outline = encode_polygons([corners], size_hw)
        place = f"{text}: object {number}"
        regions.append(Region(label, outline, place, polygons=[corners.reshape(-1).tolist()]))
    return sorted(regions, key=lambda region: -area(region.outline))
