"""Checkpoint folders on disk: damage is seen, and a crash at any moment leaves the older ones whole."""

import json
import os
import shutil
import signal
import sys
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visionloop.engine.checkpoints.files import replace_file, write_json
from visionloop.engine.checkpoints.folder import (
    finish_rewrites,
    finish_swap,
    latest_valid,
    problems,
    prune,
    step_folder_name,
    step_folders,
    swap_best,
    write_folder,
)
from visionloop.engine.checkpoints.lock import RunLock
from visionloop.engine.checkpoints.writer import load_tensors, save_tensors
from visionloop.engine.errors import UserError


def fill_with(value):
    """Fills a folder as a run would: tensors, json, and a file in a folder below."""

    def fill(folder):
        save_tensors(
            folder / "model.safetensors",
            {"weight": torch.full((3,), float(value)), "bias": torch.zeros(1)},
        )
        write_json(folder / "state.json", {"step": value})
        (folder / "labels").mkdir()
        (folder / "labels" / "names.txt").write_text("cat\ndog\n")

    return fill


def content(folder):
    return json.loads((folder / "state.json").read_text())["step"]


def write_steps(checkpoints, *steps):
    checkpoints.mkdir(parents=True, exist_ok=True)
    for step in steps:
        write_folder(checkpoints / step_folder_name(step), fill_with(step))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "step_00000005"
    write_folder(folder, fill_with(5))
    return folder


def every_file(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


# damage --------------------


def test_a_written_folder_is_whole_and_its_manifest_lists_every_file(whole):
    assert problems(whole) == []
    files = json.loads((whole / "manifest.json").read_text())["files"]
    assert sorted(files) == ["labels/names.txt", "model.safetensors", "state.json"]
    assert [path.name for path in whole.parent.iterdir()] == [whole.name], (
        "nothing temporary is left beside it"
    )


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_a_flipped_byte_anywhere_is_detected(whole, data):
    path = data.draw(
        st.sampled_from([path for path in every_file(whole) if path.name != "manifest.json"])
    )
    good = path.read_bytes()
    place, other = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(1, 255))
    try:
        path.write_bytes(good[:place] + bytes([good[place] ^ other]) + good[place + 1 :])
        assert problems(whole) == [f"{path.relative_to(whole)}: content changed (SHA-256 differs)"]
    finally:
        path.write_bytes(good)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_flipped_byte_in_the_manifest_is_detected_or_changes_nothing_it_says(whole, data):
    path = whole / "manifest.json"
    good = path.read_bytes()
    place, other = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(1, 255))
    try:
        path.write_bytes(good[:place] + bytes([good[place] ^ other]) + good[place + 1 :])
        if not problems(whole):
            assert json.loads(path.read_text())["files"] == json.loads(good)["files"]
    finally:
        path.write_bytes(good)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_truncation_anywhere_is_detected(whole, data):
    path = data.draw(st.sampled_from(every_file(whole)))
    good = path.read_bytes()
    # the manifest's last byte is a line feed that says nothing
    length = data.draw(st.integers(0, len(good) - 1 - (path.name == "manifest.json")))
    try:
        path.write_bytes(good[:length])
        assert problems(whole)
    finally:
        path.write_bytes(good)


def test_a_file_that_is_missing_or_longer_is_detected(whole, tmp_path):
    for path in every_file(whole):
        folder = tmp_path / path.name
        shutil.copytree(whole, folder)
        (folder / path.relative_to(whole)).unlink()
        assert len(problems(folder)) == 1 and "missing" in problems(folder)[0]
        if path.name != "manifest.json":
            (folder / path.relative_to(whole)).write_bytes(path.read_bytes() + b"\0")
            assert len(problems(folder)) == 1 and "bytes, expected" in problems(folder)[0]


NO_MANIFEST = [
    "",
    "{",
    "[]",
    "5",
    "null",
    "{}",
    '{"files": 5}',
    '{"files": {"a": 1}}',
    '{"files": {"a": {"size": 1}}}',
    "\xff",
]


@pytest.mark.parametrize("text", NO_MANIFEST)
def test_a_manifest_that_is_none_is_a_problem_and_no_crash(tmp_path, text):
    (tmp_path / "manifest.json").write_bytes(text.encode("latin-1"))
    assert problems(tmp_path) == ["manifest.json: missing or unreadable"]


def test_a_folder_that_is_not_there_is_a_problem(tmp_path):
    assert problems(tmp_path / "absent")


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


# which one to go on from --------------------


def test_the_newest_whole_one_is_taken_and_the_damaged_are_named(tmp_path):
    write_steps(tmp_path, 2, 10, 9)
    said = []
    assert latest_valid(tmp_path, said.append).name == "step_00000010" and said == []
    (tmp_path / "step_00000010" / "state.json").write_text("{}")
    (tmp_path / "step_00000009" / "manifest.json").unlink()
    assert latest_valid(tmp_path, said.append).name == "step_00000002"
    assert [line.split(":")[0] for line in said] == [
        str(tmp_path / "step_00000010"),
        str(tmp_path / "step_00000009"),
    ]
    assert "damaged, passed over (state.json" in said[0]


