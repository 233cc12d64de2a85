"""Scores of classification by others: torchmetrics, and what one writes oneself."""

from dataclasses import dataclass

import torch

from visionloop.bin.benchmarks.scores.sides import Own, Side, as_it_is
from visionloop.metrics.classification import ClassificationMetric

CLASSES = 1000


@dataclass(frozen=True)
class Answers:
    """Random logits of some images; every class comes in turn, so that none is without an image."""

    device: torch.device
    start: int
    count: int
    classes: int
    side: int

    def make(self):
        """(predictions, batch) as ClassificationMetric takes them."""
        generator = torch.Generator().manual_seed(self.start)
        ids = torch.arange(self.start, self.start + self.count)
        labels = ids % self.classes
        logits = torch.randn(self.count, self.classes, generator=generator)
        logits[torch.arange(self.count), labels] += 2.5
        return {"logits": logits.to(self.device)}, {
            "labels": labels.to(self.device),
            "sample_ids": ids,
        }


def sides(classes, libraries):
    """{name: Side}."""
    found = {
        "ours": Side(
            "ours: one row an image, float64 loss",
            lambda: Own(ClassificationMetric(classes)),
            as_it_is,
            against=None,
            tolerance=None,
        ),
        "plain torch": Side(
            "plain torch: sums of hits by class, float32 loss", lambda: Sums(classes), columns
        ),
    }
    if "torchmetrics" in libraries:
        does = "torchmetrics: MulticlassAccuracy micro, top 5 and macro, and a mean of cross-entropies, which it has no metric for"
        found["torchmetrics"] = Side(does, lambda: Torchmetrics(classes), columns)
    return found


def columns(predictions, batch):
    return predictions["logits"], batch["labels"]


class Sums:
    """The usual loop of an example: topk, and sums that are read at the end."""

    def __init__(self, classes):
        self.hits, self.images = torch.zeros(2, classes, dtype=torch.int64)
        self.in_top5, self.loss, self.classes = 0, 0.0, classes

    def update(self, prepared):
        logits, labels = prepared
        best = logits.topk(min(5, self.classes)).indices == labels[:, None]
        self.hits += torch.bincount(labels[best[:, 0]].cpu(), minlength=self.classes)
        self.images += torch.bincount(labels.cpu(), minlength=self.classes)
        self.in_top5 += best.any(1).sum()
        self.loss += (
            torch.nn.functional.cross_entropy(logits, labels, reduction="none").double().sum()
        )

    def compute(self):
        total, shown = self.images.sum(), self.images > 0
        scores = {
            "accuracy": self.hits.sum() / total,
            "mean_class_accuracy": (self.hits[shown] / self.images[shown]).mean(),
        }
        if self.classes >= 5:
            scores["accuracy_top5"] = self.in_top5 / total
        return scores | {"val_loss": self.loss / total}


class Torchmetrics:
    """Each score by its own metric."""

    def __init__(self, classes):
        from torchmetrics import MeanMetric
        from torchmetrics.classification import MulticlassAccuracy

        self.metrics = {
            "accuracy": MulticlassAccuracy(classes, average="micro", validate_args=False),
            "mean_class_accuracy": MulticlassAccuracy(
                classes, average="macro", validate_args=False
            ),
        }
        if classes >= 5:
            self.metrics["accuracy_top5"] = MulticlassAccuracy(
                classes, average="micro", top_k=5, validate_args=False
            )
        self.loss = MeanMetric(nan_strategy="disable").set_dtype(torch.float64)

    def update(self, prepared):
        logits, labels = prepared
        for metric in (*self.metrics.values(), self.loss):
            metric.to(logits.device)
        for metric in self.metrics.values():
            metric.update(logits, labels)
        self.loss.update(torch.nn.functional.cross_entropy(logits, labels, reduction="none"))

    def compute(self):
        return {
            name: metric.compute()
            for name, metric in (*self.metrics.items(), ("val_loss", self.loss))
        }
