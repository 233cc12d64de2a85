"""Scores of image classification, computed from one row for each image."""

from collections.abc import Sequence

import numpy as np
import torch

from visionloop.metrics.rows import Array, Columns, Inputs, RowTable, divide

NO_ROWS = {
    "sample_ids": np.empty(0, np.int64),
    "labels": np.empty(0, np.int64),
    "predictions": np.empty(0, np.int64),
    "in_top5": np.empty(0, np.bool_),
    "losses": np.empty(0, np.float64),
}


class ClassificationMetric:
    """Accuracy, top-5 accuracy, mean accuracy over classes, cross-entropy and the confusion matrix.

    Ties go to the lowest class index, in the prediction and in the rank; a nan logit never wins.
    Classes without an image are left out of `mean_class_accuracy`. `val_loss` is the plain
    cross-entropy, in float64. Any distribution of the images over processes gives the same bits.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._table = RowTable(NO_ROWS)

    def update(self, predictions: Inputs, batch: Inputs) -> None:
        """Add the images of a batch; costs one copy to the host.

        Args:
            predictions: {"logits": float [B, C]}.
            batch: {"labels": int64 [B], "sample_ids": int64 [B]}.

        Raises:
            ValueError: for logits of another shape.
        """
        logits = predictions["logits"].detach().float().cpu().double().numpy()
        labels = batch["labels"].detach().cpu().numpy()
        if logits.shape != (len(labels), self.num_classes):
            raise ValueError(
                f"logits: expected shape {(len(labels), self.num_classes)}, got {logits.shape}"
            )
        comparable = np.where(np.isnan(logits), -np.inf, logits)
        columns = {
            "sample_ids": batch["sample_ids"].detach().cpu().numpy(),
            "labels": labels,
            # numpy's argmax takes the first of equal values, torch's takes any
            "predictions": comparable.argmax(1),
            "in_top5": label_rank(comparable, labels) < 5,
            "losses": cross_entropy(logits, labels),
        }
        self._table.append(columns)

    def state(self) -> Columns:
        """Return {column: array [N]}, sorted by sample id."""
        return dict(self._table.sorted_columns())

    def merge(self, states: Sequence[Columns]) -> None:
        """Replace the content by these states, in any order."""
        self._table.replace(states)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._table)

    def compute(self, picks: Array | None = None) -> dict[str, float]:
        """Compute the scores of the images at `picks`.

        Args:
            picks: positions in the order of sample ids, where repeats count again; None: all.

        Returns:
            "accuracy", "accuracy_top5" from 5 classes on, "mean_class_accuracy" and "val_loss";
            nan without images.
        """
        columns = self._picked(picks)
        labels, correct = columns["labels"], columns["predictions"] == columns["labels"]
        count = len(labels) or np.nan
        images = np.bincount(labels, minlength=self.num_classes)
        hits = np.bincount(labels[correct], minlength=self.num_classes)
        present = images > 0
        scores = {"accuracy": correct.sum() / count}
        if self.num_classes >= 5:
            scores["accuracy_top5"] = columns["in_top5"].sum() / count
        scores["mean_class_accuracy"] = (hits[present] / images[present]).sum() / (
            present.sum() or np.nan
        )
        scores["val_loss"] = columns["losses"].sum() / count
        return {key: float(value) for key, value in scores.items()}

    def confusion(self, picks: Array | None = None) -> Array:
        """Return the confusion matrix, int64 [C, C]: rows are true classes, columns predictions."""
        columns = self._picked(picks)
        cells = columns["labels"] * self.num_classes + columns["predictions"]
        counts = np.bincount(cells, minlength=self.num_classes**2)
        return counts.reshape(self.num_classes, self.num_classes)

    def per_class(self, picks: Array | None = None) -> Columns:
        """Return "images" int64 [C], "accuracy" (recall) and "precision" float64 [C].

        nan for a class without images, or without predictions. picks: as in `compute`.
        """
        confusion = self.confusion(picks)
        hits, images, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
        return {
            "images": images,
            "accuracy": divide(hits, images),
            "precision": divide(hits, predicted),
        }

    def per_image(self) -> Columns:
        """Return "sample_ids" int64 [N] and "losses" (cross-entropy) float64 [N], sorted by id."""
        columns = self._table.sorted_columns()
        return {name: columns[name].copy() for name in ("sample_ids", "losses")}

    def _picked(self, picks: Array | None) -> Columns:
        """Return the rows of the images at `picks`, all for None."""
        columns = self._table.sorted_columns()
        return (
            columns if picks is None else {name: values[picks] for name, values in columns.items()}
        )

    def majority_accuracy(self, majority_class: int | None = None) -> float:
        """Return the accuracy of always predicting one class.

        Args:
            majority_class: the most frequent class in training; None: in the evaluated images.
        """
        labels = self._table.sorted_columns()["labels"]
        if not len(labels):
            return float("nan")
        images = np.bincount(labels, minlength=self.num_classes)
        hits = images.max() if majority_class is None else images[majority_class]
        return float(hits) / len(labels)


def label_rank(logits: Array, labels: Array) -> Array:
    """Count the classes ranked before the true one, int64 [B]; equal logits rank by class index.

    Args:
        logits: float [B, C] without nan.
        labels: int64 [B].
    """
    true_logits = np.take_along_axis(logits, labels[:, None], axis=1)
    before = (logits > true_logits) | (
        (logits == true_logits) & (np.arange(logits.shape[1]) < labels[:, None])
    )
    return before.sum(1)


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Return the cross-entropy of each row, float64 [B].

    Args:
        logits: float64 [B, C].
        labels: int64 [B].
    """
    losses = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits), torch.from_numpy(labels), reduction="none"
    )
    return losses.numpy()
