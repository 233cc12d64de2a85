"""Checkpoints written beside the training: the same bytes, and nothing lost when a disk fails."""

import errno
import hashlib
import json
import threading

import pytest
import torch.utils.tensorboard
from toy_task import ToyTask

from visionloop.engine import prepare
from visionloop.engine.checkpoints import writer as writer_module
from visionloop.engine.checkpoints.files import write_json
from visionloop.engine.checkpoints.folder import (
    latest_valid,
    problems,
    prune,
    step_folders,
    write_folder,
)
from visionloop.engine.checkpoints.writer import (
    CheckpointWriter,
    HostBuffers,
    copy_to_host,
    host_buffers,
    load_tensors,
    save_tensors,
)
from visionloop.engine.config.options import Interval, Seconds
from visionloop.engine.errors import UserError
from visionloop.engine.system import fault_injection
from visionloop.engine.testing.short_runs import on_ranks
from visionloop.engine.train import train

STEPS = 8
SETTINGS = dict(
    steps=STEPS,
    batch_size=12,
    micro_batch=6,
    lr=1e-2,
    threads=1,
    workers=0,
    device="cpu",
    precision="fp32",
    log_every=1,
    eval_every=4,
    save_every=2,
    keep=9,
)


@pytest.fixture(autouse=True)
def disarm():
    yield
    fault_injection.arm(None)


def hashes(output):
    files = [
        path
        for name in ("checkpoints", "best")
        for path in (output / name).rglob("*")
        if path.is_file()
    ]
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def last_of(digests):
    """The last checkpoint and best/, which a finished run leaves."""
    return {
        name: digest
        for name, digest in digests.items()
        if f"step_{STEPS:08d}" in name or name.startswith("best/")
    }


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    output = tmp_path_factory.mktemp("straight")
    train(ToyTask, output=str(output), **SETTINGS)
    return hashes(output)


# beside the training --------------------


def test_all_files_are_the_same_bytes_written_beside_the_training_and_in_its_pauses(
    straight, tmp_path
):
    train(ToyTask, output=str(tmp_path), save_async=False, **SETTINGS)
    assert hashes(tmp_path) == straight


def test_training_continues_while_a_checkpoint_of_an_earlier_step_is_written(straight, tmp_path):
    reached = threading.Event()

    class Reaching(ToyTask):
        def before_step(self, module, step, steps):
            super().before_step(module, step, steps)
            # the checkpoint of step 2 is being written, and its tensors are not yet in files
            if step == 3:
                reached.set()

    def hold(point, folder):
        if point == "after open" and "step_00000002" in folder.name:
            assert reached.wait(30), "the loop waits for the disk"

    fault_injection.arm(hold)
    train(Reaching, output=str(tmp_path), **SETTINGS)
    assert reached.is_set() and hashes(tmp_path) == straight


def test_one_write_at_a_time_and_its_error_comes_once():
    writer, order, gate = CheckpointWriter(True), [], threading.Event()

    def first():
        gate.wait(30)
        order.append("first")
        raise OSError(errno.ENOSPC, "No space left on device")

    writer.start(first)
    assert not writer.failed
    gate.set()
    with pytest.raises(OSError, match="No space"):
        writer.wait()
    writer.start(lambda: order.append("second"))
    writer.wait()
    assert order == ["first", "second"] and not writer.failed


@pytest.mark.parametrize("buffers", [None, HostBuffers(pinned=False)])
def test_copies_are_of_this_moment_and_shared_where_the_tensors_are(buffers):
    weight = torch.arange(6.0).reshape(2, 3)
    tensors = {
        "a": weight,
        "tied": weight.detach(),
        "part": weight[:1],
        "turned": weight.t(),
        "empty": torch.zeros(0),
    }
    copies = copy_to_host(tensors, buffers)
    weight.add_(100)
    assert copies["a"] is copies["tied"] and copies["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert copies["part"].tolist() == [[0, 1, 2]] and copies["turned"].tolist() == [
        [0, 3],
        [1, 4],
        [2, 5],
    ]
    assert copies["turned"].is_contiguous() and copies["empty"].data_ptr() == 0


