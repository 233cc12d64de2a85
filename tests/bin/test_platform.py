"""A platform for the four tasks: choose, ask, start, follow, stop, go on, take the model, predict. All it reads fits the schema."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from visionloop.datasets.synthetic.writers import WRITERS

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "bin/platform_contract/schema.json").read_text())
TASK_TYPES = {
    "classification": "image_classification", "detection": "object_detection", "segmentation": "semantic_segmentation",
    "super_resolution": "super_resolution",
}  # fmt: skip
LONGEST = 240  # seconds that anything may take on a busy machine
STEPS = 30


def fits(kind, value):
    Draft202012Validator({"$ref": f"#/$defs/{kind}", "$defs": SCHEMA["$defs"]}).validate(value)
    return value


def program(*words):
    return [sys.executable, *map(str, words)]


def run(*words, code=0):
    done = subprocess.run(program(*words), capture_output=True, text=True, timeout=LONGEST)
    assert done.returncode == code, done.stderr[-2000:]
    return done.stdout


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
        assert list(
            Draft202012Validator({"$ref": f"#/$defs/{kind}", "$defs": SCHEMA["$defs"]}).iter_errors(
                wrong
            )
        )
    fits("metrics_line", line | {"metrics": {"accuracy": None}})


def test_tables_fit_the_schema():
    models = [
        fits("model", row) for row in json.loads(run(ROOT / "bin/models.py", "list", "--json"))
    ]
    assert {row["task_type"] for row in models} == set(TASK_TYPES.values())
    assert {
        fits("task", row)["value"]
        for row in json.loads(run(ROOT / "bin/models.py", "tasks", "--json"))
    } == set(TASK_TYPES.values())
    metrics = json.loads(run(ROOT / "bin/models.py", "metrics", "--json"))
    for task_type, row in metrics.items():
        keys = [metric["key"] for metric in fits("metrics_of_task", row)["metrics"]]
        assert {row["primary"], row["best"]} <= set(keys), task_type


@pytest.mark.slow
@pytest.mark.parametrize("task", WRITERS)
def test_a_platform_plays_a_job_from_the_table_to_predictions(tmp_path, task):
    data = tmp_path / "data"
    data.mkdir()
    WRITERS[task](data, 0, images={"train": 12, "val": 4})
    models = json.loads(run(ROOT / "bin/models.py", "list", "--task", TASK_TYPES[task], "--json"))
    chosen = next(row for row in models if row["model_id"] == "tiny")
    folder, script = tmp_path / "jobs" / "17", ROOT / f"bin/{task}.py"
    batch = 4
    given = {
        "framework": "huggingface", "task_type": chosen["task_type"], "model_name": chosen["model_id"], "dataset_path": data,
        "output_path": folder.parent, "epochs": STEPS * batch / 12, "batch_size": batch, "learning_rate": chosen["recommended_lr"],
        "job_id": 17,
    }  # fmt: skip
    small = [
        "--workers",
        0,
        "--threads",
        1,
        "--device",
        "cpu",
        "--eval-every",
        5,
        "--log-every",
        1,
        "--save-every",
        0,
    ]
    start = program(
        ROOT / "bin/train.py",
        *(word for name, value in given.items() for word in (f"--{name}", value)),
        *small,
    )
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
            and time.time() - status["heartbeat"] < 10
        )
        job.send_signal(signal.SIGTERM)
        _, said = job.communicate(timeout=LONGEST)
    finally:
        job.kill()
    stopped = fits("status", json.loads((folder / "status.json").read_text()))
    assert (job.returncode, stopped["state"]) == (75, "stopped"), said[-2000:]
    logged = [line for line in lines_of(metrics) if line["step"] < stopped["step"]]

    done = subprocess.run(start, cwd=tmp_path, capture_output=True, text=True, timeout=LONGEST)
    finished = fits("status", json.loads((folder / "status.json").read_text()))
    assert (done.returncode, finished["state"], finished["step"]) == (0, "finished", STEPS), (
        done.stderr[-2000:]
    )
    assert [line for line in lines_of(metrics) if line["step"] < stopped["step"]] == logged
    evaluated = [line["step"] for line in lines_of(metrics) if line["kind"] == "eval"]
    assert evaluated == sorted(set(evaluated)) and set(evaluated) >= set(range(5, STEPS + 1, 5))
    assert (
        finished["best"]["metric"]
        == json.loads(run(ROOT / "bin/models.py", "metrics", "--json"))[TASK_TYPES[task]]["best"]
    )

    model = shutil.copytree(folder / "best", tmp_path / "downloaded")
    images = data / (
        "val/LR_x2"
        if task == "super_resolution"
        else "images/val"
        if task == "segmentation"
        else "val"
    )
    printed = run(
        script,
        "predict",
        "--model",
        model,
        "--input",
        images,
        "--output",
        tmp_path / "answers",
        "--device",
        "cpu",
        "--json",
    )
    answers = [fits("prediction", json.loads(line)) for line in printed.splitlines()]
    assert len(answers) == 4 and not any("error" in answer for answer in answers)
    assert [answer["file"] for answer in answers] == sorted(answer["file"] for answer in answers)
