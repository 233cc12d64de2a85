"""Training images with their boxes, predictions beside the truth, answers of `predict`."""

from typing import ClassVar

import numpy as np
from PIL import Image

from visionloop.engine.metric import MetricSpec
from visionloop.metrics.detection_confusion import (
    NOTHING,
    SAME_OBJECT,
    SHOWN_SCORE,
    count_confusion,
    find_partners,
)
from visionloop.tasks.drawing.boxes import COLORS, SPARSE, draw_boxes, with_legend
from visionloop.tasks.drawing.canvas import PLAIN, RIGHT, fit_to, grid, with_caption
from visionloop.tasks.drawing.charts import draw_ap_per_class, draw_precision_recall, recall_lines
from visionloop.tasks.drawing.confusion_matrix import draw_confusion
from visionloop.tasks.visualize import ClassReporting

SIDE = 400  # longer side of an image in a grid
PAIR_SIDE, NARROWEST_PAIR = (
    317,
    300,
)  # longer side of each of a pair, and the width that the words below one need
MOST_TRAINING = 12  # images in a grid
PAIR_WORDS = (
    "left: truth, dashed: missed",
    f"right: found with a score from {SHOWN_SCORE}, dashed: too many",
)
MIN_DRAWING_SIDE, MAX_DRAWING_SIDE = 640, 1600  # longer side


