"""Jobs of the studio's queue whose command is a few lines of Python instead of a training."""

import sys
import time
from dataclasses import replace
from pathlib import Path

from visionloop.bin.web.jobs.queue import JobQueue
from visionloop.bin.web.jobs.records import JobDescription
from visionloop.bin.web.jobs.spec import JobKind, JobSpec, JobState
from visionloop.bin.web.jobs.store import JobRow, JobStore
from visionloop.bin.web.launchers.launch import Launch

LONGEST = 120  # seconds that anything may take on a busy machine
# a training that saves and exits with 75 at SIGTERM
STOPPABLE = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
print("ready", flush=True)
time.sleep(600)
"""
# locks its run folder as a training does, and can write its status.json: status(state, error)
TRAINER = """
import fcntl, json, os, sys, time
run = os.path.join("..", "..", "runs", os.path.basename(os.getcwd()))
os.makedirs(run, exist_ok=True)
lock = open(os.path.join(run, ".lock"), "w")
fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
def status(state, error=None):
    row = {"state": state, "step": 0, "heartbeat": time.time(), "error": error}
    json.dump(row, open(os.path.join(run, "status.json"), "w"))
"""
# each start leaves a character in the job's folder
COUNTED = "open('starts', 'a').write('x')\n"


def new_queue(folder: Path) -> JobQueue:
    """Return the queue of a server with its files in a folder. Its thread does not run."""
    return JobQueue(JobStore(folder / "studio.db"), folder / "jobs")


def description(folder: Path, job_id: str, code: str, **changes: object) -> JobDescription:
    """Return a training job that runs a text of Python; its run folder is runs/ID."""
    spec = JobSpec(job_id, JobKind.TRAIN, "classification", folder / "runs" / job_id, ())
    launch = Launch((sys.executable, "-c", code))
    return replace(JobDescription(spec, launch), **changes)  # type: ignore[arg-type]


def follow(queue: JobQueue, name: str, *states: JobState) -> JobRow:
    """Do the steps of the queue's thread until a job is in one of the states."""
    for _ in range(LONGEST * 50):
        queue.tick()
        job = queue.get(name)
        if job.state in states:
            return job
        time.sleep(0.02)
    raise AssertionError((queue.get(name), queue.folder_of(name).log_lines(50)))


def wait_for_text(queue: JobQueue, name: str, text: str, number: int = 1) -> None:
    """Wait until a text stands so many times in the log of a job."""
    for _ in range(LONGEST * 50):
        queue.tick()
        if "\n".join(queue.folder_of(name).log_lines(1000)).count(text) >= number:
            return
        time.sleep(0.02)
    raise AssertionError(queue.folder_of(name).log_lines(50))
