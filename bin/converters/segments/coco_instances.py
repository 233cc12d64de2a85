"""Reader of COCO's instances jsons as regions."""

from collections.abc import Sequence
from functools import partial

from visionloop.bin.converters.coco_outlines import (
    CocoEntry,
    CocoFile,
    find_jsons,
    read_outlined_files,
    regions_of,
)
from visionloop.bin.converters.conversion import ConversionReport
from visionloop.bin.converters.outlines import Region
from visionloop.bin.converters.segments.coco_categories import coco_splits, find_prefixed_jsons
from visionloop.bin.converters.segments.split import SegmentSplit
from visionloop.datasets.detection.problems import CROWD_HINT

CROWD_NOTE = f"a crowd (iscrowd 1), which is never trained on; {CROWD_HINT}"


def read_coco_instances(
    source: str, report: ConversionReport, *, things: Sequence[str] | None
) -> dict[str, SegmentSplit]:
    """Read the instances jsons of a folder, found as for detection, or a single json.

    Where annotations overlap, the smaller one is on top; crowds are below the others.

    Args:
        source: folder or json; in a folder files called instances_<split>*.json are enough.
        report: receives the images and annotations that cannot be used.
        things: names of the classes that are things; None: as the categories say, or all.

    Returns:
        {split: SegmentSplit}.

    Raises:
        DataLayoutError: for files that are laid out otherwise.
        UserError: see choose_things.
    """
    jsons = find_prefixed_jsons(source, "instances_") or find_jsons(source)
    files = read_outlined_files(jsons, report)
    readers = {split: (file, partial(_read, file=file)) for split, file in files.items()}
    return coco_splits(readers, things, source)


def _read(
    entry: CocoEntry, size_hw: tuple[int, int], report: ConversionReport, *, file: CocoFile
) -> list[Region] | None:
    """Return the regions of an image, see `regions_of`; crowds are counted in a note."""
    regions = regions_of(entry, size_hw, report, json_file=file.path, label_of=file.label_of)
    for region in regions or ():
        if region.crowd:
            report.add_note(region.place, CROWD_NOTE)
    return regions