def test_kept_memory_holds_the_tensors_of_each_save_in_the_same_files(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "CHUNK_BYTES", 4096)
    buffers = HostBuffers(pinned=False)
    addresses = []
    for save in range(2):
        torch.manual_seed(save)
        tensors = {
            "large": torch.randn(50, 50),
            "half": torch.randn(3).bfloat16(),
            "moments": torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
            "step": torch.tensor(float(save)),
            "count": torch.tensor([save]),
            "empty": torch.zeros(0),
            **{f"weight {i}": torch.randn(7, 11) for i in range(30)},
        }
        buffers.rewind()
        copies = copy_to_host(tensors, buffers)
        addresses.append([copy.data_ptr() for copy in copies.values()])
        save_tensors(tmp_path / "kept", copies)
        save_tensors(tmp_path / "new", copy_to_host(tensors))
        assert (tmp_path / "kept").read_bytes() == (tmp_path / "new").read_bytes()
        assert len({copy.untyped_storage().data_ptr() for copy in copies.values()}) == len(copies)
    assert addresses[0] == addresses[1], "locked memory is taken once"


def test_memory_that_cannot_be_locked_is_used_unlocked(monkeypatch):
    empty = torch.empty

    def refusing(*size, pin_memory=False, **options):
        if pin_memory:
            raise RuntimeError("CUDA error: out of memory")
        return empty(*size, **options)

    monkeypatch.setattr(torch, "empty", refusing)
    copies = copy_to_host({"weight": torch.ones(3)}, HostBuffers())
    assert copies["weight"].tolist() == [1, 1, 1]


def test_a_run_that_keeps_the_memory_of_its_copies_writes_the_same_bytes(
    straight, tmp_path, monkeypatch
):
    assert host_buffers(torch.device("cpu")) is None
    assert isinstance(host_buffers(torch.device("cuda")), HostBuffers)
    monkeypatch.setattr(prepare, "host_buffers", lambda device: HostBuffers(pinned=False))
    train(ToyTask, output=str(tmp_path), **SETTINGS)
    assert hashes(tmp_path) == straight


def test_tensors_come_back_bit_for_bit(tmp_path):
    tensors = {
        "f": torch.tensor([float("nan"), -0.0, 1e-42, float("inf")]),
        "i": torch.arange(3),
        "h": torch.randn(4).bfloat16(),
        "moments": torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        "scalar": torch.tensor(3.0),
    }
    save_tensors(tmp_path / "x.safetensors", tensors)
    loaded = load_tensors(tmp_path / "x.safetensors")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype and loaded[name].shape == tensor.shape
        assert bytes(loaded[name].contiguous().flatten().view(torch.uint8)) == bytes(
            tensor.contiguous().flatten().view(torch.uint8)
        )


def test_the_same_tensors_are_the_same_file(tmp_path):
    for name in ("a", "b"):
        save_tensors(tmp_path / name, {"weight": torch.ones(3), "bias": torch.zeros(1)})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# the disk --------------------


def fail_at(failing_point, step, number, *, times=1):
    """Return a fault that raises a disk error at one point of a checkpoint, so many times."""
    left = [times]

    def fault(point, folder):
        if point == failing_point and f"step_{step:08d}" in folder.name and left[0]:
            left[0] -= 1
            raise OSError(number, "the disk")

    return fault


@pytest.mark.parametrize("point", fault_injection.POINTS)
@pytest.mark.parametrize("save_async", [True, False])
def test_a_full_disk_ends_the_run_with_one_line_and_a_resume_gives_the_same_bytes(
    straight, tmp_path, point, save_async
):
    settings = SETTINGS | dict(save_async=save_async)
    fault_injection.arm(fail_at(point, 4, errno.ENOSPC, times=9))
    with pytest.raises(
        UserError, match=r"checkpoints: cannot write \(the disk\); older checkpoints are intact"
    ):
        train(ToyTask, output=str(tmp_path), **settings)
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["state"] == "failed" and status["error"]["code"] == "cannot_write"
    assert latest_valid(tmp_path / "checkpoints") is not None
    assert all(problems(folder) == [] for _, folder in step_folders(tmp_path / "checkpoints"))
    assert not list((tmp_path / "checkpoints").glob(".*.writing")), (
        "half a checkpoint takes the room of the next"
    )
    fault_injection.arm(None)
    train(ToyTask, output=str(tmp_path), **settings)
    assert last_of(straight).items() <= hashes(tmp_path).items()


