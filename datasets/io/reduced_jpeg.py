"""JPEGs decoded at a half, a quarter or an eighth of their size, for training at low resolution.

libjpeg computes the smaller image from the low frequencies in the file; it is an image of the size
that the mean over squares of pixels gives, a little sharper. The reduction of a file depends on its
header alone, not on the crop that is used: so the smaller image can be cached, and the random crop
is drawn from the size of the full image, as without a reduction.

Pillow decodes, since torchvision has no reduction, and is the slower of the two: its half of a file
takes as long as torchvision's full image (500 x 375: 0.5 and 0.6 ms of one core). The half saves
memory. A quarter and an eighth, and photographs from a camera, save time too: 4032 x 3024 at a
quarter takes 12 ms and in full 41, at JPEG quality 90 20 and 49 (torch 2.14.1, Pillow 13.0).
"""

import io
import math
import os
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from visionloop.datasets.io.images import (
    EXIF_TRANSPOSES,
    JPEG_END,
    JPEG_START,
    MAX_PIXELS,
    decode_bytes,
    jpeg_size,
    orientation_of,
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
        files, JPEGs in CMYK, those that do not end with the end-of-image marker, and rotated ones
        whose sides the reduction does not divide.

    Raises:
        UnreadableImage: for the same files as `read_image`.
    """
    data = read_bytes(path)
    size_hw = jpeg_size(data) if data.startswith(JPEG_START) and data.endswith(JPEG_END) else None
    if size_hw and math.prod(size_hw) <= MAX_PIXELS:
        factor = reduction(size_hw, min_side)
        reduced = _decode_reduced(data, size_hw, factor) if factor > 1 else None
        if reduced:
            return reduced
    image = decode_bytes(path, data)
    height, width = image.shape[-2:]
    return image, (height, width)


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
    try:
        file = JpegImageFile(io.BytesIO(data))
        orientation = orientation_of(file)
        # pixel positions match those of the full image only when counted from the upper left
        # corner of the file
        if file.mode not in ("RGB", "L") or (
            orientation > 1 and (height % factor or width % factor)
        ):
            return None
        file.draft(None, (width // factor, height // factor))
        if file.size != (-(-width // factor), -(-height // factor)):
            return None
        image: Image.Image = file
        if orientation in EXIF_TRANSPOSES:
            image = image.transpose(EXIF_TRANSPOSES[orientation])
        pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    # damaged bytes may raise anything
    except Exception:
        return None
    full_hw = (width, height) if orientation >= 5 else (height, width)
    return torch.from_numpy(pixels).permute(2, 0, 1), full_hw


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
