"""Drawings of object detection: training batches, predictions beside the ground truth, results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visionloop.metrics.detection_confusion import (
    DRAWING_SCORE,
    IOU_THRESHOLD,
    match_boxes,
)
from visionloop.metrics.rows import Array
from visionloop.tasks.drawing.boxes import COLORS, SPARSE, class_colors, draw_boxes
from visionloop.tasks.drawing.canvas import (
    PLAIN,
    RIGHT,
    fit_to,
    grid,
    pad_to_width,
    with_caption,
)
from visionloop.tasks.drawing.legend import with_legend

if TYPE_CHECKING:
    import torch

    from visionloop.engine.batch import Batch
    from visionloop.engine.types import JsonObject

SIDE = 400  # longer side of an image in a grid
PAIR_SIDE = 317  # longer side of each image of a pair
NARROWEST_PAIR = 300  # pixels of width that the words below a pair need
MOST_TRAINING = 12  # images in a grid
PAIR_WORDS = (
    "left: ground truth, dashed: missed (FN)",
    f"right: score >= {DRAWING_SCORE}, dashed: extra (FP)",
)
MIN_DRAWING_SIDE, MAX_DRAWING_SIDE = 640, 1600  # longer side


def draw_batch(batch: Batch, classes: Sequence[str]) -> NDArray[np.uint8]:
    """Draw training images with their boxes as the model sees them, uint8 [H, W, 3].

    Args:
        batch: of `collate`, with targets.
        classes: names in order of label.
    """
    tiles, labels = [], []
    boxes_of, labels_of = (batch[name][:MOST_TRAINING] for name in ("boxes", "class_labels"))
    images = batch["pixel_values"][:MOST_TRAINING].permute(0, 2, 3, 1).cpu().numpy()
    names = not is_color_enough(range(len(classes)))
    for pixels, boxes, class_labels in zip(images, boxes_of, labels_of, strict=True):
        image = fit_to(pixels, longest=SIDE)
        size_wh = np.tile([image.shape[1], image.shape[0]], 2)
        scaled = boxes.cpu().numpy().astype(np.float64) * size_wh
        centers, half_sides = scaled[:, :2], scaled[:, 2:] / 2
        boxes_xyxy = np.concatenate([centers - half_sides, centers + half_sides], axis=1)
        labels.append(class_labels.cpu().numpy())
        tiles.append(draw_boxes(image, boxes_xyxy, labels[-1], classes, names=names))
    return with_legend(
        grid(tiles),
        np.bincount(np.concatenate(labels), minlength=len(classes)),
        classes,
        class_colors(len(classes)),
        words=[f"boxes in these {len(tiles)} images:"],
        counted=True,
    )


def draw_samples(
    batch: Batch, predictions: Mapping[str, torch.Tensor], classes: Sequence[str]
) -> list[NDArray[np.uint8]]:
    """Draw the images of an evaluation batch, ground truth on the left, predictions on the right.

    A dashed box has no match: missed on the left, extra on the right.

    Args:
        batch: of `collate`, with "ground_truth".
        predictions: of `predict`; those with a score from 0.4 on are drawn.
        classes: names in order of label.

    Returns:
        One uint8 [h, w, 3] per image, at most 640 px wide.
    """
    host = {
        key: predictions[key].detach().float().cpu().numpy()
        for key in ("boxes", "scores", "labels")
    }
    images, drawn = batch["pixel_values"].permute(0, 2, 3, 1).cpu().numpy(), []
    for i, (pixels, size_hw) in enumerate(zip(images, batch["sizes"].tolist(), strict=True)):
        is_drawn = host["scores"][i] >= DRAWING_SCORE
        detections = {key: values[i][is_drawn] for key, values in host.items()}
        detections["labels"] = detections["labels"].astype(np.int64)
        ground_truth = batch["ground_truth"][i]
        pair = draw_pair(pixels, size_hw, ground_truth, detections, classes)
        labels = np.concatenate([ground_truth["labels"], detections["labels"]])
        counts = np.bincount(labels, minlength=len(classes))
        pair = pad_to_width(pair, NARROWEST_PAIR)
        colors = class_colors(len(classes))
        drawn.append(with_legend(pair, counts, classes, colors, words=PAIR_WORDS))
    return drawn


def draw_pair(
    pixels: NDArray[np.uint8],
    size_hw: Sequence[int],
    ground_truth: Mapping[str, Array],
    predictions: Mapping[str, Array],
    classes: Sequence[str],
) -> NDArray[np.uint8]:
    """Draw ground truth and predictions side by side with their counts below, uint8 [h, w, 3].

    Args:
        pixels: uint8 [S, S, 3], resized from the image.
        size_hw: of the image.
        ground_truth: {"boxes": [T, 4] xywh in pixels of the image, "labels", "crowd": [T]}.
        predictions: {"boxes": [N, 4] xyxy in pixels of the image, "scores", "labels": [N]}.
        classes: names in order of label.
    """
    scale = PAIR_SIDE / max(size_hw)
    size_wh = max(1, round(size_hw[1] * scale)), max(1, round(size_hw[0] * scale))
    image = np.array(Image.fromarray(pixels).resize(size_wh, Image.Resampling.BICUBIC))
    boxes, crowd = ground_truth["boxes"], ground_truth["crowd"]
    boxes_xyxy = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    predicted_xyxy, labels = predictions["boxes"], predictions["labels"]
    sides = predicted_xyxy[:, 2:] - predicted_xyxy[:, :2]
    predicted = np.concatenate([predicted_xyxy[:, :2], sides], axis=1)
    is_matched, is_used = match_boxes(
        boxes, ground_truth["labels"], crowd, {**predictions, "boxes": predicted}
    )
    names = not is_color_enough(range(len(classes)))
    left = draw_boxes(
        image, boxes_xyxy * scale, ground_truth["labels"], classes, dashed=~is_matched, names=names
    )
    right = draw_boxes(
        image,
        predicted_xyxy * scale,
        labels,
        classes,
        predictions["scores"],
        dashed=~is_used,
        names=names,
    )
    true_positives = int((is_matched & ~crowd).sum())
    false_negatives, false_positives = int((~is_matched).sum()), int((~is_used).sum())
    line = (
        f"{true_positives} TP, {false_negatives} FN, {false_positives} FP at IoU {IOU_THRESHOLD:g}"
    )
    gap = np.full((image.shape[0], 6, 3), 255, dtype=np.uint8)
    pair = np.concatenate([left, gap, right], axis=1)
    is_right = not false_negatives and not false_positives
    return with_caption(pair, [line], color=RIGHT if is_right else PLAIN)


def is_color_enough(labels: Iterable[int]) -> bool:
    """Return True if the colors of the classes differ enough for boxes without class names."""
    return max(labels, default=0) < len(COLORS)


def draw_prediction(
    image: torch.Tensor, full_hw: tuple[int, int], row: JsonObject, chosen: Sequence[bool] = ()
) -> NDArray[np.uint8]:
    """Draw the detections of an image file with a score from 0.4 on, uint8 [h, w, 3].

    The longer side becomes 640 to 1600 pixels. The legend counts the boxes of each class.

    Args:
        image: uint8 [3, h, w], of a large JPEG perhaps at a reduced size.
        full_hw: (height, width) of the file, to which the boxes belong.
        row: of `describe`.
        chosen: for each class True where all its detections are drawn, whatever their scores;
            (): for none.
    """
    longest = int(np.clip(max(full_hw), MIN_DRAWING_SIDE, MAX_DRAWING_SIDE))
    resized = fit_to(image.permute(1, 2, 0).numpy(), longest=longest)
    detections = [
        one
        for one in row["detections"]
        if one["score"] >= DRAWING_SCORE or (chosen and chosen[one["id"]])
    ]
    boxes = np.array([one["box"] for one in detections], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    boxes *= np.tile([resized.shape[1] / full_hw[1], resized.shape[0] / full_hw[0]], 2)
    labels = [one["id"] for one in detections]
    classes = [""] * (max(labels, default=-1) + 1)
    for one in detections:
        classes[one["id"]] = one["label"]
    names = len(detections) <= SPARSE or not is_color_enough(labels)
    drawn = draw_boxes(
        resized, boxes, labels, classes, [one["score"] for one in detections], names=names
    )
    return with_legend(
        drawn,
        np.bincount(labels, minlength=len(classes)) if labels else np.zeros(0, dtype=np.int64),
        classes,
        class_colors(len(classes)),
        words=() if detections else [nothing_drawn(chosen)],
        counted=True,
    )


def nothing_drawn(chosen: Sequence[bool]) -> str:
    """Return the words for an image without a detection to draw; see `draw_prediction`."""
    if chosen:
        return "no detection with the score of its class"
    return f"no detection with a score of at least {DRAWING_SCORE}"
