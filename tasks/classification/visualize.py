"""Training images with their labels, predictions beside the truth, the confusion matrix."""

from typing import ClassVar

import numpy as np

from visionloop.engine.metric import MetricSpec
from visionloop.tasks.drawing.canvas import (
    PLAIN,
    RIGHT,
    WRONG,
    class_label,
    fit_to,
    grid,
    with_caption,
)
from visionloop.tasks.drawing.confusion_matrix import draw_confusion
from visionloop.tasks.visualize import ClassReporting

SIDE = 128  # of an image in a grid of training images
SAMPLE_SIDE = 224  # of an image with its answer
MOST = 36  # images in a grid
PREDICTION_SIDE = 320  # longer side of a labelled image


def draw_batch(batch, classes):
    """uint8 [H, W, 3]: a training batch with its labels."""
    images, labels = images_of(batch, SIDE, MOST), batch["labels"][:MOST].tolist()
    named = [[class_label(label, classes, room=SIDE - 8)] for label in labels]
    return grid([with_caption(image, lines) for image, lines in zip(images, named, strict=True)])


def draw_samples(batch, predictions, classes):
    """One uint8 [h, w, 3] per image with the answer below in the colour of right or wrong, and the truth where it is wrong."""
    chosen, room, tiles = predictions["logits"].argmax(dim=1).tolist(), SAMPLE_SIDE - 8, []
    for image, label, did_you_mean in zip(
        images_of(batch, SAMPLE_SIDE), batch["labels"].tolist(), chosen, strict=True
    ):
        lines = [
            class_label(did_you_mean, classes, room=room),
            "" if did_you_mean == label else f"is {class_label(label, classes, room=room - 16)}",
        ]
        tiles.append(with_caption(image, lines, color=RIGHT if did_you_mean == label else WRONG))
    return tiles


def images_of(batch, side, most=None):
    """The first `most` images of a batch, None: all, as uint8 [h, w, 3] with a longer side of `side` pixels."""
    return [
        fit_to(image, longest=side)
        for image in batch["pixel_values"][:most].permute(0, 2, 3, 1).cpu().numpy()
    ]


def draw_prediction(image, answer):
    """image: uint8 [3, H, W]; answer: one row of `describe` -> uint8 [h, w, 3] with the label and the runners-up below."""
    shown = fit_to(image.permute(1, 2, 0).numpy(), longest=PREDICTION_SIDE)
    if shown.shape[1] < PREDICTION_SIDE // 2:  # a narrow image: room for the words
        margin = PREDICTION_SIDE // 2 - shown.shape[1]
        shown = np.pad(shown, ((0, 0), (0, margin), (0, 0)), constant_values=255)
    lines = []
    for row in answer["top5"][:3]:
        name = class_label(row["id"], {row["id"]: row["label"]}, size=14, room=shown.shape[1] - 70)
        lines.append(f"{name}  {100 * row['score']:.1f} %")
    return with_caption(shown, lines, color=PLAIN, size=14)


# What image classification shows of a run: the drawing and telling hooks of its task.


class ClassificationReporting(ClassReporting):
    """Images with labels, the confusion matrix, cross-entropy image by image."""

    sample_score = MetricSpec(
        "cross_entropy",
        "cross-entropy",
        "float",
        False,
        "of the true class, without label smoothing",
    )
    score_charts: ClassVar = {"accuracy": ("accuracy", "accuracy_top5", "mean_class_accuracy")}
    class_curves = ("accuracy", "precision")
    score_column = "losses"

    def draw(self, batch):
        return {"batch": draw_batch(batch, self.classes)}

    def draw_samples(self, batch, predictions):
        return draw_samples(batch, predictions, self.classes)

    def draw_scores(self, metric):
        return {"confusion": draw_confusion(metric.confusion(), self.classes)}

    def reference_scores(self, metric):
        return {"accuracy of always naming the most frequent class": metric.majority_accuracy()}

    def confusion(self, metric):
        return self.classes, metric.confusion(), "images"
