"""The commands of detection, as a person types them, on a model that is trained for forty steps."""

import importlib.util
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor
from transformers import DFineForObjectDetection as LibraryDetector

from visionloop.bin import detection
from visionloop.datasets.synthetic.detection import write_detection
from visionloop.engine.checkpoints.manifest import problems
from visionloop.engine.errors import UserError
from visionloop.engine.train import train
from visionloop.metrics.coco_evaluation import SCORE_KEYS
from visionloop.tasks.detection.config import DetectionConfig
from visionloop.tasks.detection.task import DetectionTask

commands = detection.commands  # what the fixture `command` runs


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six images to train on, four to evaluate on."""
    folder = tmp_path_factory.mktemp("data")
    write_detection(folder, 0, images={"train": 6, "val": 4})
    return folder


@pytest.fixture(scope="module")
def best(data, tmp_path_factory):
    """best/ of a short run, with scores high enough that `predict` writes boxes."""
    output = tmp_path_factory.mktemp("runs") / "run"
    train(
        DetectionTask,
        data=str(data),
        model="tiny",
        image_size=96,
        steps=40,
        batch_size=4,
        eval_every=0,
        workers=0,
        threads=1,
        output=str(output),
        precision="fp32",
        device="cpu",
        class_prior=0.3,
    )
    return output / "best"


def read_rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_evaluate_prints_what_the_run_had_scored(command, best, data, tmp_path):
    code, printed, _ = command(
        "evaluate --json", model=best, data=data, output=tmp_path / "out" / "scores.json"
    )
    scores = json.loads(printed, parse_constant=pytest.fail)  # NaN is no json
    assert code == 0 and set(scores) == {*SCORE_KEYS, "val_loss"}
    logged = [
        row["metrics"] for row in read_rows(best.parent / "metrics.jsonl") if row["kind"] == "eval"
    ]
    assert any(abs(scores["val_loss"] - row["val_loss"]) < 1e-5 for row in logged)
    assert (
        json.loads((tmp_path / "out" / "scores.json").read_text(), parse_constant=pytest.fail)
        == scores
    )
    per_class = json.loads(
        (tmp_path / "out" / "scores_per_class.json").read_text(), parse_constant=pytest.fail
    )
    annotations = json.loads((data / "val.json").read_text())
    assert list(per_class) == [category["name"] for category in annotations["categories"]]
    assert sum(row["boxes"] for row in per_class.values()) == len(annotations["annotations"])
    for tag in ("precision_recall", "average_precision", "confusion"):
        assert (tmp_path / "out" / f"scores_{tag}.png").exists()


def test_the_table_has_a_line_for_each_class(command, best, data):
    code, printed, _ = command("evaluate", "--model", best, "--data", data)
    head, rows = printed.split("\n\n")
    assert code == 0 and "4 images" in head and "AP50" in head and "nan" not in printed
    lines = rows.splitlines()
    assert lines[0].split() == ["class", "AP", "AP50", "boxes"] and len(lines) == 1 + 4
    assert len({len(line) for line in lines}) == 1  # aligned


def with_predicted_targets(data, saved, folder):
    """Copy the data; the largest predicted box of each validation image is its only object.

    So some predictions are right, however a CPU rounds.
    """
    shutil.copytree(data, folder)
    content = json.loads((data / "val.json").read_text())
    largest = {}
    for row in json.loads(saved.read_text()):
        area = row["bbox"][2] * row["bbox"][3]
        if area > largest.get(row["image_id"], {"area": 0})["area"]:
            largest[row["image_id"]] = row | {"area": area}
    content["annotations"] = [
        {"id": i, "iscrowd": 0} | {key: row[key] for key in row if key != "score"}
        for i, row in enumerate(largest.values(), 1)
    ]
    (folder / "val.json").write_text(json.dumps(content))
    return folder


def test_saved_predictions_score_the_same_without_model_and_images(command, best, data, tmp_path):
    def evaluate(data, *arguments):
        code, printed, _ = command("evaluate", "--data", data, "--json", *arguments)
        assert code == 0
        return json.loads(printed)

    first, saved = tmp_path / "first.json", tmp_path / "new" / "x.json"
    evaluate(data, "--model", best, "--save-predictions", first)
    targets = with_predicted_targets(data, first, tmp_path / "data")
    scores = evaluate(targets, "--model", best, "--save-predictions", saved)
    assert scores.pop("val_loss") > 0 and scores["mAP"] > 0 and scores["AR100"] > 0.9
    (tmp_path / "alone").mkdir()
    # the annotations without the images
    annotations = shutil.copy(targets / "val.json", tmp_path / "alone" / "val.json")
    for source in (tmp_path / "alone", annotations):
        assert evaluate(source, "--predictions", saved) == scores
    ids = {category["id"] for category in json.loads((data / "val.json").read_text())["categories"]}
    assert {row["category_id"] for row in json.loads(saved.read_text())} <= ids


def test_predict_uses_the_operating_point_of_evaluate_unless_a_score_is_given(
    command, best, data, tmp_path
):
    saved, model = tmp_path / "saved.json", shutil.copytree(best, tmp_path / "model")
    command("evaluate", "--model", best, "--data", data, "--save-predictions", saved)
    targets = with_predicted_targets(data, saved, tmp_path / "data")
    for rule in ("recall=1", "f1"):  # the second one replaces the first
        words = ("--model", model, "--data", targets, "--operating-point", rule)
        code, printed, _ = command("evaluate", *words)
        assert code == 0 and printed.count("score from") == 1
    assert problems(model) == []  # the manifest is that of the new files
    config = json.loads((model / "config.json").read_text())
    point = config["visionloop_operating_point"]
    assert (point["rule"], point["images"]) == ("f1", 4)
    assert sum(row["objects"] for row in point["classes"]) == 4
    chosen = {row["label"]: row["score"] for row in point["classes"]}
    card = (model / "README.md").read_text()
    assert card.count("## Operating point") == 1 and "by f1, with matches" in card
    for name, row in zip(chosen, point["classes"], strict=True):
        assert f"| {name} | " in card
        assert (row["score"] is None) == (row["objects"] == 0) or row["objects"] > 0

    def predict(name, *words):
        output = tmp_path / name
        words = ("--input", targets / "val", "--output", output, "--no-images", *words)
        code, _, errors = command("predict", "--model", model, *words)
        assert code == 0
        rows = read_rows(output / "predictions.jsonl")
        return [one for row in rows for one in row["detections"]], errors

    found, errors = predict("chosen")
    assert "score thresholds by class of the operating point f1" in errors and found
    for one in found:
        smallest = chosen[one["label"]]
        assert one["score"] >= (DetectionConfig.score if smallest is None else smallest - 1e-6)
    every, errors = predict("given", "--score", 0)
    assert "operating point" not in errors and len(every) == 4 * 300 > len(found)
    output = tmp_path / "exported"
    code, _, _ = command("export", "--model", model, "--output", output)
    exported = json.loads((output / "config.json").read_text())
    assert code == 0 and exported["visionloop_operating_point"] == point
    assert "## Operating point" in (output / "README.md").read_text()


def test_an_operating_point_that_cannot_be_chosen_is_refused_before_the_evaluation(
    command, best, data, tmp_path
):
    def refusal(rule, *words):
        code, out, error = command("evaluate", "--data", data, "--operating-point", rule, *words)
        assert (code, out, error.count("\n")) == (2, "", 1)
        return error

    assert "expected f1, precision=P or recall=R" in refusal("f2", "--model", best)
    assert "expected --split val, got train" in refusal("f1", "--model", best, "--split", "train")
    assert "needs --model" in refusal("f1", "--predictions", tmp_path / "x.json")
    assert "expected a local model folder" in refusal("f1", "--model", "dfine-small")
    checkpoint = next((best.parent / "checkpoints").iterdir())
    assert "a checkpoint stays as it is" in refusal("f1", "--model", checkpoint)


def test_saved_predictions_have_the_scores_of_the_model(command, best, data, tmp_path):
    code, _, errors = command(
        "predict", "--model", best, "--input", data / "val", "--output", tmp_path / "out"
    )
    assert code == 0 and "predicted 4 of 4 images" in errors
    rows = read_rows(tmp_path / "out" / "predictions.jsonl")
    assert sum(len(row["detections"]) for row in rows) > 0
    assert all(one["score"] >= DetectionConfig.score for row in rows for one in row["detections"])
    for row in rows:
        with Image.open(data / "val" / row["file"]) as image:
            assert image.size == (row["width"], row["height"])
        assert (tmp_path / "out" / "images" / row["file"]).exists()
    scores_of_files = []
    for name in ("predictions.jsonl", "coco_results.json"):
        code, printed, _ = command(
            "evaluate", "--predictions", tmp_path / "out" / name, "--data", data, "--json"
        )
        assert code == 0
        scores_of_files.append(json.loads(printed))
    scores = json.loads(command("evaluate", "--model", best, "--data", data, "--json")[1])
    assert scores_of_files[0] == scores_of_files[1]
    # boxes are written with 3 digits, scores with 6
    assert [scores_of_files[0][key] for key in SCORE_KEYS] == pytest.approx(
        [scores[key] for key in SCORE_KEYS], abs=2e-3, nan_ok=True
    )


def test_coco_results_carry_the_number_in_the_file_name(command, best, data, tmp_path):
    command("predict", "--model", best, "--input", data / "val", "--output", tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "coco_results.json").read_text())
    assert rows and all(
        row["image_id"] == int(row["file_name"].removesuffix(".jpg")) for row in rows
    )


def test_a_broken_image_does_not_stop_predict(command, best, data, tmp_path):
    shutil.copytree(data / "val", tmp_path / "in")
    (tmp_path / "in" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    code, _, errors = command(
        "predict", "--model", best, "--input", tmp_path / "in", "--output", tmp_path / "out"
    )
    assert code == 2 and "predicted 4 of 5 images" in errors
    assert [("error" in row) for row in read_rows(tmp_path / "out" / "predictions.jsonl")] == [
        False
    ] * 4 + [True]
    assert "broken.jpg" not in {
        row["file_name"] for row in json.loads((tmp_path / "out" / "coco_results.json").read_text())
    }


def test_export_gives_transformers_the_same_boxes(command, best, data, tmp_path):
    code, printed, _ = command("export", "--model", best, "--output", tmp_path / "out")
    assert code == 0 and "read back bit for bit" in printed
    model, processor = (
        LibraryDetector.from_pretrained(tmp_path / "out").eval(),
        AutoImageProcessor.from_pretrained(tmp_path / "out"),
    )
    command(
        "predict", "--model", best, "--input", data / "val", "--output", tmp_path / "predictions"
    )
    compared = 0
    for row in read_rows(tmp_path / "predictions" / "predictions.jsonl"):
        image = Image.open(data / "val" / row["file"]).convert("RGB")
        with torch.no_grad():
            outputs = model(**processor(image, return_tensors="pt"))
        theirs = processor.post_process_object_detection(
            outputs, target_sizes=[image.size[::-1]], threshold=DetectionConfig.score
        )[0]
        boxes = np.array([one["box"] for one in row["detections"]])
        boxes[:, 2:] += boxes[:, :2]
        ours = np.column_stack(
            [
                boxes,
                [one["id"] for one in row["detections"]],
                [one["score"] for one in row["detections"]],
            ]
        )
        theirs = np.column_stack(
            [theirs["boxes"].numpy(), theirs["labels"].numpy(), theirs["scores"].numpy()]
        )
        # equal scores may stand in another order: each of theirs, which are the best as many as
        # there are queries, is one of ours
        distance = np.abs(theirs[:, None] - ours) / np.array([1, 1, 1, 1, 1e-3, 1e-2])
        assert distance.max(axis=2).min(axis=1).max() < 0.01, row["file"]
        compared += len(theirs)
    assert compared >= 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--model, --predictions: expected one of the two, none is given"),
        (
            ("--model", "m", "--predictions", "p"),
            "--model, --predictions: expected one of the two, both are given",
        ),
        (
            ("--predictions", "p", "--save-predictions", "x.json"),
            "--save-predictions: needs --model",
        ),
        (("--predictions", "p", "--val-split", "0.2"), "--val-split: needs --model"),
        (
            ("--model", "m", "--save-predictions", "x.txt"),
            "--save-predictions x.txt: expected a file name that ends in .json",
        ),
        (
            ("--predictions", "no-such-file.json"),
            "--predictions no-such-file.json: No such file or directory",
        ),
    ],
)
def test_evaluate_refuses_what_does_not_go_together(command, data, arguments, message):
    code, _, errors = command("evaluate", "--data", data, *arguments)
    assert code == 2 and errors.startswith(f"error: {message}") and errors.count("\n") == 1


def test_a_backend_that_is_not_installed_is_reported_before_training(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(UserError, match=r"--metric-backend: .*fasteval"):
        train(
            DetectionTask,
            data=str(data),
            model="tiny",
            steps=1,
            device="cpu",
            metric_backend="faster",
            output=str(tmp_path / "run"),
        )


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnx", "onnxscript", "onnxruntime"))),
    reason="needs the onnx extra",
)
def test_export_to_onnx_agrees_with_pytorch(command, best, tmp_path):
    code, printed, _ = command("export", "--model", best, "--output", tmp_path / "out", "--onnx")
    assert code == 0 and "one image at a time; onnxruntime and PyTorch agree" in printed
    assert (tmp_path / "out" / "model.onnx").exists()


# 60000 x 60000 pixels by its header, and nothing in it
HUGE_PNG = (
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
    + (60000).to_bytes(4, "big") * 2
    + b"\x08\x02\0\0\0"
    + b"\0" * 64
    + b"IEND"
)


def test_a_huge_a_truncated_and_a_missing_image_are_named(command, data, tmp_path):
    for case, harm in {
        "huge": lambda path: path.write_bytes(HUGE_PNG),
        "cut": lambda path: path.write_bytes(path.read_bytes()[:200]),
        "gone": lambda path: path.unlink(),
    }.items():
        folder = tmp_path / case
        shutil.copytree(data, folder)
        harm(folder / "train" / "0003.jpg")
        small = "--model tiny --image-size 96 --steps 6 --batch-size 6 --device cpu --workers 0"
        code, _, errors = command(f"train {small}", data=folder, output=tmp_path / f"run_{case}")
        assert code == 2 and errors.count("error: ") == 1 and "0003.jpg" in errors, case
