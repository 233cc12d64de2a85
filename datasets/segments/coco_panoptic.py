"""Reader of a COCO json of panoptic segments, whose pixels are in a PNG for each image."""

import os
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from visionloop.datasets.detection.coco_columns import (
    UNKNOWN,
    annotated_categories,
    read_annotations,
    read_images,
    read_sections,
    wrong_name,
)
from visionloop.datasets.detection.index import locate_images
from visionloop.datasets.detection.problems import Problem, Report
from visionloop.datasets.io.json_columns import JsonObject, show
from visionloop.datasets.io.paths import join_paths
from visionloop.datasets.segments.categories import SegmentClasses, read_segment_classes
from visionloop.datasets.segments.index import (
    Kind,
    SegmentColumns,
    SegmentsIndex,
    group_by_row,
    mask_files,
)
from visionloop.datasets.segments.problems import segment_problems

LARGEST_SEGMENT_ID = 2**24 - 1  # R + 256 G + 65536 B


def inspect_panoptic(
    json_file: str | os.PathLike[str],
    folders: Sequence[str | os.PathLike[str]],
    mask_folders: Sequence[str | os.PathLike[str]],
    kind: Kind,
    classes: Sequence[str] | None = None,
) -> tuple[SegmentsIndex | None, list[Problem]]:
    """Return (SegmentsIndex or None, problems) of a COCO panoptic json.

    Args:
        json_file: the annotations.
        folders: of which the one that holds the images is taken.
        mask_folders: of which the one that holds the PNGs is taken.
        kind: "instance" reads things alone.
        classes: names of the training split, which then give the labels.
    """
    report = Report(json_file)
    sections = read_sections(json_file, report, lambda entry: entry)
    if sections is None:
        return None, report.problems
    images, row_of = read_images(sections["images"], report)
    if not images["names"]:
        return None, report.problems
    masks, segments = _read_masks(sections["annotations"], row_of, len(images["names"]), report)
    annotated = annotated_categories(segments)
    found = read_segment_classes(sections["categories"], annotated, kind, classes, report)
    if found is None or masks is None:
        return None, report.problems
    image_folder, names = locate_images(images["names"], [os.fspath(path) for path in folders])
    mask_folder, mask_names = locate_images(masks, [os.fspath(path) for path in mask_folders])
    index = SegmentsIndex(
        source=os.fspath(json_file),
        kind=kind,
        folder=image_folder,
        image_ids=images["image_ids"],
        sizes_hw=images["sizes_hw"],
        masks=mask_files(mask_folder, mask_names),
        **_read_segments(segments, row_of, found, len(names), report),
        **join_paths(names),
    )
    return index, report.problems + segment_problems(index)


def _read_masks(
    entries: Sequence[JsonObject],
    row_of: Mapping[Hashable, int],
    number: int,
    report: Report,
) -> tuple[list[bytes] | None, list[JsonObject]]:
    """Return (name of the PNG of each image or None where one is missing, all segments).

    Args:
        entries: of the section "annotations", one for each image.
        row_of: {image id: row}.
        number: of images.
        report: receives the problems.
    """
    names: dict[int, bytes] = {}
    segments: list[JsonObject] = []
    errors: list[tuple[str, str]] = []
    for position, entry in enumerate(entries):
        key, name, infos = (entry.get(what) for what in ("image_id", "file_name", "segments_info"))
        is_key = isinstance(key, int | float | str)
        row = row_of.get(key, UNKNOWN) if is_key else UNKNOWN
        where = f"annotation of image {key!r}" if is_key else f"annotation at position {position}"
        if row == UNKNOWN:
            errors.append((where, f"image_id {show(key)} is no image's id"))
        elif row in names:
            errors.append((where, "there are two, expected one for each image"))
        elif why := wrong_name(name):
            errors.append((where, f"{why}, expected that of a PNG"))
        elif not isinstance(infos, list) or any(type(info) is not dict for info in infos):
            errors.append((where, f"segments_info is {show(infos)}, expected a list of objects"))
        elif row >= 0:
            names[row] = os.fsencode(os.path.normpath(str(name)))
            # read_annotations takes the image from each segment, and a box that is not used
            for info in infos:
                info["image_id"], info["bbox"] = key, [0, 0, 0, 0]
            segments += infos
    report.error_each(errors)
    missing = [key for key, row in row_of.items() if row >= 0 and row not in names]
    if missing and not errors:
        report.error_each([(f"image {key!r}", "no annotation names its PNG") for key in missing])
    return None if missing else [names[row] for row in range(number)], segments


def _read_segments(
    segments: Sequence[JsonObject],
    row_of: Mapping[Hashable, int],
    found: SegmentClasses,
    number: int,
    report: Report,
) -> SegmentColumns:
    """Return the columns of the segments of all images.

    Args:
        segments: of all images, each with its "image_id".
        row_of: {image id: row}.
        found: the classes.
        number: of images.
        report: receives the problems.
    """
    columns = read_annotations(segments, row_of, found.label_of, report, _segment_name)
    ids = [segments[position].get("id") for position in columns["positions"].tolist()]
    is_id = np.array(
        [type(key) is int and 0 < key <= LARGEST_SEGMENT_ID for key in ids], dtype=np.bool_
    )
    report.error_each(
        [
            (
                f"a segment of image {segments[columns['positions'][k]]['image_id']!r}",
                f"id is {show(ids[k])}, expected a whole number 1 to {LARGEST_SEGMENT_ID}",
            )
            for k in np.flatnonzero(~is_id).tolist()
        ]
    )
    columns = {name: values[is_id] for name, values in columns.items()}
    segment_ids = np.array(
        [key for key, valid in zip(ids, is_id, strict=True) if valid], dtype=np.int64
    )
    keys = columns["rows"] * (LARGEST_SEGMENT_ID + 1) + segment_ids
    _, first = np.unique(keys, return_index=True)
    repeated = np.setdiff1d(np.arange(len(keys)), first)
    report.error_each(
        [
            (_segment_name(segments[columns["positions"][k]], k), "the id is there twice")
            for k in repeated.tolist()
        ]
    )
    is_class = columns["labels"] < len(found.classes)
    offsets, order = group_by_row(columns["rows"][is_class], number)
    stuff_offsets, stuff_order = group_by_row(columns["rows"][~is_class], number)
    return {
        "classes": found.classes,
        "is_thing": found.is_thing,
        "category_ids": found.category_ids,
        "offsets": offsets,
        "ids": segment_ids[is_class][order],
        "labels": columns["labels"][is_class][order],
        "crowd": columns["crowd"][is_class][order],
        "areas": columns["areas"][is_class][order],
        "stuff_offsets": stuff_offsets,
        "stuff_ids": segment_ids[~is_class][stuff_order],
    }


def _segment_name(segment: JsonObject, position: int) -> str:
    """Return the name of a segment for messages."""
    return f"segment {show(segment.get('id'))} of image {segment['image_id']!r}"
