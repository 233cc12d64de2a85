"""Class ids as colours: over an image, beside the truth, in training batches and in answers."""

from functools import lru_cache
from typing import ClassVar

import numpy as np
from PIL import Image
from skimage.color import rgb2lab

from visionloop.datasets.segmentation.mask_values import IGNORED
from visionloop.engine.metric import MetricSpec
from visionloop.tasks.drawing.canvas import PLAIN, WRONG, fit_to, grid, with_caption
from visionloop.tasks.drawing.charts import draw_iou_per_class, draw_pixel_confusion
from visionloop.tasks.drawing.legend import with_legend
from visionloop.tasks.visualize import ClassReporting

# far apart on any image, the first ones most; classes beyond these get what is left between them.
# Dark ones come late: brown is what orange looks like over a dark part of an image
COLORS = (
    (45, 125, 230), (255, 140, 40), (60, 180, 75), (225, 50, 70), (255, 220, 60), (150, 80, 210), (70, 215, 225), (250, 140, 190),
    (175, 230, 70), (220, 60, 190), (20, 130, 125), (190, 170, 255), (150, 90, 45), (255, 205, 160), (140, 25, 50), (40, 60, 150),
    (130, 130, 30), (150, 245, 190), (140, 145, 155), (15, 95, 45),
)  # fmt: skip
SIDE = 300  # longer side of an image in a grid
PART_SIDE = 317  # of each of the four parts of a sample
MOST_TRAINING = 12  # images in a grid
FOUR_WORDS = ("above: image, wrong pixels in red", "below: truth, prediction")
COMPARED = 0.75  # strength of colours beside the bare image
MIN_DRAWING_SIDE, MAX_DRAWING_SIDE = 640, 1600  # longer side
GAP = 6


def class_colors(classes, colors=None):
    """uint8 [K, 3]: the given colours, or those of a fixed list, where class i has the same one for any number of classes."""
    if colors is not None:
        return np.asarray(colors, dtype=np.uint8)
    return spread_colors()[: len(classes)].copy()


@lru_cache
def spread_colors(count=255):
    """uint8 [count, 3]: COLORS, then always the colour that is farthest from all before it, neither dark, pale nor grey."""
    steps = np.linspace(16, 248, 9).round()
    candidates = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    places = rgb2lab(candidates / 255)
    usable = (places[:, 0] > 36) & (places[:, 0] < 92) & (np.hypot(places[:, 1], places[:, 2]) > 12)
    candidates, places = candidates[usable], places[usable]
    chosen = [np.array(color) for color in COLORS]
    distances = np.linalg.norm(places[:, None] - rgb2lab(np.array(COLORS) / 255), axis=2).min(
        axis=1
    )
    while len(chosen) < count:
        farthest = distances.argmax()
        chosen.append(candidates[farthest])
        distances = np.minimum(distances, np.linalg.norm(places - places[farthest], axis=1))
    return np.array(chosen, dtype=np.uint8)


