"""Trainings that are no jobs of the queue keep its jobs from the CPU."""

import json
import subprocess
import sys

import pytest
from studio_jobs import STOPPABLE, description, follow, new_queue

from visionloop.bin.web.jobs.elsewhere import TrainingElsewhere
from visionloop.bin.web.jobs.processes import kill_all
from visionloop.bin.web.jobs.queue import JobQueue
from visionloop.bin.web.jobs.spec import JobState
from visionloop.bin.web.runs.index import RunIndex

# holds the lock of the folder that it is given, until its input ends
HOLDER = """
import fcntl, sys
lock = open(sys.argv[1] + "/.lock", "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def queue(tmp_path):
    (tmp_path / "runs").mkdir()
    plain = new_queue(tmp_path)
    elsewhere = TrainingElsewhere(RunIndex([tmp_path / "runs"]))
    queue = JobQueue(plain.store, plain.path, elsewhere)
    yield queue
    for job in queue.store.jobs():
        if holder := queue.folder_of(job.id).holder():
            kill_all(holder.pid)


@pytest.fixture
def train(tmp_path):
    """train(device) -> the process of a training that was started on a command line."""
    started = []

    def train(device):
        run = tmp_path / "runs" / "own"
        run.mkdir()
        settings = {"settings": {"device": {"value": device, "source": "auto"}}}
        (run / "settings.json").write_text(json.dumps(settings))
        (run / "status.json").write_text(json.dumps({"state": "running"}))
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(run)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "locked\n"
        return process

    yield train
    for process in started:
        process.communicate()


def test_a_job_waits_for_the_cpu_until_a_training_of_the_command_line_has_ended(
    queue, train, tmp_path
):
    other = train("cpu")
    queue.create(description(tmp_path, "a", STOPPABLE))
    for _ in range(3):
        queue.tick()
    assert queue.get("a").state is JobState.QUEUED
    assert queue.cpu_run_elsewhere() == tmp_path / "runs" / "own"
    other.communicate()
    follow(queue, "a", JobState.RUNNING)
    assert queue.cpu_run_elsewhere() is None


def test_a_training_on_a_gpu_leaves_the_cpu_to_a_job(queue, train, tmp_path):
    train("cuda")
    queue.create(description(tmp_path, "a", STOPPABLE))
    follow(queue, "a", JobState.RUNNING)


def test_a_run_that_is_a_job_is_not_counted_twice(queue, train, tmp_path):
    """Its own job says that the run is locked, instead of waiting for it for ever."""
    train("cpu")
    queue.create(description(tmp_path, "own", STOPPABLE))
    assert follow(queue, "own", JobState.FAILED).error["code"] == "locked"
