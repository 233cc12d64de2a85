"""The low-resolution image of a high-resolution one: computed from it, or compared with it."""

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from visionloop.datasets.io.images import UnreadableImage, read_image, read_size
from visionloop.datasets.io.matlab_resize import matlab_resize
from visionloop.datasets.super_resolution.layout import SuperResolutionIndex, pair_mismatch


class MismatchedPair(UnreadableImage):
    """A low-resolution image whose size does not match its high-resolution one.

    `path` is that of the low-resolution image.
    """


def decode(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read an image as uint8 [H, W, 3]. Raises UnreadableImage."""
    return read_image(path).permute(1, 2, 0).numpy()


def decode_downscaled(path: str | os.PathLike[str], scale: int) -> NDArray[np.uint8]:
    """Read a high-resolution image and downscale it, uint8 [H // scale, W // scale, 3].

    Raises:
        UnreadableImage: also for an image smaller than the scale.
    """
    return shrink(crop_to_multiple(decode(path), scale, path), scale)


def measure_downscaled(path: str | os.PathLike[str], scale: int) -> tuple[int, int]:
    """Return the (height, width) of decode_downscaled from the header. Raises UnreadableImage."""
    height, width = read_size(path)
    return height // scale, width // scale


def crop_to_multiple(
    hr: NDArray[np.uint8], scale: int, path: str | os.PathLike[str]
) -> NDArray[np.uint8]:
    """Return the upper left part of an image whose sides are multiples of the scale.

    Raises:
        UnreadableImage: with the path, where nothing is left.
    """
    height, width = hr.shape[:2]
    if min(height, width) < scale:
        raise UnreadableImage(
            path, f"is {height} x {width} (height x width), too small for x{scale}"
        )
    return hr[: height // scale * scale, : width // scale * scale]


def shrink(hr: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Downscale uint8 [scale * h, scale * w, 3] to uint8 [h, w, 3] as MATLAB does.

    8 bits after each of its two passes, as in the released images at x2, x3 and x4; rounded once
    at x8, where those were made from floats.
    """
    if scale == 1:
        return hr
    if scale != 8:
        return matlab_resize(hr, 1 / scale)
    pixels = matlab_resize(hr, 1 / scale, rounding="float")
    return np.floor(pixels + 0.5).clip(0, 255).astype(np.uint8)


def require_match(
    index: SuperResolutionIndex, i: int, lr_hw: Sequence[int], hr_hw: Sequence[int]
) -> None:
    """Check the sizes of pair i.

    Raises:
        MismatchedPair: unless the high-resolution image has `scale` times the pixels of the other,
            and less than `scale` more a side.
    """
    why = pair_mismatch(lr_hw, hr_hw, index.scale, index.path(i))
    if why:
        raise MismatchedPair(index.lr_path(i), why)


def too_small(height: int, width: int, side: int, scale: int) -> str:
    """Return the message for an image that is smaller than a crop, in high-resolution pixels.

    Args:
        height, width: of the low-resolution image.
        side: of the crop, in low-resolution pixels.
        scale: high over low resolution.
    """
    return (
        f"is {scale * height} x {scale * width} (height x width), a crop takes "
        f"{scale * side} x {scale * side}; choose a smaller --patch-size"
    )
