"""`check` on the command line: broken data, the sheet, and images overfitted."""

import json

import numpy as np
import pytest
from PIL import Image
from toy_task import ToyTask

from visionloop.bin import detection
from visionloop.bin.commands.check import problem_lines, run_check
from visionloop.datasets.synthetic.detection import write_detection
from visionloop.engine.errors import UserError

commands = detection.commands  # what the fixture `command` runs

SMALL = "--model tiny --image-size 96 --batch-size 4 --device cpu --precision fp32 --steps 8"


@pytest.fixture
def data(tmp_path):
    """Eight training and four validation images with shapes."""
    (tmp_path / "data").mkdir()
    write_detection(tmp_path / "data", 0, {"train": 8, "val": 4})
    return tmp_path / "data"


def change(data, split, edit):
    content = json.loads((data / f"{split}.json").read_text())
    edit(content)
    (data / f"{split}.json").write_text(json.dumps(content))


def test_check_of_detection_prints_what_a_run_costs_and_writes_the_sheet(command, data, tmp_path):
    code, printed, errors = command(
        "check", "--data", data, *SMALL.split(), "--json", "--sheet", tmp_path / "new" / "sheet.png"
    )
    report = json.loads(printed)
    assert code == 0 and set(report) == {"errors", "warnings", "classes", "estimate"}
    assert report["errors"] == [] and set(report["classes"]) == {
        "cross",
        "ring",
        "square",
        "triangle",
    }
    assert set(report["estimate"]) == {"memory_gib", "disk_gib", "seconds"} and all(
        value > 0 for value in report["estimate"].values()
    )
    assert all(
        errors.count(f"warning: {row['path']}: {row['why']}") == 1 for row in report["warnings"]
    )
    sheet = np.array(Image.open(tmp_path / "new" / "sheet.png"))
    left, right = np.array_split(sheet, 2, axis=1)
    assert min(sheet.shape[:2]) > 800 and left.std() > 20 and right.std() > 20


def test_without_an_estimate_the_data_is_checked_and_no_step_is_trained(command, data):
    sheet = data / "sheet.png"
    code, printed, _ = command(
        "check", "--data", data, *SMALL.split(), "--no-estimate", "--json", "--sheet", sheet
    )
    report = json.loads(printed)
    assert code == 0 and sheet.is_file() and set(report["classes"]) >= {"cross", "ring"}
    assert report["estimate"] == {"memory_gib": None, "disk_gib": None, "seconds": None}
    (data / "train.json").write_text("{")
    code, printed, _ = command("check", "--data", data, *SMALL.split(), "--no-estimate", "--json")
    assert code == 2 and json.loads(printed)["errors"]


def test_lines_for_people_are_printed_without_json(command, data):
    code, printed, _ = command(
        "check", "--data", data, *SMALL.split(), "--sheet", data / "sheet.png"
    )
    assert code == 0 and f"written: {data / 'sheet.png'}" in printed.splitlines()
    assert (
        "category ids run from 1 to 5 without 1 of them; labels are 0 to 3" in printed.splitlines()
    )
    assert any(line.startswith("boxes at 96 px: ") for line in printed.splitlines())


def test_broken_entries_are_a_line_each_with_file_and_id(command, data):
    def corrupt(content):
        content["annotations"][0]["bbox"] = [1, 2, "x", 4]
        content["annotations"][1]["image_id"] = 4711

    change(data, "train", corrupt)
    change(data, "val", lambda content: content["annotations"][2].update(category_id=4))
    (data / "val" / "0001.jpg").write_bytes(b"")
    code, printed, errors = command("check", "--data", data, *SMALL.split(), "--json")
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    train = data / "train.json"
    assert code == 2 and lines == [
        f"error: {train}: annotation 2: image_id 4711 is no image's id",
        f"error: {train}: annotation 1: bbox is [1, 2, 'x', 4], not four finite numbers",
        f"error: {data / 'val.json'}: annotation 3: category_id 4 is no category's id",
        f"error: {data / 'val' / '0001.jpg'}: empty file",
    ]
    assert [f"error: {row['path']}: {row['why']}" for row in json.loads(printed)["errors"]] == lines
    assert json.loads(printed)["estimate"] == {
        "memory_gib": None,
        "disk_gib": None,
        "seconds": None,
    }


