"""Segments of a split as counted in their pixels, for the checks of a data folder."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from visionloop.datasets.segmentation.dataset import mask_mismatch
from visionloop.datasets.segmentation.masks import UnreadableMask
from visionloop.datasets.segments.class_masks import read_class_segments
from visionloop.datasets.segments.id_maps import count_pixels, match_ids, read_ids
from visionloop.datasets.segments.index import SegmentsIndex
from visionloop.datasets.segments.layers import NO_SEGMENT, layers_of_outlines
from visionloop.datasets.segments.reading import size_problem
from visionloop.datasets.segments.run_lengths import read_runs
from visionloop.engine.types import JsonObject
from visionloop.tasks.checks import add_problem
from visionloop.tasks.segmentation.checks import SizesHW

# pixels that are counted in each image
Total: TypeAlias = Literal["all", "covered", "repeated", "crowded", "void"]


@dataclass(frozen=True, eq=False)
class ImageCounts:
    """The segments of one image.

    Attributes:
        labels: int64 [n].
        crowd: bool [n].
        pixels: int64 [n], as counted.
        areas: float64 [n], those of the annotations, 0 where there is none.
        longer_side: of the image in pixels.
        totals: pixels of the image: "all"; "covered", of a segment that is no crowd; "repeated", of
            more than one; "crowded", of a crowd; "void", of nothing.
    """

    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    pixels: NDArray[np.int64]
    areas: NDArray[np.float64]
    longer_side: int
    totals: dict[Total, int]

    @property
    def is_target(self) -> NDArray[np.bool_]:
        """Return which segments a model has to predict, bool [n]: with pixels and no crowd."""
        return ~self.crowd & (self.pixels > 0)


@dataclass(frozen=True, eq=False)
class SegmentCounts:
    """The segments of a split.

    Attributes:
        num_classes: K.
        images: {row: counts} of the images whose segments can be read.
    """

    num_classes: int
    images: dict[int, ImageCounts] = field(default_factory=dict)

    def total(self, name: Total) -> int:
        """Return the number of pixels in all images."""
        return sum(image.totals[name] for image in self.images.values())

    def per_image(self) -> NDArray[np.int64]:
        """Return the number of targets of each image, int64 [N]."""
        return np.array([image.is_target.sum() for image in self.images.values()], dtype=np.int64)

    def per_class(self) -> NDArray[np.int64]:
        """Return the number of targets of each class, int64 [K]."""
        labels = [image.labels[image.is_target] for image in self.images.values()]
        return np.bincount(np.concatenate([np.zeros(0, np.int64), *labels]), None, self.num_classes)

    def sides(self, image_size: int) -> NDArray[np.float64]:
        """Return the side of a square of the area of each target, float64 [M].

        image_size: longer side in pixels that the images are resized to.
        """
        sides = [
            np.sqrt(image.pixels[image.is_target]) * (image_size / image.longer_side)
            for image in self.images.values()
        ]
        return np.concatenate([np.zeros(0), *sides])


def count_segments(
    index: SegmentsIndex,
    sizes_hw: SizesHW,
    report: JsonObject,
    advance: Callable[[], object],
    *,
    all_entries: bool = True,
) -> SegmentCounts:
    """Count the pixels of each segment of a split, and report images and PNGs that do not fit.

    Args:
        index: the split.
        sizes_hw: {row: (height, width)} of the images that can be read.
        report: takes the problems.
        advance: called once per image.
        all_entries: False where the json has entries that are wrong: ids of a PNG that lack one are
            not reported then.
    """
    counts = SegmentCounts(len(index.classes))
    for row in range(len(index)):
        advance()
        # a missing PNG was reported with the others
        if index.masks is not None and index.masks.sizes[row] < 0:
            continue
        if index.outlines is not None:
            image = _count_outlines(index, row, sizes_hw.get(row), report)
        else:
            image = _count_map(index, row, sizes_hw.get(row), report, all_entries)
        if image is not None:
            counts.images[row] = image
    return counts


def _count_outlines(
    index: SegmentsIndex, row: int, size_hw: tuple[int, int] | None, report: JsonObject
) -> ImageCounts | None:
    """Count the segments of an image with outlines; None for an image of another size."""
    assert index.outlines is not None
    if size_hw is None:
        return None
    if why := size_problem(index, row, size_hw):
        add_problem(report, "errors", index.path(row), why)
        return None
    first, last = index.rows_of(row)
    labels, crowd = index.labels[first:last].astype(np.int64), index.crowd[first:last]
    rles = [index.outlines.rle(k, *size_hw) for k in range(first, last)]
    layers, _, crowds = layers_of_outlines(rles, labels, crowd, *size_hw)
    owners = (layers != NO_SEGMENT).sum(dim=0)
    runs = read_runs([rle["counts"] for rle in rles])
    return ImageCounts(
        labels=labels,
        crowd=crowd,
        pixels=np.array([each[1::2].sum() for each in runs], dtype=np.int64),
        areas=index.areas[first:last],
        longer_side=max(size_hw),
        totals={
            "all": owners.numel(),
            "covered": int((owners > 0).sum()),
            "repeated": int((owners > 1).sum()),
            "crowded": int(crowds.sum()),
            "void": 0,
        },
    )


def _count_map(
    index: SegmentsIndex,
    row: int,
    size_hw: tuple[int, int] | None,
    report: JsonObject,
    all_entries: bool,
) -> ImageCounts | None:
    """Count the segments of an image with PNGs; None where these cannot be read."""
    assert index.masks is not None
    path = index.masks.path(row)
    try:
        if index.class_file is not None:
            segments = read_class_segments(index, row)
            labels, crowd, pixels = segments.labels, segments.crowd, segments.areas
            areas, is_void = np.zeros(len(labels)), segments.is_void
        else:
            ids, rows = read_ids(path), slice(*index.rows_of(row))
            labels, crowd = index.labels[rows].astype(np.int64), index.crowd[rows]
            pixels, areas = count_pixels(ids, index.ids[rows]), index.areas[rows]
            is_void = ids == 0
            if all_entries:
                _check_ids(index, row, ids, report)
    except UnreadableMask as error:
        add_problem(report, "errors", error.path, error.why)
        return None
    height, width = is_void.shape
    if size_hw and (why := mask_mismatch(size_hw, (height, width), index.path(row))):
        add_problem(report, "errors", path, why)
    return ImageCounts(
        labels=labels,
        crowd=crowd,
        pixels=pixels,
        areas=areas,
        longer_side=max(height, width),
        totals={
            "all": height * width,
            "covered": int(pixels[~crowd].sum()),
            "repeated": 0,
            "crowded": int(pixels[crowd].sum()),
            "void": int(is_void.sum()),
        },
    )


def _check_ids(index: SegmentsIndex, row: int, ids: NDArray[np.int32], report: JsonObject) -> None:
    """Report ids of a PNG that the json has no entry for."""
    assert index.masks is not None
    rows = slice(*index.rows_of(row))
    stuff = slice(int(index.stuff_offsets[row]), int(index.stuff_offsets[row + 1]))
    columns = (index.labels[rows], index.crowd[rows], index.areas[rows])
    try:
        match_ids(ids, index.ids[rows], index.stuff_ids[stuff], *columns)
    except ValueError as error:
        add_problem(report, "errors", index.masks.path(row), str(error))
