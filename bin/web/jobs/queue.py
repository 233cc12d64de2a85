"""The queue: a thread that starts jobs whose devices are free, and follows those that live.

It decides from files and locks alone, in steps that may be repeated. A server that is killed
between any two of them leaves nothing that its successor cannot complete.

`wanted` of a job is what the user asks of it while it lives: "stop", "kill", "pause", or "yield",
to stop and wait in the queue again.
"""

import contextlib
import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from visionloop.bin.web.jobs.cluster import ClusterJobs
from visionloop.bin.web.jobs.control import Observation, ProcessControl, observe
from visionloop.bin.web.jobs.devices import CPU, devices_of
from visionloop.bin.web.jobs.elsewhere import TrainingElsewhere
from visionloop.bin.web.jobs.folder import JobFolder
from visionloop.bin.web.jobs.outcome import Outcome, fresh_status, job_error, outcome_of
from visionloop.bin.web.jobs.processes import lock_holder
from visionloop.bin.web.jobs.records import JobDescription, read_jobs, row_of, write_job
from visionloop.bin.web.jobs.spec import ALIVE, WAITING, JobKind, JobState
from visionloop.bin.web.jobs.store import JobRow, JobStore
from visionloop.bin.web.jobs.verification import Verifier
from visionloop.bin.web.problems import Problem
from visionloop.engine.errors import FINISHED

TICK_SECONDS = 0.5
ENDED = (JobState.STOPPED, JobState.FINISHED, JobState.FAILED, JobState.LOST)
RESUMABLE = (JobState.PAUSED, JobState.STOPPED, JobState.FAILED, JobState.LOST)
VERIFIED = (JobState.STOPPED, JobState.PAUSED, JobState.QUEUED)
log = logging.getLogger("visionloop.studio")


