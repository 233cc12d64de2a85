"""A platform for every task: choose, start, follow, stop, resume, take the model, predict.

All that it reads fits the schema.
"""

import contextlib
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
from contract_schema import SCHEMA, fits, validator_of
from jsonschema import Draft202012Validator

from visionloop.bin import models
from visionloop.bin.commands.cli import run_commands
from visionloop.datasets.synthetic.writers import WRITERS

ROOT = Path(__file__).parents[2]
TASK_TYPES = {
    "classification": "image_classification",
    "detection": "object_detection",
    "segmentation": "semantic_segmentation",
    "instance_segmentation": "instance_segmentation",
    "panoptic_segmentation": "panoptic_segmentation",
    "super_resolution": "super_resolution",
}
LONGEST = 240  # seconds that anything may take on a busy machine
STEPS = 30


def run(command, *words):
    """The standard output of a command that is run in this process and succeeds."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            run_commands(command, [str(word) for word in words])
        except SystemExit as left:
            assert not left.code, printed.getvalue()
    return printed.getvalue()


def models_json(*words):
    return json.loads(run(models.command, *words, "--json"))


def lines_of(path):
    whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
    return [fits("metrics_line", json.loads(line)) for line in whole.splitlines()]


def wait_until(happened):
    end = time.monotonic() + LONGEST
    while not happened():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.1)


def test_the_schema_is_one_and_refuses_what_is_not_so():
    Draft202012Validator.check_schema(SCHEMA)
    status = {
        "schema": 1,
        "state": "failed",
        "step": 3,
        "epoch": 0,
        "heartbeat": 1.0,
        "error": None,
    }
    line = {"time": 1.0, "step": 3, "epoch": 0, "kind": "eval", "train_loss": 1.0, "val_loss": None}
    for kind, wrong in (
        ("status", status),
        ("metrics_line", line),
        ("task_type", "detection"),
        ("prediction", {}),
    ):
        assert not validator_of(kind).is_valid(wrong)
    fits("metrics_line", line | {"metrics": {"accuracy": None}})


def test_tables_fit_the_schema():
    task_types = set(TASK_TYPES.values())
    assert {fits("model", row)["task_type"] for row in models_json("list")} == task_types
    assert {fits("task", row)["value"] for row in models_json("tasks")} == task_types
    for task_type, row in models_json("metrics").items():
        keys = [metric["key"] for metric in fits("metrics_of_task", row)["metrics"]]
        assert {row["primary"], row["best"]} <= set(keys), task_type


@pytest.mark.slow
@pytest.mark.parametrize("task", WRITERS)
def test_a_platform_plays_a_job_from_the_table_to_predictions(tmp_path, task):
    data = tmp_path / "data"
    data.mkdir()
    WRITERS[task](data, 0, images={"train": 12, "val": 4}, sides=(96, 128))
    rows = models_json("list", "--task", TASK_TYPES[task])
    chosen = next(row for row in rows if row["model_id"] == "tiny")
    folder, batch = tmp_path / "jobs" / "17", 4
    options = {
        "framework": "huggingface",
        "task_type": chosen["task_type"],
        "model_name": chosen["model_id"],
        "dataset_path": data,
        "output_path": folder.parent,
        "epochs": STEPS * batch / 12,
        "batch_size": batch,
        "learning_rate": chosen["recommended_lr"],
        "job_id": 17,
    }
    small = "--workers 0 --threads 1 --device cpu --eval-every 5 --log-every 1 --save-every 0"
    small += " --precision fp32"
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    start = [sys.executable, str(ROOT / "bin/train.py"), *words, *small.split()]
    job = subprocess.Popen(start, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        metrics = folder / "metrics.jsonl"
        wait_until(
            lambda: (
                job.poll() is not None or any(line["kind"] == "eval" for line in lines_of(metrics))
            )
        )
        status = fits("status", json.loads((folder / "status.json").read_text()))
        assert (
            status["state"] == "running"
            and status["steps"] == STEPS
            and time.time() - status["heartbeat"]
            < 60  # the contract: older than a minute means gone
        )
        job.send_signal(signal.SIGTERM)
        _, errors = job.communicate(timeout=LONGEST)
    finally:
        job.kill()
    stopped = fits("status", json.loads((folder / "status.json").read_text()))
    assert (job.returncode, stopped["state"]) == (75, "stopped"), errors[-2000:]
    logged = [line for line in lines_of(metrics) if line["step"] < stopped["step"]]

    done = subprocess.run(start, cwd=tmp_path, capture_output=True, text=True, timeout=LONGEST)
    finished = fits("status", json.loads((folder / "status.json").read_text()))
    assert (done.returncode, finished["state"], finished["step"]) == (0, "finished", STEPS), (
        done.stderr[-2000:]
    )
    assert [line for line in lines_of(metrics) if line["step"] < stopped["step"]] == logged
    evaluated = [line["step"] for line in lines_of(metrics) if line["kind"] == "eval"]
    assert evaluated == sorted(set(evaluated)) and set(evaluated) >= set(range(5, STEPS + 1, 5))
    assert finished["best"]["metric"] == models_json("metrics")[TASK_TYPES[task]]["best"]

    model = shutil.copytree(folder / "best", tmp_path / "downloaded")
    images = {"super_resolution": "val/LR_x2", "segmentation": "images/val"}.get(task, "val")
    paths = ["--model", model, "--input", data / images, "--output", tmp_path / "predictions"]
    launcher = import_module(f"visionloop.bin.{task}")
    printed = run(launcher.commands, "predict", *paths, "--device", "cpu", "--json")
    rows = [fits("prediction", json.loads(line)) for line in printed.splitlines()]
    assert len(rows) == 4 and not any("error" in row for row in rows)
    assert [row["file"] for row in rows] == sorted(row["file"] for row in rows)
