"""Checkpoint folders on disk: a crash at any moment leaves the older ones valid."""

import json
import os
import signal
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from visionloop.engine.checkpoints.files import (
    move_folder,
    replace_file,
    replace_folder,
    write_json,
)
from visionloop.engine.checkpoints.folder import (
    finish_rewrite,
    finish_rewrites,
    latest_valid,
    problems,
    prune,
    step_folder_name,
    step_folders,
    write_folder,
)
from visionloop.engine.checkpoints.writer import save_tensors


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


# which one to resume from --------------------


def test_the_newest_valid_one_is_taken_and_the_damaged_are_named(tmp_path):
    write_steps(tmp_path, 2, 10, 9)
    warnings = []
    assert latest_valid(tmp_path, warnings.append).name == "step_00000010" and warnings == []
    (tmp_path / "step_00000010" / "state.json").write_text("{}")
    (tmp_path / "step_00000009" / "manifest.json").unlink()
    assert latest_valid(tmp_path, warnings.append).name == "step_00000002"
    assert [line.split(":")[0] for line in warnings] == [
        str(tmp_path / "step_00000010"),
        str(tmp_path / "step_00000009"),
    ]
    assert "damaged, skipped (state.json" in warnings[0]


def test_without_a_valid_one_there_is_none(tmp_path):
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


def fill_small(value):
    """Fills a folder with one small file: each file operation more is one more crash to try."""
    return lambda folder: write_json(folder / "state.json", {"step": value})


def write_small_steps(checkpoints, *steps):
    checkpoints.mkdir(parents=True)
    for step in steps:
        write_folder(checkpoints / step_folder_name(step), fill_small(step))


STAGES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")


def crash_at(stage, action):
    """Run action() in a forked process that dies right before file operation number `stage`.

    Returns True when it died there.
    """
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
    """Yield (folder, died) for a crash before each file operation of `action`.

    Each time on a fresh folder from `prepare(stage)`.
    """
    stage, died = 0, True
    while died:
        folder = prepare(stage)
        died = crash_at(stage, lambda folder=folder: action(folder))
        yield folder, died
        stage += 1
    assert stage > 3, "the crashes did not reach the files"


def test_a_crash_at_any_moment_of_a_write_leaves_the_older_folder(tmp_path):
    def prepare(stage):
        write_small_steps(tmp_path / str(stage), 4)
        return tmp_path / str(stage)

    contents = set()
    for checkpoints, died in crashes(
        lambda folder: write_folder(folder / step_folder_name(8), fill_small(8)), prepare
    ):
        newest = latest_valid(checkpoints)
        contents.add(content(newest))
        assert problems(checkpoints / step_folder_name(4)) == []
        assert died or content(newest) == 8
        # and the same write works afterwards
        write_folder(checkpoints / step_folder_name(8), fill_small(8))
        assert content(latest_valid(checkpoints)) == 8
    assert contents == {4, 8}


def test_a_crash_at_any_moment_of_writing_the_same_step_again_leaves_a_whole_folder(tmp_path):
    """With --keep 1 it may be the only one: a finished evaluation writes its step once more."""

    def prepare(stage):
        write_small_steps(tmp_path / str(stage), 4)
        return tmp_path / str(stage)

    for checkpoints, _ in crashes(
        lambda folder: write_folder(folder / step_folder_name(4), fill_small(4)), prepare
    ):
        finish_rewrites(checkpoints)
        assert latest_valid(checkpoints) is not None
        write_folder(
            checkpoints / step_folder_name(4), fill_small(5)
        )  # whatever the crash has left behind is in nobody's way
        assert content(latest_valid(checkpoints)) == 5


def test_a_crash_at_any_moment_of_pruning_leaves_what_is_kept(tmp_path):
    def prepare(stage):
        write_small_steps(tmp_path / str(stage), 1, 2, 3)
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


