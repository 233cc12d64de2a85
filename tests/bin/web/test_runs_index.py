"""Index of the runs below the roots."""

import os
import time
from itertools import pairwise

import pytest
from written_runs import append, evaluation_line, training_line, write_run, write_status

from visionloop.bin.reports.run_folder import state_of
from visionloop.bin.web.problems import Problem
from visionloop.bin.web.runs.identity import run_id
from visionloop.bin.web.runs.index import RunIndex


@pytest.fixture
def root(tmp_path):
    return (tmp_path / "runs").resolve()


def index_of(*roots):
    index = RunIndex(roots)
    index.scan()
    return index


def names(index):
    return [run.name for run in index.runs()]


def test_runs_are_found_at_any_depth_and_not_inside_runs_or_hidden_folders(root):
    for name in ("a", "team/b", "team/deep/c", "a/inside", ".hidden/d"):
        write_run(root / name)
    assert sorted(names(index_of(root))) == ["a", "team/b", "team/deep/c"]
    assert names(index_of(root / "a")) == ["a"]
    assert sorted(names(index_of(root, root / "team"))) == ["a", "team/b", "team/deep/c"]


def test_links_are_not_followed(root, tmp_path):
    write_run(tmp_path / "elsewhere" / "secret")
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "run").symlink_to(tmp_path / "elsewhere" / "secret")
    assert names(index_of(root)) == []


def test_a_run_has_the_id_of_its_path_through_any_link(root, tmp_path):
    folder = write_run(root / "a")
    (tmp_path / "link").symlink_to(root)
    (run,) = index_of(root).runs()
    assert run.id == run_id(folder) == run_id(tmp_path / "link" / "a")
    assert index_of(root).path_of(run.id) == folder


def test_an_unknown_id_is_a_404_and_a_new_run_is_found_at_once(root):
    index = index_of(root)
    with pytest.raises(Problem) as problem:
        index.path_of("0" * 16)
    assert problem.value.status == 404
    folder = write_run(root / "new")
    assert index.path_of(run_id(folder)) == folder


def test_the_revision_grows_with_every_change_and_with_nothing_else(root):
    folder = write_run(root / "a", state="running")
    index = index_of(root)
    revisions = [index.revision]
    for change in (
        lambda: None,
        lambda: write_status(folder, step=20),
        lambda: None,
        lambda: append(folder, training_line(30)),
        lambda: write_run(root / "b"),
        lambda: (folder / "status.json").unlink(),
        lambda: (root / "b").rename(root.parent / "gone"),
    ):
        change()
        index.scan()
        revisions.append(index.revision)
    changes = [after - before for before, after in pairwise(revisions)]
    assert changes == [0, 1, 0, 0, 1, 1, 1]


def test_a_run_without_a_heartbeat_is_lost_though_no_file_changes(root, monkeypatch):
    write_run(root / "a", state="running")
    index = index_of(root)
    before, now = index.revision, time.time()
    (run,) = index.runs()
    assert state_of(run.status) == "running"
    monkeypatch.setattr(time, "time", lambda: now + 61)
    index.scan()
    assert index.revision == before + 1 and state_of(run.status) == "lost"


def test_a_rescan_reads_only_what_has_changed(root):
    write_run(root / "a"), write_run(root / "b")
    index = index_of(root)
    first = {run.name: run for run in index.runs()}
    write_status(root / "b", state="stopped")
    index.scan()
    second = {run.name: run for run in index.runs()}
    assert second["a"] is first["a"] and second["b"] is not first["b"]
    assert second["b"].settings is first["b"].settings


def test_files_that_cannot_be_understood_hide_nothing(root):
    write_run(root / "good")
    for name, content in {
        "empty": b"",
        "half": b'{"state": "run',
        "list": b"[1, 2]",
        "deep": b"[" * 100_000,
        "nested": b'{"state": ' + b"[" * 700 + b"]" * 700 + b"}",
        "bytes": b'{"state": "\xff"}',
        "numbers": b'{"state": 3, "step": 1e999, "heartbeat": 1' + b"0" * 400 + b"}",
    }.items():
        (root / name).mkdir()
        (root / name / "status.json").write_bytes(content)
        (root / name / "settings.json").write_bytes(content)
        (root / name / "metrics.jsonl").write_bytes(content)
    os.mkfifo(root / "good" / "pipe")
    assert len(names(index_of(root))) == 8


def test_the_first_start_is_that_of_the_first_line(root):
    folder = write_run(root / "a", points=3)
    (run,) = index_of(root).runs()
    assert run.started == pytest.approx(training_line(10)["time"], abs=0.02)
    (folder / "metrics.jsonl").unlink()
    os.utime(folder / "settings.json", (5.0, 5.0))
    assert index_of(root).runs()[0].started == 5.0


def test_running_runs_come_first_and_keep_their_places_at_a_heartbeat(root):
    for number, name in enumerate(("old", "middle", "new")):
        write_run(root / name, points=1)
        os.utime(root / name / "settings.json", (number + 1.0, number + 1.0))
        write_status(root / name, state="finished" if name == "middle" else "running")
    index = index_of(root)
    assert names(index) == ["new", "old", "middle"]
    write_status(root / "old")
    index.scan()
    assert names(index) == ["new", "old", "middle"]


def test_the_thread_notices_new_and_changed_runs(root):
    root.mkdir()
    index = RunIndex((root,))
    index.start()
    try:
        assert names(index) == []
        folder = write_run(root / "a", state="running")
        append(folder, evaluation_line(1000))
        wait_for(lambda: names(index) == ["a"])
        write_status(folder, state="finished")
        wait_for(lambda: index.runs()[0].status["state"] == "finished")
    finally:
        index.close()


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
