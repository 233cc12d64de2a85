"""Jobs as the API shows them."""

from typing import Self

from pydantic import BaseModel, Field

from visionloop.bin.reports.run_folder import is_run
from visionloop.bin.web.jobs.creation import command_text
from visionloop.bin.web.jobs.devices import devices_of
from visionloop.bin.web.jobs.outcome import fresh_status
from visionloop.bin.web.jobs.queue import ENDED, RESUMABLE, JobQueue
from visionloop.bin.web.jobs.spec import ALIVE, WAITING, JobKind, JobState
from visionloop.bin.web.jobs.store import JobRow
from visionloop.bin.web.launchers.launch import Launch, LauncherOptions
from visionloop.bin.web.problems import StatusError
from visionloop.bin.web.runs.identity import run_id
from visionloop.bin.web.runs.rows import error_of
from visionloop.bin.web.runs.text import float_or_none, int_or_none, text_of, text_or_none

TAIL_LINES, TAIL_BYTES = 20, 8 << 10


class Abilities(BaseModel):
    """Calls that make sense for a job in its state."""

    stop: bool
    kill: bool
    resume: bool
    pause: bool
    remove: bool

    @classmethod
    def of(cls, job: JobRow) -> Self:
        is_alive = job.state in ALIVE
        return cls(
            stop=job.state in WAITING or (is_alive and job.wanted is None),
            kill=is_alive and job.wanted != "kill",
            resume=job.state in RESUMABLE,
            pause=job.kind is JobKind.TRAIN
            and (job.state is JobState.QUEUED or (is_alive and job.wanted is None)),
            remove=job.state in (*WAITING, *ENDED),
        )


class Progress(BaseModel):
    """Progress of a run that lives, from its status.json. eta: seconds since 1970."""

    step: int
    steps: int | None
    eta: float | None


class Job(BaseModel):
    """A job. Times in seconds since 1970."""

    id: str
    kind: JobKind
    task: str
    state: JobState
    run: str | None = Field(description="folder of the run")
    run_id: str | None
    has_run: bool = Field(description="the folder of the run is there: /runs/{run_id} can be read")
    name: str
    note: str
    created: float
    started: float | None
    ended: float | None
    position: int | None = Field(description="place among the waiting jobs, the next one is 1")
    launcher: LauncherOptions
    devices: list[str]
    command: list[str]
    command_text: str = Field(description="the command for a shell")
    attempt: int
    restarts: int = Field(description="starts that the queue made by itself since the user's last")
    exit_code: int | None
    error: StatusError | None
    log_tail: list[str] = Field(description="last lines of the log of a job that has failed")
    can: Abilities
    progress: Progress | None


def view_of(job: JobRow, queue: JobQueue, position: int | None) -> Job:
    """Return a job as the API shows it."""
    launch = launch_of(job)
    has_failed = job.state in (JobState.FAILED, JobState.LOST)
    tail = queue.folder_of(job.id).log_lines(TAIL_LINES, TAIL_BYTES) if has_failed else []
    return Job(
        id=job.id,
        kind=job.kind,
        task=job.description["task"],
        state=job.state,
        run=text_or_none(job.run),
        run_id=None if job.run is None else run_id(job.run),
        has_run=job.run is not None and is_run(job.run),
        name=job.name,
        note=job.note,
        created=job.created,
        started=job.started,
        ended=job.ended,
        position=position,
        launcher=job.launcher,
        devices=list(devices_of(job.kind, job.launcher)),
        command=[text_of(word) for word in launch.command],
        command_text=text_of(command_text(launch)),
        attempt=job.attempt,
        restarts=job.restarts,
        exit_code=job.exit_code,
        error=error_of({"error": job.error}),
        log_tail=tail,
        can=Abilities.of(job),
        progress=progress_of(job),
    )


def launch_of(job: JobRow) -> Launch:
    """Return the launch that a job was created with."""
    return Launch(**job.description["launch"])


def progress_of(job: JobRow) -> Progress | None:
    """Return step and steps of a job that lives, None before its first step."""
    if job.state not in ALIVE:
        return None
    status = fresh_status(job.run, job.started)
    step = int_or_none(status.get("step"))
    if step is None:
        return None
    steps, eta = int_or_none(status.get("steps")), float_or_none(status.get("eta"))
    return Progress(step=step, steps=steps, eta=eta)


def views_of(queue: JobQueue) -> list[Job]:
    """Return all jobs: those that wait or live in their order, then the others, latest first."""
    rows = queue.store.jobs()
    waiting = [job.id for job in rows if job.state in WAITING]
    first = [job for job in rows if job.state not in ENDED]
    first.sort(key=lambda job: job.state in WAITING)
    ended = [job for job in rows if job.state in ENDED]
    ended.sort(key=lambda job: job.ended or job.created, reverse=True)
    return [
        view_of(job, queue, waiting.index(job.id) + 1 if job.id in waiting else None)
        for job in (*first, *ended)
    ]


def view_with_position(job: JobRow, queue: JobQueue) -> Job:
    """Return one job with its place among the waiting ones."""
    waiting = [row.id for row in queue.store.jobs() if row.state in WAITING]
    return view_of(job, queue, waiting.index(job.id) + 1 if job.id in waiting else None)