def test_a_crash_at_any_moment_of_replacing_best_leaves_the_old_or_the_new_one(tmp_path):
    def prepare(stage):
        run = tmp_path / str(stage)
        run.mkdir()
        write_folder(run / "best", fill_small(1))
        return run

    contents = set()
    for run, died in crashes(lambda run: write_folder(run / "best", fill_small(2)), prepare):
        finish_rewrite(run / "best")
        assert problems(run / "best") == []
        contents.add((content(run / "best"), died))
        assert {path.name for path in run.iterdir()} == {"best"}
        write_folder(run / "best", fill_small(3))
        assert content(run / "best") == 3
        assert [path.name for path in run.iterdir()] == ["best"]
    assert contents == {(1, True), (2, True), (2, False)}


def test_finishing_a_rewrite_can_itself_be_cut_short(tmp_path):
    def prepare(stage):
        run = tmp_path / str(stage)
        write_folder(run / ".best.writing", fill_small(2))
        write_folder(run / ".best.removed", fill_small(1))
        return run

    stage, died = 0, True
    while died:
        run = prepare(stage)
        died = crash_at(stage, lambda run=run: finish_rewrite(run / "best"))
        finish_rewrite(run / "best")
        assert problems(run / "best") == [] and content(run / "best") == 2
        assert [path.name for path in run.iterdir()] == ["best"]
        stage += 1


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (
            {"best": 1, ".best.writing": 2},
            1,
        ),  # the new one was whole, the old one not yet moved away
        ({".best.writing": 2, ".best.removed": 1}, 2),  # between the two renames
        ({"best": 2, ".best.removed": 1}, 2),  # after both
        ({".best.removed": 1}, 1),
        ({"best": 1}, 1),
    ],
)
def test_an_interrupted_rewrite_is_finished_from_each_rename(tmp_path, there, expected):
    for name, value in there.items():
        write_folder(tmp_path / name, fill_with(value))
    finish_rewrite(tmp_path / "best")
    assert content(tmp_path / "best") == expected and [
        path.name for path in tmp_path.iterdir()
    ] == ["best"]


def test_a_half_written_new_best_gives_way_to_the_old_one(tmp_path):
    write_folder(tmp_path / ".best.removed", fill_with(1))
    write_folder(tmp_path / ".best.writing", fill_with(2))
    (tmp_path / ".best.writing" / "state.json").write_text("{")
    finish_rewrite(tmp_path / "best")
    assert content(tmp_path / "best") == 1


def test_finishing_without_any_best_does_nothing(tmp_path):
    finish_rewrite(tmp_path / "best")
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


def replace_small_folder(target, text):
    with replace_folder(target) as folder:
        (folder / "text").write_text(text)


def test_a_replaced_folder_is_the_old_or_the_new_one_under_one_of_two_names(tmp_path):
    stage, died = 0, True
    while died:
        target = tmp_path / str(stage) / "folder"
        replace_small_folder(target, "old")
        died = crash_at(stage, lambda target=target: replace_small_folder(target, "new"))
        place = target if target.exists() else target.with_name(".folder.removed")
        assert (place / "text").read_text() in ("old", "new")
        replace_small_folder(target, "newest")  # what the crash has left is in nobody's way
        assert (target / "text").read_text() == "newest"
        assert [path.name for path in target.parent.iterdir()] == ["folder"]
        stage += 1
    assert stage > 3


def test_a_folder_that_cannot_be_filled_or_renamed_leaves_the_old_one(tmp_path, monkeypatch):
    target = tmp_path / "folder"
    replace_small_folder(target, "old")
    with pytest.raises(KeyError), replace_folder(target, suffix="mine"):
        assert (tmp_path / ".folder.mine").is_dir()
        raise KeyError
    rename = os.rename

    def refuse(source, destination):
        if destination == target and source.name.endswith(".writing"):
            raise OSError("refused")
        rename(source, destination)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(OSError, match="refused"):
        replace_small_folder(target, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert (target / "text").read_text() == "old"


def test_a_folder_can_be_moved_over_another_whose_trash_is_elsewhere(tmp_path):
    for name in ("source", "target"):
        replace_small_folder(tmp_path / name, name)
    (tmp_path / "work").mkdir()
    move_folder(tmp_path / "source", tmp_path / "target", trash=tmp_path / "work" / "replaced")
    assert (tmp_path / "target" / "text").read_text() == "source"
    assert {path.name for path in tmp_path.iterdir()} == {"target", "work"}
    assert list((tmp_path / "work").iterdir()) == []