def draw_batch(batch, classes):
    """uint8 [H, W, 3]: training images as the network sees them, with their boxes; targets are cxcywh in 0..1 of them."""
    tiles, labels = [], []
    images = batch["pixel_values"][:MOST_TRAINING].permute(0, 2, 3, 1).cpu().numpy()
    for pixels, target in zip(images, batch["targets"][:MOST_TRAINING], strict=True):
        image = fit_to(pixels, longest=SIDE)
        boxes = target["boxes"].cpu().numpy().astype(np.float64) * np.tile(
            [image.shape[1], image.shape[0]], 2
        )
        corners = np.concatenate(
            [boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1
        )
        labels.append(target["class_labels"].cpu().numpy())
        tiles.append(
            draw_boxes(
                image,
                corners,
                labels[-1],
                classes,
                names=not names_shown_by_color(range(len(classes))),
            )
        )
    return with_legend(
        grid(tiles),
        np.concatenate(labels),
        classes,
        words=[f"boxes in these {len(tiles)} images:"],
    )


def draw_samples(batch, predictions, classes):
    """One uint8 [h, w, 3] per image of an evaluation's batch, at most 640 px wide: the truth on the left, what was found on the right.

    On both sides a dashed box has no partner: missed on the left, too many on the right.
    """
    host = {
        key: predictions[key].detach().float().cpu().numpy()
        for key in ("boxes", "scores", "labels")
    }
    images, drawn = batch["pixel_values"].permute(0, 2, 3, 1).cpu().numpy(), []
    for i, (pixels, size_hw) in enumerate(zip(images, batch["sizes"].tolist(), strict=True)):
        shown = host["scores"][i] >= SHOWN_SCORE
        found = {
            "boxes": host["boxes"][i][shown],
            "scores": host["scores"][i][shown],
            "labels": host["labels"][i][shown].astype(np.int64),
        }
        pair = draw_pair(pixels, size_hw, batch["truth"][i], found, classes)
        pair = np.pad(
            pair, ((0, 0), (0, max(0, NARROWEST_PAIR - pair.shape[1])), (0, 0)), constant_values=255
        )
        labels = np.concatenate([batch["truth"][i]["labels"], found["labels"]])
        drawn.append(with_legend(pair, labels, classes, words=PAIR_WORDS, counted=False))
    return drawn


def draw_pair(pixels, size_hw, truth, found, classes):
    """Targets and predictions side by side, with the count below: uint8 [h, w, 3].

    pixels: uint8 [S, S, 3], squashed from an image of size_hw; truth: as in the batch; found:
    "boxes" [N, 4] xyxy in pixels of the image, "scores", "labels" [N].
    """
    scale = PAIR_SIDE / max(size_hw)
    size_wh = max(1, round(size_hw[1] * scale)), max(1, round(size_hw[0] * scale))
    image = np.array(Image.fromarray(pixels).resize(size_wh, Image.Resampling.BICUBIC))
    corners = np.concatenate(
        [truth["boxes"][:, :2], truth["boxes"][:, :2] + truth["boxes"][:, 2:]], axis=1
    )
    hit, used = find_partners(corners, truth["labels"], truth["crowd"], found)
    names = not names_shown_by_color(range(len(classes)))
    left = draw_boxes(image, corners * scale, truth["labels"], classes, dashed=~hit, names=names)
    right = draw_boxes(
        image,
        found["boxes"] * scale,
        found["labels"],
        classes,
        found["scores"],
        dashed=~used,
        names=names,
    )
    wanted, too_many = ~truth["crowd"], int((~used).sum())
    line = f"found {int((hit & wanted).sum())} of {int(wanted.sum())}, {too_many} too many at IoU {SAME_OBJECT:g}"
    gap = np.full((image.shape[0], 6, 3), 255, dtype=np.uint8)
    is_right = hit[wanted].all() and not too_many
    return with_caption(
        np.concatenate([left, gap, right], axis=1), [line], color=RIGHT if is_right else PLAIN
    )


def names_shown_by_color(labels):
    """Whether the colours of these classes differ enough for a legend to do without names at the boxes."""
    return max(labels, default=0) < len(COLORS)


def draw_prediction(image, answer):
    """image: uint8 [3, H, W]; answer: {"detections": [{"label", "id", "score", "box": [x, y, w, h]}, ..]} -> uint8 [h, w, 3].

    Detections with a score from 0.4 on, whatever else the answer holds. The longer side becomes 640
    to 1600 pixels; below stands how many of each class there are.
    """
    longest = max(image.shape[1:])
    shown = fit_to(
        image.permute(1, 2, 0).numpy(),
        longest=int(np.clip(longest, MIN_DRAWING_SIDE, MAX_DRAWING_SIDE)),
    )
    rows = [row for row in answer["detections"] if row["score"] >= SHOWN_SCORE]
    boxes = np.array([row["box"] for row in rows], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    boxes *= np.tile([shown.shape[1] / image.shape[2], shown.shape[0] / image.shape[1]], 2)
    labels, classes = [row["id"] for row in rows], {row["id"]: row["label"] for row in rows}
    names = len(rows) <= SPARSE or not names_shown_by_color(labels)
    drawn = draw_boxes(shown, boxes, labels, classes, [row["score"] for row in rows], names=names)
    if drawn.shape[1] < MIN_DRAWING_SIDE // 4:  # a narrow image: room for the words
        drawn = np.pad(
            drawn,
            ((0, 0), (0, MIN_DRAWING_SIDE // 4 - drawn.shape[1]), (0, 0)),
            constant_values=255,
        )
    return with_legend(
        drawn,
        labels,
        classes,
        words=() if rows else [f"nothing found with a score from {SHOWN_SCORE}"],
    )


# What object detection shows of a run: the drawing and telling hooks of its task.


class DetectionReporting(ClassReporting):
    """Boxes found beside the true ones, precision against recall, confusions, the validation loss image by image."""

    sample_score = MetricSpec(
        "loss_per_box",
        "loss per box",
        "float",
        False,
        "the validation loss of the image over its boxes",
    )
    score_charts: ClassVar = {
        "average precision": ("mAP", "mAP50", "mAP75"),
        "average precision by size": ("mAP_small", "mAP_medium", "mAP_large"),
        "average recall by number of boxes": ("AR1", "AR10", "AR100"),
        "average recall by size": ("AR_small", "AR_medium", "AR_large"),
    }
    class_curves = ("AP", "AP50")
    score_column = "losses"

    def draw(self, batch):
        return {"batch": draw_batch(batch, self.classes)}

    def draw_samples(self, batch, predictions):
        return draw_samples(batch, predictions, self.classes)

    def draw_scores(self, metric):
        curves = draw_precision_recall(metric.curves(), self.classes)
        classes, counts, _ = self.confusion(metric)
        bars = draw_ap_per_class(metric.per_class(), self.classes)
        return {
            "precision_recall": curves,
            "average_precision": bars,
            "confusion": draw_confusion(counts, classes),
        }

    def confusion(self, metric):
        return (*self.classes, NOTHING), count_confusion(metric.state(), len(self.classes)), "boxes"

    def curves(self, metric):
        lines = recall_lines(metric.curves(), self.classes)
        return [
            {
                "title": "precision and recall at IoU 0.5",
                "x": "recall",
                "y": "precision",
                "lines": lines,
            }
        ]
