"""JPEGs decoded at a half, a quarter or an eighth of their size, for training at low resolution.

libjpeg computes the smaller image from the low frequencies in the file; it is an image of the size
that the mean over squares of pixels gives, a little sharper. The reduction of a file depends on its
header alone, not on the crop that is used: so the smaller image can be cached, and the random crop
is drawn from the size of the full image, as without a reduction.

Of a 500 x 375 file at JPEG quality 90 the half takes three quarters of the time of the full image,
since the entropy decoding stays; of a photograph of 12 million pixels a quarter takes half. All
reductions save memory. bin/benchmarks/RESULTS.md has the times.
"""

import math
import os
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from visionloop.datasets.io.headers import (
    JPEG_START,
    exif_orientation,
    jpeg_frame,
    upright,
    upright_size,
)
from visionloop.datasets.io.images import (
    MAX_PIXELS,
    SIMPLEJPEG_COMPONENTS,
    decode_bytes,
    decode_jpeg,
    read_bytes,
    read_size,
)

REDUCTIONS = (8, 4, 2)
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def reduction(size_hw: tuple[int, int], min_side: int) -> int:
    """Return 8, 4, 2 or 1: the strongest reduction that leaves a shorter side of `min_side`."""
    return next((factor for factor in REDUCTIONS if min(size_hw) >= factor * min_side), 1)


def read_reduced_image(
    path: str | os.PathLike[str], min_side: int
) -> tuple[torch.Tensor, tuple[int, int]]:
    """Read an image, a large JPEG at a reduced size.

    Args:
        path: of the file.
        min_side: pixels that the shorter side keeps at least.

    Returns:
        (RGB uint8 [3, h, w], upright; (H, W) of the full image). A JPEG is read by its
        `reduction`: h is H / 8, H / 4 or H / 2, rounded up, and w likewise. Read in full are other
        files, JPEGs in CMYK, and rotated ones whose sides the reduction does not divide.

    Raises:
        UnreadableImage: for the same files as `read_image`.
    """
    data = read_bytes(path)
    frame = jpeg_frame(data) if data.startswith(JPEG_START) else None
    if frame and frame[0] * frame[1] <= MAX_PIXELS and frame[2] in SIMPLEJPEG_COMPONENTS:
        size_hw = frame[:2]
        factor = reduction(size_hw, min_side)
        reduced = _decode_reduced(data, size_hw, factor) if factor > 1 else None
        if reduced:
            return reduced
    image = decode_bytes(path, data)
    height, width = image.shape[-2:]
    return image, (height, width)


def read_image_to_draw(
    path: str | os.PathLike[str], longest: int
) -> tuple[torch.Tensor, tuple[int, int]]:
    """Read an image for a drawing whose longer side is at most `longest` pixels.

    Returns, raises: see `read_reduced_image`.
    """
    height, width = read_size(path)
    return read_reduced_image(path, -(-longest * min(height, width) // max(height, width)))


def reduced_size(path: str | os.PathLike[str], min_side: int) -> tuple[int, int]:
    """Return the (height, width) of `read_reduced_image` from the header alone.

    Files that it reads in full for another reason than their size are not recognized.

    Raises:
        UnreadableImage: see `read_size`.
    """
    height, width = read_size(path)
    with open(path, "rb") as file:
        factor = reduction((height, width), min_side) if file.read(3) == JPEG_START else 1
    return -(-height // factor), -(-width // factor)


def _decode_reduced(
    data: bytearray, size_hw: tuple[int, int], factor: int
) -> tuple[torch.Tensor, tuple[int, int]] | None:
    """Return (image, full size) of a JPEG, or None where it has to be decoded in full.

    Decoding it in full then reports what is wrong with it.
    """
    height, width = size_hw
    orientation = exif_orientation(data)
    # pixel positions match those of the full image only when counted from the upper left corner
    # of the file
    if orientation > 1 and (height % factor or width % factor):
        return None
    reduced_hw = -(-height // factor), -(-width // factor)
    pixels = decode_jpeg(data, reduced_hw)
    # a second frame header with another size, which Pillow refuses
    if pixels is None or pixels.shape[:2] != reduced_hw:
        return None
    image = upright(torch.from_numpy(pixels), orientation).permute(2, 0, 1)
    return image, upright_size(size_hw, orientation)


def resized_part(
    image: torch.Tensor,
    full_hw: Sequence[int],
    box: tuple[int, int, int, int],
    height: int,
    width: int,
    interpolation: str = "bilinear",
) -> torch.Tensor:
    """Resize a part of a reduced image with antialiasing, uint8 [3, height, width].

    Args:
        image: uint8 [3, h, w], reduced by one of REDUCTIONS.
        full_hw: size of the full image.
        box: (top, left, height, width) of the part in pixels of the full image; its edges are
            followed to fractions of pixels of the reduced one.
        height, width: size of the result.
        interpolation: one of FILTERS.
    """
    # exact, since a reduced image is longer than 8 pixels
    factor = -(-full_hw[0] // image.shape[-2])
    top, left = box[0] / factor, box[1] / factor
    bottom, right = (box[0] + box[2]) / factor, (box[1] + box[3]) / factor
    first_row, first_column = int(top), int(left)
    around = image[:, first_row : math.ceil(bottom), first_column : math.ceil(right)]
    inside = left - first_column, top - first_row, right - first_column, bottom - first_row
    part = Image.fromarray(around.permute(1, 2, 0).numpy())
    resized = part.resize((width, height), FILTERS[interpolation], box=inside)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()