def test_problems_that_are_alike_are_printed_five_times_and_counted():
    report = {
        "errors": [{"path": f"{i}.jpg", "why": "empty file"} for i in range(8)],
        "warnings": [{"path": f"{i}.jpg", "why": f"odd {i}"} for i in range(8)],
    }
    lines = list(problem_lines(report))
    assert lines[:5] == [f"error: {i}.jpg: empty file" for i in range(5)]
    assert lines[5] == "error: 3 more like this, which --json lists: empty file"
    assert lines[6:] == [f"warning: {i}.jpg: odd {i}" for i in range(8)]


def test_corners_instead_of_sizes_stop_check_and_train(command, data, tmp_path):
    def as_corners(content):
        for image in content["images"]:
            image.update(width=320, height=320)
        for row in content["annotations"]:
            row["bbox"] = [150, 150, 310, 310]

    change(data, "train", as_corners)
    code, _, errors = command("check", "--data", data, *SMALL.split())
    why = "bbox looks like [x1, y1, x2, y2], expected is [x, y, width, height]"
    expected = f"error: {data / 'train.json'}: {why}"
    assert code == 2 and expected in errors
    code, _, errors = command("train", "--data", data, *SMALL.split(), "--output", tmp_path / "run")
    assert code == 2 and errors.startswith(expected) and errors.count("\n") == 1


def test_a_sheet_is_a_png(command, data, tmp_path):
    code, _, errors = command(
        "check", "--data", data, *SMALL.split(), "--sheet", tmp_path / "sheet.txt"
    )
    assert (
        code == 2
        and errors.startswith("error: --sheet")
        and "expected the name of a .png file" in errors
    )


@pytest.mark.slow
def test_a_detector_overfits_two_images(command, data):
    code, printed, errors = command(
        "check", "--data", data, *SMALL.split(), "--threads", "1", "--overfit", "2"
    )
    assert code == 0 and "error" not in errors
    (line,) = [
        line for line in printed.splitlines() if line.startswith("2 images overfitted: AP50 ")
    ]
    assert float(line.split()[4]) >= 90


class Learner(ToyTask):
    """The toy with all that `check` asks for."""

    overfit_goal = ("accuracy", 1.0)

    def check_data(self):
        return {
            "errors": [],
            "warnings": [],
            "classes": {"left": 1, "right": 1},
            "lines": ["a line for people"],
        }


class Mirrored(Learner):
    """Trains and evaluates by different rules."""

    def predict(self, model, batch):
        return -super().predict(model, batch)


class Blind(Learner):
    """Its input does not depend on the image."""

    def to_input(self, batch):
        return 0 * super().to_input(batch)


@pytest.fixture
def learn(capsys):
    """learn(task class, **settings) -> (exit code, json, stderr) of a check with --overfit."""

    def run(task_class, **flags):
        flags = {
            "data": "toy",
            "overfit": 6,
            "device": "cpu",
            "threads": 1,
            "precision": "fp32",
            "batch_size": 8,
            "lr": 1e-2,
        } | flags
        code = run_check(task_class, flags, config_file=None, as_json=True)
        printed, errors = capsys.readouterr()
        return code, json.loads(printed), errors

    return run


def test_overfitted_images_are_no_error(learn, capsys):
    code, report, errors = learn(Learner)
    assert (
        code == 0
        and report["errors"] == []
        and set(report) == {"errors", "warnings", "classes", "estimate"}
    )
    assert errors.startswith("25 steps, ") and "accuracy 100.00 %" in errors
    flags = {
        "data": "toy",
        "overfit": 6,
        "device": "cpu",
        "threads": 1,
        "precision": "fp32",
        "lr": 1e-2,
    }
    assert run_check(Learner, flags, config_file=None, as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("6 images overfitted: accuracy 100.00 % after ") for line in lines)
    assert "a line for people" in lines


