"""Maps of segment numbers from PNGs of ids, or one clear error.

COCO's panoptic PNG has 8-bit RGB pixels, id = R + 256 G + 65536 B, 0 for void. A file of object
numbers may also be gray, of 8 or 16 bits. EXIF orientation is not applied.
"""

import os
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from visionloop.datasets.io.images import MAX_PIXELS
from visionloop.datasets.io.layout import shorten
from visionloop.datasets.segmentation.masks import HEADER, UnreadableMask, png_depth
from visionloop.datasets.segments.layers import NO_SEGMENT, NUM_NUMBERS

RGB_MODES, GRAY_MODES = ("RGB", "RGBA", "RGBX"), ("1", "L", "I", "I;16", "I;16B", "I;16L")
EXPECTED_RGB = "expected 8-bit RGB with id = R + 256 G + 65536 B"
EXPECTED_NUMBERS = (
    "expected gray of 8 or 16 bits with the number of the object, or 8-bit RGB with "
    "R + 256 G + 65536 B"
)


@dataclass(frozen=True, eq=False)
class SegmentMap:
    """The segments of one image, none of which overlap.

    Attributes:
        numbers: int32 [H, W], 0 where there is no segment, k + 1 for segment k.
        labels: int64 [n].
        crowd: bool [n].
        areas: int64 [n] in pixels, those of the annotations or as counted.
        is_void: bool [H, W], pixels that belong to no segment of any class.
    """

    numbers: NDArray[np.int32]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.int64]
    is_void: NDArray[np.bool_]


def read_ids(
    path: str | os.PathLike[str], allow_gray: bool = False, allow_palette: bool = False
) -> NDArray[np.int32]:
    """Read the ids in a PNG, int32 [H, W].

    Args:
        path: of the file.
        allow_gray: accept gray files of numbers too.
        allow_palette: accept palette files too, whose numbers are the positions in the palette.

    Raises:
        UnreadableMask: with the file.
    """
    expected = EXPECTED_NUMBERS if allow_gray else EXPECTED_RGB
    try:
        with open(path, "rb") as file:
            header = file.read(HEADER)
            if not header:
                raise ValueError("empty file")
            bits = png_depth(header)[0]
            file.seek(0)
            with Image.open(file, formats=["PNG"]) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(
                        f"decompression bomb? the header says {image.width} x {image.height} pixels"
                    )
                if allow_palette and image.mode == "P":
                    return np.asarray(image).astype(np.int32)
                return _ids(image, bits, allow_gray, expected)
    except Image.UnidentifiedImageError:
        why = f"no PNG, other formats do not keep ids; {expected}"
    except MemoryError:
        why = "not enough memory to decode it"
    except OSError as error:
        why = error.strerror or str(error)
    # a decoder given damaged bytes may raise anything
    except Exception as error:
        why = (str(error).splitlines() or [""])[0] or type(error).__name__
    raise UnreadableMask(path, why)


def _ids(image: Image.Image, bits: int, allow_gray: bool, expected: str) -> NDArray[np.int32]:
    """Return the ids of an open PNG with channels of so many bits."""
    if image.mode in RGB_MODES and bits == 8:
        pixels = np.asarray(image).astype(np.int32)
        return pixels[..., 0] | pixels[..., 1] << 8 | pixels[..., 2] << 16
    if allow_gray and image.mode in GRAY_MODES and bits >= 8:
        return np.asarray(image).astype(np.int32)
    names = {"P": "palette", "LA": "gray and alpha"} | dict.fromkeys(GRAY_MODES, "gray")
    raise ValueError(f"has {names.get(image.mode, image.mode)} pixels of {bits} bits, {expected}")


def ids_to_rgb(ids: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Return ids below 2^24, [H, W], as colors uint8 [H, W, 3]: red + 256 green + 65536 blue."""
    return np.stack([ids >> shift & 255 for shift in (0, 8, 16)], axis=-1).astype(np.uint8)


def renumber(ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return (the different ids sorted int64 [n], position of each pixel's id int32 [H, W]).

    Sorts the runs of equal ids alone: 640 x 480 takes 2 ms instead of 20.

    Args:
        ids: [H, W].
    """
    flat = ids.ravel()
    if not len(flat):
        return np.zeros(0, dtype=np.int64), ids.astype(np.int32)
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    values, inverse = np.unique(flat[starts], return_inverse=True)
    lengths = np.diff(np.append(starts, len(flat)))
    positions = np.repeat(inverse.astype(np.int32), lengths)
    return values.astype(np.int64), positions.reshape(ids.shape)


def match_ids(
    ids: NDArray[np.int32],
    segment_ids: NDArray[np.int64],
    stuff_ids: NDArray[np.int64],
    labels: NDArray[np.int32],
    crowd: NDArray[np.bool_],
    areas: NDArray[np.float64],
) -> SegmentMap:
    """Return the SegmentMap of ids with the entries of a json. Entries without pixels are left out.

    Args:
        ids: [H, W], 0 for void.
        segment_ids: int64 [m], of the segments.
        stuff_ids: ids that are known and no segments.
        labels, crowd, areas: of the segments [m]; an area of 0 is counted.

    Raises:
        ValueError: for ids in the map without an entry.
    """
    values, positions = renumber(ids.astype(np.int64))
    counts = np.bincount(positions.ravel(), minlength=len(values))
    unknown = values[~np.isin(values, np.concatenate([[0], segment_ids, stuff_ids]))]
    if len(unknown):
        pixels = counts[np.isin(values, unknown)].sum()
        listed = shorten([str(value) for value in unknown.tolist()])
        raise ValueError(
            f"holds {len(unknown)} ids without an entry in segments_info ({listed}) in {pixels} "
            "pixels"
        )
    present = np.flatnonzero(np.isin(segment_ids, values))
    places = np.searchsorted(values, segment_ids[present])
    numbers = np.zeros(len(values), dtype=np.int32)
    numbers[places] = np.arange(1, len(present) + 1)
    counted = counts[places] if len(present) else np.zeros(0, dtype=np.int64)
    given = areas[present].astype(np.int64)
    return SegmentMap(
        numbers=numbers[positions],
        labels=labels[present].astype(np.int64),
        crowd=crowd[present],
        areas=np.where(given > 0, given, counted),
        is_void=(values == 0)[positions],
    )


def count_pixels(ids: NDArray[np.int32], segment_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many pixels of a map [H, W] have each id, int64 [m], for checks of a json."""
    values, positions = renumber(ids.astype(np.int64))
    counts = np.bincount(positions.ravel(), minlength=len(values))
    places = np.minimum(np.searchsorted(values, segment_ids), len(values) - 1)
    return np.where(values[places] == segment_ids, counts[places], 0)


def layers_of_map(segments: SegmentMap) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (layers uint8 [C, H, W], segments int64 [t, 3]) of the segments that are targets.

    See `layers.layers_of_outlines`.
    """
    targets = np.flatnonzero(~segments.crowd)
    layer, number = np.divmod(np.arange(len(targets)), NUM_NUMBERS)
    table = np.full(
        (1 + max(0, len(targets) - 1) // NUM_NUMBERS, len(segments.labels) + 1),
        NO_SEGMENT,
        dtype=np.uint8,
    )
    table[layer, targets + 1] = number
    rows = np.column_stack([layer, number, segments.labels[targets]])
    layers = table.take(segments.numbers.ravel(), axis=1)
    return (
        torch.from_numpy(layers.reshape(len(table), *segments.numbers.shape)),
        torch.from_numpy(rows.astype(np.int64)),
    )
