"""Names and scores of segments, each where its mask is deepest or, of a small one, beside it."""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from visionloop.tasks.drawing.boxes import MOST_COVERED, SPARSE, overlaps, write_tag
from visionloop.tasks.drawing.canvas import class_label, text_length
from visionloop.tasks.segmentation.drawing import COLORS, Pixels
from visionloop.tasks.segmentation.segments.regions import Region, Segments

Area: TypeAlias = tuple[int, int, int, int]  # left, top, right, bottom in pixels

MOST_ALIKE = 12  # objects of a class with names; of more, the color and the legend tell the class
MOST_HIDDEN = 0.5  # of a mask, by the tag on it
LARGE = 0.2  # of the image: a tag beside a mask may lie on a larger one
COARSE = 200  # pixels of the longer side of a mask in which the deepest place is looked for
PLATEAU = 0.9  # of the greatest depth: the middle of these pixels is the place of a name
GAP = 2  # pixels between a mask and the tag beside it


def write_names(image: Pixels, segments: Segments, classes: Sequence[str], paint: Pixels) -> Pixels:
    """Write the name and the score of each segment, the largest one first.

    The place of a name is in the part of its mask that no smaller mask covers, if there is room.
    A tag covers no other tag and at most half of its mask. It loses its score where there is no
    room. Among up to 25 segments the tag of a small one is above or below it; of more, it is left
    out.

    Args:
        image: uint8 [H, W, 3].
        segments: at this size.
        classes: names in order of id.
        paint: uint8 [n, 3], the colors behind the texts.

    Returns:
        uint8 [H, W, 3].
    """
    pil_image = Image.fromarray(image)
    draw = ImageDraw.Draw(pil_image)
    areas, boxes, is_sparse = segments.areas, segments.boxes, len(segments.regions) <= SPARSE
    size = int(np.clip(max(pil_image.size) / (48 if is_sparse else 60), 10, 22))
    taken, room = np.zeros((0, 4)), MOST_COVERED * image.shape[0] * image.shape[1]
    is_small = (areas > 0) & (areas < LARGE * image.shape[0] * image.shape[1])
    largest_first = np.argsort(-areas, kind="stable").tolist()
    visible = visible_regions(segments, largest_first, image.shape[:2])
    for i in largest_first:
        texts = tag_texts(segments, i, classes, size)
        if not areas[i] or not texts:
            continue
        others = boxes[is_small & (np.arange(len(areas)) != i)] if is_sparse else None
        places = (
            free_place(texts, region, image.shape[:2], size, taken, others)
            for region in (visible[i], segments.regions[i])
        )
        place = next(filter(None, places), None)
        if place is None:
            continue
        text, area = place
        room -= (area[2] - area[0]) * (area[3] - area[1])
        if room < 0:
            break
        red, green, blue = paint[i].tolist()
        write_tag(draw, area, text, (red, green, blue), size)
        taken = np.concatenate([taken, [area]])
    return np.array(pil_image)


def visible_regions(
    segments: Segments, largest_first: Sequence[int], size_hw: tuple[int, ...]
) -> list[Region]:
    """Return the part of each mask that no later one covers; of a hidden mask, all of it.

    Args:
        segments: n of them.
        largest_first: their order, 0 to n - 1.
        size_hw: height and width of the drawing.
    """
    owners = np.full(size_hw, -1, dtype=np.int32)
    for i in largest_first:
        owners[segments.regions[i].window][segments.regions[i].mask] = i
    visible = []
    for i, region in enumerate(segments.regions):
        mask = owners[region.window] == i
        visible.append(region._replace(mask=mask) if mask.any() else region)
    return visible


def tag_texts(segments: Segments, i: int, classes: Sequence[str], size: int) -> list[str]:
    """Return the texts that the tag of a segment may have, longest first."""
    label = int(segments.labels[i])
    scores = [] if segments.scores is None else [f"{segments.scores[i]:.2f}"]
    is_rare = (segments.labels == label).sum() <= MOST_ALIKE
    if not is_rare and label < len(COLORS):
        return scores
    name = class_label(label, classes, size=size, room=12 * size)
    name += " (crowd)" if segments.crowd[i] else ""
    return [" ".join([name, *scores]), name] if scores else [name]


def free_place(
    texts: Sequence[str],
    region: Region,
    size_hw: tuple[int, ...],
    size: int,
    taken: NDArray[np.float64],
    others: NDArray[np.float64] | None,
) -> tuple[str, Area] | None:
    """Return the first text with a free place, and that place.

    Args:
        texts: longest first.
        region: the mask.
        size_hw: height and width of the drawing.
        size: height of the letters in pixels.
        taken: [N, 4], places of other texts.
        others: [M, 4], boxes of masks that a tag beside its mask may not cover; None: no tag is
            beside its mask.
    """
    limits = np.array(size_hw[::-1])
    blocked = taken if others is None else np.concatenate([taken, others])
    for text in texts:
        tag_wh = np.array([text_length(text, size) + 6, size + 4])
        if (tag_wh > limits).any():
            continue
        for middle_xy in inner_places(region, tag_wh):
            corner = np.clip(middle_xy - tag_wh // 2, 0, limits - tag_wh)
            area = np.concatenate([corner, corner + tag_wh])
            if not overlaps(area, taken):
                return text, _four(area)
        for corner in outer_places(region, tag_wh, limits) if others is not None else ():
            area = np.concatenate([corner, corner + tag_wh])
            if not overlaps(area, blocked):
                return text, _four(area)
    return None


def inner_places(region: Region, tag_wh: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield (x, y) for the middle of a tag: the deepest pixel, then a line above and below.

    None where the tag would hide most of the mask or be wider.
    """
    is_too_large = tag_wh.prod() > MOST_HIDDEN * region.mask.sum()
    if is_too_large or tag_wh[0] > region.mask.shape[1]:
        return
    row, column = deepest_pixel(region)
    for shift in (0, -tag_wh[1] - GAP, tag_wh[1] + GAP):
        if 0 <= row + shift < len(region.mask) and region.mask[row + shift, column]:
            yield np.array([region.left + column, region.top + row + shift])


def outer_places(
    region: Region, tag_wh: NDArray[np.int64], limits: NDArray[np.int64]
) -> Iterator[NDArray[np.int64]]:
    """Yield (left, top) of a tag in the middle above the box of a mask, then below.

    limits: width and height of the drawing, which the tag does not leave.
    """
    height, width = region.mask.shape
    left = np.clip(region.left + width // 2 - tag_wh[0] // 2, 0, limits[0] - tag_wh[0])
    for top in (region.top - tag_wh[1] - GAP, region.top + height + GAP):
        if 0 <= top <= limits[1] - tag_wh[1]:
            yield np.array([left, top])


def deepest_pixel(region: Region) -> tuple[int, int]:
    """Return (row, column) in a mask with a pixel, about the farthest from its border.

    A large mask is looked at in every second, third, .. row and column.
    """
    step = -(-max(region.mask.shape) // COARSE)
    coarse = region.mask[::step, ::step]
    if not coarse.any():
        step, coarse = 1, region.mask
    depth = ndimage.distance_transform_edt(np.pad(coarse, 1))[1:-1, 1:-1]
    candidates = np.argwhere(depth >= PLATEAU * depth.max())
    distances = np.linalg.norm(candidates - candidates.mean(axis=0), axis=1)
    row, column = (candidates[distances.argmin()] * step).tolist()
    return row, column


def _four(area: NDArray[np.int64]) -> Area:
    left, top, right, bottom = area.tolist()
    return left, top, right, bottom
