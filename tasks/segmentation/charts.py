"""Pictures of a whole evaluation: which classes are taken for which, and the overlap class by class."""

import numpy as np
from PIL import Image, ImageDraw

from visionloop.tasks import canvas
from visionloop.tasks.classification import draw as classification

MOST_BARS = 40
NAMES, WIDTH, NUMBERS, HEIGHT, TOP = 170, 360, 290, 22, 34  # pixels: columns of a row, its height, and where the first begins
BAR, LOOSE_BAR, EMPTY_BAR, GREY = (44, 100, 160), (190, 210, 232), (244, 244, 244), (150, 150, 150)


def draw_confusion(confusion, classes):
    """confusion: int [K, K] of pixels, rows are the truth -> uint8 [H, W, 3]: in each cell the percent of its row, from 1 on."""
    pixels = confusion.sum(axis=1, keepdims=True)
    percent = np.rint(100 * confusion / np.maximum(pixels, 1)).astype(np.int64)
    return canvas.with_caption(classification.draw_confusion(percent, classes), ["numbers: percent of the true pixels of the row"])


def draw_per_class(per_class, classes):
    """per_class: of `SegmentationMetric.per_class` -> uint8 [H, W, 3]: a bar for IoU, a paler one behind it for the accuracy.

    In the order of classes, those that are in no pixel without a bar; of more than 40 with one, the best and the worst twenty by IoU.
    """
    union, accuracy = per_class["IoU"], per_class["accuracy"]
    shown, title = np.arange(len(union)), "intersection over union by class; pale: accuracy"
    if len(union) > MOST_BARS:
        known = np.flatnonzero(~np.isnan(union))
        best_first = known[np.argsort(-union[known], kind="stable")]
        shown = best_first
        if len(known) > MOST_BARS:
            shown = np.concatenate([best_first[: MOST_BARS // 2], best_first[-(MOST_BARS // 2) :]])
            title += f"; the best and the worst {MOST_BARS // 2} of {len(known)} classes"
    image = Image.new("RGB", (NAMES + WIDTH + NUMBERS, TOP + 14 + HEIGHT * max(len(shown), 1)), canvas.PAPER)
    draw = ImageDraw.Draw(image)
    canvas.text_on(draw, (NAMES, 8), title)
    for i, label in enumerate(shown):
        top = TOP + HEIGHT * i
        middle = top + HEIGHT // 2
        canvas.text_on(draw, (NAMES - 8, middle), canvas.class_label(label, classes, room=NAMES - 16), anchor="rm")
        for score, color in ((1, EMPTY_BAR), (accuracy[label], LOOSE_BAR), (union[label], BAR)):
            if score > 0:
                draw.rectangle((NAMES, top + 3, NAMES + WIDTH * score, top + HEIGHT - 4), fill=color)
        ink = GREY if np.isnan(union[label]) else canvas.INK
        canvas.text_on(draw, (NAMES + WIDTH + 8, middle), _numbers(per_class, label), anchor="lm", color=ink)
    if not len(shown):
        canvas.text_on(draw, (NAMES, TOP + 2), "no pixels with a known class")
    return np.array(image)


def _numbers(per_class, label):
    if np.isnan(per_class["IoU"][label]):
        return "in no picture"
    accuracy = per_class["accuracy"][label]
    told = "n/a" if np.isnan(accuracy) else f"{accuracy:.3f}"
    return f"IoU {per_class['IoU'][label]:.3f}  accuracy {told}  {100 * per_class['pixels'][label]:.1f} % of pixels"
