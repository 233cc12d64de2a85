"""`report RUN --json`: the object of real runs, and of runs with missing or invalid files."""

import json
import shutil
import time
from itertools import pairwise
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from PIL import Image
from report_runs import (
    SCHEMA,
    SMALL,
    change,
    copy_run,
    last_record,
    object_reader,
)
from toy_task import ToyTask

from visionloop.bin import report as launcher
from visionloop.bin.reports import records
from visionloop.bin.reports.contents import names_of
from visionloop.engine.errors import UserError
from visionloop.engine.logging.status_file import failed_at_start
from visionloop.engine.train import train

commands = launcher.command  # of the fixture `command`


@pytest.fixture
def run(trained_run, tmp_path):
    return copy_run(trained_run, tmp_path / "run")


@pytest.fixture
def object_of(command, tmp_path):
    return object_reader(command, tmp_path)


def steps_with_images(run):
    """Not all evaluations keep images, the first and the last do."""
    all_records = [
        json.loads(path.read_text()) for path in sorted(run.glob("evaluations/*/record.json"))
    ]
    steps = [record["step"] for record in all_records if record["fixed"][0]["image"]]
    assert steps[0] == 2 and steps[-1] == 6
    return steps


def test_the_schema_refuses_invalid_objects(object_of, run):
    Draft202012Validator.check_schema(SCHEMA.schema)
    report = object_of(run)
    for wrong in (
        {},
        report | {"schema": 2},
        report | {"runs": []},
        report | {"runs": [report["runs"][0] | {"best": {}}]},
    ):
        assert list(SCHEMA.iter_errors(wrong))


