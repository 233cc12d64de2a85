"""Reader of labelme's jsons as regions: each shape an object, or those of one group together."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from pycocotools import mask as coco_mask

from visionloop.bin.converters.conversion import ConversionReport
from visionloop.bin.converters.labelme import (
    BACKGROUND_LABEL,
    IGNORE_LABEL,
    LabelmeEntry,
    read_labelme_files,
    regions_of,
)
from visionloop.bin.converters.outlines import Region
from visionloop.bin.converters.segments.split import SegmentSplit, choose_things, numbered
from visionloop.datasets.io.json_columns import show

BACKGROUND = -1  # label of shapes that are the same as no annotation


def read_labelme_objects(
    source: str, report: ConversionReport, *, things: Sequence[str] | None
) -> dict[str, SegmentSplit]:
    """Read the jsons in train/, val/ and test/, or all as "train" without such folders.

    Where shapes overlap, the later one in the file is on top. Shapes of one label with equal
    `group_id` are one object.

    Args:
        source: folder.
        report: receives the files and shapes that cannot be used.
        things: names of the classes that are things; None: all.

    Returns:
        {split: SegmentSplit}.

    Raises:
        DataLayoutError: for a folder without annotations.
        UserError: see choose_things.
    """
    files = read_labelme_files(source, report)
    classes = tuple(files.names)
    label_of: dict[str, int | None] = {name: label for label, name in enumerate(classes)}
    label_of |= {IGNORE_LABEL: None, BACKGROUND_LABEL: BACKGROUND}
    is_thing = choose_things(classes, things, source)
    return {
        split: SegmentSplit(
            folder=os.fspath(files.folders[split]),
            names=list(entries),
            entries=list(entries.values()),
            classes=classes,
            read=partial(_read, label_of=label_of),
            things=is_thing,
            category_ids=numbered(classes),
        )
        for split, entries in files.entries.items()
    }


def _read(
    entry: LabelmeEntry,
    size_hw: tuple[int, int],
    report: ConversionReport,
    *,
    label_of: Mapping[str, int | None],
) -> list[Region] | None:
    """Return the objects of an image, or None after adding a problem to the report."""
    regions = regions_of(entry, size_hw, report, label_of=label_of)
    if regions is None:
        return None
    wrong = [each for each in regions if not isinstance(each.group, int | str | None)]
    for region in wrong:
        why = f"group_id is {show(region.group)}, expected a whole number"
        report.add_problem(region.place, why)
    annotated = [region for region in regions if region.label != BACKGROUND]
    return None if wrong else _join_groups(annotated)


def _join_groups(regions: Sequence[Region]) -> list[Region]:
    """Return the regions with those of equal label and group as one, at the place of the first."""
    groups: dict[object, list[Region]] = {}
    for number, region in enumerate(regions):
        is_alone = region.group is None or region.label is None
        groups.setdefault(number if is_alone else (region.label, region.group), []).append(region)
    return [members[0] if len(members) == 1 else _union(members) for members in groups.values()]


def _union(members: Sequence[Region]) -> Region:
    """Return the region of all pixels of some regions."""
    outline = coco_mask.merge([member.outline for member in members])
    polygons = [polygon for member in members for polygon in member.polygons or ()]
    has_bitmap = any(member.polygons is None for member in members)
    return replace(members[0], outline=outline, polygons=None if has_bitmap else polygons)
