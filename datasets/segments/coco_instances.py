"""Reader of a COCO json of instances: an outline for each object.

100 thousand annotations with polygons take some seconds, most of them in the json parser.
"""

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from visionloop.datasets.detection.coco_columns import (
    annotated_categories,
    annotation_name,
    read_annotations,
    read_images,
    read_sections,
)
from visionloop.datasets.detection.index import locate_images
from visionloop.datasets.detection.problems import Problem, Report
from visionloop.datasets.io.json_columns import JsonObject
from visionloop.datasets.io.paths import Column, join_paths
from visionloop.datasets.segments.categories import read_segment_classes
from visionloop.datasets.segments.index import Kind, SegmentsIndex, group_by_row
from visionloop.datasets.segments.outlines import (
    DROPPED_POLYGON,
    NO_OUTLINE,
    OutlineParser,
    Outlines,
    no_usable_outline,
)
from visionloop.datasets.segments.problems import segment_problems
from visionloop.datasets.segments.run_lengths import run_totals

KIND: Kind = "instance"


def inspect_instances(
    json_file: str | os.PathLike[str],
    folders: Sequence[str | os.PathLike[str]],
    classes: Sequence[str] | None = None,
    *,
    need_images: bool = True,
) -> tuple[SegmentsIndex | None, list[Problem]]:
    """Return (SegmentsIndex or None, problems) of a COCO json of instances.

    Args:
        json_file: the annotations.
        folders: of which the one that holds the images is taken.
        classes: names of the training split, which then give the labels.
        need_images: False reads annotations whose images are not there.
    """
    report, parser = Report(json_file), OutlineParser()
    sections = read_sections(json_file, report, parser)
    if sections is None:
        return None, report.problems
    entries = sections["annotations"]
    annotated = annotated_categories(entries)
    found = read_segment_classes(sections["categories"], annotated, KIND, classes, report)
    images, row_of = read_images(sections["images"], report)
    if found is None or not images["names"]:
        return None, report.problems
    columns = read_annotations(entries, row_of, found.label_of, report)
    columns = _rows(columns, columns["labels"] < len(found.classes))  # no stuff
    image_folder, names = locate_images(images["names"], [os.fspath(path) for path in folders])
    texts = [os.fsdecode(name) for name in names]
    sizes_hw = images["sizes_hw"].copy()
    outlines, columns = _read_outlines(parser, entries, columns, sizes_hw, texts, report)
    offsets, order = group_by_row(columns["rows"], len(names))
    index = SegmentsIndex(
        source=os.fspath(json_file),
        kind=KIND,
        folder=image_folder,
        classes=found.classes,
        is_thing=found.is_thing,
        category_ids=found.category_ids,
        image_ids=images["image_ids"],
        sizes_hw=sizes_hw,
        offsets=offsets,
        ids=np.zeros(len(order), dtype=np.int64),
        labels=columns["labels"][order],
        crowd=columns["crowd"][order],
        areas=columns["areas"][order],
        stuff_offsets=np.zeros(len(names) + 1, dtype=np.int64),
        stuff_ids=np.zeros(0, dtype=np.int64),
        outlines=outlines.select(order),
        **join_paths(names),
    )
    return index, report.problems + segment_problems(index, need_images)


def _rows(columns: dict[str, Column], chosen: NDArray[np.bool_]) -> dict[str, Column]:
    return {name: values[chosen] for name, values in columns.items()}


def _read_outlines(
    parser: OutlineParser,
    entries: Sequence[JsonObject],
    columns: dict[str, Column],
    sizes_hw: NDArray[np.int64],
    names: Sequence[str],
    report: Report,
) -> tuple[Outlines, dict[str, Column]]:
    """Return the outlines of annotations, and the columns of those that have a valid one.

    Args:
        parser: which has seen the file.
        entries: of the section, with the numbers of their outlines.
        columns: of the valid annotations, see `read_annotations`.
        sizes_hw: of the images; where the file gives none, that of an encoding is put there.
        names: of the images, for messages.
        report: receives the problems.
    """
    outlines = parser.outlines()
    positions = columns["positions"].tolist()
    numbers = np.array(
        [entries[position].get("segmentation", -1) for position in positions], dtype=np.int64
    )
    given = numbers >= 0  # the key is there
    own = outlines
    if len(outlines):
        own = outlines.select(np.where(given, numbers, 0))
        own = replace(own, is_rle=own.is_rle & given)  # the others only fill their place
    is_empty = ~given
    if len(outlines):
        is_empty |= own.stops == own.starts
    problem_of = {k: parser.problems.get(number) for k, number in enumerate(numbers.tolist())}
    errors = {k: why for k, why in problem_of.items() if why}
    if len(outlines):
        errors |= rle_errors(own, is_empty, columns["rows"], sizes_hw)
    report.error_each(
        [(annotation_name(entries[positions[k]], positions[k]), errors[k]) for k in sorted(errors)]
    )
    if len(numbers) and is_empty.all() and not errors:
        report.error(no_usable_outline(len(numbers)))
    else:
        dropped = np.zeros(len(numbers), dtype=np.bool_)
        dropped[given] = np.array(parser.dropped_polygons)[numbers[given]] > 0
        is_valid = np.ones(len(numbers), dtype=np.bool_)
        is_valid[list(errors)] = False
        for chosen, why in ((is_empty & is_valid, NO_OUTLINE), (dropped, DROPPED_POLYGON)):
            ks = np.flatnonzero(chosen)
            ks = ks[np.argsort(columns["rows"][ks], kind="stable")]  # image by image
            places = [
                f"{annotation_name(entries[positions[k]], positions[k])} on "
                f"{names[columns['rows'][k]]}"
                for k in ks.tolist()
            ]
            report.note_each(places, why)
    kept = ~is_empty
    kept[list(errors)] = False
    return own.select(np.flatnonzero(kept)) if len(outlines) else outlines, _rows(columns, kept)


def rle_errors(
    outlines: Outlines,
    is_empty: NDArray[np.bool_],
    rows: NDArray[np.int64],
    sizes_hw: NDArray[np.int64],
) -> dict[int, str]:
    """Return {outline: why} of run-length encodings that do not fit their image.

    Args:
        outlines: M of them.
        is_empty: bool [M]; encodings are set to False, also one without text, which is an error.
        rows: int64 [M], the image of each.
        sizes_hw: int64 [N, 2] of the images; where it is 0, that of an encoding is put there.
    """
    encoded = np.flatnonzero(outlines.is_rle)
    sizes, owners = outlines.rle_sizes[encoded], rows[encoded]
    unknown = ~sizes_hw[owners].all(axis=1)
    sizes_hw[owners[unknown]] = sizes[unknown]
    expected = sizes_hw[owners]
    totals = run_totals(outlines.counts, outlines.starts[encoded], outlines.stops[encoded])
    wrong_size = (sizes != expected).any(axis=1)
    wrong_counts = ~totals.is_valid | (totals.pixels != sizes.prod(axis=1))
    errors = {}
    for k in np.flatnonzero(wrong_size | wrong_counts).tolist():
        height, width = sizes[k].tolist()
        if wrong_size[k]:
            why = (
                f"segmentation has the size {height} x {width} (height x width), its image "
                f"{expected[k, 0]} x {expected[k, 1]}"
            )
        elif totals.is_valid[k]:
            why = (
                f"segmentation has counts of {totals.pixels[k]} pixels in all, its size "
                f"{height} x {width} (height x width) has {height * width}"
            )
        else:
            why = "segmentation has counts that are no run-length encoding of COCO"
        errors[int(encoded[k])] = why
    is_empty[encoded] = False
    return errors
