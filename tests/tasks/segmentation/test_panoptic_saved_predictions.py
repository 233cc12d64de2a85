"""Panoptic segments in files: the same scores as in memory, panopticapi's own, and wrong files."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from saved_segments import panoptic_batch
from segments_files import (
    segment_info,
    small_panoptic,
    write_class_data,
    write_ids,
    write_panoptic,
)

from visionloop.bin.commands.evaluate import EvaluateOptions, run_evaluate
from visionloop.datasets.segments.dataset import SegmentsDataset
from visionloop.datasets.segments.transforms import SegmentsEvalPreset
from visionloop.engine.errors import UserError
from visionloop.tasks.segmentation.instance.task import InstanceTask
from visionloop.tasks.segmentation.panoptic.saved_predictions import (
    RecordedPanopticQuality,
    describe,
    prediction_files,
    save_scored_predictions,
    write_predictions,
)
from visionloop.tasks.segmentation.panoptic.task import PanopticTask
from visionloop.tasks.segmentation.segments.data import scored_split

GOLD = Path(__file__).parents[3].parent / "shared" / "data" / "metrics-gold" / "panoptic"


@pytest.fixture
def data(tmp_path):
    """Return a folder with a panoptic val split."""
    write_panoptic(tmp_path / "data", split="val")
    return tmp_path / "data"


def scored(path, data):
    return PanopticTask.score_saved_predictions(path, data=data, split="val")


def recorded(index, is_thing=None, **changes):
    predictions, batch = panoptic_batch(index, **changes)
    metric = RecordedPanopticQuality(is_thing or index.is_thing)
    metric.update(predictions, batch)
    return metric


def save(metric, index, path):
    dataset = SegmentsDataset(index, SegmentsEvalPreset(size=16), with_ground_truth=True)
    save_scored_predictions(metric, dataset, path)


def write_output(folder, index):
    """Write what `predict` does; return the folder."""
    predictions, _ = panoptic_batch(index)
    names = [index.name(i) for i in range(len(index))]
    rows = describe(predictions, names, index.classes)
    for name, image in zip(names, prediction_files(predictions)["segments"], strict=True):
        file = folder / "segments" / Path(name).with_suffix(".png")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_predictions(folder, rows, index.classes, index.is_thing)
    return folder


@pytest.mark.parametrize("layout", ["panoptic", "masks"])
def test_saved_segments_of_an_evaluation_have_its_scores(tmp_path, layout):
    data = tmp_path / "data"
    write_panoptic(data, split="val") if layout == "panoptic" else write_class_data(data)
    index = scored_split(data, "val", "panoptic")
    expected = recorded(index)
    save(expected, index, tmp_path / "saved.json")
    for path in (tmp_path / "saved.json", tmp_path / "saved"):
        task, metric = scored(path, data)
        np.testing.assert_equal(metric.compute(), expected.compute())
        assert np.array_equal(metric.confusion(), expected.confusion())
        assert task.classes == index.classes and task.is_thing == index.is_thing
    assert 0 < metric.compute()["pq"] < 1


def test_segments_of_a_class_that_the_data_lacks_count_as_wrong(data, tmp_path):
    """As in an evaluation of a model with more classes, which sets the order of all."""
    index = scored_split(data, "val", "panoptic", ("cow", "grass", "dog"))

    def one_cow(labels):
        return np.concatenate([[0], labels[1:]])

    expected = recorded(index, (True, False, True), labels_of=one_cow)
    save(expected, index, tmp_path / "saved.json")
    task, metric = scored(tmp_path / "saved.json", data)
    np.testing.assert_equal(metric.compute(), expected.compute())
    assert task.classes == ("cow", "grass", "dog") and metric.per_class()["PQ"][0] == 0


@pytest.mark.parametrize("task_class", [PanopticTask, InstanceTask])
def test_evaluate_gives_the_same_scores_from_its_saved_file(
    data, tmp_path, save_tiny, capsys, task_class
):
    is_panoptic = task_class is PanopticTask
    model = save_tiny(("dog", "grass"), whole_images=True, is_thing=[1, int(not is_panoptic)])
    options = EvaluateOptions(
        model=str(model),
        predictions=None,
        data=str(data),
        split="val",
        val_split=0.0,
        output=None,
        save_predictions=str(tmp_path / "saved.json"),
        operating_point=None,
        batch_size=2,
        workers=0,
        device="cpu",
        as_json=True,
        settings={"score": 0.0, "overlap": 0.0} if is_panoptic else {},
    )
    run_evaluate(task_class, options)
    expected = json.loads(capsys.readouterr().out)
    content = json.loads((tmp_path / "saved.json").read_text())
    assert any(row["segments_info"] for row in content["annotations"]) if is_panoptic else content
    again = {"model": None, "save_predictions": None, "settings": {}}
    run_evaluate(task_class, replace(options, predictions=str(tmp_path / "saved.json"), **again))
    for key in ("val_loss", "pq_at_half"):
        expected.pop(key, None)
    assert json.loads(capsys.readouterr().out) == expected


@pytest.mark.parametrize("part", ["", "predictions.jsonl", "panoptic.json"])
def test_the_folder_of_predict_has_the_scores_of_its_segments(data, tmp_path, part):
    index = scored_split(data, "val", "panoptic")
    out = write_output(tmp_path / "out", index)
    _, metric = scored(out / part, data)
    np.testing.assert_equal(metric.compute(), recorded(index).compute())


def test_the_ground_truth_without_names_has_perfect_scores(data, tmp_path):
    shutil.copytree(data / "panoptic_val", tmp_path / "mine")
    content = json.loads((data / "panoptic_val.json").read_text())
    (tmp_path / "mine.json").write_text(json.dumps({"annotations": content["annotations"]}))
    scores = scored(tmp_path / "mine.json", data)[1].compute()
    assert scores["pq"] == scores["pq_things"] == scores["pq_stuff"] == 1


@pytest.mark.skipif(not GOLD.is_dir(), reason="the samples of panopticapi are not here")
def test_the_samples_of_panopticapi_have_their_scores(tmp_path):
    """The ids moved by 3 rows and 5 columns; 0.577427848 is the score of panopticapi itself."""
    content = json.loads((GOLD / "panoptic_examples.json").read_text())
    shutil.copy(GOLD / "panoptic_examples.json", tmp_path / "panoptic_val.json")
    shutil.copytree(GOLD / "panoptic_examples", tmp_path / "panoptic_val")
    (tmp_path / "val").mkdir()
    for image in content["images"]:
        size = (image["width"], image["height"])
        Image.new("RGB", size).save(tmp_path / "val" / image["file_name"])
    for name in [entry["file_name"] for entry in content["annotations"]]:
        with Image.open(GOLD / "panoptic_examples" / name) as image:
            moved = np.roll(np.asarray(image.convert("RGB")), (3, 5), axis=(0, 1))
        (tmp_path / "moved").mkdir(exist_ok=True)
        Image.fromarray(moved).save(tmp_path / "moved" / name)
    (tmp_path / "moved.json").write_text(json.dumps(content))
    scores = scored(tmp_path / "moved.json", tmp_path)[1].compute()
    expected = {"pq": 0.577427848, "sq": 0.642002700, "rq": 0.776660839}
    expected |= {"pq_things": 0.371298786, "pq_stuff": 0.783556910}
    assert {key: scores[key] for key in expected} == pytest.approx(expected, abs=1e-9)


def test_an_image_without_an_entry_is_missed(data, tmp_path):
    content, maps = small_panoptic()
    del content["annotations"][1]
    write_ids(tmp_path / "some" / "a.png", maps["a.png"])
    (tmp_path / "some.json").write_text(json.dumps(content))
    scores = scored(tmp_path / "some.json", data)[1].compute()
    assert scores["pq_things"] == 1 and scores["pq_stuff"] == pytest.approx(2 / 3)


def change_info(**values):
    return lambda content, maps: content["annotations"][0]["segments_info"][0].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_info(category_id=99), "a.png: category_id 99 of segment 300, no class of"),
        (change_info(id=5), "a.png: a segment id is there twice"),
        (change_info(id=0), "a.png: segment id 0, expected a whole number 1 to 16777215"),
        (change_info(id=301), "a.png: holds 1 ids without an entry in segments_info (300)"),
        (
            lambda content, maps: content["annotations"][1]["segments_info"].append(
                segment_info(9, 4, maps["b.png"])
            ),
            "b.png: 1 segments of its entry have no pixel",
        ),
        (
            lambda content, maps: maps.update({"b.png": np.full((20, 24), 7)}),
            "b.png: is 20 x 24 (height x width), its image 24 x 20",
        ),
        (lambda content, maps: maps.pop("b.png"), "b.png: No such file"),
        (
            lambda content, maps: content["images"][0].update(file_name="z.png"),
            "annotation 0: image_id 1, 'a.png', is no image of the data",
        ),
        (
            lambda content, maps: content["annotations"][1].update(image_id=1),
            "annotation 1: image_id 1: a.png has an earlier one",
        ),
        (
            lambda content, maps: content["annotations"][1].update(image_id=[2]),
            "annotation 1: image_id [2], 'b.png', is no image of the data",
        ),
        (
            lambda content, maps: content["annotations"][1].update(file_name=3),
            "annotation 1: image_id 2: file_name is 3",
        ),
        (
            lambda content, maps: content["annotations"].__setitem__(0, {"image_id": 1}),
            "annotation 0: is {'image_id': 1}, expected",
        ),
        (lambda content, maps: content.pop("annotations"), "expected an object with the list"),
    ],
)
def test_a_wrong_file_is_an_error_of_one_line(data, tmp_path, change, message):
    content, maps = small_panoptic()
    change(content, maps)
    for name, ids in maps.items():
        write_ids(tmp_path / "mine" / name, ids)
    (tmp_path / "mine.json").write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        scored(tmp_path / "mine.json", data)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.field == "predictions"


def test_a_missing_json_or_folder_is_an_error(data, tmp_path):
    for path in (tmp_path / "no.json", tmp_path / "no", tmp_path):
        with pytest.raises(UserError, match="expected a json in COCO's panoptic format"):
            scored(path, data)
    (tmp_path / "mine.json").write_text('{"annotations": []}')
    with pytest.raises(UserError, match="expected its PNGs in the folder mine or segments"):
        scored(tmp_path / "mine.json", data)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine.json").write_text("{")
    with pytest.raises(UserError, match="not json"):
        scored(tmp_path / "mine.json", data)
