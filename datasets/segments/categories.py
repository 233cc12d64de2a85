"""Classes of a COCO json with things and stuff."""

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass

from visionloop.datasets.detection.coco_categories import read_categories
from visionloop.datasets.detection.coco_columns import REJECTED, given
from visionloop.datasets.detection.problems import Report
from visionloop.datasets.io.json_columns import (
    JsonObject,
    column,
    show,
    whole_numbers,
    wrong_id,
)
from visionloop.datasets.segments.index import Kind


@dataclass(frozen=True)
class SegmentClasses:
    """The classes of a json.

    Attributes:
        classes, is_thing, category_ids: see SegmentsIndex.
        label_of: {category id: label, REJECTED for a category that is no class, and the number of
            classes for stuff that an instance task leaves out}.
    """

    classes: tuple[str, ...]
    is_thing: tuple[bool, ...]
    category_ids: tuple[int | str | None, ...]
    label_of: dict[Hashable, int]


def read_segment_classes(
    entries: Sequence[JsonObject],
    annotated: Collection[Hashable],
    kind: Kind,
    classes: Sequence[str] | None,
    report: Report,
) -> SegmentClasses | None:
    """Return the classes of a json, or None when they are not valid.

    Args:
        entries: of the section "categories".
        annotated: the category ids of the segments.
        kind: for "instance", categories with "isthing" 0 are no classes.
        classes: names of the training split, which then give the labels.
        report: receives the problems.
    """
    thing_of = _read_isthing(entries, report)
    if thing_of is None:
        return None
    if kind == "panoptic" and all(given(entry.get("isthing")) is None for entry in entries):
        report.note(
            'no category has "isthing", so all classes are things; "isthing": 0 makes a class '
            "stuff, such as road or sky"
        )
    if kind == "instance" and thing_of:
        keys = whole_numbers(column(entries, "id"))
        things = [entry for key, entry in zip(keys, entries, strict=True) if thing_of[key]]
        if not things:
            report.error(
                'no category has "isthing": 1; instance segmentation needs things, classes whose '
                "objects are counted"
            )
            return None
        names_and_ids = read_categories(things, annotated, classes, report)
    else:
        names_and_ids = read_categories(entries, annotated, classes, report)
    if names_and_ids is None:
        return None
    names, ids = names_and_ids
    label_of = {
        key: REJECTED if kind == "panoptic" or is_thing else len(names)
        for key, is_thing in thing_of.items()
    }
    label_of |= {key: label for label, key in enumerate(ids) if key is not None}
    # a class that this split does not have is named in the training split
    is_thing = tuple(key is None or thing_of[key] for key in ids)
    return SegmentClasses(names, is_thing, ids, label_of)


def _read_isthing(entries: Sequence[JsonObject], report: Report) -> dict[Hashable, bool] | None:
    """Return {category id: it is a thing}, or None; without any "isthing" all are.

    Empty where an id is not valid, which `read_categories` reports.
    """
    ids = whole_numbers(column(entries, "id"))
    if any(map(wrong_id, ids)):
        return {}
    flags = [given(entry.get("isthing")) for entry in entries]
    if all(flag is None for flag in flags):
        return dict.fromkeys(ids, True)
    errors = [
        (f"category {key!r}", f"isthing is {show(flag)}, expected 1 for a thing or 0 for stuff")
        for key, flag in zip(ids, flags, strict=True)
        if flag not in (0, 1)
    ]
    report.error_each(errors)
    return None if errors else dict(zip(ids, map(bool, flags), strict=True))
