"""Drawings of super-resolution: training pairs, evaluated images and predictions."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from visionloop.datasets.io.matlab_resize import matlab_resize
from visionloop.engine.batch import Batch
from visionloop.engine.types import Predictions
from visionloop.metrics.image_quality import psnr
from visionloop.tasks.drawing.canvas import PLAIN, RIGHT, Color, grid, with_caption
from visionloop.tasks.super_resolution.data import Part, busiest_part, to_array

PANEL = 256  # longest side of a panel, in pixels of the drawing
SMALL_PANEL = 192  # without captions, enough for training crops
CROP = 128  # longest side of an evaluated crop in output pixels: each is drawn as four
# longest side of a training sample: crops are drawn whole, of larger images the part with most
# detail
TRAINING_SIDE = 512
MAX_TRAINING_IMAGES = 12
GAP = 6
STRIP = 3 * PANEL + 2 * GAP  # width of a prediction's drawing, the same for all images
MARGIN = 4  # input pixels around a crop for its bicubic image; the kernel reaches 2
DIFFERENCE = 4  # factor of differences that are drawn at x1


def draw_batch(batch: Batch) -> NDArray[np.uint8]:
    """Draw a training batch, each input next to its target.

    Args:
        batch: "pixel_values" uint8 [3, h, w] and "hr", stacked or in lists.

    Returns:
        uint8 [H, W, 3].
    """
    pairs = zip(
        batch["pixel_values"][:MAX_TRAINING_IMAGES], batch["hr"][:MAX_TRAINING_IMAGES], strict=True
    )
    return with_caption(
        grid([draw_pair(to_array(lr), to_array(hr)) for lr, hr in pairs]),
        ["left: input, right: ground truth"],
    )


def draw_pair(lr: NDArray[np.uint8], hr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw input and target of a training sample side by side.

    Args:
        lr: uint8 [h, w, 3].
        hr: uint8 [s*h, s*w, 3].

    Returns:
        uint8 [H, W, 3].
    """
    scale = hr.shape[0] // lr.shape[0]
    part = busiest_part(hr, scale, TRAINING_SIDE)
    return side_by_side([_enlarge(lr[part], scale), hr[_scale_part(part, scale)]])


def draw_samples(
    batch: Batch, predictions: Predictions, scale: int, border: int | None = None
) -> list[NDArray[np.uint8]]:
    """Draw evaluated images: input and bicubic above, output and ground truth below.

    The drawing shows the part of the ground truth with most detail, the same each time, with the
    PSNR on Y of the whole image.

    Args:
        batch: lists of uint8 [3, h, w] under "pixel_values" and [3, s*h, s*w] under "hr" and
            "bicubic".
        predictions: {"images": list of uint8 [3, s*h, s*w]}.
        scale: upscaling factor s.
        border: pixels that PSNR leaves out at each side; None takes the scale, and 0 at x1.

    Returns:
        One uint8 array [h, w, 3] per image.
    """
    border = (scale if scale > 1 else 0) if border is None else border
    columns = zip(
        batch["pixel_values"], batch["bicubic"], predictions["images"], batch["hr"], strict=True
    )
    return [
        draw_comparison(to_array(lr), to_array(bicubic), to_array(output), to_array(hr), border)
        for lr, bicubic, output, hr in columns
    ]


def draw_comparison(
    lr: NDArray[np.uint8],
    bicubic: NDArray[np.uint8],
    output: NDArray[np.uint8],
    hr: NDArray[np.uint8],
    border: int = 0,
) -> NDArray[np.uint8]:
    """Draw input and bicubic above, output and ground truth below, with captions.

    At x1 the input equals its bicubic image and is drawn once.

    Args:
        lr: uint8 [h, w, 3]; the other images are uint8 [s*h, s*w, 3].
        border: pixels that PSNR leaves out at each side.

    Returns:
        uint8 [H, 518, 3].
    """
    scale = hr.shape[0] // lr.shape[0]
    part = busiest_part(hr, scale, CROP)
    # an image that the border would leave nothing of is scored whole
    border = border if min(hr.shape[:2]) > 2 * border else 0
    before, after = (psnr(image, hr, border=border) for image in (bicubic, output))
    large_part = _scale_part(part, scale)
    panels = [_enlarge(lr[part], scale), *(image[large_part] for image in (bicubic, output, hr))]
    captions = ["input", f"bicubic {before:.2f} dB", f"result {after:.2f} dB", "ground truth"]
    colors = [PLAIN, PLAIN, RIGHT if after > before else PLAIN, PLAIN]
    if scale == 1:
        panels, captions, colors = panels[1:], [f"input {before:.2f} dB", *captions[2:]], colors[1:]
    first = len(panels) - 2  # output and ground truth are in one row
    above, below = (
        side_by_side(panels[row], captions[row], colors[row])
        for row in (slice(first), slice(first, None))
    )
    above = np.pad(
        above, ((0, GAP), (0, below.shape[1] - above.shape[1]), (0, 0)), constant_values=255
    )
    return np.concatenate([above, below])


