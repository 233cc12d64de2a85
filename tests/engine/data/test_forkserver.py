"""Workers are forked from a process of their own, without threads, that ends with the run."""

import inspect
import os
import signal
import subprocess
import sys
import time
from multiprocessing import connection, forkserver
from pathlib import Path

import pytest
from toy_task import ToyConfig, ToyTask

from visionloop.bin.commands import check, evaluate
from visionloop.engine import train

RUN = """
import os, sys, threading, time
from multiprocessing import forkserver
from visionloop.engine.distributed import World
from visionloop.engine.data.forkserver import start_fork_server
from visionloop.engine.data.loader import TrainingData
from visionloop.engine.config.train_config import TrainConfig
import torch
from tests.support.toy_task import ToyConfig, ToyImages, ToyTask

start_fork_server()
start_fork_server()
server = forkserver._forkserver._forkserver_pid
for _ in range(3):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
config = TrainConfig(steps=20, batch_size=8, micro_batch=4, workers=2, seed=3)
world = World(0, 0, 1, torch.device("cpu"))
data = TrainingData(ToyTask(ToyConfig()), ToyImages(21, split="train"), config, world, 0)
assert data.fetch(lambda: False) is not None
workers = [process.pid for process in data._prefetcher._iterator._workers]
print(server, *workers, flush=True)
sys.stdin.read()
assert data.fetch(lambda: False) is not None
data.close()
print("closed", flush=True)
"""


def status_of(pid):
    """{field: value} of a process, {} once it is gone or waits to be collected."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return {} if fields["State"].startswith("Z") else fields


def wait_until_gone(pids, seconds):
    deadline = time.monotonic() + seconds
    while any(status_of(pid) for pid in pids):
        assert time.monotonic() < deadline, "a process outlives the run"
        time.sleep(0.05)


@pytest.fixture
def run():
    """(process of a run with two workers, its server, its workers)."""
    root = Path(__file__).parents[3]
    process = subprocess.Popen(
        [sys.executable, "-c", RUN],
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    server, *workers = map(int, process.stdout.readline().split())
    yield process, server, workers
    process.kill()
    process.communicate()


def test_the_private_parts_of_multiprocessing_that_the_server_relies_on_exist():
    """A canary for a new Python: 3.14 changes them."""
    server = forkserver._forkserver
    for name in ("_forkserver_address", "_forkserver_alive_fd", "_forkserver_pid"):
        assert hasattr(server, name), name
    parameters = list(inspect.signature(forkserver.main).parameters)
    assert parameters[:3] == ["listener_fd", "alive_r", "preload"]
    assert callable(connection.arbitrary_address)


def test_workers_are_forked_from_a_process_without_threads_however_many_the_run_has(run):
    process, server, workers = run
    assert int(status_of(process.pid)["Threads"]) > 3
    assert (
        int(status_of(server)["PPid"]) == process.pid
        and status_of(server)["Threads"].strip() == "1"
    )
    assert len(workers) == 2 and {int(status_of(worker)["PPid"]) for worker in workers} == {server}


def test_server_and_workers_end_when_the_run_is_killed(run):
    process, server, workers = run
    process.kill()
    wait_until_gone([process.pid, server], 2)
    wait_until_gone(workers, 15)  # each looks for its parent every 5 s


def test_a_signal_to_the_whole_process_group_leaves_the_workers_to_the_run(run):
    process, server, workers = run
    for pid in (server, *workers):
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0 and out == "closed\n"
    wait_until_gone([server, *workers], 2)


WITHOUT_SERVER = """
import logging, torch
from visionloop.engine.data.forkserver import start_fork_server
logging.basicConfig()
{before}
torch.cuda.is_initialized = lambda: True
start_fork_server()
"""


@pytest.mark.parametrize("before", ["", "start_fork_server()"])
def test_a_server_that_is_forked_beside_cuda_is_warned_of(before):
    result = subprocess.run(
        [sys.executable, "-P", "-c", WITHOUT_SERVER.format(before=before)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ("uses CUDA already" in result.stderr) == (not before)


class UsesTheDevice(Exception):
    """Stands for the first use of the GPU."""


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("command", ["evaluate", "check", "train"])
def test_a_command_with_workers_starts_the_server_before_it_uses_the_device(
    command, workers, tmp_path, monkeypatch
):
    order = []

    def use_device(*_):
        order.append("device")
        raise UsesTheDevice

    def start_server():
        order.append("server")

    module = {"evaluate": evaluate, "check": check, "train": train}[command]
    monkeypatch.setattr(module, "start_fork_server", start_server)
    uses = "pick_device" if command == "evaluate" else "join_world"
    monkeypatch.setattr(module, uses, use_device)
    with pytest.raises(UsesTheDevice):
        COMMANDS[command](tmp_path, workers)
    assert order == ["server"] * bool(workers) + ["device"]


class TrainedToy(ToyTask):
    @classmethod
    def load_trained(cls, folder, *, data=None, val_split=0.0):
        task = cls(ToyConfig())
        return task, task.build_model()


def evaluate_toy(_output, workers):
    options = evaluate.EvaluateOptions(
        model="toy",
        predictions=None,
        data="toy",
        split="val",
        val_split=0.0,
        output=None,
        save_predictions=None,
        operating_point=None,
        batch_size=4,
        workers=workers,
        device="cpu",
        as_json=False,
        settings={},
    )
    evaluate.run_evaluate(TrainedToy, options)


def check_toy(_output, workers):
    settings = train.resolve_settings(ToyTask, {"workers": workers, "steps": 1})
    task = ToyTask(ToyConfig())
    check.estimate_run(task, settings, *task.build_datasets(), startup_seconds=0.0)


def train_toy(output, workers):
    train.train(ToyTask, output=str(output), steps=1, workers=workers)


COMMANDS = {"evaluate": evaluate_toy, "check": check_toy, "train": train_toy}