def test_the_object_of_a_run_agrees_with_its_files(object_of, run):
    report = object_of(run)
    (run_object,) = report["runs"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    scored = [line for line in lines if line["kind"] == "eval"]
    accuracy = next(score for score in run_object["scores"] if score["key"] == "accuracy")
    assert accuracy["steps"] == [2, 4, 6]
    for key, logged in (("values", "metrics"), ("raw", "metrics_raw")):
        assert accuracy[key] == pytest.approx(
            [line[logged]["accuracy"] for line in scored], rel=1e-5
        )
    assert all(
        low <= value <= high
        for low, value, high in zip(
            accuracy["low"], accuracy["values"], accuracy["high"], strict=True
        )
    )
    loss = next(curve for curve in run_object["curves"] if curve["name"] == "loss")
    assert (loss["group"], loss["steps"], loss["logged"]) == ("loss", [1, 2, 3, 4, 5, 6], 6)
    assert run_object["settings"]["steps"] == {"value": 6, "source": "flag"}
    assert (
        run_object["state"],
        run_object["step"],
        run_object["model"],
        run_object["data"],
        run_object["notes"],
    ) == (
        "finished",
        6,
        "tiny",
        "data",
        [],
    )
    (task,) = report["tasks"]
    labels = {metric["key"]: metric["label"] for metric in task["metrics"]}
    assert (task["label"], task["primary"], labels["val_loss"]) == (
        "Image classification",
        "accuracy",
        "validation loss",
    )


def test_samples_and_classes_are_those_of_the_records(object_of, run):
    (run_object,) = object_of(run)["runs"]
    record = json.loads(last_record(run).read_text())
    assert [one["step"] for one in run_object["fixed"]["selection"]] == steps_with_images(run)
    for key, samples in (
        ("fixed", run_object["fixed"]["selection"][-1]["samples"]),
        ("worst", run_object["worst"]["samples"]),
    ):
        assert [sample["name"] for sample in samples] == [sample["name"] for sample in record[key]]
        assert all(sample["image"].startswith("data:image/jpeg;base64,") for sample in samples)
    last = run_object["last_evaluation"]
    assert (last["step"], last["classes"], last["confusion"]) == (
        6,
        record["classes"],
        record["confusion"],
    )


def test_a_task_outside_the_table_is_shown_by_its_keys(object_of, tmp_path):
    train(ToyTask, model="toy", output=str(tmp_path / "toy"), **SMALL)
    (task,) = object_of(tmp_path / "toy")["tasks"]
    assert task["primary"] is None
    assert {metric["key"] for metric in task["metrics"]} == {
        metric.key for metric in ToyTask.metrics
    }
    assert all(metric["label"] == metric["key"].replace("_", " ") for metric in task["metrics"])


@pytest.mark.parametrize(
    "name", ["settings.json", "environment.json", "status.json", "metrics.jsonl", "evaluations"]
)
@pytest.mark.parametrize("content", [None, "", "[]", '{"half": '])
def test_a_missing_or_invalid_part_is_noted_and_the_rest_is_shown(object_of, run, name, content):
    path = run / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if content is not None:
        path.write_text(content)
    (run_object,) = object_of(run)["runs"]
    assert run_object["notes"]
    assert bool(run_object["scores"]) == (name != "metrics.jsonl")
    assert (run_object["fixed"] is None) == (name == "evaluations")
    assert bool(run_object["settings"]) == (name != "settings.json") and (
        run_object["state"] == "unknown"
    ) == (name == "status.json")


def test_half_a_last_line_is_left_out(object_of, run):
    path = run / "metrics.jsonl"
    before = object_of(run)["runs"][0]
    path.write_bytes(path.read_bytes() + b'{"time": 1.0, "step": 7, "ki\xff')
    (after,) = object_of(run)["runs"]
    assert after["curves"] == before["curves"] and after["notes"] == [
        "metrics.jsonl: the last line is incomplete and left out"
    ]


def test_a_run_that_failed_before_its_first_step_is_shown_with_its_error(object_of, tmp_path):
    folder = tmp_path / "failed"
    folder.mkdir()
    status = failed_at_start(UserError("--data x: no such folder", code="bad_layout", field="data"))
    (folder / "status.json").write_text(json.dumps(status))
    (run_object,) = object_of(folder)["runs"]
    assert (run_object["state"], run_object["error"], run_object["best"], run_object["scores"]) == (
        "failed",
        "--data x: no such folder",
        None,
        [],
    )


def test_a_run_without_a_heartbeat_is_lost(object_of, run):
    change(
        run / "status.json",
        lambda content: content.update(state="running", heartbeat=time.time() - 30),
    )
    assert object_of(run)["runs"][0]["state"] == "running"
    change(
        run / "status.json",
        lambda content: content.update(state="running", heartbeat=time.time() - 90),
    )
    assert object_of(run)["runs"][0]["state"] == "lost"


def test_numbers_that_are_not_finite_are_gaps(object_of, run):
    lines = (run / "metrics.jsonl").read_text().replace('"loss": ', '"loss": NaN, "was": ', 1)
    (run / "metrics.jsonl").write_text(lines)
    (run_object,) = object_of(run)["runs"]
    loss = next(curve for curve in run_object["curves"] if curve["name"] == "loss")
    assert (loss["values"].count(None), loss["gaps"], loss["logged"]) == (1, 1, 6)


def test_no_file_from_outside_the_record_gets_into_a_page(object_of, run, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.jpg")
    folder = last_record(run).parent
    (folder / "linked.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "note.txt").write_text("private")

    names = ("../../../secret.jpg", str(tmp_path / "secret.jpg"), "linked.jpg", "note.txt")

    def edit(record):
        for sample, name in zip(record["worst"], names, strict=False):
            sample["image"] = name

    change(last_record(run), edit)
    (run_object,) = object_of(run)["runs"]
    images = [sample["image"] for sample in run_object["worst"]["samples"]]
    assert images[:4] == [None] * 4 and all(images[4:]) and len(run_object["notes"]) == 4


def test_images_of_many_evaluations_are_reduced_to_evenly_spaced_ones(object_of, run):
    first, drawn = sorted((run / "evaluations").iterdir())[0], len(steps_with_images(run))
    for step in range(7, 107):
        folder = shutil.copytree(first, run / "evaluations" / f"step_{step:08d}")
        change(folder / "record.json", lambda record, step=step: record.update(step=step))
    fixed = object_of(run)["runs"][0]["fixed"]
    steps = [one["step"] for one in fixed["selection"]]
    assert len(steps) == records.FIXED_STEPS and (steps[0], steps[-1], fixed["evaluations"]) == (
        2,
        106,
        drawn + 100,
    )
    assert max(b - a for a, b in pairwise(steps)) <= 14


def test_evaluations_without_images_do_not_replace_the_last_images(object_of, run):
    def edit(record):
        for sample in record["fixed"] + record["worst"]:
            sample["image"] = None

    before = steps_with_images(run)[-2]
    change(last_record(run), edit)
    (run_object,) = object_of(run)["runs"]
    assert (
        run_object["last_evaluation"]["step"],
        run_object["worst"]["step"],
        run_object["notes"],
    ) == (
        6,
        before,
        [],
    )


def test_two_runs_share_a_page_under_unique_names(object_of, run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other" / "run")
    report = object_of(run, other)
    assert [one["name"] for one in report["runs"]] == [f"{tmp_path.name}/run", "other/run"] and len(
        report["tasks"]
    ) == 1
    assert names_of([Path("/a/b/x"), Path("/a/b/y")]) == ["x", "y"]


def test_how_to_repeat_is_the_command_as_typed(object_of, run):
    words = ["bin/classification.py", "train", "--data", "my images", "--model", "tiny"]
    change(
        run / "environment.json",
        lambda content: content.update(command=words, processes=1, git_commit="abc"),
    )
    repeat = object_of(run)["runs"][0]["repeat"]
    assert (repeat["command"], repeat["commit"]) == (
        "python bin/classification.py train --data 'my images' --model tiny",
        "abc",
    )
    assert (
        repeat["from_settings"]
        == f"python bin/classification.py train --config {run}/settings.json --output NEW"
    )
    change(run / "environment.json", lambda content: content.update(processes=4))
    assert object_of(run)["runs"][0]["repeat"]["command"].startswith(
        "torchrun --nproc-per-node 4 bin/classification.py"
    )