def draw_prediction(image: torch.Tensor, output: torch.Tensor) -> NDArray[np.uint8]:
    """Draw input, bicubic and output: the part with most detail of outputs above 256 pixels.

    At x1 there is no bicubic image, and the third panel is what was removed, drawn four times as
    strong around gray.

    Args:
        image: uint8 [3, h, w].
        output: uint8 [3, s*h, s*w].

    Returns:
        uint8 [H, 780, 3].
    """
    lr, sr = to_array(image), to_array(output)
    height, width = lr.shape[:2]
    scale = sr.shape[0] // height
    part = busiest_part(lr, 1, max(1, PANEL // scale))
    after = sr[_scale_part(part, scale)]
    if scale == 1:
        difference = DIFFERENCE * (lr[part].astype(np.int16) - after) + 128
        panels = [lr[part], after, difference.clip(0, 255).astype(np.uint8)]
        captions = [f"input {width} x {height}", "result", f"input - result, x {DIFFERENCE}"]
    else:
        panels = [_enlarge(lr[part], scale), bicubic_part(lr, part, scale), after]
        captions = [
            f"input {width} x {height}",
            f"bicubic x{scale}",
            f"result {scale * width} x {scale * height}",
        ]
    return side_by_side(panels, captions, [PLAIN, PLAIN, PLAIN])


def bicubic_part(image: NDArray[np.uint8], part: Part, scale: int) -> NDArray[np.uint8]:
    """Enlarge a part of an image as MATLAB's bicubic does, without enlarging the rest.

    Args:
        image: uint8 [h, w, 3].
        part: rows and columns of the image.
        scale: upscaling factor s.

    Returns:
        uint8 [s*rows, s*columns, 3].
    """
    rows, columns = (slice(max(0, side.start - MARGIN), side.stop + MARGIN) for side in part)
    inside = (
        slice(part[0].start - rows.start, part[0].stop - rows.start),
        slice(part[1].start - columns.start, part[1].stop - columns.start),
    )
    enlarged: NDArray[np.uint8] = matlab_resize(image[rows, columns], scale)
    return enlarged[_scale_part(inside, scale)]


def side_by_side(
    panels: Sequence[NDArray[np.uint8]],
    captions: Sequence[str] = (),
    colors: Sequence[Color] = (),
) -> NDArray[np.uint8]:
    """Lay out panels of one size in a row, enlarged alike by a whole number.

    They fill 256 pixels with captions, and 192 pixels without.

    Args:
        panels: uint8 [h, w, 3].
        captions: a line below each panel.
        colors: behind each caption.
    """
    times = max(1, (PANEL if captions else SMALL_PANEL) // max(panels[0].shape[:2]))
    drawn = [_enlarge(panel, times) for panel in panels]
    if captions:
        drawn = [
            with_caption(_center(panel), [caption], color=color)
            for panel, caption, color in zip(drawn, captions, colors, strict=True)
        ]
    gap = np.full((drawn[0].shape[0], GAP if captions else 2, 3), 255, dtype=np.uint8)
    return np.concatenate([part for panel in drawn for part in (panel, gap)][:-1], axis=1)


def _center(panel: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Center a panel in a width that captions fit into."""
    left = (PANEL - panel.shape[1]) // 2
    return np.pad(
        panel, ((0, 0), (left, PANEL - panel.shape[1] - left), (0, 0)), constant_values=255
    )


def _enlarge(image: NDArray[np.uint8], times: int) -> NDArray[np.uint8]:
    """Draw each pixel as a square of `times` pixels."""
    return image.repeat(times, axis=0).repeat(times, axis=1)


def _scale_part(part: Part, scale: int) -> Part:
    rows, columns = part
    return (
        slice(scale * rows.start, scale * rows.stop),
        slice(scale * columns.start, scale * columns.stop),
    )
