"""Small and large images side by side: training pairs, an evaluation's crops with their scores, and answers before and after."""

import math
from typing import ClassVar

import numpy as np

from visionloop.datasets.io.matlab_resize import matlab_resize
from visionloop.engine.metric import MetricSpec
from visionloop.metrics.image_quality import psnr
from visionloop.tasks.drawing.canvas import PLAIN, RIGHT, grid, with_caption
from visionloop.tasks.visualize import ImageReporting

PANEL = 256  # longest side of a panel, in pixels of the drawing
CROP = 128  # longest side of an evaluation's crop, in pixels of the result: each is drawn as four
# longest side of what is drawn of a training sample: crops whole, of larger images the part with
# most detail
WHOLE = 512
MOST_TRAINING = 12  # images in a grid
GAP = 6
STRIP = 3 * PANEL + 2 * GAP  # width of an answer's strip, the same for all images
MARGIN = 4  # of input pixels that the bicubic of a crop is made with; the kernel reaches 2
DIFFERENCE = 4  # how much larger differences are drawn at x1


def draw_batch(batch):
    """uint8 [H, W, 3]: a training batch, input beside truth. batch: "pixel_values" uint8 [3, h, w] and "hr", stacked or in lists."""
    pairs = zip(batch["pixel_values"][:MOST_TRAINING], batch["hr"][:MOST_TRAINING], strict=True)
    return with_caption(
        grid([draw_pair(to_array(lr), to_array(hr)) for lr, hr in pairs]),
        ["left: input, right: truth"],
    )


def draw_samples(batch, predictions, scale, border=None):
    """One uint8 [h, w, 3] per image of an evaluation's batch: input and bicubic, below result and truth.

    Shown is the part with most detail in the truth, the same each time, with the PSNR on Y of the
    whole image. batch: lists of uint8 [3, h, w] under "pixel_values" and [3, s*h, s*w] under "hr"
    and "bicubic"; predictions: {"images": list of uint8 [3, s*h, s*w]}; border: pixels that PSNR
    leaves out, None: the scale, and 0 at x1.
    """
    border = (scale if scale > 1 else 0) if border is None else border
    columns = zip(
        batch["pixel_values"], batch["bicubic"], predictions["images"], batch["hr"], strict=True
    )
    return [draw_comparison(*map(to_array, images), border) for images in columns]


def draw_pair(lr, hr):
    """uint8 [h, w, 3]: input and truth of a training sample. lr: uint8 [h, w, 3]; hr: [s*h, s*w, 3]."""
    scale = hr.shape[0] // lr.shape[0]
    part = busiest_part(hr, scale, WHOLE)
    return side_by_side([_enlarged(lr[part], scale), hr[_times(part, scale)]])


def draw_comparison(lr, bicubic, result, hr, border=0):
    """uint8 [h, 518, 3]: input and bicubic, below result and truth, of one image's part with most detail, captions below each.

    lr: uint8 [h, w, 3]; the others uint8 [s*h, s*w, 3]. At x1 the input is its own bicubic and
    stands there once.
    """
    scale = hr.shape[0] // lr.shape[0]
    part = busiest_part(hr, scale, CROP)
    border = (
        border if min(hr.shape[:2]) > 2 * border else 0
    )  # of an image that it would leave nothing of
    before, after = (psnr(image, hr, border=border) for image in (bicubic, result))
    panels = [
        _enlarged(lr[part], scale),
        *(image[_times(part, scale)] for image in (bicubic, result, hr)),
    ]
    captions = ["input", f"bicubic {before:.2f} dB", f"result {after:.2f} dB", "truth"]
    colors = [PLAIN, PLAIN, RIGHT if after > before else PLAIN, PLAIN]
    if scale == 1:
        panels, captions, colors = panels[1:], [f"input {before:.2f} dB", *captions[2:]], colors[1:]
    first = len(panels) - 2  # result and truth stand in one row
    above, below = (
        side_by_side(panels[part], captions[part], colors[part])
        for part in (slice(first), slice(first, None))
    )
    above = np.pad(
        above, ((0, GAP), (0, below.shape[1] - above.shape[1]), (0, 0)), constant_values=255
    )
    return np.concatenate([above, below])