def color_image(ids, colors):
    """uint8 [H, W, 3]: each id as its colour, what is no class black. ids: uint8 [H, W]; colors: uint8 [K, 3]."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(colors)] = colors
    return table[ids]


def overlay(image, ids, colors, strength=0.55):
    """The image with each class's colour over it, and a line in the full colour along both sides of a border.

    image: uint8 [H, W, 3]; ids: uint8 [H, W], 255 makes dark; strength: 0 the bare image, 1
    colours alone.
    """
    paint = color_image(ids, colors)
    share = round(256 * strength)
    mixed = (
        (image.astype(np.uint16) * (256 - share) + paint.astype(np.uint16) * share) >> 8
    ).astype(np.uint8)
    lines = borders(ids, thickness=1 if max(ids.shape) <= 1000 else 2)
    mixed[lines] = paint[lines]
    return mixed


def borders(ids, thickness=1):
    """bool [H, W]: pixels at most `thickness` away, along a row or a column, from one of another id."""
    found = np.zeros(ids.shape, dtype=bool)
    for step in range(1, thickness + 1):
        for here, there in ((np.s_[step:], np.s_[:-step]), (np.s_[:, step:], np.s_[:, :-step])):
            differ = ids[here] != ids[there]
            found[here] |= differ
            found[there] |= differ
    return found


def draw_batch(batch, classes, colors):
    """uint8 [H, W, 3]: a training batch with its classes over it, and their names below.

    batch: "pixel_values" uint8 [3, h, w] and "ids" uint8 [H, W] of each image, stacked or in a
    list; colors: uint8 [K, 3].
    """
    tiles, pixels = [], np.zeros(256, dtype=np.int64)
    for pixel_values, ids in zip(
        batch["pixel_values"][:MOST_TRAINING], batch["ids"][:MOST_TRAINING], strict=True
    ):
        image, truth = fit_to(to_array(pixel_values), longest=SIDE), ids.cpu().numpy()
        pixels += np.bincount(truth.ravel(), minlength=256)
        tiles.append(overlay(image, fit_ids(truth, image), colors))
    return with_legend(
        grid(tiles), pixels, classes, colors, words=[f"classes in these {len(tiles)} images:"]
    )


def draw_samples(batch, predictions, classes, colors):
    """One uint8 [h, w, 3] per image of an evaluation's batch, at most 640 px wide: image, what is wrong, truth, prediction.

    batch: as in `draw_batch`; predictions: {"ids": list of uint8 [H, W]}.
    """
    drawn = []
    for pixel_values, truth, found in zip(
        batch["pixel_values"], batch["ids"], predictions["ids"], strict=True
    ):
        truth, found = truth.cpu().numpy(), found.cpu().numpy()
        four = draw_four(fit_to(to_array(pixel_values), longest=PART_SIDE), truth, found, colors)
        pixels = np.bincount(truth.ravel(), minlength=256) + np.bincount(
            found.ravel(), minlength=256
        )
        drawn.append(with_legend(four, pixels, classes, colors, words=FOUR_WORDS))
    return drawn


def draw_four(image, truth, found, colors):
    """The image and, in red, its wrong pixels; below truth and prediction, and the share of right pixels: uint8 [h, w, 3].

    image: uint8 [H, W, 3]; truth, found: uint8 ids of one size, of any resolution. Ignored pixels
    are black, those that are right grey.
    """
    true_here, found_here = (fit_ids(ids, image) for ids in (truth, found))
    mistakes = np.repeat(image.mean(axis=2, keepdims=True) / 2, 3, axis=2).astype(np.uint8)
    mistakes[true_here != found_here] = WRONG
    mistakes[true_here == IGNORED] = 0
    parts = [
        image,
        mistakes,
        *(overlay(image, ids, colors, COMPARED) for ids in (true_here, found_here)),
    ]
    across, down = (
        np.full(shape, 255, dtype=np.uint8)
        for shape in ((len(image), GAP, 3), (GAP, 2 * image.shape[1] + GAP, 3))
    )
    above, below = (
        np.concatenate([left, across, right], axis=1) for left, right in (parts[:2], parts[2:])
    )
    known = truth != IGNORED
    line = (
        f"{100 * (truth == found)[known].mean():.1f} % of the pixels right"
        if known.any()
        else "no pixel with a known class"
    )
    return with_caption(np.concatenate([above, down, below]), [line], color=PLAIN)


def to_array(pixel_values):
    """uint8 tensor [3, H, W] -> numpy [H, W, 3]."""
    return pixel_values.permute(1, 2, 0).cpu().numpy()


def draw_prediction(image, ids, classes, colors):
    """uint8 [h, w, 3]: the image with its classes over it, and each one's share of the pixels below.

    image: uint8 [H, W, 3]; ids: uint8 [H, W]. The longer side becomes 640 to 1600 pixels.
    """
    shown = fit_to(image, longest=int(np.clip(max(ids.shape), MIN_DRAWING_SIDE, MAX_DRAWING_SIDE)))
    drawn = overlay(shown, fit_ids(ids, shown), colors)
    return with_legend(drawn, np.bincount(ids.ravel(), minlength=256), classes, colors, shares=True)


def fit_ids(ids, image):
    """uint8 [h, w]: ids at the size of an image [h, w, 3], never mixed."""
    return np.array(
        Image.fromarray(ids).resize((image.shape[1], image.shape[0]), Image.Resampling.NEAREST)
    )


# What semantic segmentation shows of a run: the drawing and telling hooks of its task.


class SegmentationReporting(ClassReporting):
    """Classes in colours beside the true ones, the confusion of pixels, mIoU image by image."""

    sample_score = MetricSpec(
        "image_miou",
        "mIoU",
        "percent",
        True,
        "mean over the classes that truly are in the image",
    )
    score_charts: ClassVar = {
        "mIoU": ("miou", "miou_level_.*"),
        "accuracy of pixels and of classes": ("pixel_accuracy", "mean_class_accuracy"),
    }
    class_curves = ("IoU", "accuracy")
    score_column = "miou"

    def draw(self, batch):
        return {"batch": draw_batch(batch, self.classes, self.colors)}

    def draw_samples(self, batch, predictions):
        return draw_samples(batch, predictions, self.classes, self.colors)

    def draw_scores(self, metric):
        return {
            "confusion": draw_pixel_confusion(metric.confusion(), self.classes),
            "iou": draw_iou_per_class(metric.per_class(), self.classes),
        }

    def confusion(self, metric):
        return self.classes, metric.confusion(), "pixels"
