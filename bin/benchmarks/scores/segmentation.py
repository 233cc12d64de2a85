"""Scores of masks by others: torchmetrics, and the histogram that most repositories share.

torchmetrics has a MeanIoU too. It cannot be set to our rule: it takes the mean over images of
each image's own score, we count all pixels together.
"""

from dataclasses import dataclass

import numpy as np
import torch

from visionloop.bin.benchmarks.scores.sides import Own, Side, as_it_is
from visionloop.datasets.segmentation.mask_values import IGNORED
from visionloop.metrics.segmentation import SegmentationMetric

CLASSES = 150
BLOCK = 16  # pixels along a side that share their class
PRESENT = 8  # classes of an image, about as many as in ADE20K


@dataclass(frozen=True)
class Answers:
    """Masks of square blocks, some of them ignored, of which four fifths are found."""

    device: torch.device
    start: int
    count: int
    classes: int
    side: int

    def make(self):
        """(predictions, batch) as SegmentationMetric takes them."""
        generator = np.random.default_rng(self.start)
        blocks = -(-self.side // BLOCK)
        shape = self.count, blocks, blocks
        present = generator.integers(0, self.classes, (self.count, PRESENT))
        truth = np.take_along_axis(
            present, generator.integers(0, PRESENT, (self.count, blocks**2)), axis=1
        ).reshape(shape)
        found = np.where(generator.random(shape) < 0.8, truth, np.roll(truth, 1, axis=2))
        truth = np.where(generator.random(shape) < 0.05, IGNORED, truth)
        truth, found = (self._enlarged(ids) for ids in (truth, found))
        return {"ids": list(found)}, {
            "ids": list(truth),
            "sample_ids": torch.arange(self.start, self.start + self.count),
        }

    def _enlarged(self, ids):
        ids = torch.from_numpy(ids.astype(np.uint8)).to(self.device)
        return (
            ids.repeat_interleave(BLOCK, 1)
            .repeat_interleave(BLOCK, 2)[:, : self.side, : self.side]
            .contiguous()
        )


def sides(classes, libraries):
    """{name: Side}."""
    own = Side(
        "ours: counts of each image",
        lambda: Own(SegmentationMetric(classes)),
        as_it_is,
        against=None,
        tolerance=None,
    )
    found = {
        "ours": own,
        "histogram": Side(
            "histogram: numpy's bincount of each image, added up",
            lambda: Histogram(classes),
            as_arrays,
        ),
    }
    if "torchmetrics" in libraries:
        does = "torchmetrics: MulticlassJaccardIndex macro with ignore_index=255, int64 ids; other scores from its confusion matrix"
        found["torchmetrics"] = Side(does, lambda: Torchmetrics(classes), as_long)
    return found


class Histogram:
    """`fast_hist`, as fully convolutional networks were scored first."""

    def __init__(self, classes):
        self.classes, self.confusion = classes, np.zeros((classes, classes), dtype=np.int64)

    def update(self, prepared):
        for truth, found in prepared:
            counted = truth < self.classes
            cells = self.classes * truth[counted].astype(int) + found[counted]
            self.confusion += np.bincount(cells, minlength=self.classes**2).reshape(
                self.classes, self.classes
            )

    def compute(self):
        return scores_of(self.confusion)


class Torchmetrics:
    """MulticlassJaccardIndex, whose state is the confusion matrix."""

    def __init__(self, classes):
        from torchmetrics.classification import MulticlassJaccardIndex

        self.metric = MulticlassJaccardIndex(
            classes, average="macro", ignore_index=IGNORED, validate_args=False
        )

    def update(self, prepared):
        found, truth = prepared
        self.metric.to(found.device)
        self.metric.update(found, truth)

    def compute(self):
        return scores_of(self.metric.confmat.cpu().numpy()) | {"miou": self.metric.compute()}


def as_arrays(predictions, batch):
    return [
        (truth.cpu().numpy(), found.cpu().numpy())
        for truth, found in zip(batch["ids"], predictions["ids"], strict=True)
    ]


def as_long(predictions, batch):
    return torch.stack(predictions["ids"]).long(), torch.stack(batch["ids"]).long()


def scores_of(confusion):
    """The three scores of a confusion matrix, rows true."""
    hits, pixels, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    union = pixels + predicted - hits
    return {
        "miou": np.mean(hits[union > 0] / union[union > 0]),
        "pixel_accuracy": hits.sum() / pixels.sum(),
        "mean_class_accuracy": np.mean(hits[pixels > 0] / pixels[pixels > 0]),
    }
