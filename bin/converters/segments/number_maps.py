"""Images whose pixels are the numbers of objects, and the regions in them."""

import os
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from visionloop.bin.converters.outlines import Region, RunLengths
from visionloop.datasets.io.images import MAX_PIXELS
from visionloop.datasets.segmentation.masks import SHADES, UnreadableMask, png_depth

VOID, UNCOVERED = -1, -2  # in place of a label: ignored, or without annotation
HEADER = 26  # bytes of a PNG up to its bit depth and color type

NumberMap: TypeAlias = NDArray[np.int64]  # [H, W]


def read_numbers(path: str | os.PathLike[str]) -> NumberMap:
    """Read a PNG of numbers, int64 [H, W].

    The numbers are the values of a gray file of 1 to 16 bits, the positions in the palette of a
    palette file, and red + 256 green + 65536 blue of an RGB file.

    Raises:
        UnreadableMask: also for an image of another kind.
    """
    try:
        with open(path, "rb") as file:
            header = file.read(HEADER)
            bits, is_gray = png_depth(header)
            file.seek(0)
            with Image.open(file, formats=("PNG",)) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(
                        f"decompression bomb? the header says {image.width} x {image.height} pixels"
                    )
                values = np.asarray(image).astype(np.int64)
                mode = image.mode
    # a decoder given damaged bytes may raise anything
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error)
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "no PNG"
        raise UnreadableMask(path, reason.splitlines()[0] if reason else "unreadable") from None
    if mode in ("RGB", "RGBA"):
        return values[..., 0] + 256 * values[..., 1] + 65536 * values[..., 2]
    if values.ndim != 2:
        raise UnreadableMask(path, f"is of the kind {mode}, expected gray, palette or RGB")
    return values // SHADES.get(bits, 1) if is_gray else values


def write_numbers(path: str | os.PathLike[str], numbers: NDArray[np.int32]) -> None:
    """Write numbers below 2^24, [H, W], as an RGB PNG: red + 256 green + 65536 blue."""
    channels = [numbers & 255, numbers >> 8 & 255, numbers >> 16 & 255]
    Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8)).save(path)


def encode_numbers(numbers: NumberMap) -> dict[int, RunLengths]:
    """Return {number: run lengths of its pixels} in order of number.

    One pass over the map: its runs are sorted by number, and the gaps between those of a number
    are the runs of the other pixels. Time does not grow with the count of numbers.
    """
    height, width = numbers.shape
    flat = numbers.T.ravel()  # COCO's run lengths go down the columns
    if not len(flat):
        return {}
    starts = np.append(0, np.flatnonzero(flat[1:] != flat[:-1]) + 1)
    stops = np.append(starts[1:], len(flat))
    values = flat[starts]
    order = np.argsort(values, kind="stable")
    borders = np.flatnonzero(np.diff(values[order])) + 1
    encoded: dict[int, RunLengths] = {}
    for rows in np.split(order, borders):
        ends = np.stack([starts[rows], stops[rows]], axis=1).ravel()
        rest = [len(flat)] if ends[-1] < len(flat) else []  # pycocotools writes no empty last run
        counts = np.diff(np.concatenate([[0], ends, rest])).astype(np.int64).tolist()
        runs = {"size": [height, width], "counts": counts}
        encoded[int(values[rows[0]])] = coco_mask.frPyObjects(runs, height, width)
    return encoded


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
    pairs = (labels << 24) + np.where(is_thing, objects, 0)
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
