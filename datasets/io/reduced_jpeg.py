"""JPEGs decoded at a half, a quarter or an eighth of their size, for training that looks at no more of them.

libjpeg makes the smaller image from the low frequencies that the file holds; it is an image as
large as the mean over squares of pixels gives, a little sharper. How strongly a file is reduced
depends on its header alone, not on the part that is shown: so the smaller image can be kept, and
what is drawn from chance is drawn from the whole image's size, the same as without.

Pillow decodes, since torchvision has no reduction, and is the slower of the two: its half of a file
takes as long as torchvision's whole (500 x 375: 0.5 and 0.6 ms of one core). What the half saves is
memory. A quarter and an eighth, and photographs from a camera, save time too: 4032 x 3024 at a
quarter takes 12 ms and whole 41, at JPEG quality 90 20 and 49 (torch 2.14.1, Pillow 13.0).
"""

import io
import math

import numpy as np
import torch
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from visionloop.datasets.io.images import (
    JPEG_END,
    JPEG_START,
    MAX_PIXELS,
    UPRIGHT,
    decode_bytes,
    jpeg_size,
    orientation_of,
    read_bytes,
    read_size,
)

REDUCTIONS = (8, 4, 2)
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def reduction(size_hw, least_side):
    """8, 4, 2 or 1: the strongest that leaves the shorter side of an image at least so long."""
    return next((factor for factor in REDUCTIONS if min(size_hw) >= factor * least_side), 1)


def read_scaled_image(path, least_side):
    """(image uint8 RGB [3, h, w], upright; (H, W) of the whole image). Raises UnreadableImage, for the same files as read_image.

    A JPEG by its `reduction`: h is H / 8, H / 4 or H / 2, rounded up, and w likewise. Other files
    whole; so are JPEGs in CMYK, those that do not end with the end of the image, and turned ones
    whose sides the reduction does not divide.
    """
    data = read_bytes(path)
    size_hw = jpeg_size(data) if data.startswith(JPEG_START) and data.endswith(JPEG_END) else None
    if size_hw and math.prod(size_hw) <= MAX_PIXELS:
        factor = reduction(size_hw, least_side)
        scaled = _decode_scaled(data, size_hw, factor) if factor > 1 else None
        if scaled:
            return scaled
    image = decode_bytes(path, data)
    return image, tuple(image.shape[-2:])


def scaled_size(path, least_side):
    """The (height, width) that read_scaled_image gives but for the odd files, from the header alone. Raises UnreadableImage."""
    height, width = read_size(path)
    with open(path, "rb") as file:
        factor = reduction((height, width), least_side) if file.read(3) == JPEG_START else 1
    return -(-height // factor), -(-width // factor)


def _decode_scaled(data, size_hw, factor):
    """(image, whole size) of a JPEG, or None where it has to be decoded whole; that one says what is wrong with it."""
    height, width = size_hw
    try:
        image = JpegImageFile(io.BytesIO(data))
        orientation = orientation_of(image)
        # pixels lie where those of the whole image lie only as counted from the file's own first
        # corner
        if image.mode not in ("RGB", "L") or (
            orientation > 1 and (height % factor or width % factor)
        ):
            return None
        image.draft(None, (width // factor, height // factor))
        if image.size != (-(-width // factor), -(-height // factor)):
            return None
        if orientation in UPRIGHT:
            image = image.transpose(UPRIGHT[orientation])
        pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    # damaged bytes may raise anything
    except Exception:
        return None
    return torch.from_numpy(pixels).permute(2, 0, 1), (width, height) if orientation >= 5 else (
        height,
        width,
    )


def resized_part(image, whole_hw, box, height, width, interpolation="bilinear"):
    """A part of a scaled image at another size, antialiased: uint8 [3, height, width].

    image: uint8 [3, h, w], scaled by one of REDUCTIONS; whole_hw: size of the whole image; box:
    (top, left, height, width) of the part in its pixels, followed to fractions of those of the
    scaled one.
    """
    # exact, since a scaled image is longer than 8 pixels
    factor = -(-whole_hw[0] // image.shape[-2])
    top, left, box_height, box_width = box
    edges = left / factor, top / factor, (left + box_width) / factor, (top + box_height) / factor
    first_column, first_row = int(edges[0]), int(edges[1])
    around = image[:, first_row : math.ceil(edges[3]), first_column : math.ceil(edges[2])]
    inside = (
        edges[0] - first_column,
        edges[1] - first_row,
        edges[2] - first_column,
        edges[3] - first_row,
    )
    pil_image = Image.fromarray(around.permute(1, 2, 0).numpy()).resize(
        (width, height), FILTERS[interpolation], box=inside
    )
    return torch.from_numpy(np.array(pil_image)).permute(2, 0, 1).contiguous()
