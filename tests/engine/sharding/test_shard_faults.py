"""Checkpoints of sharded runs: crash safe, read at any number of ranks, resumed bit for bit."""

import errno
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from sharded_toy import (
    differing,
    files_of,
    largest_difference,
    started,
    tensors_of,
    train_on,
    train_toy,
    whole_tensors,
)

from visionloop.engine.checkpoints.folder import latest_valid, problems, step_folders
from visionloop.engine.checkpoints.resume import resume_from
from visionloop.engine.checkpoints.save_shards import PartMissing, part_file, wait_for_parts
from visionloop.engine.checkpoints.stored_tensors import Rows, StoredTensors, save_rows
from visionloop.engine.system import fault_injection
from visionloop.engine.system.fault_injection import POINTS
from visionloop.engine.testing.short_runs import on_ranks

FULL = {"shard": "full"}
LAST = ("checkpoints/step_00000006", "best")
ROUNDING = 1e-6


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs on two processes: one straight through, two that were stopped after three steps."""
    folder = tmp_path_factory.mktemp("runs")
    stopped = {"stop_after": 3}
    train_on(2, folder, straight=FULL, stopped=FULL | stopped, plain_stopped=stopped, plain={})
    return folder


def copied(runs, name, folder):
    shutil.copytree(runs / name, folder / "run")
    return folder / "run"


# resuming --------------------


def test_a_run_resumed_on_as_many_ranks_has_the_bytes_of_a_straight_one(runs, tmp_path):
    output = copied(runs, "stopped", tmp_path)
    train_on(2, tmp_path, run=FULL)
    assert files_of(output, *LAST) == files_of(runs / "straight", *LAST)


def names_read_otherwise(output, settings):
    """Resume from the newest checkpoint; name the tensors with other bits than on disk."""
    checkpoint = latest_valid(Path(output) / "checkpoints")
    with started(f"{output}-read", settings | {"batch_size": 6, "micro_batch": 2}) as (run, task):
        resume_from(run, task, checkpoint)
        read = whole_tensors(run)
    stored = tensors_of(output, step=3)
    return differing({name: stored[name] for name in read}, read) + sorted(stored.keys() - read)


@pytest.mark.parametrize("name", ["stopped", "plain_stopped"])
@pytest.mark.parametrize(
    ("processes", "settings"), [(1, FULL), (2, FULL), (3, FULL), (1, {}), (2, {})]
)
def test_a_checkpoint_is_read_bit_for_bit_on_any_number_of_ranks_sharded_or_not(
    processes, settings, name, runs, tmp_path
):
    output = str(copied(runs, name, tmp_path))
    for names in on_ranks(processes, names_read_otherwise, output, settings, context="fork"):
        assert names == []


def test_sharding_may_change_at_a_resume_and_the_weights_stay_within_rounding(runs, tmp_path):
    (tmp_path / "sharded").mkdir()
    (tmp_path / "plain").mkdir()
    sharded = copied(runs, "plain_stopped", tmp_path / "sharded")
    plain = copied(runs, "stopped", tmp_path / "plain")
    train_on(2, tmp_path, **{"sharded/run": FULL, "plain/run": {}})
    straight = tensors_of(runs / "straight")
    for output in (sharded, plain):
        assert largest_difference(straight, tensors_of(output)) <= ROUNDING


# damage --------------------


@pytest.mark.parametrize("kind", ["weights", "optimizer", "ema"])
@pytest.mark.parametrize("number", [1, 2])
def test_a_folder_without_one_of_its_shards_is_not_valid_and_not_read(kind, number, runs, tmp_path):
    output = copied(runs, "straight", tmp_path)
    folder = output / "checkpoints" / "step_00000006"
    name = f"{kind}-0000{number}-of-00002.safetensors"
    (folder / name).unlink()
    assert problems(folder) == [f"{name}: missing"]
    assert latest_valid(output / "checkpoints").name == "step_00000004"
    with pytest.raises(ValueError, match="or all of its shards"), StoredTensors(folder, kind):
        pass


def test_shards_that_do_not_hold_every_row_once_are_not_read(runs, tmp_path):
    folder = copied(runs, "straight", tmp_path) / "checkpoints" / "step_00000006"
    first, second = (folder / f"weights-0000{i}-of-00002.safetensors" for i in (1, 2))
    shutil.copy(first, second)  # as many rows, half of them twice
    with pytest.raises(ValueError, match="a part begins at row 0"):
        StoredTensors(folder, "weights").__enter__()
    save_rows(second, {"head.weight": Rows(torch.zeros(1, 32), 1, (3, 32))})
    save_rows(first, {"head.weight": Rows(torch.zeros(1, 32), 0, (3, 32))})
    with pytest.raises(ValueError, match=r"head\.weight: 2 rows, expected 3"):
        StoredTensors(folder, "weights").__enter__()


def test_a_checkpoint_waits_for_the_announcement_of_every_shard(tmp_path):
    part_file(tmp_path, 1).write_text(json.dumps({"b": {"size": 2}}))
    for timeout, cancelled in ((60, True), (0, False)):
        with pytest.raises(PartMissing, match=r"Timed out waiting for part-00001\.json"):
            wait_for_parts(tmp_path, 2, timeout, lambda cancelled=cancelled: cancelled)
    part_file(tmp_path, 0).write_text(json.dumps({"a": {"size": 1}}))
    files = wait_for_parts(tmp_path, 2, 60, lambda: False)
    assert files == {"a": {"size": 1}, "b": {"size": 2}}
    assert list(tmp_path.iterdir()) == []


# faults during the write --------------------


def train_with_fault(output, settings, point, target, rank, action):
    """Train; at a point of the write of a folder, one rank is killed or its disk fails."""

    def fault(reached, folder):
        if reached == point and target in folder.name and int(os.environ["RANK"]) == rank:
            if action == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    fault_injection.arm(fault)
    return train_toy(output, settings)


CASES = [(point, "step_00000004", 0) for point in POINTS]
CASES += [("mid-write", "step_00000004", 1), ("before rename", "best", 0)]
CASES += [("after rename", "best", 0)]


@pytest.mark.parametrize(("point", "target", "rank"), CASES)
def test_a_rank_killed_in_a_write_leaves_valid_checkpoints_and_the_same_command_the_same_bytes(
    point, target, rank, runs, tmp_path
):
    output, arguments = tmp_path / "run", (FULL, point, target, rank, "kill")
    with pytest.raises(AssertionError, match=f"processes ended with .*-{signal.SIGKILL}"):
        on_ranks(2, train_with_fault, str(output), *arguments, context="fork")
    folders = [folder for _, folder in step_folders(output / "checkpoints")]
    assert [folder.name for folder in folders if problems(folder)] == []
    is_complete = (point, target) == ("after rename", "step_00000004")
    expected = {"best": "step_00000002", "step_00000004": "step_00000003"}[target]
    assert folders[-1].name == ("step_00000004" if is_complete else expected)
    train_on(2, tmp_path, run=FULL)
    assert files_of(output, *LAST) == files_of(runs / "straight", *LAST)
    assert not list((output / "checkpoints").glob(".*"))


@pytest.mark.parametrize("save_async", [True, False])
@pytest.mark.parametrize(
    ("point", "rank"), [("mid-write", 1), ("mid-write", 0), ("before fsync", 0)]
)
def test_a_full_disk_of_one_rank_ends_all_with_one_error_and_the_same_command_goes_on(
    point, rank, save_async, runs, tmp_path
):
    settings, output = FULL | {"save_async": save_async}, tmp_path / "run"
    arguments = (settings, point, "step_00000004", rank, "full disk")
    results = on_ranks(2, train_with_fault, str(output), *arguments, context="fork")
    for state, code, message in results:
        assert (state, code) == ("failed", "cannot_write")
        assert "cannot write (No space left on device)" in message
    newest = latest_valid(output / "checkpoints")
    assert newest.name == "step_00000003"
    assert json.loads((output / "status.json").read_text())["error"]["code"] == "cannot_write"
    train_on(2, tmp_path, run=FULL)
    assert files_of(output, *LAST) == files_of(runs / "straight", *LAST)
