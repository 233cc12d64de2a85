"""Several processes on GPUs: one that is lost, restarts, the GPU of each, SyncBatchNorm.

Tests with `cpu` in their name run the same check on the CPU.
"""

import json
import os
import signal
import time
from dataclasses import replace
from functools import partial

import pytest
from device_commands import (
    STEPS,
    WATCHED,
    differing_files,
    finish,
    hashes,
    rank_environments,
    start,
    torchrun,
    train_arguments,
)
from device_task import QUIET, contexts_after_a_step, need_gpus, on_devices, tiny_task

from visionloop.engine.checkpoints.folder import latest_valid
from visionloop.engine.errors import STOPPED
from visionloop.engine.testing.short_runs import CONFIG, assert_same_step, first_step, on_ranks

KILLED_IN = 4  # step, 0-based; a checkpoint of four steps was written, and nothing is due after it
WITHIN = 20  # seconds from a process's end to that of the others
SMALL = ["--workers", "0", "--batch-size", "4", "--micro-batch", "2", "--deterministic"]
SMALL += ["--precision", "fp32"]
# A rank that reads losses of the step waits for the device, which waits for the killed process.
SMALL += ["--log-every", "50"]
SYNC_ERROR = 1e-3  # relative, of a gradient through statistics that two processes have summed


def small_run(device, data, output, launch=WATCHED, **environment):
    """Start a short classification run, or one of its processes."""
    arguments = train_arguments("classification", device, data, output, *SMALL)
    environment |= {"WATCH_NOTES": f"{output}.notes"}
    return start(*launch, "classification", *arguments, **environment)


@pytest.mark.slow
@on_devices
def test_a_killed_process_ends_the_other_within_seconds_with_the_code_to_run_again(
    device, data_of, tmp_path, record
):
    need_gpus(device, 2)
    output = tmp_path / "run"
    killed = {"WATCH_KILL": str(KILLED_IN)}
    processes = [
        small_run(device, data_of("classification"), output, **environment, **killed)
        for environment in rank_environments(2)
    ]
    try:
        assert processes[1].wait(120) == -signal.SIGKILL
        began = time.monotonic()
        _, printed = processes[0].communicate(timeout=120)
        seconds = time.monotonic() - began
    finally:
        for process in processes:
            process.kill()
    record(seconds_after_the_kill=seconds)
    assert processes[0].returncode == STOPPED, printed
    assert "another process of this run is gone" in printed
    assert seconds < WITHIN
    assert latest_valid(output / "checkpoints").name == "step_00000004"


@pytest.mark.gpu
def test_torchrun_restarts_a_killed_process_and_the_run_writes_the_same_bytes(data_of, tmp_path):
    need_gpus("cuda", 2)
    assert_restarted_run_is_equal("cuda", data_of("classification"), tmp_path)


def assert_restarted_run_is_equal(device, data, folder):
    """Compare a run that torchrun has restarted with an undisturbed one."""
    launch = [*torchrun(2, "--max-restarts", "1"), *WATCHED]
    straight = small_run(device, data, folder / "straight", launch)
    killed = small_run(device, data, folder / "killed", launch, WATCH_KILL=str(KILLED_IN))
    finish(straight)
    assert "resuming after step 4" in finish(killed)
    last = f"checkpoints/step_{STEPS:08d}"
    files = [hashes(folder / name, last, "best") for name in ("straight", "killed")]
    assert differing_files(*files) == []


@pytest.mark.gpu
@pytest.mark.parametrize("number", [1, 2])
def test_a_process_that_sees_one_gpu_trains_on_it_whatever_its_local_rank(
    number, data_of, tmp_path
):
    need_gpus("cuda", number)
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "0,1").split(",")
    environments = rank_environments(number)
    if number == 1:
        environments[0] |= {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    data, output = data_of("classification"), tmp_path / "run"
    processes = [
        small_run("cuda", data, output, CUDA_VISIBLE_DEVICES=gpu, **environment)
        for gpu, environment in zip(gpus, environments, strict=False)
    ]
    for process in processes:
        finish(process)
    assert json.loads((output / "status.json").read_text())["state"] == "finished"


@pytest.mark.gpu
def test_each_process_has_a_context_on_its_own_gpu_alone(data_of):
    need_gpus("cuda", 2)
    make_task = partial(tiny_task, "classification", str(data_of("classification")), image_size=32)
    config = replace(CONFIG, device="cuda", workers=1)
    assert on_ranks(2, contexts_after_a_step, make_task, config) == [[0], [1]]


@pytest.mark.gpu
def test_two_processes_with_sync_bn_have_the_gradient_of_one(data_of, record):
    need_gpus("cuda", 2)
    first, steps = steps_with_trained_statistics("cuda", data_of("detection"), sync_bn=True)
    for rank, step in enumerate(steps):
        assert_same_step(first, step, f"process {rank} of 2 against 1", SYNC_ERROR)


def steps_with_trained_statistics(device, data, *, sync_bn):
    """Return the step of one process, and of each of two, with BatchNorm in training mode."""
    settings = QUIET["detection"] | {"backbone_bn": "trained"}
    make_task = partial(tiny_task, "detection", str(data), **settings)
    config = replace(CONFIG, device=device, tf32=False, sync_bn=sync_bn)
    return first_step(make_task, config), on_ranks(2, first_step, make_task, config)