class JobQueue:
    """Jobs of one server.

    Args:
        store: the database.
        folder: with a folder for each job.
        elsewhere: trainings that are no jobs here; None: there are none.
    """

    def __init__(
        self, store: JobStore, folder: Path, elsewhere: TrainingElsewhere | None = None
    ) -> None:
        self.store, self.path, self._elsewhere = store, folder, elsewhere
        self._control, self._verifier = ProcessControl(), Verifier()
        self._cluster_jobs = ClusterJobs()
        self._lock, self._wake, self._closing = threading.RLock(), threading.Event(), False
        self._thread: threading.Thread | None = None
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.adopt_folders()

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; the jobs go on."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while not self._closing:
            try:
                self.tick()
            except Exception:  # the queue must outlive a full disk
                log.exception("the queue")
            self._wake.wait(TICK_SECONDS)
            self._wake.clear()

    def folder_of(self, job_id: str) -> JobFolder:
        return JobFolder(self.path / job_id)

    def adopt_folders(self) -> None:
        """Make the database agree with the folders of the jobs."""
        known = {job.id for job in self.store.jobs()}
        described = read_jobs(self.path)
        for job_id in known - set(described):
            log.error("job %s: its folder %s is gone", job_id, self.path / job_id)
            self.store.remove(job_id)
        for job_id, description in described.items():
            if job_id not in known:
                self.store.insert(row_of(description, self.folder_of(job_id)))

    # What users ask for

    def get(self, job_id: str) -> JobRow:
        """Return a job. Raises Problem 404."""
        job = self.store.job(job_id)
        if job is None:
            raise Problem(404, "not_found", "there is no such job", field="id")
        return job

    def create(self, description: JobDescription) -> JobRow:
        """Add a job at the end of the queue. Its folder is written first, the database second."""
        with self._lock:
            write_job(self.path, description)
            folder = self.folder_of(description.spec.id)
            try:
                self.store.insert(row_of(description.as_json(), folder))
            except BaseException:
                shutil.rmtree(folder.path)  # else the next server starts what was refused
                raise
        self._wake.set()
        return self.get(description.spec.id)

    def adopt(self, description: JobDescription) -> JobRow:
        """Add a job for a run that was started elsewhere, or return the one that it has."""
        with self._lock:
            assert description.spec.run is not None
            job = self.store.job_of_run(description.spec.run)
            if job is not None and job.state not in ENDED:
                return job
            return self.create(description)

    def stop(self, job_id: str) -> JobRow:
        """Stop a job: it saves and ends. A waiting one waits no more."""
        return self._ask(job_id, "stop", if_waiting=JobState.STOPPED)

    def kill(self, job_id: str) -> JobRow:
        """End all processes of a job at once."""
        return self._ask(job_id, "kill", if_waiting=None)

    def pause(self, job_id: str, before: str | None = None) -> JobRow:
        """Stop a job, and let it wait until it is resumed, or until another one has run."""
        with self._lock:
            job = self.get(job_id)
            if job.kind is not JobKind.TRAIN:
                raise self._refusal(job, "paused")
            if before is None:
                return self._ask(job_id, "pause", if_waiting=JobState.PAUSED)
            other = self.get(before)
            if other.state not in WAITING or other.id == job.id:
                raise self._refusal(other, "started next")
            row = self._ask(job_id, "yield", if_waiting=JobState.QUEUED)
            self.store.update(other.id, states=(JobState.PAUSED,), state=JobState.QUEUED)
            ids = [one.id for one in self.store.jobs() if one.id not in (job.id, other.id)]
            self.store.order([other.id, job.id, *ids])
            return row

    def resume(self, job_id: str) -> JobRow:
        """Put a job into the queue again, with the same command."""
        with self._lock:
            job = self.get(job_id)
            if not self.store.update(
                job_id, states=RESUMABLE, state=JobState.QUEUED, wanted=None, restarts=0
            ):
                raise self._refusal(job, "resumed")
            if job.state is not JobState.PAUSED:
                ids = [one.id for one in self.store.jobs() if one.id != job_id]
                self.store.order([*ids, job_id])
        self._wake.set()
        return self.get(job_id)

    def move(self, job_id: str, before: str | None) -> JobRow:
        """Put a waiting job before another one, or at the end."""
        with self._lock:
            job = self.get(job_id)
            if job.state not in WAITING:
                raise self._refusal(job, "moved")
            if before != job_id:
                ids = [one.id for one in self.store.jobs() if one.id != job_id]
                ids.insert(len(ids) if before is None else ids.index(self.get(before).id), job_id)
                self.store.order(ids)
        self._wake.set()
        return self.get(job_id)

    def remove(self, job_id: str) -> None:
        """Remove a job that does not live; the folder of its run stays."""
        with self._lock:
            job = self.get(job_id)
            if job.state in (*ALIVE, JobState.VERIFYING):
                raise self._refusal(job, "removed")
            trash = self.path / f".{job_id}.removed"
            shutil.rmtree(trash, ignore_errors=True)  # of a server that was killed
            with contextlib.suppress(FileNotFoundError):
                (self.path / job_id).rename(trash)
            self.store.remove(job_id)
            shutil.rmtree(trash, ignore_errors=True)

    def _ask(self, job_id: str, wanted: str, *, if_waiting: JobState | None) -> JobRow:
        """Ask a job that lives for something; one that waits gets a state at once."""
        with self._lock:
            job = self.get(job_id)
            if job.state in ALIVE:
                self.store.update(job_id, wanted=wanted)
            elif job.state in WAITING and if_waiting is not None:
                self.store.update(job_id, state=if_waiting)
            else:
                raise self._refusal(job, f"asked to {wanted}")
        self._wake.set()
        return self.get(job_id)

    def _refusal(self, job: JobRow, verb: str) -> Problem:
        detail = f"the job is {job.state}: it cannot be {verb} now"
        return Problem(409, "not_possible", detail, hint="reload to see its state")

    # What the thread does

    def tick(self) -> None:
        """Do all that can be done now. Never waits for a process."""
        self._control.reap()
        for job in self.store.jobs((*ALIVE, JobState.VERIFYING)):
            self._guarded(job, self._follow)
        self._start_waiting()

    def _guarded(self, job: JobRow, act: Callable[[JobRow], None]) -> None:
        """Do something to a job; its failure must not keep the others waiting."""
        try:
            with self._lock:
                act(self.get(job.id))
        except Exception:
            log.exception("job %s", job.id)

    def _follow(self, job: JobRow) -> None:
        folder = self.folder_of(job.id)
        if job.state is JobState.VERIFYING:
            self._settle(job, folder, job.exit_code)
            return
        seen = observe(job, folder)
        if seen.is_alive:
            if job.state is JobState.STARTING:
                self.store.update(job.id, state=JobState.RUNNING)
            if job.wanted:
                self._end(job, folder, seen)
        elif seen.code == FINISHED and job.description["launch"]["submits"]:
            self._follow_submitted(job, folder)
        elif seen.begun:
            self._settle(job, folder, seen.code)
        elif self._control.runner_state(job) is None:
            self._control.start(job, folder)
        elif not self._control.runner_state(job) and not observe(job, folder).begun:
            lines = folder.log_lines(1)
            error = job_error("defect", f"cannot be started: {lines[-1] if lines else 'no reason'}")
            self._finish(job, Outcome(JobState.FAILED, error), None)

    def _end(self, job: JobRow, folder: JobFolder, seen: Observation) -> None:
        """Do what the user wants of a job that lives."""
        if job.wanted == "kill":
            self._control.kill(job, folder, seen)
        elif job.description["launch"]["submits"]:
            return  # a cluster cannot stop what it has not got yet
        elif job.state is not JobState.STOPPING:
            self._control.stop(job, folder, seen)
        if job.state is not JobState.STOPPING:
            self.store.update(job.id, state=JobState.STOPPING)

    def _follow_submitted(self, job: JobRow, folder: JobFolder) -> None:
        """Follow a job that a cluster runs, by the files in the folder of the run."""
        if job.wanted:
            act = self._control.kill if job.wanted == "kill" else self._control.stop
            act(job, folder, observe(job, folder))
        if self._cluster_jobs.has_ended(job):
            status = fresh_status(job.run, job.started)
            code = FINISHED if status.get("state") == "finished" else None
            self._settle(job, folder, code)
            return
        state = JobState.STOPPING if job.wanted else JobState.RUNNING
        if job.state is not state:
            self.store.update(job.id, state=state)

    def _settle(self, job: JobRow, folder: JobFolder, code: int | None) -> None:
        """Give a job whose processes have ended its state, after its checkpoints were read."""
        outcome = outcome_of(job, folder, code)
        if job.kind is JobKind.TRAIN and outcome.state in VERIFIED and not outcome.restarts:
            assert job.run is not None
            checked = self._verifier.check(job.id, job.run)
            if checked is None:
                if job.state is not JobState.VERIFYING:
                    self.store.update(job.id, state=JobState.VERIFYING, exit_code=code)
                return
            if checked.error:
                outcome = Outcome(JobState.STOPPED, checked.error)
        self._finish(job, outcome, code)

    def _finish(self, job: JobRow, outcome: Outcome, code: int | None) -> None:
        self._control.forget(job)
        ended = self.folder_of(job.id).exit_of(job.attempt) or {}
        self.store.update(
            job.id,
            state=outcome.state,
            wanted=None,
            restarts=job.restarts + outcome.restarts,
            ended=ended.get("ended", time.time()),
            exit_code=code,
            error=outcome.error,
        )
        self._wake.set()

    def devices_in_use(self) -> dict[str, str]:
        """Return {device: id of the job that occupies it}."""
        return {
            device: job.id
            for job in self.store.jobs(ALIVE)
            for device in devices_of(job.kind, job.launcher)
        }

    def cpu_run_elsewhere(self, *, walk: bool = False) -> Path | None:
        """Return the folder of a training that occupies the CPU and is no job, or None.

        walk: look for runs that have begun since the last look at the folders.
        """
        if self._elsewhere is None:
            return None
        jobs = self.store.jobs((*ALIVE, JobState.VERIFYING, JobState.QUEUED))
        return self._elsewhere.run({job.run for job in jobs if job.run is not None}, walk=walk)

    def _start_waiting(self) -> None:
        """Start the jobs whose devices are free, in order.

        A job that has to wait keeps its devices from later ones, which would else overtake it.
        """
        busy = set(self.devices_in_use())
        for job in self.store.jobs((JobState.QUEUED,)):
            needed = devices_of(job.kind, job.launcher)
            if CPU in needed and CPU not in busy:
                # the walk comes once, right before a start
                is_used = self.cpu_run_elsewhere() or self.cpu_run_elsewhere(walk=True)
                busy |= {CPU} if is_used else set()
            if busy.isdisjoint(needed):
                self._guarded(job, self._begin)
            busy |= set(needed)

    def _begin(self, job: JobRow) -> None:
        if job.state is not JobState.QUEUED:
            return  # the user was faster
        folder = self.folder_of(job.id)
        if not folder.path.is_dir():
            error = job_error("lost", f"{folder.path}: the folder of the job is gone")
            self._finish(job, Outcome(JobState.FAILED, error), None)
        elif job.kind is JobKind.TRAIN and job.run is not None and lock_holder(job.run / ".lock"):
            error = job_error(
                "locked", f"{job.run}: another process is running there", file=str(job.run)
            )
            self._finish(job, Outcome(JobState.FAILED, error), None)
        elif self.store.begin_attempt(job.id):
            self._control.start(self.get(job.id), folder)
