"""Outlines as pixels, by the rasteriser of pycocotools."""

import math

import numpy as np
from pycocotools import mask as coco_mask

from visionloop.datasets.io.json_columns import is_number, show

# times the longer side of the image: a corner farther off is a mistake, and would cost memory
FARTHEST = 10
CIRCLE_CORNERS = 64


class BrokenOutline(ValueError):
    """An outline that cannot be drawn; the message says why."""


def check_corners(numbers, size_hw):
    """[x1, y1, x2, y2, ...] in pixels as float64 [N, 2]. Raises BrokenOutline."""
    wrong = [value for value in numbers if not is_number(value)]
    if wrong:
        raise BrokenOutline(f"a coordinate is {show(wrong[0])}, not a finite number")
    if len(numbers) % 2:
        raise BrokenOutline(f"{len(numbers)} coordinates, expected x and y for each corner")
    corners = np.array(numbers, dtype=np.float64).reshape(-1, 2)
    farthest = np.abs(corners).max(initial=0)
    if farthest > FARTHEST * max(size_hw):
        raise BrokenOutline(
            f"a corner at {farthest:g}, far outside the image of {size_hw[1]} x {size_hw[0]} (width x height)"
        )
    return corners


def circle(centre, rim):
    """The corners of a circle around a point through another one: float64 [N, 2]."""
    radius = math.dist(centre, rim)
    angles = np.linspace(0, 2 * np.pi, CIRCLE_CORNERS, endpoint=False)
    return np.asarray(centre) + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def encode_polygons(polygons, size_hw):
    """The run lengths of everything inside at least one of the polygons, float64 [N, 2] each, as pycocotools keeps them."""
    return coco_mask.merge(
        coco_mask.frPyObjects([polygon.reshape(-1).tolist() for polygon in polygons], *size_hw)
    )


def encode_runs(runs, size_hw):
    """The same of COCO's {"size": [height, width], "counts": numbers or compressed text}. Raises BrokenOutline."""
    size = runs.get("size")
    if size != list(size_hw):
        raise BrokenOutline(
            f"size is {show(size)}, but the image's is {list(size_hw)} (height, width)"
        )
    counts = runs.get("counts")
    if isinstance(counts, str):
        counts = _decompress(counts)
    elif not isinstance(counts, list) or not all(
        isinstance(count, int) and not isinstance(count, bool) for count in counts
    ):
        raise BrokenOutline(f"counts is {show(counts)}, neither whole numbers nor text")
    # pycocotools does not ask, and would write beyond the image
    if min(counts, default=0) < 0 or sum(counts) != size_hw[0] * size_hw[1]:
        raise BrokenOutline(f"counts do not add up to the {size_hw[0]} x {size_hw[1]} pixels")
    return coco_mask.frPyObjects({"size": list(size_hw), "counts": counts}, *size_hw)


def _decompress(text):
    """Run lengths of COCO's text: base 32, lowest digits first, 48 added, bit 5 for "goes on"; from the fourth on as difference to the
    one before the last."""
    digits = np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.int64) - 48
    if not len(digits) or digits.min() < 0 or digits.max() > 63 or digits[-1] & 32:
        raise BrokenOutline(f"counts is {show(text)}, not text as COCO compresses it")
    last = np.flatnonzero(~digits & 32)
    first = np.append(0, last[:-1] + 1)
    place = np.arange(len(digits)) - np.repeat(first, last - first + 1)
    if place.max() > 6:
        raise BrokenOutline("counts holds a number too large for any image")
    values = np.add.reduceat((digits & 31) << 5 * place, first)
    values -= np.where(digits[last] & 16, 1 << 5 * (last - first + 1), 0)  # the sign
    for start in (1, 2):
        values[start::2] = values[start::2].cumsum()
    return values.tolist()


def area(encoded):
    """How many pixels it covers."""
    return int(coco_mask.area(encoded))


def paint(ids, encoded, value):
    """Give `value` to the covered pixels of uint8 [H, W]."""
    ids[coco_mask.decode(encoded).astype(bool)] = value
