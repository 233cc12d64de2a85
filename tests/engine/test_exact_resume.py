"""A run that is stopped anywhere and started again ends with the same bytes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stopped_runs import SETTINGS, STEPS, bytes_of, run
from toy_task import ToyTask

from visionloop.engine.testing.short_runs import on_ranks
from visionloop.engine.train import train


def assert_stops_leave_no_trace(folder, stops, processes=1, **settings):
    settings = SETTINGS | settings

    def start(output, stop_after):
        if processes == 1:
            return run(output, stop_after, settings)
        return on_ranks(processes, run, output, stop_after, settings, context="fork")[0]

    assert start(folder / "straight", None) == ["finished", STEPS]
    for stop_after in stops:
        output = folder / f"stopped_{stop_after}"
        assert start(output, stop_after) == ["stopped", stop_after]
        assert start(output, None) == ["finished", STEPS]
        assert bytes_of(output) == bytes_of(folder / "straight"), (
            f"after a stop at step {stop_after}"
        )


def test_a_stop_after_any_step_changes_no_byte(tmp_path):
    assert_stops_leave_no_trace(tmp_path, range(1, STEPS), micro_batch=12, workers=0)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_stop_changes_no_byte_with_loader_workers(tmp_path, workers):
    assert_stops_leave_no_trace(tmp_path, [2, 9], micro_batch=12, workers=workers)


@pytest.mark.parametrize("workers", [0, 3])
def test_a_stop_changes_no_byte_with_three_micro_batches_and_a_trained_batch_norm(
    tmp_path, workers
):
    assert_stops_leave_no_trace(tmp_path, [4, 7], micro_batch=4, workers=workers, batch_norm=True)


@pytest.mark.parametrize(("micro_batch", "workers"), [(6, 0), (2, 1), (2, 3)])
def test_a_stop_changes_no_byte_on_two_processes(tmp_path, micro_batch, workers):
    assert_stops_leave_no_trace(
        tmp_path, [3, 8], processes=2, micro_batch=micro_batch, workers=workers, batch_norm=True
    )


def test_a_stop_changes_no_byte_on_three_processes(tmp_path):
    assert_stops_leave_no_trace(tmp_path, [5], processes=3, micro_batch=4, workers=0)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_stop_changes_no_byte_with_other_optimizers_and_without_average(tmp_path, optimizer):
    assert_stops_leave_no_trace(
        tmp_path, [6], micro_batch=12, workers=0, optimizer=optimizer, ema=False, schedule="poly"
    )


def test_a_stop_changes_no_byte_in_fp16_with_its_scaler(tmp_path):
    assert_stops_leave_no_trace(tmp_path, [1, 6], micro_batch=12, workers=0, precision="fp16")


def test_the_number_of_workers_and_the_intervals_may_change_and_the_losses_stay(tmp_path):
    settings = SETTINGS | dict(micro_batch=12)
    run(tmp_path / "straight", None, settings | dict(workers=0))
    run(tmp_path / "changed", 5, settings | dict(workers=3))
    run(tmp_path / "changed", None, settings | dict(workers=1, save_every=2, keep=1))
    assert bytes_of(tmp_path / "changed") == bytes_of(tmp_path / "straight")


SCRIPT = """
import json, sys
from toy_task import ToyTask
from visionloop.engine.train import train
train(ToyTask, **json.loads(sys.argv[1]))
"""


def test_a_killed_process_started_again_ends_with_the_same_bytes(tmp_path):
    # fresh processes and SIGKILL, in the second and a later epoch
    settings = SETTINGS | dict(micro_batch=6, workers=1, save_every=2, slow_seconds=0.01)
    command = [sys.executable, "-c", SCRIPT]
    # all other variables are kept: some choose the CPU's kernels, and so the bytes
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[1] / "support"),
        "OMP_NUM_THREADS": "1",
    }
    train(ToyTask, output=str(tmp_path / "straight"), **settings)
    arguments = [*command, json.dumps({"output": str(tmp_path / "killed"), **settings})]
    for checkpoint in ("step_00000004", "step_00000008"):
        process = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 90
        while not (tmp_path / "killed" / "checkpoints" / checkpoint).exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(arguments, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert bytes_of(tmp_path / "killed") == bytes_of(tmp_path / "straight")