@pytest.mark.parametrize("number", [errno.EROFS, errno.EDQUOT, errno.EIO, errno.EACCES])
def test_nothing_newer_is_written_after_a_write_that_failed(straight, tmp_path, number):
    """It held the best weights: a later checkpoint would name them, and best/ would lack them."""

    def fault(point, folder):
        if point == "before fsync" and "best" in folder.name:
            fault_injection.arm(None)
            raise OSError(number, "the disk")

    fault_injection.arm(fault)
    with pytest.raises(UserError, match="cannot write"):
        train(ToyTask, output=str(tmp_path), **SETTINGS)
    assert [step for step, _ in step_folders(tmp_path / "checkpoints")] == [2] and not (
        tmp_path / "best"
    ).exists()
    train(ToyTask, output=str(tmp_path), **SETTINGS)
    assert hashes(tmp_path) == straight


def fail_on_two_ranks(output):
    fault_injection.arm(fail_at("before rename", 4, errno.ENOSPC, times=9))
    try:
        train(ToyTask, output=str(output), **SETTINGS)
    except UserError as error:
        return error.code


def test_all_ranks_end_alike_when_the_one_that_writes_cannot(tmp_path):
    assert on_ranks(2, fail_on_two_ranks, tmp_path, context="fork") == [
        "cannot_write",
        "cannot_write",
    ]


def test_a_defect_in_the_thread_keeps_its_own_error(tmp_path):
    class Broken(ToyTask):
        def save(self, module, tensors, folder):
            raise KeyError("a defect of the task")

    with pytest.raises(KeyError, match="a defect of the task"):
        train(Broken, output=str(tmp_path), **SETTINGS)
    assert json.loads((tmp_path / "status.json").read_text())["error"]["code"] == "defect"


# which folders --------------------


def test_damaged_folders_of_later_steps_push_no_valid_one_out(tmp_path):
    for step in (2, 4, 6, 8):
        write_folder(
            tmp_path / f"step_{step:08d}",
            lambda folder, step=step: write_json(folder / "state.json", {"step": step}),
        )
    # the run resumed from step 2, since 6 and 8 are damaged, and has written 4 again
    prune(tmp_path, 2, None, newest=4)
    assert [step for step, _ in step_folders(tmp_path)] == [2, 4]


def test_continuing_from_damaged_best_weights_is_refused(tmp_path):
    class Reloading(ToyTask):
        def reload_best_at(self, steps):
            return 6

        def before_step(self, module, step, steps):
            super().before_step(module, step, steps)
            if step == 5:
                weights = tmp_path / "checkpoints" / "step_00000004" / "model.safetensors"
                weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")

    with pytest.raises(
        UserError,
        match=r"step_00000004: the best weights, to continue from, are damaged \(model.safetensors",
    ):
        train(
            Reloading,
            output=str(tmp_path),
            **SETTINGS | dict(best_metric="val_loss", lr=0.0, save_async=False),
        )


# when --------------------


def test_an_interval_is_steps_or_seconds():
    assert Interval("50") == 50 and isinstance(Interval("50"), int)
    assert (
        Interval("1.5s") == 1.5
        and isinstance(Interval("1.5s"), Seconds)
        and str(Interval("600s")) == "600s"
    )
    assert Interval(Interval("600s")) == Interval("600s")
    for text in ("", "s", "1.5", "nans", "infs", "5m"):
        with pytest.raises(ValueError):
            Interval(text)


@pytest.mark.parametrize(("save_every", "saved"), [("0s", range(1, STEPS + 1)), ("3600s", [4, 8])])
def test_saves_at_intervals_of_seconds_change_no_byte(straight, tmp_path, save_every, saved):
    """A best score is of an evaluation, every 4 steps, and saved at once."""
    train(ToyTask, output=str(tmp_path), **SETTINGS | dict(save_every=save_every))
    assert [step for step, _ in step_folders(tmp_path / "checkpoints")] == list(saved)
    assert last_of(straight).items() <= hashes(tmp_path).items()


def save_by_the_clock(output):
    train(ToyTask, output=str(output), **SETTINGS | dict(save_every="0s"))
    return [step for step, _ in step_folders(output / "checkpoints")]


def test_one_clock_decides_for_all_ranks(tmp_path):
    assert on_ranks(2, save_by_the_clock, tmp_path, context="fork")[0] == list(range(1, STEPS + 1))
