"""Reports of an evaluation in every task: samples, per-image scores, confusions, curves."""

import importlib
import re

import numpy as np
import pytest
import torch

from visionloop.datasets.synthetic.writers import WRITERS
from visionloop.engine.evaluation.evaluate import evaluate_dataset
from visionloop.engine.evaluation.samples import MAX_WIDTH, draw_sample_sheets, select_samples
from visionloop.engine.testing.short_runs import seeded_model
from visionloop.tasks.drawing.contact_sheet import draw_gallery, shorten_start

# {task: (module in tests/support, function that makes the task)}, and the module's data variable
OF_SEGMENTS = {
    "instance_segmentation": ("small_segments", "make_instance_task"),
    "panoptic_segmentation": ("small_segments", "make_panoptic_task"),
}
SMALL_TASKS = {
    task: OF_SEGMENTS.get(task, (f"small_{task}", "make_quiet_task")) for task in WRITERS
}
UNITS = {
    "classification": "images",
    "detection": "boxes",
    "segmentation": "pixels",
    "instance_segmentation": "segments",
    "panoptic_segmentation": "segments",
}


@pytest.fixture(scope="module", params=list(SMALL_TASKS))
def evaluated(request, tmp_path_factory):
    """Return (task, module in eval mode, validation set, metric of all of it)."""
    folder = tmp_path_factory.mktemp(request.param)
    WRITERS[request.param](folder, 0, images={"train": 6, "val": 5})
    module, make_task = SMALL_TASKS[request.param]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(f"{module.upper()}_DATA", str(folder))
        task = getattr(importlib.import_module(module), make_task)()
    _, val = task.build_datasets()
    module = seeded_model(task).eval()
    task.before_step(module, 0, 10)
    return task, module, val, evaluate_dataset(task, module, val, batch_size=4)


def one_batch(task, module, val, indices):
    batch = task.collate_eval([val[i] | {"sample_id": torch.tensor(i)} for i in indices])
    with torch.no_grad():
        return batch, task.predict(module, batch)


def test_every_image_has_the_score_that_it_has_alone(evaluated):
    task, module, val, metric = evaluated
    ids, scores = task.sample_scores(metric)
    assert (
        ids.tolist() == list(range(5)) and scores.dtype == np.float64 and np.isfinite(scores).all()
    )
    for index in (0, 4):
        batch, predictions = one_batch(task, module, val, [index])
        alone = task.build_metric()
        alone.update(predictions, batch)
        assert task.sample_scores(alone)[1] == pytest.approx(scores[index], rel=1e-4)


def test_samples_are_small_images_and_galleries_hold_them_all(evaluated):
    task, module, val, metric = evaluated
    drawn = task.draw_samples(*one_batch(task, module, val, [0, 3]))
    assert len(drawn) == 2
    for image in drawn:
        assert (
            image.dtype == np.uint8
            and image.ndim == 3
            and image.shape[2] == 3
            and image.shape[1] <= MAX_WIDTH
        )
    (alone,) = task.draw_samples(*one_batch(task, module, val, [3]))
    assert np.array_equal(alone, drawn[1])
    chosen = select_samples(task, metric, val)
    assert [one.name for one in chosen["fixed"]] == [
        val.name(i).removeprefix(task.config.data).lstrip("/") for i in range(5)
    ]
    assert draw_sample_sheets(task, chosen) == {}  # nothing is drawn yet
    sheet = task.draw_gallery(drawn, [["a" * 200, "score 1.0"], ["b.png"]])
    assert sheet.dtype == np.uint8 and sheet.shape[0] * sheet.shape[1] > sum(
        image.shape[0] * image.shape[1] for image in drawn
    )


def test_a_training_batch_is_drawn(evaluated):
    task = evaluated[0]
    train, _ = task.build_datasets()
    drawn = task.draw(
        task.collate([train[i] | {"sample_id": torch.tensor(i)} for i in range(3)], 0, 0)
    )
    assert list(drawn) == ["batch"] and drawn["batch"].dtype == np.uint8


def test_confusions_count_everything_and_curves_lie_in_their_square(evaluated):
    task, _, _, metric = evaluated
    confusion = task.confusion(metric)
    if confusion is not None:
        classes, counts, unit = confusion
        assert counts.shape == (len(classes), len(classes)) and np.issubdtype(
            counts.dtype, np.integer
        )
        assert unit == UNITS[task.name]
        assert task.name != "classification" or counts.sum() == 5
    for curve in task.curves(metric):
        assert {curve["x"], curve["y"]} == {"recall", "precision"} and curve["lines"]
        for line in curve["lines"]:
            assert len(line["x"]) == len(line["y"]) == 101 and all(
                0 <= number <= 1 for number in [*line["x"], *line["y"]]
            )
            assert line["x"] == sorted(line["x"])
    assert bool(confusion) or bool(task.curves(metric)) or task.name == "super_resolution"


def test_charts_of_an_evaluation_are_images(evaluated):
    task, _, _, metric = evaluated
    drawn = task.draw_scores(metric)
    assert ("confusion" in drawn) == (task.confusion(metric) is not None)
    assert all(image.dtype == np.uint8 and image.shape[2] == 3 for image in drawn.values())


def test_every_chart_has_its_scores(evaluated):
    task = evaluated[0]
    keys = {spec.key for spec in type(task).metrics} | {"miou_level_0"}
    patterns = [pattern for patterns in task.score_charts.values() for pattern in patterns]
    assert all(any(re.fullmatch(pattern, key) for key in keys) for pattern in patterns)


def test_a_long_name_keeps_its_end():
    assert shorten_start("short.png", 200) == "short.png"
    cut = shorten_start("a/very/long/path/to/some/image/0001.png", 100)
    assert cut.startswith("…") and cut.endswith("0001.png")
    assert draw_gallery([np.zeros((5, 5, 3), dtype=np.uint8)], [["x" * 50]]).shape[1] == 160 + 12