def test_a_sharded_run_is_checked_on_one_process(learn, capsys, tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps({"shard": "full"}))
    flags = {"data": "toy", "overfit": 6, "device": "cpu", "threads": 1, "precision": "fp32"}
    flags |= {"batch_size": 8, "lr": 1e-2}
    config = str(tmp_path / "settings.json")
    assert run_check(Learner, flags, config_file=config, as_json=False) == 0
    printed = capsys.readouterr().out
    assert (
        "\n--shard full: this one process held all weights, gradients, moments and EMA; " in printed
    )
    assert "6 images overfitted: accuracy 100.00 % after " in printed


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ({"micro_batch": "auto"}, "--micro-batch auto: not with --shard node, "),
        ({"optimizer": "sgd"}, "--shard node: not with --optimizer sgd"),
    ],
)
def test_check_refuses_what_a_sharded_run_refuses(learn, setting, why):
    code, report, _ = learn(Learner, shard="node", **setting)
    (error,) = report["errors"]
    assert code == 2 and error["why"].startswith(why)


FAILURES = {
    "it hardly fell": (Blind, {}),
    "the score did not rise": (Mirrored, {}),
    "the loss is inf in step 1; is --lr too high?": (Learner, {"poison": "600"}),
}


@pytest.mark.parametrize(("expected", "case"), FAILURES.items())
def test_a_failure_to_overfit_names_its_likely_cause(expected, case, learn):
    task_class, flags = case
    code, report, errors = learn(task_class, **flags)
    (row,) = report["errors"]
    assert code == 2 and row["path"] == "toy" and expected in row["why"] and "\n" not in row["why"]
    assert f"error: toy: {row['why']}" in errors


class Greedy(Learner):
    overfit_goal = ("accuracy", 1.5)


def test_images_that_are_not_overfitted_are_reported_with_the_best_score(learn):
    code, report, errors = learn(Greedy)
    why = report["errors"][0]["why"]
    assert code == 2 and why.startswith(
        "6 images are not overfitted in 600 steps: accuracy 100.00 % at best, expected 150.00 %"
    )
    before, after = map(float, why.split("the loss went from ")[1].split(",")[0].split(" to "))
    assert after < before and why.endswith("both improve slowly: try another --lr, or fewer images")
    assert errors.count(" steps, ") == 600 / 25


class BetterThanOthers(Learner):
    """Must reach what a trivial predictor scores on the same images."""

    overfit_goal = ("accuracy", "a coin")
    coin = 0.75

    def reference_scores(self, metric):
        return {
            "a coin": self.coin if len(metric) == 4 else 2.0
        }  # four of the six are scored; of others the goal is out of reach

    def overfit_samples(self, samples):
        return samples[:5], samples[2:]


def test_a_goal_may_be_the_score_of_a_trivial_predictor_on_the_images_that_are_scored(
    learn, capsys, monkeypatch
):
    flags = {
        "data": "toy",
        "overfit": 6,
        "device": "cpu",
        "threads": 1,
        "precision": "fp32",
        "lr": 1e-2,
    }
    assert run_check(BetterThanOthers, flags, config_file=None, as_json=False) == 0
    (line,) = [
        line
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("6 images overfitted: accuracy ")
    ]
    assert line.endswith(" steps; a coin: 75.00 %") and float(line.split()[4]) >= 75
    monkeypatch.setattr(BetterThanOthers, "coin", 1.01)
    code, report, _ = learn(BetterThanOthers)
    assert code == 2 and "expected 101.00 %" in report["errors"][0]["why"]


class Useless(Learner):
    def overfit_samples(self, samples):
        raise UserError("these samples cannot be overfitted")


def test_samples_that_cannot_be_overfitted_are_an_error_of_the_data(learn):
    code, report, errors = learn(Useless)
    assert code == 2 and report["errors"] == [
        {"path": "toy", "why": "these samples cannot be overfitted"}
    ]
    assert "error: toy: these samples cannot be overfitted" in errors


def test_overfitting_needs_a_goal(learn):
    with pytest.raises(ValueError, match="--overfit: toy does not say which score it must reach"):
        learn(ToyTask)
