"""Segments of a split as counted in their pixels, for the checks of a data folder."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pycocotools.mask
from numpy.typing import NDArray

from visionloop.datasets.segmentation.dataset import mask_mismatch
from visionloop.datasets.segmentation.masks import UnreadableMask
from visionloop.datasets.segments.class_masks import read_class_segments
from visionloop.datasets.segments.id_maps import count_pixels, match_ids, read_ids
from visionloop.datasets.segments.index import SegmentsIndex
from visionloop.datasets.segments.layers import NO_SEGMENT, layers_of_outlines
from visionloop.engine.types import JsonObject
from visionloop.tasks.checks import add_problem
from visionloop.tasks.segmentation.checks import SizesHW


@dataclass(frozen=True, eq=False)
class ImageCounts:
    """The segments of one image.

    Attributes:
        labels: int64 [n].
        crowd: bool [n].
        pixels: int64 [n], as counted.
        areas: float64 [n], those of the annotations, 0 where there is none.
        height, width: in pixels.
        covered, repeated: pixels of a segment that is no crowd, and those of several.
        crowded, void: pixels of crowds, and of no segment.
    """

    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    pixels: NDArray[np.int64]
    areas: NDArray[np.float64]
    height: int
    width: int
    covered: int
    repeated: int
    crowded: int
    void: int


@dataclass(frozen=True, eq=False)
class SegmentCounts:
    """The segments of a split.

    Attributes:
        images: {row: counts} of the images whose segments can be read.
        num_classes: K.
    """

    num_classes: int
    images: dict[int, ImageCounts] = field(default_factory=dict)

    def column(self, name: str) -> NDArray[np.float64]:
        """Return an attribute of all images, one number for each."""
        return np.array([getattr(image, name) for image in self.images.values()], dtype=np.float64)

    def targets(self) -> dict[int, NDArray[np.bool_]]:
        """Return which segments training uses, {row: bool [n]}: no crowds, and not without pixels.

        They are what a model has to find.
        """
        return {row: ~image.crowd & (image.pixels > 0) for row, image in self.images.items()}

    def per_image(self) -> NDArray[np.int64]:
        """Return the number of targets of each image, int64 [N]."""
        return np.array([mask.sum() for mask in self.targets().values()], dtype=np.int64)

    def per_class(self) -> NDArray[np.int64]:
        """Return the number of targets of each class, int64 [K]."""
        total = np.zeros(self.num_classes, dtype=np.int64)
        for row, chosen in self.targets().items():
            total += np.bincount(self.images[row].labels[chosen], minlength=self.num_classes)
        return total

    def sides(self, image_size: int) -> NDArray[np.float64]:
        """Return the sides of squares of the targets' areas, in images resized to `image_size`."""
        parts = [
            np.sqrt(image.pixels[chosen]) * image_size / max(image.height, image.width)
            for (row, chosen) in self.targets().items()
            for image in [self.images[row]]
        ]
        return np.concatenate([np.zeros(0), *parts])


def count_segments(
    index: SegmentsIndex,
    sizes_hw: SizesHW,
    report: JsonObject,
    advance: Callable[[], object],
) -> SegmentCounts:
    """Count the pixels of each segment of a split, and report PNGs that are wrong.

    Args:
        index: the split.
        sizes_hw: {row: (height, width)} of the images that can be read.
        report: takes the problems.
        advance: called once per image.
    """
    counts = SegmentCounts(len(index.classes))
    empty: dict[str, list[int]] = defaultdict(list)
    for row in range(len(index)):
        advance()
        try:
            if index.outlines is not None:
                image = _count_outlines(index, row, sizes_hw)
            elif index.class_file is not None:
                image = _count_class_masks(index, row, sizes_hw)
            else:
                image = _count_ids(index, row, sizes_hw)
        except UnreadableMask as error:
            add_problem(report, "errors", error.path, error.why)
            continue
        if image is not None:
            counts.images[row] = image
    return counts
