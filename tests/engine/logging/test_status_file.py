"""status.json: replaced whole at every change, and by a heartbeat."""

import json
import threading
import time

import pytest

from visionloop.engine.logging import status_file
from visionloop.engine.logging.status_file import StatusFile


def strict(text):
    """Read JSON as other languages do: no NaN, no Infinity."""

    def refuse(constant):
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def quick_heartbeat(monkeypatch):
    monkeypatch.setattr(status_file, "HEARTBEAT_SECONDS", 0.01)


def test_the_status_file_has_the_place_of_the_run_and_a_heartbeat(tmp_path, quick_heartbeat):
    path = tmp_path / "status.json"
    file = StatusFile(path, step=3, epoch=1, steps=10)
    first = strict(path.read_text())
    assert first | {"heartbeat": None} == {
        "schema": 1,
        "state": "running",
        "step": 3,
        "epoch": 1,
        "steps": 10,
        "eta": None,
        "best": None,
        "peak_gib": None,
        "nonfinite_steps": 0,
        "error": None,
        "heartbeat": None,
    }
    time.sleep(0.1)
    assert first["heartbeat"] < strict(path.read_text())["heartbeat"] <= time.time()
    file.update(step=4, state="stopped")
    assert strict(path.read_text())["step"] == 4
    file.close()
    last = path.read_text()
    time.sleep(0.05)
    assert path.read_text() == last and strict(last)["state"] == "stopped", (
        "no heart beats after the end"
    )


def test_the_heartbeat_is_young_enough():
    assert status_file.HEARTBEAT_SECONDS < 10


def test_a_reader_never_sees_half_a_status_and_no_temporary_file_stays(tmp_path, quick_heartbeat):
    path = tmp_path / "status.json"
    file = StatusFile(path, step=0, epoch=0, steps=10)
    steps, ended = [], threading.Event()

    def read():
        while not ended.is_set():
            steps.append(strict(path.read_text())["step"])

    reader = threading.Thread(target=read)
    reader.start()
    for step in range(300):
        file.update(step=step)
    ended.set()
    reader.join()
    file.close()
    assert steps == sorted(steps) and len(steps) > 10
    assert [entry.name for entry in tmp_path.iterdir()] == ["status.json"]


def test_a_status_with_an_undefined_score_is_still_json(tmp_path):
    file = StatusFile(tmp_path / "status.json", step=0, epoch=0, steps=10)
    file.update(
        best={
            "step": 1,
            "metric": "accuracy",
            "score": 0.5,
            "scores": {"accuracy": 0.5, "val_loss": float("nan")},
        }
    )
    file.close()
    assert strict((tmp_path / "status.json").read_text())["best"]["score"] == 0.5
