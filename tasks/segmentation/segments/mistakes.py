"""Segments that were missed, and predicted ones without ground truth, in the drawing of a sample.

Segments match by the rules of the scores: those of the confusion matrix for instances, those of
panoptic quality for a segment map. IoU is computed at full size, from run lengths or by counting
common pixels.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from visionloop.metrics.detection_confusion import mask_iou, match_detections
from visionloop.metrics.segment_matching import (
    IOU_THRESHOLD,
    common_pixels,
    mostly_ignored,
    segment_iou,
)
from visionloop.tasks.drawing.canvas import WRONG
from visionloop.tasks.segmentation.drawing import Pixels
from visionloop.tasks.segmentation.segments.overlay import blend, outline, stripes
from visionloop.tasks.segmentation.segments.regions import Annotations, Mask, Region, Segments

# dark and bright, which differ for the color-blind too
MISSED, EXTRA = WRONG, (255, 205, 50)
STRENGTH = 0.6  # of the colors of mistakes over the gray image
RIGHT_LINE = (130, 130, 130)  # around ground truth that has a prediction


def match_image(
    ground_truth: Annotations,
    predictions: Annotations,
    size_hw: tuple[int, int],
    num_classes: int,
) -> tuple[Mask, Mask]:
    """Match the segments of an image: same class and IoU of about 0.5 at least.

    A crowd is never missed, and a prediction in a crowd or, for a segment map, in void is no
    mistake.

    Args:
        ground_truth: with "crowd" and "areas", see `fit_segments` in regions.py.
        predictions: with "scores".
        size_hw: height and width of the image.
        num_classes: K.

    Returns:
        (bool [T]: the ground-truth segment is missed, bool [N]: the prediction is an extra one).
    """
    labels, crowd = ground_truth["labels"], ground_truth["crowd"]
    columns = {key: np.asarray(predictions[key]) for key in ("labels", "scores")}
    if "rles" in ground_truth:
        predicted, masks = (
            [{"size": list(size_hw), "counts": counts} for counts in one["rles"]]
            for one in (predictions, ground_truth)
        )
        iou = mask_iou(predicted, masks, crowd)
        is_matched, is_used = match_detections(iou, labels, crowd, columns)
        return ~is_matched, ~is_used
    iou, is_ignored = _compare_maps(ground_truth, predictions, num_classes)
    is_matched, is_used = match_detections(iou, labels, crowd, columns)
    return ~is_matched, ~is_used & ~is_ignored


def _compare_maps(
    ground_truth: Annotations, predictions: Annotations, num_classes: int
) -> tuple[NDArray[np.float64], Mask]:
    """Return (IoU of all pairs, float64 [N, T], 0 for those that are no match; bool [N]: ignored).

    Arguments as those of `match_image`.
    """
    labels = torch.as_tensor(predictions["labels"])
    maps = {"segment_maps": [predictions["segment_map"]], "labels": [labels]}
    ((pixels, predicted_labels),) = common_pixels(maps, [ground_truth])
    common, crowd = pixels[1:-1, 1:-1], ground_truth["crowd"]
    iou: NDArray[np.float64] = segment_iou(common, ground_truth["areas"])
    iou[(iou <= IOU_THRESHOLD) | crowd[:, None]] = 0
    is_ignored: Mask = mostly_ignored(
        common, ground_truth["labels"], crowd, predicted_labels, num_classes
    )
    return iou.T, is_ignored


def draw_mistakes(
    image: Pixels,
    truth: Segments,
    predicted: Segments,
    mistakes: tuple[Mask, Mask],
    ignored: Mask,
) -> Pixels:
    """Draw missed segments in red and extra ones in yellow, in stripes where both are.

    The rest of the image is gray, with lines around the ground truth that was found; pixels that
    do not count are black.

    Args:
        image: uint8 [H, W, 3].
        truth, predicted: segments at this size.
        mistakes: of `match_image`.
        ignored: bool [H, W].

    Returns:
        uint8 [H, W, 3].
    """
    size_hw = image.shape[0], image.shape[1]
    is_missed, is_extra = mistakes
    drawn = np.repeat(image.mean(axis=2, keepdims=True) / 2, 3, axis=2).astype(np.uint8)
    drawn[ignored] = 0
    right = lines_around(truth, ~is_missed & ~truth.crowd, size_hw)
    drawn[right] = RIGHT_LINE
    missed, extra = truth.painted(is_missed, size_hw), predicted.painted(is_extra, size_hw)
    striped = stripes(Region(0, 0, missed))
    lines = lines_around(truth, is_missed, size_hw) | lines_around(predicted, is_extra, size_hw)
    for pixels, color in (
        (missed & (striped | ~extra), MISSED),
        (extra & (~striped | ~missed), EXTRA),
    ):
        blend(drawn, pixels & ~lines, np.array(color, dtype=np.uint8), STRENGTH)
        drawn[pixels & lines] = color
    return drawn


def lines_around(segments: Segments, chosen: Mask, size_hw: tuple[int, int]) -> Mask:
    """Return the pixels of the outlines of the chosen segments, bool [H, W]."""
    lines = np.zeros(size_hw, dtype=bool)
    for i in np.flatnonzero(chosen).tolist():
        region = segments.regions[i]
        lines[region.window] |= outline(region, size_hw, thickness=1)
    return lines
