"""Labels from a file: matched to images, scored with unknown labels, and errors of a file."""

import json

import numpy as np
import pytest

from visionloop.engine.errors import UserError
from visionloop.tasks.classification.task import ClassificationTask
from visionloop.tasks.visualize import class_table

IMAGES = ("cat/0.png", "cat/1.png", "dog/0.png")


@pytest.fixture
def data(tmp_path):
    """val/ with two cats and a dog; nothing opens the images."""
    for name in IMAGES:
        path = tmp_path / "val" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"an image")
    return tmp_path


def scored(data, lines):
    """(task, metric) of the lines."""
    path = data / "predictions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in lines))
    return ClassificationTask.score_saved_predictions(path, data=data, split="val")


def rows(*labels, folder="", **more):
    return [
        {"file": folder + name, "label": label, **more}
        for name, label in zip(IMAGES, labels, strict=False)
    ]


def test_rows_in_any_order_are_scored_by_their_image(data):
    for folder in ("", "val/", "data/val/"):
        task, metric = scored(data, rows("cat", "dog", "dog", folder=folder)[::-1])
        assert metric.compute() == {
            "accuracy": pytest.approx(2 / 3),
            "mean_class_accuracy": pytest.approx(0.75),
        }
    assert task.per_class_scores(metric)["dog"] == {"images": 1, "accuracy": 1, "precision": 0.5}
    assert task.draw_scores(metric)["confusion"].dtype == np.uint8


def test_a_label_that_the_data_lacks_is_a_wrong_prediction(data):
    best = [{"label": label} for label in ("cow", "cat", "emu", "ant", "bee")]
    task, metric = scored(data, rows("cow", "cat", "cow", top5=best))
    scores = metric.compute()
    assert scores["accuracy"] == pytest.approx(1 / 3) and scores["accuracy_top5"] == pytest.approx(
        2 / 3
    )
    assert task.classes == ("cat", "dog", "ant", "bee", "cow", "emu") and "val_loss" not in scores
    assert metric.compute([1, 1])["accuracy"] == 1


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (rows("cat", "cat"), "1 of 3 images have no line, the first is dog/0.png"),
        (
            rows("cat", "cat", "dog") + rows("cat"),
            "line 4: file is 'cat/0.png', which line 1 names too",
        ),
        (rows("cat", None, "dog"), "line 2: label is missing, expected a class"),
        (
            rows("LABEL_0", "LABEL_1", "LABEL_0"),
            "line 1: label is 'LABEL_0'; no label in the file is a class of",
        ),
        (rows("cat", "cat", "dog", top5=["cat"]), "line 1: top5 is ['cat'], expected"),
        (
            [{"file": "0.png", "label": "cat"}],
            "line 1: file is '0.png', the end of several images' paths",
        ),
        (
            [*rows("cat", "cat"), {"file": "dog/0.png", "error": "empty file"}],
            "line 3: the image could not be read (empty file)",
        ),
    ],
)
def test_a_wrong_file_is_reported_in_one_line(data, lines, message):
    with pytest.raises(UserError) as caught:
        scored(data, lines)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_two_classes_of_one_name_keep_their_rows():
    rows = class_table(("crane", "heron", "crane"), {"images": np.array([1, 2, 3])})
    assert rows == {"crane": {"images": 1}, "heron": {"images": 2}, "crane #2": {"images": 3}}
