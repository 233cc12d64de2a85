"""Drawings of class ids: over an image, beside the ground truth, and in training batches."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visionloop.datasets.segmentation.mask_values import IGNORED
from visionloop.engine.batch import Batch
from visionloop.engine.types import Predictions
from visionloop.tasks.drawing.canvas import PLAIN, WRONG, fit_to, grid, with_caption
from visionloop.tasks.drawing.charts import draw_iou_per_class, draw_pixel_confusion
from visionloop.tasks.drawing.legend import with_legend
from visionloop.tasks.segmentation.drawing import (
    GAP,
    MAX_DRAWING_SIDE,
    MAX_TRAINING_IMAGES,
    MIN_DRAWING_SIDE,
    PART_SIDE,
    SIDE,
    Pixels,
    to_array,
)

SAMPLE_LEGEND = ("above: image, wrong pixels in red", "below: ground truth, prediction")
SAMPLE_STRENGTH = 0.75  # of colors over the image

SCORE_CHARTS: dict[str, tuple[str, ...]] = {
    "mIoU": ("miou", "miou_level_.*"),
    "accuracy of pixels and of classes": ("pixel_accuracy", "mean_class_accuracy"),
}
CLASS_CURVES = ("IoU", "accuracy")


def draw_batch(batch: Batch, classes: Sequence[str], colors: Pixels) -> Pixels:
    """Draw a training batch with its classes over the images and their names below.

    Args:
        batch: "pixel_values" uint8 [3, h, w] and "ids" uint8 [H, W] of each image, stacked or in a
            list.
        classes: names in order of id.
        colors: uint8 [K, 3].

    Returns:
        uint8 [H, W, 3].
    """
    tiles, counts = [], np.zeros(256, dtype=np.int64)
    images = zip(
        batch["pixel_values"][:MAX_TRAINING_IMAGES], batch["ids"][:MAX_TRAINING_IMAGES], strict=True
    )
    for pixel_values, ids in images:
        image, ids = fit_to(to_array(pixel_values), longest=SIDE), ids.cpu().numpy()
        counts += np.bincount(ids.ravel(), minlength=256)
        tiles.append(overlay(image, fit_ids(ids, image), colors))
    words = [f"classes in these {len(tiles)} images:"]
    return with_legend(grid(tiles), counts, classes, colors, words=words)


def draw_samples(
    batch: Batch, predictions: Predictions, classes: Sequence[str], colors: Pixels
) -> list[Pixels]:
    """Draw each image of an evaluation batch: image, wrong pixels, ground truth and prediction.

    Args:
        batch: as in `draw_batch`.
        predictions: {"ids": uint8 [H, W] of each image}.
        classes: names in order of id.
        colors: uint8 [K, 3].

    Returns:
        One uint8 [h, w, 3] for each image, at most 640 px wide.
    """
    drawings = []
    for pixel_values, target, prediction in zip(
        batch["pixel_values"], batch["ids"], predictions["ids"], strict=True
    ):
        ground_truth, predicted = target.cpu().numpy(), prediction.cpu().numpy()
        image = fit_to(to_array(pixel_values), longest=PART_SIDE)
        drawing = draw_comparison(image, ground_truth, predicted, colors)
        ids = np.concatenate([ground_truth.ravel(), predicted.ravel()])
        counts = np.bincount(ids, minlength=256)
        drawings.append(with_legend(drawing, counts, classes, colors, words=SAMPLE_LEGEND))
    return drawings


def draw_prediction(image: Pixels, ids: Pixels, classes: Sequence[str], colors: Pixels) -> Pixels:
    """Draw predicted classes over an image, with the share of each class below.

    Args:
        image: uint8 [h, w, 3], perhaps of a reduced size.
        ids: uint8 [H, W].
        classes: names in order of id.
        colors: uint8 [K, 3].

    Returns:
        uint8 [h, w, 3]; the longer side becomes 640 to 1600 pixels, without the legend.
    """
    longest = int(np.clip(max(ids.shape), MIN_DRAWING_SIDE, MAX_DRAWING_SIDE))
    resized = fit_to(image, longest=longest)
    drawing = overlay(resized, fit_ids(ids, resized), colors)
    counts = np.bincount(ids.ravel(), minlength=256)
    return with_legend(drawing, counts, classes, colors, shares=True)


def draw_scores(
    confusion: NDArray[np.int64],
    per_class: Mapping[str, NDArray[np.float64]],
    classes: Sequence[str],
) -> dict[str, Pixels]:
    """Draw the confusion matrix of pixels and IoU by class: {tag: uint8 [H, W, 3]}."""
    return {
        "confusion": draw_pixel_confusion(confusion, classes),
        "iou": draw_iou_per_class(per_class, classes),
    }


def draw_comparison(
    image: Pixels, ground_truth: Pixels, predicted: Pixels, colors: Pixels
) -> Pixels:
    """Draw the image and its wrong pixels in red, below ground truth and prediction.

    Ignored pixels are black among the wrong ones, correct ones gray. The share of correct pixels
    is written below.

    Args:
        image: uint8 [H, W, 3].
        ground_truth, predicted: uint8 class ids of one size, of any resolution.
        colors: uint8 [K, 3].

    Returns:
        uint8 [h, w, 3].
    """
    target_ids, predicted_ids = (fit_ids(ids, image) for ids in (ground_truth, predicted))
    mistakes = np.repeat(image.mean(axis=2, keepdims=True) / 2, 3, axis=2).astype(np.uint8)
    mistakes[target_ids != predicted_ids] = WRONG
    mistakes[target_ids == IGNORED] = 0
    column_gap = np.full((len(image), GAP, 3), 255, dtype=np.uint8)
    row_gap = np.full((GAP, 2 * image.shape[1] + GAP, 3), 255, dtype=np.uint8)
    overlays = [overlay(image, ids, colors, SAMPLE_STRENGTH) for ids in (target_ids, predicted_ids)]
    above = np.concatenate([image, column_gap, mistakes], axis=1)
    below = np.concatenate([overlays[0], column_gap, overlays[1]], axis=1)
    valid = ground_truth != IGNORED
    line = "no pixel with a class in the ground truth"
    if valid.any():
        correct = (ground_truth == predicted)[valid].mean()
        line = f"{100 * correct:.1f} % of the pixels correct"
    return with_caption(np.concatenate([above, row_gap, below]), [line], color=PLAIN)


def overlay(image: Pixels, ids: Pixels, colors: Pixels, strength: float = 0.55) -> Pixels:
    """Blend the color of each class over an image, with a line of full color along borders.

    Args:
        image: uint8 [H, W, 3].
        ids: uint8 [H, W]; 255 is black.
        colors: uint8 [K, 3].
        strength: 0 the bare image, 1 colors alone.

    Returns:
        uint8 [H, W, 3].
    """
    paint = color_image(ids, colors)
    weight = round(256 * strength)
    blend = image.astype(np.uint16) * (256 - weight) + paint.astype(np.uint16) * weight
    mixed = (blend >> 8).astype(np.uint8)
    lines = borders(ids, thickness=1 if max(ids.shape) <= 1000 else 2)
    mixed[lines] = paint[lines]
    return mixed


def borders(ids: Pixels, thickness: int = 1) -> NDArray[np.bool_]:
    """Return the pixels at most `thickness` away, along a row or column, from one of another id.

    bool [H, W].
    """
    result = np.zeros(ids.shape, dtype=bool)
    for step in range(1, thickness + 1):
        for here, there in ((np.s_[step:], np.s_[:-step]), (np.s_[:, step:], np.s_[:, :-step])):
            differ = ids[here] != ids[there]
            result[here] |= differ
            result[there] |= differ
    return result


def color_image(ids: Pixels, colors: Pixels) -> Pixels:
    """Return the color of each id, black for ids without a class: uint8 [H, W, 3].

    Args:
        ids: uint8 [H, W].
        colors: uint8 [K, 3].
    """
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(colors)] = colors
    return table[ids]


def fit_ids(ids: Pixels, image: Pixels) -> Pixels:
    """Resize class ids to the size of an image [h, w, 3], never mixing them: uint8 [h, w]."""
    size_wh = (image.shape[1], image.shape[0])
    return np.array(Image.fromarray(ids).resize(size_wh, Image.Resampling.NEAREST))
