"""SIGTERM in training, evaluation and a slow fetch: a checkpoint, exit code 75, an exact resume."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_task import ToyTask

from visionloop.engine.checkpoints.folder import latest_valid
from visionloop.engine.testing.short_runs import logged
from visionloop.engine.train import train

SUPPORT = str(Path(__file__).parents[2] / "support")
# all other variables are kept: some choose the CPU's kernels, and so the bytes
ENVIRONMENT = os.environ | {"PYTHONPATH": SUPPORT, "OMP_NUM_THREADS": "1"}
SCRIPT = """
import json, sys
from toy_task import ToyTask
from visionloop.bin.commands.train import run_train
run_train(ToyTask, json.loads(sys.argv[1]))
"""
SETTINGS = dict(
    steps=6,
    batch_size=8,
    micro_batch=8,
    lr=1e-2,
    threads=1,
    workers=1,
    device="cpu",
    precision="fp32",
    log_every=1,
    eval_every=3,
    eval_batch_size=2,
    save_every=0,
)


def start(output, **settings):
    arguments = [
        sys.executable,
        "-c",
        SCRIPT,
        json.dumps({"output": str(output), **SETTINGS, **settings}),
    ]
    return subprocess.Popen(
        arguments, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for_line(process, text):
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"the process ended without printing {text!r}")


def assert_stops_and_continues(folder, trigger, delay, allowed_seconds, **slow):
    process = start(folder / "stopped", **slow)
    wait_for_line(process, trigger)
    time.sleep(delay)
    process.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)  # a scheduler may send it twice
    assert process.wait(60) == 75
    seconds = time.monotonic() - sent
    assert json.loads((folder / "stopped" / "status.json").read_text())["state"] == "stopped"
    assert latest_valid(folder / "stopped" / "checkpoints") is not None
    train(ToyTask, output=str(folder / "stopped"), **SETTINGS)
    train(ToyTask, output=str(folder / "straight"), **SETTINGS)
    assert logged(folder / "stopped") == logged(folder / "straight")
    # one step and five seconds are allowed; a loaded machine may double that
    assert seconds < 2 * allowed_seconds
    return json.loads((folder / "stopped" / "status.json").read_text())["state"] == "finished"


def test_sigterm_in_training_saves_and_the_same_command_resumes(tmp_path):
    assert assert_stops_and_continues(tmp_path, "step 1/6", 0.0, 6, slow_seconds=0.05)


def test_sigterm_while_data_are_slow_saves_without_waiting_for_them(tmp_path):
    # each batch takes 80 s to come: the first never does
    assert assert_stops_and_continues(tmp_path, "toy: 40 training", 3.0, 5, slow_seconds=10)


def test_sigterm_while_data_are_slow_saves_without_workers_too(tmp_path):
    assert assert_stops_and_continues(
        tmp_path, "toy: 40 training", 3.0, 5, slow_seconds=10, workers=0
    )


def test_sigterm_in_an_evaluation_drops_it_and_does_it_first_after_the_resume(tmp_path):
    # 23 images of 2 s each
    assert assert_stops_and_continues(tmp_path, "step 3/6", 1.0, 5, slow_evaluation=2.0)


def test_two_interrupts_a_second_apart_end_at_once(tmp_path):
    process = start(tmp_path, slow_seconds=10, workers=0)
    wait_for_line(process, "toy: 40 training")
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    assert process.poll() is None
    time.sleep(1.2)
    if process.poll() is None:  # it may have saved and ended by itself
        process.send_signal(signal.SIGINT)
    assert process.wait(30) in (75, 130)


def test_a_finished_run_started_again_is_reported_as_finished(tmp_path, capsys):
    train(ToyTask, output=str(tmp_path), **SETTINGS)
    before = sorted(
        (path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.name != ".lock"
    )
    assert train(ToyTask, output=str(tmp_path), **SETTINGS).state == "finished"
    assert "this run is finished" in capsys.readouterr().out
    assert before == sorted(
        (path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.name != ".lock"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("lr", 0.5), ("batch_size", 4), ("seed", 1), ("steps", 7), ("dropout", 0.1), ("ema", False)],
)
def test_a_resumed_run_refuses_another_value_of_an_immutable_setting(tmp_path, name, value):
    from visionloop.engine.errors import UserError

    train(ToyTask, output=str(tmp_path), **SETTINGS)
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')}: the run in"):
        train(ToyTask, output=str(tmp_path), **SETTINGS | {name: value})


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path):
    from visionloop.engine.errors import UserError

    (tmp_path / "thesis.txt").write_text("two years of work")
    with pytest.raises(UserError, match="not empty and not the folder of a run"):
        train(ToyTask, output=str(tmp_path), **SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