def test_without_a_whole_one_there_is_none(tmp_path):
    assert latest_valid(tmp_path / "absent") is None
    (tmp_path / "step_00000001").mkdir()
    assert latest_valid(tmp_path) is None


def test_folders_are_ordered_by_step_and_foreign_names_left_alone(tmp_path):
    for name in (
        "step_00000009",
        "step_100000000",
        "step_00000010",
        ".step_00000011.writing",
        "step_7",
        "step_00000012.bak",
        "other",
    ):
        (tmp_path / name).mkdir()
    assert [step for step, _ in step_folders(tmp_path)] == [9, 10, 100000000]


@given(
    steps=st.sets(st.integers(0, 10**9), min_size=1, max_size=8),
    keep=st.integers(1, 4),
    data=st.data(),
)
def test_prune_keeps_the_newest_and_the_best(tmp_path_factory, steps, keep, data):
    checkpoints = tmp_path_factory.mktemp("checkpoints")
    best = data.draw(st.one_of(st.none(), st.sampled_from(sorted(steps))))
    for step in steps:
        (checkpoints / step_folder_name(step)).mkdir()
    (checkpoints / ".step_00000003.writing").mkdir()
    (checkpoints / "notes").mkdir()
    prune(checkpoints, keep, best)
    assert {step for step, _ in step_folders(checkpoints)} == {*sorted(steps)[-keep:]} | (
        {best} - {None}
    )
    assert not list(checkpoints.glob(".step_*")) and (checkpoints / "notes").is_dir()


# crashes --------------------


def note(value):
    """Fills a folder with one small file: each file operation more is one more crash to try."""
    return lambda folder: write_json(folder / "state.json", {"step": value})


def note_steps(checkpoints, *steps):
    checkpoints.mkdir(parents=True)
    for step in steps:
        write_folder(checkpoints / step_folder_name(step), note(step))


STAGES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")


def crash_at(stage, action):
    """Run action() in a forked process that dies right before its file operation number `stage`. Returns True when it died there."""
    child = os.fork()
    if child == 0:
        passed = 0

        def hook(event, _args):
            nonlocal passed
            if event in STAGES:
                if passed == stage:
                    os.kill(os.getpid(), signal.SIGKILL)
                passed += 1

        try:
            sys.addaudithook(hook)
            action()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def crashes(action, prepare):
    """Yield once for a crash before each file operation of `action`, each time on a fresh folder from `prepare()`."""
    stage, died = 0, True
    while died:
        folder = prepare(stage)
        died = crash_at(stage, lambda folder=folder: action(folder))
        yield folder, died
        stage += 1
    assert stage > 3, "the crashes did not reach the files"


def test_a_crash_at_any_moment_of_a_write_leaves_the_older_folder(tmp_path):
    def prepare(stage):
        note_steps(tmp_path / str(stage), 4)
        return tmp_path / str(stage)

    seen = set()
    for checkpoints, died in crashes(
        lambda folder: write_folder(folder / step_folder_name(8), note(8)), prepare
    ):
        newest = latest_valid(checkpoints)
        seen.add(content(newest))
        assert problems(checkpoints / step_folder_name(4)) == []
        assert died or content(newest) == 8
        # and the same write works afterwards
        write_folder(checkpoints / step_folder_name(8), note(8))
        assert content(latest_valid(checkpoints)) == 8
    assert seen == {4, 8}


def test_a_crash_at_any_moment_of_writing_the_same_step_again_leaves_a_whole_folder(tmp_path):
    """With --keep 1 it may be the only one: a finished evaluation writes its step once more."""

    def prepare(stage):
        note_steps(tmp_path / str(stage), 4)
        return tmp_path / str(stage)

    for checkpoints, _ in crashes(
        lambda folder: write_folder(folder / step_folder_name(4), note(4)), prepare
    ):
        finish_rewrites(checkpoints)
        assert latest_valid(checkpoints) is not None
        write_folder(
            checkpoints / step_folder_name(4), note(5)
        )  # whatever the crash has left behind is in nobody's way
        assert content(latest_valid(checkpoints)) == 5


def test_a_crash_at_any_moment_of_pruning_leaves_what_is_kept(tmp_path):
    def prepare(stage):
        note_steps(tmp_path / str(stage), 1, 2, 3)
        return tmp_path / str(stage)

    for checkpoints, _ in crashes(lambda folder: prune(folder, 1, 2), prepare):
        for step, folder in step_folders(checkpoints):
            assert problems(folder) == [], f"step {step} looks like a checkpoint and is none"
        assert {2, 3} <= {step for step, _ in step_folders(checkpoints)}
        prune(checkpoints, 1, 2)
        assert {path.name for path in checkpoints.iterdir()} == {
            step_folder_name(2),
            step_folder_name(3),
        }


