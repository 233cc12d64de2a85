"""Regions of maps whose pixels are numbers of segments, and the PNGs of such maps."""

import os
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visionloop.bin.converters.outlines import Region
from visionloop.datasets.segments.id_maps import ids_to_rgb
from visionloop.datasets.segments.run_lengths import encode_numbers

VOID, UNCOVERED = -1, -2  # in place of a label: ignored, or without annotation

NumberMap: TypeAlias = NDArray[np.int32] | NDArray[np.int64]  # [H, W]


def write_numbers(path: str | os.PathLike[str], numbers: NDArray[np.int32]) -> None:
    """Write numbers below 2^24, [H, W], as an RGB PNG: red + 256 green + 65536 blue."""
    Image.fromarray(ids_to_rgb(numbers)).save(path)


def regions_of_maps(
    labels: NumberMap, objects: NumberMap, things: Sequence[bool], place: str
) -> list[Region]:
    """Return the regions of a map of classes and one of objects.

    A pair of a thing and the number of an object is an object; pixels of a thing without a number
    are a crowd. The pixels of a class of stuff are one region.

    Args:
        labels: [H, W], also VOID and UNCOVERED.
        objects: [H, W], numbers of objects below 2^24; 0 for none.
        things: whether each class is a thing.
        place: the file, for messages.
    """
    is_thing = np.append(things, [False, False])[labels]  # the last two are for -1 and -2
    regions = []
    pairs = (labels.astype(np.int64) << 24) + np.where(is_thing, objects, 0)
    for pair, outline in encode_numbers(pairs).items():
        label, number = pair >> 24, pair & (1 << 24) - 1
        if label == UNCOVERED:
            continue
        if label == VOID:
            regions.append(Region(None, outline, f"{place}: ignored pixels"))
            continue
        name = f"{place}: class {label}" + (f", object {number}" if number else "")
        regions.append(Region(label, outline, name, crowd=things[label] and not number))
    return regions
