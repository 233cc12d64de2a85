"""Reader of a COCO json's outlines as masks of class ids."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from visionloop.bin.converters.coco_outlines import (
    CocoEntry,
    find_jsons,
    read_outlined_files,
    regions_of,
)
from visionloop.bin.converters.conversion import ConversionReport
from visionloop.bin.converters.masks import (
    IGNORED,
    Mask,
    MaskSplit,
    add_background,
    check_class_count,
)
from visionloop.bin.converters.outlines import paint
from visionloop.datasets.detection.problems import CROWD_HINT

CROWD_NOTE = f"a crowd (iscrowd 1), its pixels are ignored; {CROWD_HINT}"


def read_coco_masks(
    source: str, report: ConversionReport, *, background: str
) -> dict[str, MaskSplit]:
    """Read the COCO jsons of a folder, found as for detection, or a single json.

    Where annotations overlap, the smaller one is on top; a crowd is ignored where no other
    annotation is.

    Args:
        source: folder or json file.
        report: receives the images and annotations that cannot be used.
        background: see add_background.

    Returns:
        {split: MaskSplit}.

    Raises:
        DataLayoutError: for files that are laid out otherwise.
    """
    splits: dict[str, MaskSplit] = {}
    for split, file in read_outlined_files(find_jsons(source), report).items():
        check_class_count(file.path, file.classes)
        names, background_id = add_background(file.classes, background)
        draw = partial(
            _draw,
            json_file=file.path,
            label_of=file.label_of,
            values=[names.index(name) for name in file.classes],
            background_id=background_id,
        )
        splits[split] = MaskSplit(
            folder=file.folder,
            names=file.names,
            entries=file.entries,
            classes=names,
            draw=draw,
            background_id=background_id,
        )
    return splits


def _draw(
    entry: CocoEntry,
    size_hw: tuple[int, int],
    report: ConversionReport,
    *,
    json_file: Path,
    label_of: Mapping[int | str | None, int],
    values: Sequence[int],
    background_id: int,
) -> Mask | None:
    """Return the mask of an image, or None after adding a problem to the report.

    values: class id of each label.
    """
    regions = regions_of(entry, size_hw, report, json_file=json_file, label_of=label_of)
    if regions is None:
        return None
    ids = np.full(size_hw, background_id, dtype=np.uint8, order="F")
    for region in regions:
        if region.crowd:
            report.add_note(region.place, CROWD_NOTE)
        assert region.label is not None, "every annotation has a class"
        paint(ids, region.outline, IGNORED if region.crowd else values[region.label])
    return ids