def test_an_error_while_filling_leaves_the_older_folder_and_a_temporary_one_is_no_obstacle(
    tmp_path,
):
    write_steps(tmp_path, 4)

    def fill(folder):
        fill_with(8)(folder)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_folder(tmp_path / step_folder_name(8), fill)
    assert latest_valid(tmp_path).name == step_folder_name(4)
    write_steps(tmp_path, 8)
    assert content(latest_valid(tmp_path)) == 8 and len(list(tmp_path.iterdir())) == 2


def test_a_crash_at_any_moment_of_a_swap_leaves_the_old_or_the_new_best(tmp_path):
    def prepare(stage):
        run = tmp_path / str(stage)
        run.mkdir()
        swap_best(run / "best", note(1))
        return run

    seen = set()
    for run, died in crashes(lambda run: swap_best(run / "best", note(2)), prepare):
        finish_swap(run / "best")
        assert problems(run / "best") == []
        seen.add((content(run / "best"), died))
        assert {path.name for path in run.iterdir()} - {"..best.new.writing"} == {"best"}
        swap_best(run / "best", note(3))
        assert content(run / "best") == 3
        assert [path.name for path in run.iterdir()] == ["best"]
    assert seen == {(1, True), (2, True), (2, False)}


def test_finishing_a_swap_can_itself_be_cut_short(tmp_path):
    def prepare(stage):
        run = tmp_path / str(stage)
        write_folder(run / ".best.new", note(2))
        write_folder(run / ".best.old", note(1))
        return run

    stage, died = 0, True
    while died:
        run = prepare(stage)
        died = crash_at(stage, lambda run=run: finish_swap(run / "best"))
        finish_swap(run / "best")
        assert problems(run / "best") == [] and content(run / "best") == 2
        assert [path.name for path in run.iterdir()] == ["best"]
        stage += 1


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ({"best": 1, ".best.new": 2}, 1),  # the new one was whole, the old one not yet moved away
        ({".best.new": 2, ".best.old": 1}, 2),  # between the two renames
        ({"best": 2, ".best.old": 1}, 2),  # after both
        ({".best.old": 1}, 1),
        ({"best": 1}, 1),
    ],
)
def test_an_interrupted_swap_is_finished_from_each_rename(tmp_path, there, expected):
    for name, value in there.items():
        write_folder(tmp_path / name, fill_with(value))
    finish_swap(tmp_path / "best")
    assert content(tmp_path / "best") == expected and [
        path.name for path in tmp_path.iterdir()
    ] == ["best"]


def test_a_half_written_new_best_gives_way_to_the_old_one(tmp_path):
    write_folder(tmp_path / ".best.old", fill_with(1))
    write_folder(tmp_path / ".best.new", fill_with(2))
    (tmp_path / ".best.new" / "state.json").write_text("{")
    finish_swap(tmp_path / "best")
    assert content(tmp_path / "best") == 1


def test_finishing_without_any_best_does_nothing(tmp_path):
    finish_swap(tmp_path / "best")
    assert list(tmp_path.iterdir()) == []


def test_a_replaced_file_is_the_old_or_the_new_one_at_any_moment(tmp_path):
    stage, died = 0, True
    while died:
        path = tmp_path / f"status_{stage}.json"
        path.write_text("old " * 100)
        died = crash_at(stage, lambda path=path: replace_file(path, "new " * 200))
        assert path.read_text() in ("old " * 100, "new " * 200)
        stage += 1
    assert path.read_text() == "new " * 200


# one process at a time --------------------


def in_a_child(action):
    """The exit code of a forked process: 0 when action() returned, 3 for a UserError."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        except UserError as error:
            code = 3 if error.code == "locked" else 4
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_second_process_is_refused_until_the_first_releases(tmp_path):
    lock = RunLock(tmp_path / "run")
    assert in_a_child(lambda: RunLock(tmp_path / "run")) == 3
    assert in_a_child(lambda: RunLock(tmp_path / "other")) == 0
    lock.release()
    assert in_a_child(lambda: RunLock(tmp_path / "run")) == 0


@pytest.mark.parametrize("has_worker", [False, True], ids=["alone", "with a worker that lives on"])
def test_the_lock_is_free_after_its_holder_is_killed(tmp_path, has_worker):
    ready, tell = os.pipe()
    holder = os.fork()
    if holder == 0:
        lock = RunLock(tmp_path)
        worker = os.fork() if has_worker else -1
        if worker != 0:
            os.write(tell, f"{worker}\n".encode())
        time.sleep(30)
        os._exit(lock is None)
    worker = int(os.read(ready, 20))
    os.close(ready)
    os.close(tell)
    try:
        with pytest.raises(UserError, match="another process is running there") as caught:
            RunLock(tmp_path)
        assert caught.value.code == "locked" and str(tmp_path) in str(caught.value)
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        RunLock(tmp_path).release()
    finally:
        if has_worker:
            os.kill(worker, signal.SIGKILL)
