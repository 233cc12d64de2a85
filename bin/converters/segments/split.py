"""Images whose objects and stuff are read one image after the other, and what is a thing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from visionloop.bin.converters.conversion import ConversionReport, PathLike
from visionloop.bin.converters.entries import Entry, EntrySplit
from visionloop.bin.converters.outlines import Region, area
from visionloop.datasets.io.images import UnreadableImage, read_size
from visionloop.datasets.io.layout import shorten
from visionloop.engine.errors import UserError

EMPTY = "covers no pixel, left out"

# called with (entry, (height, width), report); returns the regions from the lowest to the topmost,
# or None after it added a problem to the report
ReadRegions: TypeAlias = Callable[[Entry, tuple[int, int], ConversionReport], list[Region] | None]


@dataclass(frozen=True, eq=False)
class SegmentSplit(EntrySplit):
    """Images with their regions.

    Attributes:
        read: returns the regions of an image, whose labels are positions in `classes`.
        things: whether each class has objects that can be counted; the others are stuff.
        category_ids: id of each class in the json that is written.
        colors: [red, green, blue] of each class, or None.
        segments: number of segments that were written.
    """

    read: ReadRegions
    things: tuple[bool, ...]
    category_ids: tuple[int, ...]
    colors: tuple[tuple[int, int, int], ...] | None = None
    segments: int = 0


def read_regions(
    index: SegmentSplit, i: int, report: ConversionReport
) -> tuple[tuple[int, int], list[Region]] | None:
    """Return ((height, width), regions with at least one pixel) of image i.

    None after adding a problem to the report.
    """
    try:
        size_hw = read_size(index.path(i))
        regions = index.read(index.entries[i], size_hw, report)
    except UnreadableImage as error:
        report.add_problem(error.path, error.why)
        return None
    if regions is None:
        return None
    covering = []
    for region in regions:
        if area(region.outline):
            covering.append(region)
        else:
            report.add_note(region.place, EMPTY)
    return size_hw, covering


def count_segments(index: SegmentSplit) -> int:
    """Return the number of segments that were written."""
    return index.segments


def numbered(classes: Sequence[str]) -> tuple[int, ...]:
    """Return the category ids 1, 2, ... of classes whose source has none."""
    return tuple(range(1, len(classes) + 1))


def choose_things(
    classes: Sequence[str],
    chosen: Sequence[str] | None,
    source: PathLike,
    stated: Sequence[bool] | None = None,
) -> tuple[bool, ...]:
    """Return whether each class is a thing.

    Args:
        classes: names in order of label.
        chosen: names of the things on the command line; None: all classes.
        source: for messages.
        stated: what the source says of each class, where it does.

    Raises:
        UserError: for a chosen name that is no class, or a choice that the source has made.
    """
    if chosen is None:
        return tuple(stated) if stated else (True,) * len(classes)
    if stated:
        why = f"--things: {source} itself says which classes are things; leave the option out"
        raise UserError(why, field="things", file=str(source))
    for name in chosen:
        if name not in classes:
            why = f"--things: {name!r} is no class of {source}, which has {shorten(classes)}"
            raise UserError(why, field="things", file=str(source))
    return tuple(name in chosen for name in classes)
