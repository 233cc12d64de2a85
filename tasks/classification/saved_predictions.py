"""Saved predictions of image classification: labels in JSON lines, scored without a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from visionloop.datasets.classification.image_folder import ImageFolderDataset, ImageFolderIndex
from visionloop.datasets.io.json_columns import show
from visionloop.engine.types import JsonObject, Scores
from visionloop.metrics.classification import ClassificationMetric
from visionloop.tasks.classification.data import index_split
from visionloop.tasks.saved_predictions import predictions_error, read_lines, require_images

# of a state of the metric
Column: TypeAlias = NDArray[np.int64] | NDArray[np.float64] | NDArray[np.bool_]


class PredictedLabels(NamedTuple):
    """One line of the file: the predicted label and the labels of its top 5, best first."""

    label: str
    top5: list[str]


class SavedPredictionsMetric(ClassificationMetric):
    """ClassificationMetric without the scores in `unavailable`, which labels alone do not give."""

    def __init__(self, num_classes: int, unavailable: set[str]) -> None:
        super().__init__(num_classes)
        self.unavailable = unavailable

    def compute(self, picks: NDArray[np.int64] | None = None) -> Scores:
        """Compute the scores that the file has the numbers for."""
        scores = super().compute(picks)
        return {key: value for key, value in scores.items() if key not in self.unavailable}


def score_saved_predictions(
    path: str | Path, *, data: str, split: str
) -> tuple[tuple[str, ...], SavedPredictionsMetric]:
    """Score lines {"file", "label", "top5": [{"label"}, ..]}; see `Task.score_saved_predictions`.

    Every image of the split must have a line. Unless all lines have "top5" there is no top-5
    accuracy, and there is never a validation loss. A label that is no class of the data is a wrong
    prediction, as with a model that has more classes; at least one must be a class of the data.

    Returns:
        (class names: those of the data, then the other labels of the file; metric).

    Raises:
        UserError: the file cannot be read, or does not fit the data.
    """
    index = index_split(data, split)
    lines = read_lines(path)
    images = require_images(path, lines, index)
    if len(lines) < len(index):
        missing = np.setdiff1d(np.arange(len(index)), images)
        raise predictions_error(
            path,
            f"{len(missing)} of {len(index)} images have no line, the first is"
            f" {index.name(missing[0])}",
        )
    predictions = [read_labels(path, position, line) for position, line in lines]
    labels = set(chain.from_iterable([row.label, *row.top5] for row in predictions))
    if labels.isdisjoint(index.classes):
        raise predictions_error(
            path,
            f"{lines[0][0]}: label is {show(predictions[0].label)}; no label in the file is a"
            f" class of {index.folder}",
        )
    classes = (*index.classes, *sorted(labels - set(index.classes)))
    has_top5 = all("top5" in line for _, line in lines)
    metric = SavedPredictionsMetric(
        len(classes), {"val_loss"} if has_top5 else {"val_loss", "accuracy_top5"}
    )
    id_of = {name: i for i, name in enumerate(classes)}
    metric.merge([metric_state(index, images, predictions, id_of)])
    return classes, metric


def read_labels(path: str | Path, position: str, line: JsonObject) -> PredictedLabels:
    """Return the labels of one line; raise UserError for a line without them."""
    label, top5 = line.get("label"), line.get("top5", [])
    if not isinstance(label, str):
        why = (
            f"the image could not be read ({line['error']})"
            if "error" in line
            else f"label is {show(label)}, expected a class"
        )
        raise predictions_error(path, f"{position}: {why}")
    entries = top5 if isinstance(top5, list) else [top5]
    labels = [entry["label"] for entry in entries if _has_label(entry)]
    if len(labels) < len(entries):
        raise predictions_error(
            path, f'{position}: top5 is {show(top5)}, expected [{{"label"}}, ..]'
        )
    return PredictedLabels(label, labels)


def _has_label(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("label"), str)


def metric_state(
    index: ImageFolderIndex,
    images: NDArray[np.int64],
    predictions: Sequence[PredictedLabels],
    id_of: Mapping[str, int],
) -> dict[str, Column]:
    """Return a state of `ClassificationMetric` with one row per line and nan as the losses.

    Args:
        index: the images of the split.
        images: row of the index for each line, int64 [N].
        predictions: N lines.
        id_of: {class name: id}.
    """
    labels = index.labels[images]
    in_top5 = [
        label in map(id_of.get, row.top5)
        for label, row in zip(labels.tolist(), predictions, strict=True)
    ]
    return {
        "sample_ids": images,
        "labels": labels,
        "predictions": np.array([id_of[row.label] for row in predictions], dtype=np.int64),
        "in_top5": np.array(in_top5, dtype=bool),
        "losses": np.full(len(labels), np.nan),
    }


def save_scored_predictions(
    metric: ClassificationMetric,
    dataset: ImageFolderDataset,
    path: Path,
    classes: Sequence[str],
) -> None:
    """Write the predictions of an evaluation as lines {"file", "label"}.

    `score_saved_predictions` reads them. classes: names in order of id.
    """
    state = metric.state()
    rows = zip(state["sample_ids"].tolist(), state["predictions"].tolist(), strict=True)
    with open(path, "w") as file:
        for image, predicted in rows:
            row = {"file": dataset.index.name(image), "label": classes[predicted]}
            file.write(json.dumps(row) + "\n")