def draw_prediction(image, result):
    """uint8 [h, 780, 3]: before, bicubic and after, the part with most detail where the result is larger than 256 pixels a side.

    image: uint8 tensor [3, h, w]; result: [3, s*h, s*w]. At x1 there is no bicubic, and the third
    image is what was taken away, drawn four times as strong around grey.
    """
    image, result = to_array(image), to_array(result)
    height, width = image.shape[:2]
    scale = result.shape[0] // height
    part = busiest_part(image, 1, max(1, PANEL // scale))
    after = result[_times(part, scale)]
    if scale == 1:
        difference = DIFFERENCE * (image[part].astype(np.int16) - after) + 128
        panels = [image[part], after, difference.clip(0, 255).astype(np.uint8)]
        captions = [f"input {width} x {height}", "result", f"input - result, x {DIFFERENCE}"]
    else:
        panels = [_enlarged(image[part], scale), bicubic_part(image, part, scale), after]
        captions = [
            f"input {width} x {height}",
            f"bicubic x{scale}",
            f"result {scale * width} x {scale * height}",
        ]
    return side_by_side(panels, captions, [PLAIN, PLAIN, PLAIN])


def busiest_part(image, scale, side):
    """(rows, columns) as slices in pixels of the input: the part whose neighbours differ most.

    image: uint8 [s*h, s*w, 3]; side: longest of the part, in the image's pixels. Squared
    differences of grey values are summed over every place; of equal ones the first.
    """
    height, width = image.shape[0] // scale, image.shape[1] // scale
    rows, columns = min(height, max(1, side // scale)), min(width, max(1, side // scale))
    grey = image[: scale * height, : scale * width].mean(axis=2, dtype=np.float32)
    energy = np.zeros(grey.shape)
    energy[:-1] += np.square(np.diff(grey, axis=0))
    energy[:, :-1] += np.square(np.diff(grey, axis=1))
    energy = energy.reshape(height, scale, width, scale).sum(axis=(1, 3))
    sums = np.zeros((height + 1, width + 1))
    sums[1:, 1:] = energy.cumsum(axis=0).cumsum(axis=1)
    inside = (
        sums[rows:, columns:]
        - sums[:-rows, columns:]
        - sums[rows:, :-columns]
        + sums[:-rows, :-columns]
    )
    top, left = np.unravel_index(inside.argmax(), inside.shape)
    return slice(int(top), int(top) + rows), slice(int(left), int(left) + columns)


def bicubic_part(image, part, scale):
    """The part of an image [h, w, 3] as MATLAB's bicubic enlarges it, uint8 [s*rows, s*columns, 3], without enlarging the rest."""
    around = tuple(slice(max(0, one.start - MARGIN), one.stop + MARGIN) for one in part)
    inside = tuple(
        slice(one.start - wide.start, one.stop - wide.start)
        for one, wide in zip(part, around, strict=True)
    )
    return matlab_resize(image[around], scale)[_times(inside, scale)]


def side_by_side(panels, captions=(), colors=()):
    """Panels of one size in a row, enlarged alike by a whole number so that they fill 256 pixels, each with its caption below.

    Without captions they fill 192 pixels, enough for crops that are trained on.
    """
    times = max(1, (PANEL if captions else 3 * PANEL // 4) // max(panels[0].shape[:2]))
    drawn = [_enlarged(panel, times) for panel in panels]
    if captions:
        drawn = [
            with_caption(_on_paper(panel), [words], color=color)
            for panel, words, color in zip(drawn, captions, colors, strict=True)
        ]
    gap = np.full((drawn[0].shape[0], GAP if captions else 2, 3), 255, dtype=np.uint8)
    return np.concatenate([part for panel in drawn for part in (panel, gap)][:-1], axis=1)


def to_array(image):
    """uint8 tensor [3, H, W] -> numpy [H, W, 3]."""
    return image.permute(1, 2, 0).cpu().numpy()


def _on_paper(panel):
    """The panel in the middle of a width that captions fit into."""
    left = (PANEL - panel.shape[1]) // 2
    return np.pad(
        panel, ((0, 0), (left, PANEL - panel.shape[1] - left), (0, 0)), constant_values=255
    )


def _enlarged(image, times):
    """Each pixel as a square of `times` pixels."""
    return image.repeat(times, axis=0).repeat(times, axis=1)


def _times(part, scale):
    return tuple(slice(scale * one.start, scale * one.stop) for one in part)


# What super-resolution shows of a run: the drawing and telling hooks of its task.


class SuperResolutionReporting(ImageReporting):
    """Input, bicubic, result and truth of the part with most detail; PSNR image by image."""

    sample_score = MetricSpec(
        "image_psnr", "PSNR", "float", True, "dB on Y of the whole image, without its border"
    )
    score_charts: ClassVar = {"PSNR": ("psnr", "psnr_rgb"), "SSIM": ("ssim", "ssim_rgb")}
    score_column = "psnr"

    def draw(self, batch):
        return {"batch": draw_batch(batch)}

    def draw_samples(self, batch, predictions):
        return draw_samples(batch, predictions, self.scale, self.border)

    def reference_scores(self, metric):
        # at x1 nothing is known of what finished images were restored from
        return {
            name: score for name, score in metric.bicubic_scores().items() if not math.isnan(score)
        }
