"""Scores and predictions of trained weights on a GPU.

Tests with `cpu` in their name run the same check on the CPU.
"""

import json

import pytest
from device_commands import MORE, OPTIONS, finish, start
from device_task import TASKS, on_tasks, size_setting

from visionloop.engine.train import train

# images to predict, below the data folder
IMAGES = {
    "classification": "val",
    "detection": "val",
    "segmentation": "images/val",
    "instance_segmentation": "val",
    "panoptic_segmentation": "val",
    "super_resolution": "val/LR_x2",
}
DIFFERENCE = 1e-3  # absolute, of a probability on two devices
EVAL_BATCH = 3


@pytest.mark.slow
@on_tasks("classification")
def test_evaluate_prints_the_scores_of_the_record_and_predict_those_of_the_cpu(
    task_name, device, data_of, tmp_path, record
):
    data, output = data_of(task_name), tmp_path / "run"
    settings = OPTIONS | size_setting(task_name) | MORE.get(task_name, {})
    settings |= {"data": str(data), "device": device, "from_scratch": True, "workers": 0}
    settings |= {"batch_size": 4, "eval_batch_size": EVAL_BATCH, "deterministic": True}
    result = train(TASKS[task_name], output=str(output), **settings)
    best = ["--model", str(output / "best"), "--batch-size", str(EVAL_BATCH)]
    command = ["-m", f"visionloop.bin.{task_name}"]
    evaluating = start(
        *command, "evaluate", *best, "--data", str(data), "--device", device, "--json"
    )
    images = ["--input", str(data / IMAGES[task_name]), "--no-images"]
    places = {name: tmp_path / f"predicted-{name}" for name in {device, "cpu"}}
    predicting = [
        start(*command, "predict", *best, *images, "--device", name, "--output", str(place))
        for name, place in places.items()
    ]
    step = result.best["step"]
    stored = json.loads((output / f"evaluations/step_{step:08d}/record.json").read_text())
    assert json.loads(finish(evaluating)) == stored["scores"]
    for process in predicting:
        finish(process)
    rows = {name: read_rows(place / "predictions.jsonl") for name, place in places.items()}
    own, of_the_cpu = rows[device], rows["cpu"]
    assert [row["file"] for row in own] == [row["file"] for row in of_the_cpu] != []
    assert not any("error" in row for row in own)
    if task_name == "classification":  # the others may list what they find in another order
        pairs = zip(own, of_the_cpu, strict=True)
        difference = max(abs(row["score"] - other["score"]) for row, other in pairs)
        record(prediction_difference=difference)
        assert difference <= DIFFERENCE


def read_rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]
