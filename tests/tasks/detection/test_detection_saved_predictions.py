"""Detections in files: published numbers, pycocotools on the same file, and wrong files."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from visionloop.engine.errors import UserError
from visionloop.metrics.coco_evaluation import SCORE_KEYS
from visionloop.tasks.detection.saved_predictions import write_predictions
from visionloop.tasks.detection.task import DetectionTask

GOLD = Path(__file__).parents[3].parent / "shared" / "data" / "metrics-gold" / "coco-val2014-100"
NAMES = (
    "AP",
    "AP50",
    "AP75",
    "APs",
    "APm",
    "APl",
    "AR1",
    "AR10",
    "AR100",
    "ARs",
    "ARm",
    "ARl",
)  # as in expected.json
CAT, DOG = 7, 3  # category ids; labels are in order of id, so 1 and 0


@pytest.fixture
def folder(tmp_path):
    """val.json alone: images 42, 5 and 9, the last without boxes."""
    images = [
        {"id": i, "file_name": f"sub/{i}.jpg", "width": 100, "height": 80} for i in (42, 5, 9)
    ]
    boxes = [(42, CAT, [10, 10, 40, 40]), (42, DOG, [60, 10, 30, 30]), (5, CAT, [0, 0, 50, 50])]
    annotations = [
        {"id": i, "image_id": a, "category_id": b, "bbox": c} for i, (a, b, c) in enumerate(boxes)
    ]
    categories = [{"id": CAT, "name": "cat"}, {"id": DOG, "name": "dog"}]
    (tmp_path / "val.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return tmp_path


def result(image_id=42, category_id=CAT, bbox=(10, 10, 40, 40), score=0.9, **more):
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": list(bbox),
        "score": score,
        **more,
    }


def line(*detections, file="sub/42.jpg", **more):
    detections_of_line = [
        {"label": label, "id": 0, "score": score, "box": list(box)}
        for label, score, box in detections
    ]
    return {"file": file, "width": 100, "height": 80, "detections": detections_of_line, **more}


def scored(folder, rows, name="results.json"):
    """The metric of the rows, written as a json list or as json lines."""
    text = (
        json.dumps(rows)
        if name.endswith(".json")
        else "".join(json.dumps(row) + "\n" for row in rows)
    )
    (folder / name).write_text(text)
    return DetectionTask.score_saved_predictions(folder / name, data=folder, split="val")[1]


def refusal(folder, rows, name="results.json"):
    with pytest.raises(UserError) as caught:
        scored(folder, rows, name)
    assert "\n" not in str(caught.value) and str(folder / name) in str(caught.value)
    return str(caught.value)


@pytest.mark.skipif(not GOLD.is_dir(), reason="the published example is not here")
def test_the_sample_results_of_the_coco_api_give_its_twelve_numbers():
    results = GOLD / "instances_val2014_fakebbox100_results.json"
    task, metric = DetectionTask.score_saved_predictions(
        results, data=GOLD / "instances_val2014_100.json", split="val"
    )
    scores, expected = metric.compute(), json.loads((GOLD / "expected.json").read_text())
    assert "val_loss" not in scores and len(metric) == 100 and len(task.classes) == 80
    assert [scores[key] for key in SCORE_KEYS] == pytest.approx(
        [expected["pycocotools"][name] for name in NAMES], abs=1e-9
    )
    assert [round(scores[key], 3) for key in SCORE_KEYS] == [
        expected["published"][name] for name in NAMES
    ]


def test_a_file_scores_to_the_last_bit_as_pycocotools_reads_it(folder):
    """Images in no order and scores with two digits: equal ones stand in the order of image ids."""
    generator = np.random.default_rng(0)
    content = json.loads((folder / "val.json").read_text())
    content["images"] = [{"id": int(i), "file_name": f"{i}.jpg"} for i in generator.permutation(40)]
    content["annotations"] = [
        {
            "id": i + 1,
            "image_id": i % 30,
            "category_id": CAT,
            "iscrowd": 0,
            "bbox": [10, 10, side, side],
            "area": side**2,
        }
        for i, side in enumerate(generator.integers(20, 120, 60).tolist())
    ]
    (folder / "val.json").write_text(json.dumps(content))
    rows = [
        result(
            int(generator.integers(40)),
            CAT,
            (10, 10, *generator.uniform(20, 120, 2)),
            round(generator.random(), 1),
        )
        for _ in range(300)
    ]
    scores = scored(folder, rows).compute()
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = COCO(folder / "val.json")
        evaluator = COCOeval(theirs, theirs.loadRes(str(folder / "results.json")), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    stats = np.where(evaluator.stats > -1, evaluator.stats, np.nan)
    assert 0 < scores["mAP"] < 1
    assert np.array_equal([scores[key] for key in SCORE_KEYS], stats, equal_nan=True)


def test_ids_of_the_data_are_mapped_to_its_labels(folder):
    metric = scored(
        folder, [result(), result(5, bbox=(0, 0, 50, 50)), result(42, DOG, (60, 10, 30, 30))]
    )
    assert metric.compute()["mAP"] == pytest.approx(1)
    assert metric.per_class()["boxes"].tolist() == [1, 2]  # dog, cat
    assert scored(folder, [result(category_id=DOG)]).compute()["mAP"] == 0


def test_an_image_without_a_line_counts(folder):
    cat = ("cat", 0.9, (10, 10, 40, 40))
    metric = scored(folder, [line(cat, ("dog", 0.8, (60, 10, 30, 30)))], "predictions.jsonl")
    assert len(metric) == 3 and metric.compute()["AR100"] == pytest.approx(
        0.75
    )  # all dogs, half of the cats
    unread = {"file": "sub/5.jpg", "error": "truncated"}
    assert scored(folder, [line(cat), unread], "predictions.jsonl").compute()[
        "AR100"
    ] == pytest.approx(0.25)
    assert (
        scored(folder, [], "predictions.jsonl").compute()["mAP"]
        == scored(folder, []).compute()["mAP"]
        == 0
    )


@pytest.mark.parametrize("file", ["sub/42.jpg", "42.jpg", "val/sub/42.jpg"])
def test_lines_find_their_image_below_or_above_the_folder(folder, file):
    assert scored(
        folder, [line(("dog", 0.8, (60, 10, 30, 30)), file=file)], "predictions.jsonl"
    ).compute()["AR100"] == pytest.approx(0.5)


def test_coco_results_of_predict_are_matched_by_names(folder):
    """Their ids are the model's: label 0 is the cat there, and 1 the first image of the folder."""
    lines = [
        line(("cat", 0.5, (0, 0, 50, 50)), file="a5.jpg"),
        line(("cat", 0.9, (10, 10, 40, 40)), file="sub/b.jpg"),
    ]
    write_predictions(folder, lines)
    rows = json.loads((folder / "coco_results.json").read_text())
    assert [(row["image_id"], row["file_name"], row["category_name"]) for row in rows] == [
        (1, "a5.jpg", "cat"),
        (2, "sub/b.jpg", "cat"),
    ]
    lines = [
        line(("cat", 0.5, (0, 0, 50, 50)), file="sub/0005.jpg"),
        line(("cat", 0.9, (10, 10, 40, 40)), file="sub/42.jpg"),
    ]
    write_predictions(folder, lines)
    rows = json.loads((folder / "coco_results.json").read_text())
    assert [row["image_id"] for row in rows] == [5, 42]
    rows[0]["file_name"] = "5.jpg"
    assert scored(folder, rows).per_class()["AP"].tolist() == pytest.approx([0, 1])
    write_predictions(folder, [])
    assert json.loads((folder / "coco_results.json").read_text()) == []


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([result(), result(image_id=43)], "entry 1: image_id is 43, no image of"),
        ([result(category_id=4), result(category_id=5)], "entry 0: category_id is 4, no class of"),
        ([result(bbox=(1, 2, 3))], "entry 0: bbox is [1, 2, 3], not four finite numbers"),
        ([result(score=None)], "entry 0: score is missing, not a finite number"),
        ([result(), 7], "entry 1: is 7, expected an object"),
        ([result(image_id=[1])], "entry 0: image_id is [1], no image of"),
        ({"annotations": []}, "expected a list"),
        (
            [result(file_name="x.jpg", category_name="cat")],
            "entry 0: file_name is 'x.jpg', no image of",
        ),
    ],
)
def test_a_wrong_entry_is_reported_with_its_position(folder, rows, message):
    assert message in refusal(folder, rows)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([line(), line(file="x.jpg")], "line 2: file is 'x.jpg', no image of the data"),
        ([line(), line()], "line 2: file is 'sub/42.jpg', which line 1 names too"),
        (
            [line(width=80, height=100)],
            "line 1: height is 100 and width 80, the annotations say 80 and 100",
        ),
        (
            [line(("cat", 0.5, (1, 1, 5, 5)), ("cow", 0.5, (1, 1, 5, 5)))],
            "line 1: detection 1: label is 'cow', no class of",
        ),
        (
            [line(("cat", 0.5, (1, 1, 5, None)))],
            "line 1: detection 0: box is [1, 1, 5, None], not four finite numbers",
        ),
        ([line(detections={})], "line 1: detections is {}, expected a list of objects"),
        ([line(file=None)], "line 1: file is missing, no image of the data"),
    ],
)
def test_a_wrong_line_is_reported_with_its_number(folder, rows, message):
    assert message in refusal(folder, rows, "predictions.jsonl")


def test_a_name_that_several_images_end_in_is_refused(folder):
    content = json.loads((folder / "val.json").read_text())
    content["images"][2]["file_name"] = "other/42.jpg"
    (folder / "val.json").write_text(json.dumps(content))
    assert "the end of several images' paths" in refusal(
        folder, [line(file="42.jpg")], "predictions.jsonl"
    )
    assert len(scored(folder, [line(file="other/42.jpg")], "predictions.jsonl")) == 3


def test_what_is_no_json_is_reported_in_one_line(folder):
    for name in ("results.json", "predictions.jsonl"):
        (folder / name).write_text('{"file": ')
        with pytest.raises(UserError, match="not json"):
            DetectionTask.score_saved_predictions(folder / name, data=folder, split="val")
    (folder / "predictions.jsonl").write_text(json.dumps(line()) + "\n\n[1\n")
    with pytest.raises(UserError, match="line 3: not json"):
        DetectionTask.score_saved_predictions(
            folder / "predictions.jsonl", data=folder, split="val"
        )
    with pytest.raises(UserError, match=r"expected train\.json"):
        DetectionTask.score_saved_predictions(folder / "results.json", data=folder, split="train")
