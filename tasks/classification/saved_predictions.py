"""Labels that were given already: read from json lines and scored against the folders that the images lie in."""

import json
from itertools import chain

import numpy as np

from visionloop.datasets.io.json_columns import show
from visionloop.metrics.classification import ClassificationMetric
from visionloop.tasks.classification.config import ClassificationConfig
from visionloop.tasks.classification.data import index_split
from visionloop.tasks.saved_predictions import predictions_error, read_lines, require_images


class SavedPredictionsMetric(ClassificationMetric):
    """The same from labels alone: without the scores named in `unknown`, which need more than that."""

    def __init__(self, num_classes, unknown):
        super().__init__(num_classes)
        self.unknown = unknown

    def compute(self, picks=None):
        return {
            key: value for key, value in super().compute(picks).items() if key not in self.unknown
        }


def score_saved_predictions(cls, path, *, data, split):
    """(task, SavedPredictionsMetric) of lines {"file", "label", "top5": [{"label"}, ..]}; see `Task.score_saved_predictions`.

    Every image of the split must have its line. Without "top5" in all of them there is no top-5
    accuracy, and never a validation loss. Labels that are no class of the data are wrong answers,
    as with a model that knows more classes; at least one must be known.
    """
    index = index_split(data, split)
    lines = read_lines(path)
    images = require_images(path, lines, index)
    if len(lines) < len(index):
        missing = np.setdiff1d(np.arange(len(index)), images)
        raise predictions_error(
            path,
            f"{len(missing)} of {len(index)} images have no line, the first is {index.name(missing[0])}",
        )
    answers = [read_labels(path, place, line) for place, line in lines]
    told = set(chain.from_iterable([label, *best] for label, best in answers))
    if told.isdisjoint(index.classes):
        raise predictions_error(
            path,
            f"{lines[0][0]}: label is {show(answers[0][0])}; no label in the file is a class of {index.folder}",
        )
    classes = (*index.classes, *sorted(told - set(index.classes)))
    unknown = (
        {"val_loss"} if all("top5" in line for _, line in lines) else {"val_loss", "accuracy_top5"}
    )
    metric = SavedPredictionsMetric(len(classes), unknown)
    metric.merge(
        [score_columns(index, images, answers, {name: i for i, name in enumerate(classes)})]
    )
    return cls(ClassificationConfig(data=str(data)), classes), metric


def read_labels(path, place, line):
    """(label, labels of "top5") of one line. Raises UserError."""
    label, best = line.get("label"), line.get("top5", [])
    if not isinstance(label, str):
        why = (
            f"the image could not be read ({line['error']})"
            if "error" in line
            else f"label is {show(label)}, expected a class"
        )
        raise predictions_error(path, f"{place}: {why}")
    best = (
        [one.get("label") if isinstance(one, dict) else None for one in best]
        if isinstance(best, list)
        else [None]
    )
    if not all(isinstance(one, str) for one in best):
        raise predictions_error(
            path, f'{place}: top5 is {show(line["top5"])}, expected [{{"label"}}, ..]'
        )
    return label, best


def score_columns(index, images, answers, id_of):
    """A state of `ClassificationMetric`, one row per line; the losses are nan."""
    labels = index.labels[images]
    return {
        "sample_ids": images,
        "labels": labels,
        "predictions": np.array([id_of[label] for label, _ in answers], dtype=np.int64),
        "in_top5": np.array(
            [
                true in map(id_of.get, best)
                for true, (_, best) in zip(labels.tolist(), answers, strict=True)
            ],
            dtype=bool,
        ),
        "losses": np.full(len(labels), np.nan),
    }


def save_scored_predictions(metric, dataset, path, classes):
    """The answers of an evaluation as lines {"file", "label"}, which `score_saved_predictions` reads. classes: names in order of id."""
    columns = metric.state()
    with open(path, "w") as file:
        for image, predicted in zip(
            columns["sample_ids"].tolist(), columns["predictions"].tolist(), strict=True
        ):
            file.write(
                json.dumps({"file": dataset.index.name(image), "label": classes[predicted]}) + "\n"
            )
