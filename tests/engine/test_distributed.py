"""Devices and process groups: joining, and leaving while another process is lost."""

import subprocess
import sys
import time
import warnings
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from toy_task import ToyTask

from visionloop.engine import distributed
from visionloop.engine import train as train_module
from visionloop.engine.batch import Batch
from visionloop.engine.distributed import join_world, leave_world, pick_device
from visionloop.engine.errors import STOPPED, UserError
from visionloop.engine.logging.run_files import environment
from visionloop.engine.prepare import wrap_ddp
from visionloop.engine.testing.short_runs import on_ranks
from visionloop.engine.train import train

LOST = """
import threading, time
import click
from visionloop.bin.commands.cli import run_commands
from visionloop.engine.errors import LostProcess

@click.group("toy")
def group():
    pass

@group.command()
def train():
    threading.Thread(target=time.sleep, args=(50,)).start()
    raise LostProcess("process 1 is gone", code="lost_process")

run_commands(group, ["train"])
"""


class Group:
    """A process group of NCCL whose kernels wait for a lost process; notes what is called."""

    def __init__(self, monkeypatch, *, abort_seconds=0.0):
        self.calls, self.abort_seconds = [], abort_seconds
        nccl = SimpleNamespace(
            is_initialized=lambda: True,
            get_backend=lambda: "nccl",
            group=SimpleNamespace(WORLD=self),
            destroy_process_group=lambda: self.calls.append("wait for the kernels"),
        )
        monkeypatch.setattr(distributed, "dist", nccl)

    def _get_backend(self, device):
        assert device.type == "cuda"
        return self

    def abort(self):
        self.calls.append("abort")
        time.sleep(self.abort_seconds)


def test_a_process_that_failed_never_waits_for_the_kernels_of_nccl(monkeypatch):
    group = Group(monkeypatch)
    leave_world(failed=True)
    assert group.calls == ["abort"]
    leave_world()
    assert group.calls == ["abort", "wait for the kernels"]


def test_an_abort_that_hangs_holds_the_process_for_a_few_seconds_only(monkeypatch):
    monkeypatch.setattr(distributed, "ABORT_SECONDS", 0.1)
    group = Group(monkeypatch, abort_seconds=20)
    began = time.monotonic()
    leave_world(failed=True)
    assert group.calls == ["abort"] and time.monotonic() - began < 10


@pytest.mark.parametrize("fails", [True, False])
def test_a_run_that_ends_with_an_error_tells_the_process_group(fails, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(train_module, "leave_world", lambda *, failed: seen.append(failed))
    with pytest.raises(UserError, match="no training samples") if fails else nullcontext():
        settings = dict(steps=1, batch_size=4, micro_batch=4, threads=1, workers=0, device="cpu")
        train(ToyTask, output=str(tmp_path), images=0 if fails else 8, **settings)
    assert seen == [fails]


def test_a_lost_process_ends_the_command_with_its_line_and_code_whatever_still_runs():
    """A thread that nobody can stop, like one that waits for the device, does not delay the end."""
    began = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-P", "-c", LOST], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == STOPPED and result.stderr == "error: process 1 is gone\n"
    assert time.monotonic() - began < 30


def see_gpus(monkeypatch, number):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)


def test_a_process_takes_the_gpu_of_its_local_rank_or_the_only_one_that_it_sees(monkeypatch):
    see_gpus(monkeypatch, 4)
    assert [pick_device("cuda", rank).index for rank in range(4)] == [0, 1, 2, 3]
    with pytest.raises(UserError, match="process 4 has no GPU, 4 are visible"):
        pick_device("cuda", 4)
    see_gpus(monkeypatch, 1)  # as with SLURM's --gpus-per-task
    assert [pick_device("cuda", rank).index for rank in range(4)] == [0, 0, 0, 0]


def check_gpu(uuids):
    world = join_world("cpu")
    torch.cuda.get_device_properties = lambda device: SimpleNamespace(uuid=uuids[world.rank])
    try:
        distributed.check_own_gpu(world)
    except UserError as error:
        return str(error)
    return None


def test_two_processes_on_one_gpu_are_refused_on_both():
    assert on_ranks(2, check_gpu, ["a", "b"], context="fork") == [None, None]
    lines = on_ranks(2, check_gpu, ["a", "a"], context="fork")
    assert all(
        line.startswith("--nproc-per-node: processes 0 and 1 use the same") for line in lines
    )


def warnings_of_depthwise_gradients():
    world = join_world("cpu")
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(4, 4, 3, groups=4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        images = torch.randn(2, 4, 9, 9).to(memory_format=torch.channels_last)
        model = wrap_ddp(layer, world)
        model(images).square().sum().backward()
    return [str(warning.message) for warning in caught]


def test_gradients_in_another_order_of_the_same_memory_are_no_warning():
    assert on_ranks(2, warnings_of_depthwise_gradients, context="fork") == [[], []]


def test_the_environment_of_a_run_on_the_cpu_asks_no_gpu_for_its_name(monkeypatch):
    see_gpus(monkeypatch, 1)  # asking would make a CUDA context
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    assert environment(torch.device("cpu"))["cuda"] is None
    assert environment(torch.device("cuda", 1))["cuda"] == "GPU 1"


class Copies(TorchDispatchMode):
    """Notes for each copy to another device whether it may return before the host is read."""

    def __init__(self):
        super().__init__()
        self.non_blocking = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._to_copy.default:
            self.non_blocking.append(bool((kwargs or {}).get("non_blocking")))
        return function(*args, **(kwargs or {}))


def test_copies_to_other_devices_than_cuda_wait_for_the_host_memory():
    with Copies() as copies:
        Batch({"pixel_values": torch.ones(2)}).to(torch.device("meta"))
    assert copies.non_blocking == [False]
