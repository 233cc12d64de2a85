"""The queue with small commands in the place of training: each job is a real detached process."""

import sys
import time
from dataclasses import replace

import pytest

from visionloop.bin.web.jobs.processes import kill_all
from visionloop.bin.web.jobs.queue import ENDED, JobQueue
from visionloop.bin.web.jobs.records import JobDescription
from visionloop.bin.web.jobs.spec import JobKind, JobSpec, JobState
from visionloop.bin.web.jobs.store import JobStore
from visionloop.bin.web.launchers.launch import Launch

LONGEST = 60  # seconds that anything may take on a busy machine
# a training that saves and exits with 75 at SIGTERM
STOPPABLE = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
print("ready", flush=True)
time.sleep(600)
"""
COUNT = "import pathlib; pathlib.Path('starts').open('a').write('x')\n"


def new_queue(folder):
    return JobQueue(JobStore(folder / "studio.db"), folder / "jobs")


@pytest.fixture
def queue(tmp_path):
    queue = new_queue(tmp_path)
    yield queue
    for job in queue.store.jobs():
        if holder := queue.folder_of(job.id).holder():
            kill_all(holder.pid)


def description(folder, name, code, **changes):
    spec = JobSpec(name, JobKind.TRAIN, "classification", folder / "runs" / name, ())
    launch = Launch((sys.executable, "-c", code))
    return replace(JobDescription(spec, launch), **changes)


def follow(queue, name, *states):
    """The job, once it is in one of the states. A thread of a server would do the ticks."""
    for _ in range(LONGEST * 20):
        queue.tick()
        job = queue.get(name)
        if job.state in states:
            return job
        time.sleep(0.05)
    raise AssertionError((queue.get(name), queue.folder_of(name).log_lines(50)))


def wait_for_text(queue, name, text):
    for _ in range(LONGEST * 20):
        queue.tick()
        if any(text in line for line in queue.folder_of(name).log_lines(50)):
            return
        time.sleep(0.05)
    raise AssertionError(queue.folder_of(name).log_lines(50))


@pytest.mark.parametrize(
    ("code", "state", "exit_code"),
    [
        ("", JobState.FINISHED, 0),
        ("import sys; print('error: --lr: wrong', file=sys.stderr); sys.exit(2)", "failed", 2),
        ("1 / 0", JobState.FAILED, 1),
        ("import os; os.kill(os.getpid(), 9)", JobState.LOST, -9),
    ],
)
def test_the_state_of_a_job_follows_its_exit(queue, tmp_path, code, state, exit_code):
    queue.create(description(tmp_path, "a1", code))
    job = follow(queue, "a1", *ENDED)
    assert (job.state, job.exit_code) == (state, exit_code)
    assert (job.error is None) == (exit_code == 0)


def test_the_error_of_a_job_is_the_line_that_its_command_has_printed(queue, tmp_path):
    code = "import sys; print('error: --lr: wrong', file=sys.stderr); sys.exit(2)"
    queue.create(description(tmp_path, "a1", code))
    assert follow(queue, "a1", JobState.FAILED).error["message"] == "--lr: wrong"


def test_a_stopped_job_goes_on_with_the_same_command(queue, tmp_path):
    queue.create(description(tmp_path, "a1", STOPPABLE))
    wait_for_text(queue, "a1", "ready")
    queue.stop("a1")
    assert follow(queue, "a1", *ENDED).state is JobState.STOPPED
    queue.resume("a1")
    assert follow(queue, "a1", JobState.RUNNING).attempt == 2


def test_a_program_that_is_not_there_fails_with_its_name(queue, tmp_path):
    queue.create(description(tmp_path, "a1", "", launch=Launch(("no-such-program",))))
    job = follow(queue, "a1", *ENDED)
    assert job.state is JobState.FAILED
    assert "no-such-program" in job.error["message"]
