"""A batch that a worker cannot send ends the run with a reason; it is never waited for."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_task import ToyConfig, ToyTask
from toy_training_data import kill_workers_that_are_left, never_stop, training_data

from visionloop.engine.errors import UserError
from visionloop.engine.system.shared_memory import error_number, shared_memory_errors

SMALL_SHARED_MEMORY = "mount -t tmpfs -o size={} tmpfs /dev/shm && exec {} -P -c '{}'"
FETCH = """
import sys
sys.path[:0] = ["tests/support"]
import toy_training_data as toy
try:
    data = toy.training_data(toy.ToyImages(640, split="train"), batch_size=640, micro_batch=640,
                             workers=2)
    while data.fetch(toy.never_stop) is not None: pass
    data.close()
    print(data.error.as_user_error())
except ValueError as error:
    print(error)
"""


class Unsendable(ToyTask):
    """A task whose batches cannot be pickled."""

    def collate(self, samples, step, offset):
        return super().collate(samples, step, offset).replace(function=lambda: None)


def test_a_batch_that_cannot_be_pickled_ends_the_worker():
    with kill_workers_that_are_left():
        data = training_data(task=Unsendable(ToyConfig()), workers=1)
        with pytest.raises(RuntimeError, match="exited unexpectedly"):
            data.fetch(never_stop)
        data.close()


def can_mount() -> bool:
    unshare = shutil.which("unshare")
    command = [str(unshare), "-m", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"]
    return bool(unshare) and subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="this machine lets nobody mount a file system")
@pytest.mark.parametrize("size", ["4k", "64k"])
def test_shared_memory_that_is_too_small_is_one_line_that_says_what_to_do(size):
    script = SMALL_SHARED_MEMORY.format(size, sys.executable, FETCH.replace("'", '"'))
    run = subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[3],
    )
    assert run.stdout.startswith("/dev/shm: the shared memory of 0.0"), run.stderr
    assert "--shm-size" in run.stdout and "--workers 0" in run.stdout
    assert run.stdout.count("\n") == 1 and "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No (28)"), 28),
        (RuntimeError("unable to open shared memory object </torch_1>: Too many (24)"), 24),
        (OSError(24, "Too many open files"), 24),
        (OSError(28, "No space left on device", "runs/log"), None),
        (RuntimeError("shapes do not match"), None),
        (KeyError("shared memory"), None),
    ],
)
def test_errors_of_shared_memory_are_told_from_others(error, number):
    assert error_number(error) == number


def test_an_error_at_the_start_of_workers_is_one_line():
    with (
        pytest.raises(UserError, match=r"/dev/shm: too many files .* ulimit"),
        shared_memory_errors(),
    ):
        raise OSError(24, "Too many open files")
    with pytest.raises(ZeroDivisionError), shared_memory_errors():
        torch.tensor([1 // 0])
