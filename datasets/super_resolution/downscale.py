"""The small image of a large one: made of it, or held against it."""

import numpy as np

from visionloop.datasets.io.images import UnreadableImage, read_image, read_size
from visionloop.datasets.io.matlab_resize import matlab_resize


class MismatchedPair(UnreadableImage):
    """A small image whose size does not go with that of its large one. path: of the small one."""


def decode(path):
    """An image as uint8 [H, W, 3], numpy. Raises UnreadableImage."""
    return read_image(path).permute(1, 2, 0).numpy()


def decode_small(path, scale):
    """The small image of a large one's file, uint8 [H // scale, W // scale, 3]. Raises UnreadableImage."""
    return shrink(mod_cropped(decode(path), scale, path), scale)


def measure_small(path, scale):
    height, width = read_size(path)
    return height // scale, width // scale


def mod_cropped(large, scale, path):
    """The upper left part of an image whose sides are multiples of the scale. Raises UnreadableImage where nothing is left."""
    height, width = large.shape[:2]
    if min(height, width) < scale:
        raise UnreadableImage(
            path, f"is {height} x {width} (height x width), too small for x{scale}"
        )
    return large[: height // scale * scale, : width // scale * scale]


def shrink(large, scale):
    """uint8 [scale * h, scale * w, 3] -> uint8 [h, w, 3], as MATLAB does it.

    8 bits after each of its two passes, as in the released images at x2, x3 and x4; rounded once
    at x8, where those were made of floats.
    """
    if scale == 1:
        return large
    if scale != 8:
        return matlab_resize(large, 1 / scale)
    return (
        np.floor(matlab_resize(large, 1 / scale, rounding="float") + 0.5)
        .clip(0, 255)
        .astype(np.uint8)
    )


def require_match(index, i, lr_hw, hr_hw):
    """Raises MismatchedPair unless the large image has `scale` times the pixels of the small one, and less than `scale` more a side."""
    why = pair_mismatch(lr_hw, hr_hw, index.scale, index.path(i))
    if why:
        raise MismatchedPair(index.lr_path(i), why)


def pair_mismatch(lr_hw, hr_hw, scale, hr_path):
    """What to say when a small image is not of the size that goes with its large one; None when it is. Sizes: (height, width)."""
    if all(0 <= large - scale * small < scale for small, large in zip(lr_hw, hr_hw, strict=True)):
        return None
    ratios = {large // small for small, large in zip(lr_hw, hr_hw, strict=True)}
    hint = (
        f": it looks like x{ratios.pop()}, not x{scale}"
        if len(ratios) == 1 and not ratios & {0, scale}
        else ""
    )
    expected = f"{hr_hw[0] // scale} x {hr_hw[1] // scale}"
    return f"is {lr_hw[0]} x {lr_hw[1]} (height x width), for {hr_path} of {hr_hw[0]} x {hr_hw[1]} it should be {expected}{hint}"


def too_small(height, width, side, scale):
    """What to say of a small image that no crop of side x side pixels fits into; in pixels of the large one."""
    wanted = f"{scale * side} x {scale * side}"
    return f"is {scale * height} x {scale * width} (height x width), a crop takes {wanted}; choose a smaller --patch-size"
