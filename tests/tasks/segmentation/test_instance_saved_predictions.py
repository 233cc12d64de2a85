"""Instances in files: the same scores as in memory, COCO's published ones, and wrong files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from saved_segments import instance_batch
from segments_files import (
    encode,
    rectangle,
    run_lengths,
    write_class_data,
    write_instances,
    write_panoptic,
)

from visionloop.datasets.segments.dataset import SegmentsDataset
from visionloop.datasets.segments.transforms import SegmentsEvalPreset
from visionloop.engine.errors import UserError
from visionloop.metrics.mask_average_precision import MaskAveragePrecision
from visionloop.tasks.segmentation.instance.saved_predictions import (
    describe,
    save_scored_predictions,
    write_predictions,
)
from visionloop.tasks.segmentation.instance.task import InstanceTask
from visionloop.tasks.segmentation.segments.data import scored_split

GOLD = Path(__file__).parents[3].parent / "shared" / "data" / "metrics-gold" / "coco-val2014-100"
NAMES = ["a.png", "b.png", "c.png"]


@pytest.fixture(params=["coco", "panoptic", "masks"])
def data(request, tmp_path):
    """Return a folder with a val split in each of the layouts."""
    folder = tmp_path / "data"
    if request.param == "coco":
        write_instances(folder, None, "val.json", "val")
    elif request.param == "panoptic":
        write_panoptic(folder, split="val")
    else:
        write_class_data(folder)
    return folder


@pytest.fixture
def coco(tmp_path):
    """Return a folder with a json of instances for val."""
    write_instances(tmp_path / "data", None, "val.json", "val")
    return tmp_path / "data"


def scored(path, data):
    return InstanceTask.score_saved_predictions(path, data=data, split="val")


def same_scores(metric, expected):
    np.testing.assert_equal(metric.compute(), expected.compute())
    return np.isfinite(metric.compute()["mAP"])


def metric_of(index, predictions, batch):
    metric = MaskAveragePrecision(len(index.classes))
    metric.update(predictions, batch)
    return metric


def test_saved_instances_of_an_evaluation_have_its_scores(data, tmp_path):
    index = scored_split(data, "val", "instance")
    expected = metric_of(index, *instance_batch(index))
    dataset = SegmentsDataset(index, SegmentsEvalPreset(size=16), with_ground_truth=True)
    save_scored_predictions(expected, dataset, tmp_path / "saved.json")
    task, metric = scored(tmp_path / "saved.json", data)
    assert same_scores(metric, expected) and task.classes == index.classes
    assert 0 < metric.compute()["mAP"] < 1


def test_files_of_predict_have_the_scores_of_their_instances(coco, tmp_path):
    index = scored_split(coco, "val", "instance")
    predictions, batch = instance_batch(index)
    predictions["scores"] = [torch.round(scores, decimals=4) for scores in predictions["scores"]]
    rounded = [scores.double().round(decimals=6) for scores in predictions["scores"]]
    expected = metric_of(index, predictions | {"scores": rounded}, batch)
    rows = describe(predictions, batch["sizes"].tolist(), NAMES, index.classes)
    (tmp_path / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_predictions(tmp_path, rows)
    for path in (tmp_path, tmp_path / "predictions.jsonl", tmp_path / "coco_results.json"):
        assert same_scores(scored(path, coco)[1], expected)
    # images are not needed, and neither is the folder
    shutil.rmtree(coco / "val")
    assert same_scores(scored(tmp_path, coco / "val.json")[1], expected)


def test_a_class_that_the_data_lacks_is_left_out_of_saved_instances(coco, tmp_path):
    index = scored_split(coco, "val", "instance", ("cat", "dog", "cow"))
    predictions, batch = instance_batch(index)
    predictions["labels"][0][-1] = 2
    expected = metric_of(index, predictions, batch)
    dataset = SegmentsDataset(index, SegmentsEvalPreset(size=16), with_ground_truth=True)
    save_scored_predictions(expected, dataset, tmp_path / "saved.json")
    assert same_scores(scored(tmp_path / "saved.json", coco)[1], expected)
    known = sum((labels < 2).sum() for labels in predictions["labels"])
    assert len(json.loads((tmp_path / "saved.json").read_text())) == known < 8


@pytest.mark.skipif(not GOLD.is_dir(), reason="COCO's sample results are not here")
def test_cocos_own_results_have_their_published_scores():
    _, metric = scored(
        GOLD / "instances_val2014_fakesegm100_results.json",
        GOLD / "instances_val2014_100.json",
    )
    published = (0.320, 0.562, 0.299, 0.387, 0.310, 0.327, 0.268, 0.415, 0.417, 0.469, 0.377, 0.381)
    scores = metric.compute()
    assert list(scores.values())[:12] == pytest.approx(published, abs=6e-4)
    assert scores["mAP"] == pytest.approx(0.319545276, abs=1e-9)


def test_more_masks_than_pycocotools_takes_at_once_are_described():
    mask = encode(np.eye(4, dtype=bool))["counts"].encode()
    predictions = {
        "rles": [[mask] * 300],
        "labels": [torch.zeros(300, dtype=torch.int64)],
        "scores": [torch.ones(300)],
    }
    (row,) = describe(predictions, [[4, 4]], ["a.png"], ["dog"])
    assert len(row["segments"]) == 300 and row["segments"][299]["area"] == 4


@pytest.mark.parametrize(
    "outline",
    [
        encode(np.ones((30, 40), dtype=bool)),
        run_lengths(np.ones((30, 40), dtype=bool)),
        [rectangle(0, 0, 40, 30)],
    ],
)
def test_every_form_of_outline_is_read(coco, tmp_path, outline):
    entry = {"image_id": 7, "category_id": 9, "segmentation": outline, "score": 0.5}
    (tmp_path / "results.json").write_text(json.dumps([entry]))
    _, metric = scored(tmp_path / "results.json", coco)
    assert metric.state()["rle_lengths"].tolist() == [len(encode(np.ones((30, 40)))["counts"])]


ENTRY = {"image_id": 7, "category_id": 9, "segmentation": encode(np.ones((30, 40))), "score": 0.5}
LINE = {
    "file": "a.png",
    "segments": [{"label": "dog", "score": 0.5, "mask": encode(np.ones((30, 40)))}],
}


def changed_line(**values):
    return LINE | {"segments": [LINE["segments"][0] | values]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([ENTRY | {"image_id": 1}], "entry 0: image_id is 1, no image of"),
        ([ENTRY, ENTRY | {"category_id": 1}], "entry 1: category_id is 1, no class of"),
        ([ENTRY | {"score": None}], "entry 0: score is missing, not a finite number"),
        ([ENTRY | {"score": float("nan")}], "entry 0: score is nan, not a finite number"),
        (
            [ENTRY | {"segmentation": encode(np.ones((40, 30)))}],
            "entry 0: segmentation has the size 40 x 30 (height x width), its image 30 x 40",
        ),
        (
            [ENTRY | {"segmentation": {"size": [30, 40], "counts": "01"}}],
            "entry 0: segmentation has counts of 1 pixels in all, its size 30 x 40",
        ),
        (
            [ENTRY | {"segmentation": {"size": [30, 40], "counts": "~"}}] * 2,
            "entry 0: segmentation has counts that are no run-length encoding of COCO (2 such",
        ),
        ([ENTRY | {"segmentation": None}], "entry 0: segmentation has no mask, expected {size"),
        ([ENTRY | {"segmentation": []}], "entry 0: segmentation has no mask, expected {size"),
        ([ENTRY | {"segmentation": 3}], "entry 0: segmentation is 3, expected polygons"),
        ({"a": 1}, "expected a list of predictions"),
        (changed_line(label="cow"), "line 1: segment 0: label is 'cow', no class of"),
        (changed_line(score="high"), "line 1: segment 0: score is 'high', not a finite number"),
        (changed_line(mask={"size": [3, 3]}), "line 1: segment 0: mask has the counts missing"),
        (LINE | {"segments": 1}, "line 1: segments is 1, expected a list of objects"),
        (LINE | {"file": "d.png"}, "line 1: file is 'd.png', no image of the data"),
        (LINE | {"height": 40, "width": 30}, "line 1: height is 40 and width 30, the annotations"),
    ],
)
def test_a_wrong_file_is_an_error_of_one_line(coco, tmp_path, content, message):
    is_line = "file" in content
    path = tmp_path / ("predictions.jsonl" if is_line else "results.json")
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        scored(path, coco)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.field == "predictions" and str(path) in str(caught.value)


def test_an_unreadable_mask_of_the_data_names_its_file(tmp_path):
    write_class_data(tmp_path)
    (tmp_path / "instances" / "val" / "b.png").write_bytes(b"no image")
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(UserError, match=r"instances/val/b\.png") as caught:
        scored(tmp_path / "results.json", tmp_path)
    assert caught.value.field == "data"
