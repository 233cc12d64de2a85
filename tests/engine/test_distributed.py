"""Devices and process groups: joining, and leaving while another process is lost."""

import subprocess
import sys
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from toy_task import ToyTask

from visionloop.engine import distributed
from visionloop.engine import train as train_module
from visionloop.engine.distributed import leave_world
from visionloop.engine.errors import STOPPED, UserError
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
