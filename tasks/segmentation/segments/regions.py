"""Masks at the size of a drawing: one form for run lengths, segment maps and layers.

A mask is cut to its box, so that hundreds of them need little memory. The masks of an image are
decoded one after the other and only the pixels of the drawing are kept: at full size, the masks of
a large image would fill the memory of the machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pycocotools.mask
import torch
from numpy.typing import NDArray
from scipy import ndimage

from visionloop.datasets.segments.layers import NO_SEGMENT

# of one image: "rles" or "segment_map", "labels", "scores" or "crowd", see `fit_segments`
Annotations: TypeAlias = Mapping[str, Any]  # type: ignore[explicit-any]
Mask: TypeAlias = NDArray[np.bool_]  # [h, w]
Window: TypeAlias = "tuple[slice[int, int, None], slice[int, int, None]]"


class Region(NamedTuple):
    """A mask cut to its box; one without a pixel is [0, 0]."""

    top: int
    left: int
    mask: Mask

    @property
    def window(self) -> Window:
        """Return the rows and columns of the drawing that the mask covers."""
        height, width = self.mask.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


NO_REGION = Region(0, 0, np.zeros((0, 0), dtype=bool))


@dataclass(frozen=True)
class Segments:
    """The segments of an image at the size of its drawing.

    Attributes:
        regions: n masks.
        labels: int64 [n].
        crowd: bool [n].
        scores: float64 [n]; None for ground truth.
    """

    regions: Sequence[Region]
    labels: NDArray[np.int64]
    crowd: Mask
    scores: NDArray[np.float64] | None = None

    @property
    def areas(self) -> NDArray[np.int64]:
        """Return the pixels of each mask in the drawing, int64 [n]."""
        return np.array([region.mask.sum() for region in self.regions], dtype=np.int64)

    @property
    def boxes(self) -> NDArray[np.float64]:
        """Return the boxes around the masks, float64 [n, 4]: left, top, right, bottom in pixels."""
        boxes = [
            (part.left, part.top, part.left + part.mask.shape[1], part.top + part.mask.shape[0])
            for part in self.regions
        ]
        return np.array(boxes, dtype=np.float64).reshape(-1, 4)

    def painted(self, chosen: Mask, size_hw: tuple[int, int]) -> Mask:
        """Return the pixels of the chosen segments, bool [H, W].

        Args:
            chosen: bool [n].
            size_hw: of the drawing.
        """
        pixels = np.zeros(size_hw, dtype=bool)
        for i in np.flatnonzero(chosen).tolist():
            pixels[self.regions[i].window] |= self.regions[i].mask
        return pixels


def fit_segments(
    annotations: Annotations, size_hw: tuple[int, int], drawn_hw: tuple[int, int]
) -> Segments:
    """Return the ground truth or the predictions of an image at the size of its drawing.

    Args:
        annotations: {"rles": n compressed run lengths of COCO, or "segment_map": int tensor [H, W],
            0 for no segment and i + 1 for segment i; "labels": int [n]; "crowd": bool [n] in ground
            truth; "scores": [n] in predictions}.
        size_hw: H, W of the image.
        drawn_hw: height and width of the drawing.
    """
    labels = np.asarray(annotations["labels"], dtype=np.int64)
    if "rles" in annotations:
        regions = regions_of_rles(annotations["rles"], size_hw, drawn_hw)
    else:
        regions = regions_of_map(annotations["segment_map"], len(labels), drawn_hw)
    crowd = np.asarray(annotations.get("crowd", np.zeros(len(labels))), dtype=bool)
    scores = annotations.get("scores")
    return Segments(
        regions, labels, crowd, None if scores is None else np.asarray(scores, dtype=np.float64)
    )


def regions_of_rles(
    rles: Sequence[bytes], size_hw: tuple[int, int], drawn_hw: tuple[int, int]
) -> list[Region]:
    """Decode one mask after the other and keep the pixels that are drawn.

    A mask between these pixels keeps one of its own, so that no object is lost.

    Args:
        rles: compressed run lengths of COCO.
        size_hw: height and width of the masks.
        drawn_hw: those of the drawing.
    """
    rows, columns = positions(size_hw, drawn_hw)
    regions = []
    for counts in rles:
        rle = {"size": list(size_hw), "counts": counts}
        left, top, width, height = map(int, pycocotools.mask.toBbox(rle).tolist())
        first_row, last_row = np.searchsorted(rows, [top, top + height]).tolist()
        first, last = np.searchsorted(columns, [left, left + width]).tolist()
        # pycocotools decodes column by column: rows of the transposed array are in order in memory
        decoded: NDArray[np.uint8] = pycocotools.mask.decode(rle).T
        mask = decoded[np.ix_(columns[first:last], rows[first_row:last_row])].T > 0
        if mask.any():
            regions.append(Region(first_row, first, mask))
        else:
            box = decoded[left : left + width, top : top + height].T
            regions.append(_one_pixel(box, (top, left), size_hw, drawn_hw))
    return regions


def regions_of_map(
    segment_map: torch.Tensor, count: int, drawn_hw: tuple[int, int]
) -> list[Region]:
    """Return the masks of segments 1 to `count` of a map.

    Args:
        segment_map: int [H, W].
        count: number of segments.
        drawn_hw: height and width of the drawing.
    """
    size_hw = int(segment_map.shape[0]), int(segment_map.shape[1])
    rows, columns = (torch.from_numpy(values) for values in positions(size_hw, drawn_hw))
    device = segment_map.device
    # the device keeps the large map: the pixels that are drawn are copied
    numbers = segment_map[rows.to(device)][:, columns.to(device)].cpu().numpy()
    regions = [
        NO_REGION if box is None else _region_in(numbers, i + 1, box)
        for i, box in enumerate(_boxes(numbers, count))
    ]
    lost = [i for i, region in enumerate(regions) if not region.mask.size]
    if lost:
        full = segment_map.cpu().numpy()
        boxes = _boxes(full, count)
        for i in lost:
            if (box := boxes[i]) is not None:
                corner = box[0].start, box[1].start
                regions[i] = _one_pixel(full[box] == i + 1, corner, size_hw, drawn_hw)
    return regions


def regions_of_layers(
    layers: torch.Tensor, segments: torch.Tensor, drawn_hw: tuple[int, int]
) -> list[Region]:
    """Return the masks of the segments of a training sample.

    Args:
        layers: uint8 [C, H, W], the number of the segment of each pixel, 255 for none.
        segments: int64 [n, 2], (layer, number).
        drawn_hw: height and width of the drawing.
    """
    of_layer = []
    for layer in layers.cpu():
        numbers = layer.to(torch.int32) + 1
        numbers[layer == NO_SEGMENT] = 0
        of_layer.append(regions_of_map(numbers, NO_SEGMENT, drawn_hw))
    return [of_layer[layer][number] for layer, number in segments.tolist()]


def positions(
    size_hw: tuple[int, int], drawn_hw: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the row and the column of an image that each one of its drawing shows, int64."""
    rows, columns = (
        ((np.arange(drawn) + 0.5) * full / drawn).astype(np.int64)
        for full, drawn in zip(size_hw, drawn_hw, strict=True)
    )
    return rows, columns


def _boxes(numbers: NDArray[np.int32], count: int) -> list[Window | None]:
    """Return the box around each number from 1 to `count`, None for one without a pixel."""
    boxes: list[Window | None] = ndimage.find_objects(numbers, max_label=count) if count else []
    return boxes


def _region_in(numbers: NDArray[np.int32], number: int, box: Window) -> Region:
    return Region(box[0].start, box[1].start, numbers[box] == number)


def _one_pixel(
    mask: NDArray[np.uint8] | Mask,
    corner: tuple[int, int],
    size_hw: tuple[int, int],
    drawn_hw: tuple[int, int],
) -> Region:
    """Return a region of one pixel, where the middle pixel of a mask is.

    Args:
        mask: [h, w], perhaps without a pixel.
        corner: row and column of its first pixel in the image.
        size_hw: of the image.
        drawn_hw: of the drawing.
    """
    pixels = np.argwhere(mask)
    if not len(pixels):
        return NO_REGION
    row, column = (pixels[len(pixels) // 2] + corner).tolist()
    return Region(
        row * drawn_hw[0] // size_hw[0],
        column * drawn_hw[1] // size_hw[1],
        np.ones((1, 1), dtype=bool),
    )
