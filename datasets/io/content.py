"""Images that lose their content on the way to 8-bit RGB: dark 16-bit files, content in alpha."""

import io
import os
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from visionloop.datasets.io.images import open_with_pillow, read_16_bits, read_bytes, read_image

# Largest value, as a share of the range, below which an image is dark. In files of 16 bits a
# smaller share comes from sensors of 10 to 14 bits; an 8-bit photograph of the night has a lamp
# somewhere, and micrographs are often below a quarter.
DARK_16_BITS, DARK_8_BITS = 1 / 4, 1 / 16


@dataclass(frozen=True)
class LostContent:
    """The kind of content that an image loses.

    Attributes:
        in_alpha: the colors are the same everywhere, the alpha channel is not.
        largest: value of the colors.
        value_range: of the colors, 255 or 65535.
    """

    in_alpha: bool
    largest: int
    value_range: int


def lost_content(path: str | os.PathLike[str], image: torch.Tensor) -> LostContent | None:
    """Return what an image file loses when it is decoded, or None.

    Opens the file again only if its pixels are dark or all the same.

    Args:
        path: of the file.
        image: uint8 [3, h, w], decoded, of a JPEG perhaps at a reduced size.

    Raises:
        UnreadableImage: see `read_image`.
    """
    is_dark = int(image.max()) <= 256 * DARK_16_BITS
    if not is_dark and not _is_single_color(image):
        return None
    if _is_single_color(image) and _has_content_in_alpha(path):
        return LostContent(True, int(image.max()), 255)
    values = _read_values(path)
    if values is None:
        largest, value_range, share = int(read_image(path).max()), 255, DARK_8_BITS
    else:
        largest, value_range, share = int(values.max()), 65535, DARK_16_BITS
    if largest >= share * (value_range + 1):
        return None
    return LostContent(False, largest, value_range)


def _is_single_color(image: torch.Tensor) -> bool:
    """Return whether all pixels of uint8 [3, h, w] are the same, most often from a few of them."""
    color = image[:, :1, :1]
    return bool((image[:, ::16, ::16] == color).all()) and bool((image == color).all())


def _has_content_in_alpha(path: str | os.PathLike[str]) -> bool:
    """Return whether the alpha channel of a file has more than one value."""
    with open_with_pillow(path) as image:
        if not image.has_transparency_data:
            return False
        lowest, highest = image.convert("RGBA").getchannel("A").getextrema()
    return lowest != highest


def _read_values(path: str | os.PathLike[str]) -> NDArray[np.uint16] | None:
    """Read the values of an image of 16 bits, or None of another."""
    data = read_bytes(path)
    with open_with_pillow(io.BytesIO(data)) as image:
        return read_16_bits(image, data)
