"""Drawings of image classification: training images, evaluated images and predictions."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from visionloop.engine.batch import Batch
from visionloop.engine.types import JsonObject, Predictions
from visionloop.tasks.drawing.canvas import (
    PLAIN,
    RIGHT,
    WRONG,
    class_label,
    fit_to,
    grid,
    pad_to_width,
    with_caption,
)

# longer sides in pixels: of a training image in its grid, of an evaluated image, of a prediction
TRAINING_SIDE, SAMPLE_SIDE, PREDICTION_SIDE = 128, 224, 320
MAX_TRAINING_IMAGES = 36


def draw_batch(batch: Batch, classes: Sequence[str]) -> NDArray[np.uint8]:
    """Draw the images of a training batch with their labels, uint8 [H, W, 3]."""
    images = images_of(batch, TRAINING_SIDE, MAX_TRAINING_IMAGES)
    labels = batch["labels"][:MAX_TRAINING_IMAGES].tolist()
    captions = [class_label(label, classes, room=TRAINING_SIDE - 8) for label in labels]
    return grid([with_caption(image, [line]) for image, line in zip(images, captions, strict=True)])


def draw_samples(
    batch: Batch, predictions: Predictions, classes: Sequence[str]
) -> list[NDArray[np.uint8]]:
    """Draw evaluated images with the prediction below, and the ground truth where it differs.

    The color behind the prediction shows whether it is correct.

    Returns:
        One uint8 array [h, w, 3] per image.
    """
    images, labels = images_of(batch, SAMPLE_SIDE), batch["labels"].tolist()
    predicted = predictions["logits"].argmax(dim=1).tolist()
    room, tiles = SAMPLE_SIDE - 8, []
    for image, label, prediction in zip(images, labels, predicted, strict=True):
        right = prediction == label
        ground_truth = "" if right else f"is {class_label(label, classes, room=room - 16)}"
        lines = [class_label(prediction, classes, room=room), ground_truth]
        tiles.append(with_caption(image, lines, color=RIGHT if right else WRONG))
    return tiles


def images_of(batch: Batch, side: int, limit: int | None = None) -> list[NDArray[np.uint8]]:
    """Return the first images of a batch resized to a longer side of `side` pixels.

    Args:
        side: longer side in pixels.
        limit: number of images; None returns all.

    Returns:
        uint8 arrays [h, w, 3].
    """
    images = batch["pixel_values"][:limit].permute(0, 2, 3, 1).cpu().numpy()
    return [fit_to(image, longest=side) for image in images]


def draw_prediction(image: torch.Tensor, row: JsonObject) -> NDArray[np.uint8]:
    """Draw an image with the three best classes and their scores below.

    Args:
        image: uint8 [3, H, W].
        row: of `evaluate.describe_predictions`.

    Returns:
        uint8 [h, w, 3].
    """
    resized = fit_to(image.permute(1, 2, 0).numpy(), longest=PREDICTION_SIDE)
    resized = pad_to_width(resized, PREDICTION_SIDE // 2)  # room for the text
    lines = []
    for entry in row["top5"][:3]:
        names = {entry["id"]: entry["label"]}
        name = class_label(entry["id"], names, size=14, room=resized.shape[1] - 70)
        lines.append(f"{name}  {100 * entry['score']:.1f} %")
    return with_caption(resized, lines, color=PLAIN, size=14)
