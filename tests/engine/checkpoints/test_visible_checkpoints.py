"""Checkpoints on a network file system: other nodes see a new folder some time later."""

import shutil
import threading
import time
from pathlib import Path

import pytest
import torch
import torch.utils.tensorboard
from toy_task import ToyTask

from visionloop.engine import train as train_module
from visionloop.engine.checkpoints import start
from visionloop.engine.checkpoints.files import write_json
from visionloop.engine.checkpoints.folder import read_state, write_folder
from visionloop.engine.checkpoints.manifest import MANIFEST, is_visible
from visionloop.engine.checkpoints.start import wait_until_visible
from visionloop.engine.distributed import World, join_world
from visionloop.engine.errors import UserError
from visionloop.engine.testing.short_runs import on_ranks
from visionloop.engine.train import train

SETTINGS = dict(
    batch_size=8,
    micro_batch=4,
    threads=1,
    workers=0,
    device="cpu",
    precision="fp32",
    eval_every=0,
    save_every=2,
)


@pytest.fixture
def checkpoint(tmp_path):
    def fill(folder):
        write_json(folder / "state.json", {"step": 2})
        (folder / "model.safetensors").write_bytes(b"weights" * 100)

    write_folder(tmp_path / "step_00000002", fill)
    return tmp_path / "step_00000002"


def test_a_folder_is_visible_once_every_file_has_its_size(checkpoint, tmp_path):
    copy = tmp_path / "copy"
    assert is_visible(checkpoint) and not is_visible(copy)
    copy.mkdir()
    for name in (MANIFEST, "state.json"):
        shutil.copy(checkpoint / name, copy)
        assert not is_visible(copy)
    (copy / "model.safetensors").write_bytes(b"weights")
    assert not is_visible(copy)
    shutil.copy(checkpoint / "model.safetensors", copy)
    assert is_visible(copy)


def state_seen_by(folder, copy, seconds):
    """The step that a rank reads, where the second one sees a copy so many seconds later."""
    world = join_world("cpu")
    if world.is_main:
        threading.Timer(seconds, shutil.copytree, (folder, copy)).start()
    start.VISIBLE_SECONDS = 5.0
    own = Path(folder if world.is_main else copy)
    try:
        wait_until_visible(world, own)
    except UserError as error:
        return str(error)
    return read_state(own)["step"]


def test_every_process_waits_until_it_sees_the_checkpoint_that_the_main_one_found(checkpoint):
    copy = checkpoint.with_name("late")
    steps = on_ranks(2, state_seen_by, str(checkpoint), str(copy), 1.0, context="fork")
    assert steps == [2, 2]


def test_a_process_that_never_sees_it_ends_all_with_one_line(checkpoint):
    copy = checkpoint.with_name("never")
    lines = on_ranks(2, state_seen_by, str(checkpoint), str(copy), 20.0, context="fork")
    assert all("process 1 did not see it for 5 s; all processes need" in line for line in lines)


def resumed(output):
    """Resume on two processes, the second of which sees the checkpoint a second later."""
    if join_world("cpu").rank:
        visible_at = time.monotonic() + 1

        def read_late(folder):
            if time.monotonic() < visible_at:
                raise FileNotFoundError(folder / "state.json")
            return read_state(folder)

        train_module.read_state = read_late
        start.is_visible = lambda folder: time.monotonic() >= visible_at
    return train(ToyTask, output=output, steps=4, **SETTINGS).step


def test_a_restart_waits_for_a_checkpoint_that_another_node_does_not_see_yet(tmp_path):
    train(ToyTask, output=str(tmp_path), steps=4, **SETTINGS)
    for path in (tmp_path / "checkpoints" / "step_00000004", tmp_path / "best"):
        shutil.rmtree(path)
    assert on_ranks(2, resumed, str(tmp_path), context="fork") == [4, 4]


def test_a_process_alone_waits_for_nothing(tmp_path):
    alone = World(0, 0, 1, torch.device("cpu"))
    wait_until_visible(alone, tmp_path / "missing")
