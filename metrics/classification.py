"""Scores of image classification, from one row per image so that any sharding gives the same bits."""

import numpy as np
import torch

COLUMNS = {
    "sample_ids": np.int64,
    "labels": np.int64,
    "predictions": np.int64,
    "in_top5": np.bool_,
    "losses": np.float64,
}


class ClassificationMetric:
    """Accuracy, top-5 accuracy, mean accuracy over classes and cross-entropy, with the confusion matrix.

    A tie goes to the lowest class index, in the prediction and in the rank; a nan logit never wins.
    Classes without an image take no part in `mean_class_accuracy`. `val_loss` is the plain
    cross-entropy, in float64.
    """

    def __init__(self, num_classes):
        self.num_classes = num_classes
        self._batches = []  # column dicts as they came
        self._table = None  # all of them as one, sorted by sample id; None when out of date

    def update(self, predictions, batch):
        """predictions: {"logits": [B, C]}; batch: {"labels": int64 [B], "sample_ids": int64 [B]}. Costs one copy to the host."""
        logits = predictions["logits"].detach().float().cpu().double().numpy()
        labels = batch["labels"].detach().cpu().numpy()
        if logits.shape != (len(labels), self.num_classes):
            raise ValueError(
                f"logits: expected shape {(len(labels), self.num_classes)}, got {logits.shape}"
            )
        comparable = np.where(np.isnan(logits), -np.inf, logits)
        self._append(
            sample_ids=batch["sample_ids"].detach().cpu().numpy(),
            labels=labels,
            predictions=comparable.argmax(1),  # numpy's takes the first of equals, torch's any
            in_top5=label_rank(comparable, labels) < 5,
            losses=cross_entropy(logits, labels),
        )

    def state(self):
        """{column: array [N]}, sorted by sample id."""
        return dict(self._rows())

    def merge(self, states):
        """Replace the content by that of these states, in any order."""
        self._batches, self._table = [], None
        for state in states:
            self._append(**state)

    def __len__(self):
        return sum(len(columns["labels"]) for columns in self._batches)

    def compute(self, picks=None):
        """{"accuracy", "accuracy_top5" from 5 classes on, "mean_class_accuracy", "val_loss"} of the images at `picks`.

        picks: positions in the order of sample ids, repeats count again; None: all. nan where there
        are no images.
        """
        rows = self._rows()
        if picks is not None:
            rows = {column: values[picks] for column, values in rows.items()}
        labels, correct = rows["labels"], rows["predictions"] == rows["labels"]
        count = len(labels) or np.nan
        images = np.bincount(labels, minlength=self.num_classes)
        hits = np.bincount(labels[correct], minlength=self.num_classes)
        shown = images > 0
        scores = {"accuracy": correct.sum() / count}
        if self.num_classes >= 5:
            scores["accuracy_top5"] = rows["in_top5"].sum() / count
        scores["mean_class_accuracy"] = (hits[shown] / images[shown]).sum() / (
            shown.sum() or np.nan
        )
        scores["val_loss"] = rows["losses"].sum() / count
        return {key: float(value) for key, value in scores.items()}

    def confusion(self):
        """int64 [C, C]: rows are true classes, columns predicted ones."""
        rows = self._rows()
        cells = rows["labels"] * self.num_classes + rows["predictions"]
        return np.bincount(cells, minlength=self.num_classes**2).reshape(
            self.num_classes, self.num_classes
        )

    def per_class(self):
        """{"images": int64 [C], "accuracy": share of a class's images found, "precision": share of its predictions right}.

        nan for a class without images, or without predictions.
        """
        confusion = self.confusion()
        hits, images, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
        return {
            "images": images,
            "accuracy": hits / np.where(images > 0, images, np.nan),
            "precision": hits / np.where(predicted > 0, predicted, np.nan),
        }

    def per_image(self):
        """{"sample_ids": int64 [N], "losses": cross-entropy float64 [N]}, sorted by sample id."""
        rows = self._rows()
        return {name: rows[name].copy() for name in ("sample_ids", "losses")}

    def majority_accuracy(self, majority_class=None):
        """Accuracy of always answering one class: the most frequent in the evaluated images, or in training if given."""
        labels = self._rows()["labels"]
        if not len(labels):
            return float("nan")
        images = np.bincount(labels, minlength=self.num_classes)
        return float(images.max() if majority_class is None else images[majority_class]) / len(
            labels
        )

    def _append(self, **columns):
        self._batches.append(
            {column: np.asarray(columns[column], dtype=kind) for column, kind in COLUMNS.items()}
        )
        self._table = None

    def _rows(self):
        if self._table is None:
            whole = {
                column: np.concatenate(
                    [np.empty(0, kind), *(batch[column] for batch in self._batches)]
                )
                for column, kind in COLUMNS.items()
            }
            order = np.argsort(whole["sample_ids"], kind="stable")
            self._table = {column: values[order] for column, values in whole.items()}
        return self._table


def label_rank(logits, labels):
    """How many classes stand before the true one, equals before it by lower index: int64 [B]. logits: [B, C] without nan."""
    true_logits = np.take_along_axis(logits, labels[:, None], axis=1)
    before = (logits > true_logits) | (
        (logits == true_logits) & (np.arange(logits.shape[1]) < labels[:, None])
    )
    return before.sum(1)


def cross_entropy(logits, labels):
    """float64 [B], each row by itself. logits: float64 [B, C]."""
    return torch.nn.functional.cross_entropy(
        torch.from_numpy(logits), torch.from_numpy(labels), reduction="none"
    ).numpy()
