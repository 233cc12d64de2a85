"""Predicted masks in files: the same scores as in memory, their class ids, and wrong folders."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from visionloop.engine.errors import UserError
from visionloop.metrics.segmentation import SegmentationMetric
from visionloop.tasks.segmentation.drawing import class_colors
from visionloop.tasks.segmentation.semantic.saved_predictions import (
    describe,
    prediction_files,
)
from visionloop.tasks.segmentation.semantic.task import SemanticTask

CAMVID = Path(__file__).parents[3].parent / "shared" / "data" / "camvid-mini"
CLASSES = ("sky", "road", "tree")
NAMES = ("a.jpg", "sub/b.png", "sub/c.jpg")
SIZES = ((4, 6), (5, 5), (3, 8))


def write_ids(path, ids):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(ids, dtype=np.uint8)).save(path)


def random_ids(seed, ignored=0.2):
    generator = np.random.default_rng(seed)
    return [
        np.where(generator.random(size) < ignored, 255, generator.integers(0, 3, size)).astype(
            np.uint8
        )
        for size in SIZES
    ]


@pytest.fixture
def data(tmp_path):
    """Return a folder with three images in val, which nothing opens, and their masks."""
    folder = tmp_path / "data"
    for name, ids in zip(NAMES, random_ids(0), strict=True):
        image = folder / "images" / "val" / name
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(b"an image")
        write_ids(folder / "masks" / "val" / Path(name).with_suffix(".png"), ids)
    (folder / "classes.json").write_text(json.dumps({"classes": CLASSES}))
    return folder


def write_output(folder, predicted, classes=CLASSES, *, below="", lines=True):
    """Write ids/ and predictions.jsonl as `predict` does; return the folder."""
    predictions = {"ids": [torch.from_numpy(ids) for ids in predicted]}
    names = [below + name for name in NAMES[: len(predicted)]]
    for name, ids in zip(
        names, prediction_files(predictions, class_colors(classes))["ids"], strict=True
    ):
        write_ids(folder / "ids" / Path(name).with_suffix(".png"), ids)
    if lines:
        rows = describe(predictions, names, classes)
        (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def scored(path, data):
    return SemanticTask.score_saved_predictions(path, data=data, split="val")


def refusal(path, data):
    with pytest.raises(UserError) as caught:
        scored(path, data)
    assert (
        "\n" not in str(caught.value)
        and str(path) in str(caught.value)
        and caught.value.field == "predictions"
    )
    return str(caught.value)


@pytest.mark.parametrize("below", ["", "val/"])
@pytest.mark.parametrize("part", ["", "ids"])
def test_files_score_as_the_ids_in_memory(data, tmp_path, part, below):
    ground_truth, predicted = random_ids(0), random_ids(1, ignored=0)
    path = write_output(tmp_path / "out", predicted, below=below) / part
    task, metric = scored(path, data)
    expected = SegmentationMetric(3)
    batch = {"ids": [torch.from_numpy(ids) for ids in ground_truth], "sample_ids": torch.arange(3)}
    expected.update({"ids": [torch.from_numpy(ids) for ids in predicted]}, batch)
    assert metric.compute() == expected.compute() and "val_loss" not in metric.compute()
    assert np.array_equal(metric.confusion(), expected.confusion()) and len(metric) == 3
    assert task.classes == CLASSES and task.config.data == str(data)


def test_the_ground_truth_has_perfect_scores(data):
    assert scored(data / "masks" / "val", data)[1].compute() == {
        "miou": 1,
        "pixel_accuracy": 1,
        "mean_class_accuracy": 1,
    }


@pytest.mark.skipif(not CAMVID.is_dir(), reason="the road scenes are not here")
def test_real_masks_have_perfect_scores():
    _, metric = scored(CAMVID / "masks" / "val", CAMVID)
    assert len(metric) == 24 and metric.compute()["miou"] == 1
    assert 0.25 < metric.majority_scores()["pixel_accuracy"] < 0.35


def test_a_models_own_order_of_classes_is_read_from_its_labels(data, tmp_path):
    order, ground_truth = ("tree", "house", "sky", "road"), random_ids(0)
    turned = [
        np.array([2, 3, 0, 1], dtype=np.uint8)[np.minimum(ids, 3)] for ids in ground_truth
    ]  # a house where the ground truth is ignored
    assert scored(write_output(tmp_path / "out", turned, order), data)[1].compute()["miou"] == 1
    turned[0][:] = 1
    wrong, pixels = (ground_truth[0] != 255).sum(), sum((ids != 255).sum() for ids in ground_truth)
    score = scored(write_output(tmp_path / "out", turned, order), data)[1].compute()[
        "pixel_accuracy"
    ]
    assert score == pytest.approx(1 - wrong / pixels)  # a class that the data lacks is wrong


def test_a_pixel_without_a_prediction_is_wrong(data, tmp_path):
    nothing = [np.full(size, 255, dtype=np.uint8) for size in SIZES]
    for name, ids in zip(NAMES, nothing, strict=True):
        write_ids(tmp_path / "out" / Path(name).with_suffix(".png"), ids)
    assert scored(tmp_path / "out", data)[1].compute() == {
        "miou": 0,
        "pixel_accuracy": 0,
        "mean_class_accuracy": 0,
    }


def test_masks_without_lines_hold_ids_of_the_data(data, tmp_path):
    path = write_output(tmp_path / "out", random_ids(0), lines=False)
    assert scored(path, data)[1].compute()["miou"] == 1


def changed(folder, name, ids):
    write_ids(folder / "ids" / name, ids)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda out: (out / "ids/sub/c.png").unlink(),
            "1 of 3 images have no mask, the first is sub/c.jpg",
        ),
        (
            lambda out: changed(out, "sub/d.png", [[0]]),
            "sub/d.png: no image of the data has this name",
        ),
        (
            lambda out: changed(out, "val/a.png", [[0]]),
            "val/a.png: is for a.jpg, and so is a.png",
        ),
        (
            lambda out: changed(out, "a.png", np.zeros((6, 4))),
            "a.png: is 6 x 4 (height x width), its image 4 x 6",
        ),
        (
            lambda out: changed(out, "a.png", np.full((4, 6), 3)),
            "a.png: holds the value 3 in 24 pixels",
        ),
        (
            lambda out: changed(out, "a.png", np.arange(72).reshape(4, 6, 3)),
            "a.png: is a color image",
        ),
        (lambda out: (out / "ids/a.png").write_bytes(b"no image"), "a.png: no PNG"),
        (
            lambda out: (out / "predictions.jsonl").write_text('{"classes": [{"id": 0}]}'),
            "line 1: classes holds {'id': 0}, expected",
        ),
        (lambda out: (out / "predictions.jsonl").write_text("{"), "line 1: not json"),
    ],
)
def test_a_wrong_folder_is_an_error_of_one_line(data, tmp_path, change, message):
    out = write_output(tmp_path / "out", random_ids(1, ignored=0))
    change(out)
    assert message in refusal(out, data)


def test_labels_that_are_no_classes_of_the_data_are_an_error(data, tmp_path):
    out = write_output(tmp_path / "out", random_ids(1, ignored=0), ("x", "y", "z"))
    assert "and all others there are no classes of" in refusal(out, data)
    rows = [{"file": "a.jpg", "classes": [{"label": label, "id": 0}]} for label in ("sky", "road")]
    (out / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "line 2: id 0 is 'road', in an earlier line 'sky'" in refusal(out, data)


def test_a_file_and_an_empty_folder_are_errors(data, tmp_path):
    assert "expected a folder of masks" in refusal(data / "classes.json", data)
    (tmp_path / "empty").mkdir()
    assert "3 of 3 images have no mask" in refusal(tmp_path / "empty", data)


def test_an_unreadable_mask_of_the_data_names_its_file(data, tmp_path):
    out = write_output(tmp_path / "out", random_ids(1, ignored=0))
    (data / "masks/val/a.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"masks/val/a\.png") as caught:
        scored(out, data)
    assert caught.value.field == "data"
