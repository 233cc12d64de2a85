"""Servers that are killed at any line, databases that are deleted or damaged: no job is lost."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from studio_jobs import (
    COUNTED,
    STOPPABLE,
    TRAINER,
    description,
    follow,
    new_queue,
    wait_for_text,
)

from visionloop.bin.web import jobs
from visionloop.bin.web.jobs.processes import descendants, kill_all
from visionloop.bin.web.jobs.queue import ENDED
from visionloop.bin.web.jobs.spec import JobState
from visionloop.bin.web.jobs.store import RunNote
from visionloop.bin.web.jobs.verification import MOST_AT_ONCE, Verifier
from visionloop.bin.web.serve import hold_state
from visionloop.engine.errors import UserError

SOURCES = str(Path(jobs.__file__).parent)
CODE = f"{COUNTED}import time; time.sleep(0.05)"


def start(queue, folder):
    queue.create(description(folder, "a", CODE))
    queue.tick()


def end(queue, _folder):
    queue.tick()


def killed_at_line(folder, act, number):
    """Act on the queue in a process that is killed at a line of the queue's files.

    Returns False if fewer lines than this are executed.
    """
    pid = os.fork()
    if pid == 0:
        count = 0

        def trace(frame, event, _argument):
            nonlocal count
            if not frame.f_code.co_filename.startswith(SOURCES):
                return None
            count += event == "line"
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace

        queue = new_queue(folder)
        sys.settrace(trace)
        act(queue, folder)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def started(folder):
    """A queue with a job whose process has ended, which the queue has not seen yet."""
    queue = new_queue(folder)
    start(queue, folder)
    while queue.folder_of("a").exit_of(1) is None or queue.folder_of("a").holder():
        time.sleep(0.01)
    queue.store.close()


def servers_killed(tmp_path, act, lines):
    """Kill a server at each of these lines of an act, and let a new one complete it."""
    for number in lines:
        folder = tmp_path / str(number)
        folder.mkdir()
        if act is end:
            started(folder)
        if not killed_at_line(folder, act, number):
            return number
        queue = new_queue(folder)
        if queue.store.job("a") is None:
            # the call has not come back: its job is there as a whole, or not at all
            assert not (queue.path / "a").exists()
            queue.create(description(folder, "a", CODE))
        assert follow(queue, "a", *ENDED).state is JobState.FINISHED, number
        assert (queue.path / "a" / "starts").read_text() == "x", number
        assert queue.get("a").attempt == 1, number
        queue.store.close()
    raise AssertionError("more lines are executed than were tried")


@pytest.mark.parametrize("act", [start, end])
def test_a_server_that_is_killed_in_mid_work_loses_no_job_and_starts_none_twice(tmp_path, act):
    assert servers_killed(tmp_path, act, range(5, 2000, 17)) > 40


@pytest.mark.soak
@pytest.mark.parametrize("act", [start, end])
def test_a_server_may_be_killed_at_every_single_line(tmp_path, act):
    assert servers_killed(tmp_path, act, range(1, 2000)) > 40


@pytest.fixture
def alive(tmp_path):
    """A queue with a job that runs, one that has ended, and one that waits."""
    queue = new_queue(tmp_path)
    queue.create(description(tmp_path, "ended", "", name="first"))
    follow(queue, "ended", *ENDED)
    queue.create(description(tmp_path, "alive", COUNTED + STOPPABLE))
    wait_for_text(queue, "alive", "ready")
    queue.create(description(tmp_path, "waits", "", start=False))
    queue.store.close()
    yield queue
    if holder := queue.folder_of("alive").holder():
        kill_all(holder.pid)


def states(queue):
    return {job.id: job.state for job in queue.store.jobs()}


@pytest.mark.parametrize("harm", ["deleted", "cut", "other"])
def test_a_database_that_is_gone_or_damaged_loses_no_job(tmp_path, alive, harm, caplog):
    database = tmp_path / "studio.db"
    content = database.read_bytes()
    for path in tmp_path.glob("studio.db*"):
        path.unlink()
    if harm != "deleted":
        database.write_bytes(b"no database at all" * 99 if harm == "other" else content[:5000])
    queue = new_queue(tmp_path)
    queue.tick()
    queue.tick()
    assert states(queue) == {
        "ended": JobState.FINISHED,
        "alive": JobState.RUNNING,
        "waits": JobState.PAUSED,
    }
    assert queue.get("ended").name == "first"
    assert (queue.path / "alive" / "starts").read_text() == "x"
    if harm != "deleted":
        (aside,) = tmp_path.glob("studio.db.damaged-*")
        assert aside.name in caplog.text
    queue.stop("alive")
    assert follow(queue, "alive", *ENDED).state is JobState.STOPPED


def test_a_server_without_its_database_starts_no_job_that_had_ended(tmp_path):
    error = {"code": "lost_process", "message": "gone", "file": None, "field": None, "hint": None}
    queue = new_queue(tmp_path)
    queue.create(
        description(tmp_path, "a", f"{COUNTED}{TRAINER}status('failed', {error})\nsys.exit(75)")
    )
    attempts = follow(queue, "a", *ENDED).attempt
    queue.store.close()
    (tmp_path / "studio.db").unlink()
    queue = new_queue(tmp_path)
    job = follow(queue, "a", *ENDED)
    assert (job.state, job.attempt) == (JobState.FAILED, attempts)
    assert len((queue.path / "a" / "starts").read_text()) == attempts


def test_checkpoints_of_many_runs_are_verified_a_few_at_a_time(tmp_path):
    verifier = Verifier()
    runs = {}
    for number in range(6):
        runs[str(number)] = tmp_path / str(number)
        (runs[str(number)] / "checkpoints").mkdir(parents=True)
    most, ended, before = 0, set(), set(descendants(os.getpid()))
    while len(ended) < len(runs):
        for name in runs.keys() - ended:
            if verifier.check(name, runs[name]) is not None:
                ended.add(name)
        most = max(most, len(set(descendants(os.getpid())) - before))
        time.sleep(0.01)
    assert 1 <= most <= MOST_AT_ONCE


def test_the_order_of_the_queue_and_the_texts_survive_the_server(tmp_path):
    queue = new_queue(tmp_path)
    for name in "abc":
        queue.create(description(tmp_path, name, "", start=False))
    queue.move("c", "a")
    queue.store.update("b", note="keep")
    queue.store.set_run_note("0" * 16, tmp_path, RunNote("flowers", "good"))
    queue.store.close()
    queue = new_queue(tmp_path)
    assert [job.id for job in queue.store.jobs()] == ["c", "a", "b"]
    assert queue.get("b").note == "keep"
    assert queue.store.run_notes() == {"0" * 16: RunNote("flowers", "good")}


def test_a_job_whose_folder_is_gone_is_no_job_any_more(tmp_path):
    queue = new_queue(tmp_path)
    queue.create(description(tmp_path, "a", "", start=False))
    queue.store.close()
    (queue.path / "a").rename(tmp_path / "elsewhere")
    assert new_queue(tmp_path).store.jobs() == []


def test_a_database_that_cannot_be_opened_is_not_moved_aside(tmp_path):
    (tmp_path / "studio.db").mkdir()
    with pytest.raises(UserError, match=r"studio\.db"):
        new_queue(tmp_path)
    assert (tmp_path / "studio.db").is_dir()


@pytest.mark.parametrize("content", ["{", "[]", '{"id": "a"}', '{"id": "a", "launcher": 3}'])
def test_a_damaged_folder_does_not_keep_other_jobs_waiting(tmp_path, content, caplog):
    queue = new_queue(tmp_path)
    (queue.path / "a").mkdir()
    (queue.path / "a" / "job.json").write_text(content)
    queue.adopt_folders()
    queue.create(description(tmp_path, "b", ""))
    assert follow(queue, "b", *ENDED).state is JobState.FINISHED
    assert str(queue.path / "a") in caplog.text


def test_two_servers_do_not_share_a_folder(tmp_path):
    held = hold_state(tmp_path)
    code = "import sys, pathlib; from visionloop.bin.web.serve import hold_state\n"
    code += "hold_state(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-P", "-c", code, str(tmp_path)]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "another server uses this folder" in refused.stderr
    held.close()
    subprocess.run(command, check=True)
