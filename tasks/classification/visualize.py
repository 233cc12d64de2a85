"""Training pictures with their labels, predictions beside the truth, the confusion matrix."""

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

SIDE = 128  # of a picture in a grid of training pictures
SAMPLE_SIDE = 224  # of a picture with its answer
MOST = 36  # pictures in a grid
ANSWER_SIDE = 320  # longer side of a labelled picture


def draw_batch(batch, classes):
    """uint8 [H, W, 3]: a training batch with its labels."""
    pictures, labels = pictures_of(batch, SIDE, MOST), batch["labels"][:MOST].tolist()
    named = [[class_label(label, classes, room=SIDE - 8)] for label in labels]
    return grid(
        [with_caption(picture, lines) for picture, lines in zip(pictures, named, strict=True)]
    )


def draw_samples(batch, predictions, classes):
    """One uint8 [h, w, 3] per picture with the answer below in the colour of right or wrong, and the truth where it is wrong."""
    chosen, room, tiles = predictions["logits"].argmax(dim=1).tolist(), SAMPLE_SIDE - 8, []
    for picture, label, guess in zip(
        pictures_of(batch, SAMPLE_SIDE), batch["labels"].tolist(), chosen, strict=True
    ):
        lines = [
            class_label(guess, classes, room=room),
            "" if guess == label else f"is {class_label(label, classes, room=room - 16)}",
        ]
        tiles.append(with_caption(picture, lines, color=RIGHT if guess == label else WRONG))
    return tiles


def pictures_of(batch, side, most=None):
    """The first `most` pictures of a batch, None: all, as uint8 [h, w, 3] with a longer side of `side` pixels."""
    return [
        fit_to(picture, longest=side)
        for picture in batch["pixel_values"][:most].permute(0, 2, 3, 1).cpu().numpy()
    ]


def draw_answer(picture, answer):
    """picture: uint8 [3, H, W]; answer: one row of `describe` -> uint8 [h, w, 3] with the label and the runners-up below."""
    shown = fit_to(picture.permute(1, 2, 0).numpy(), longest=ANSWER_SIDE)
    if shown.shape[1] < ANSWER_SIDE // 2:  # a narrow picture: room for the words
        margin = ANSWER_SIDE // 2 - shown.shape[1]
        shown = np.pad(shown, ((0, 0), (0, margin), (0, 0)), constant_values=255)
    lines = []
    for row in answer["top5"][:3]:
        name = class_label(row["id"], {row["id"]: row["label"]}, size=14, room=shown.shape[1] - 70)
        lines.append(f"{name}  {100 * row['score']:.1f} %")
    return with_caption(shown, lines, color=PLAIN, size=14)


# What image classification shows of a run: the drawing and telling hooks of its task.


class ClassificationReporting(ClassReporting):
    """Pictures with labels, the confusion matrix, cross-entropy picture by picture."""

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
        return self.classes, metric.confusion(), "pictures"
