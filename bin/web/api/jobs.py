"""`/jobs`: create, list, stop, resume, order and remove jobs, and read what they write."""

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from fastapi import APIRouter
from fastapi import Path as PathParameter
from pydantic import BaseModel, Field
from starlette.responses import FileResponse

from visionloop.bin.web.api.parameters import (
    JOB_ID_PATTERN,
    Body,
    JobId,
    LogOffset,
    Name,
    Note,
    RunId,
    Services,
    Texts,
)
from visionloop.bin.web.jobs.adoption import living_job, resume_run
from visionloop.bin.web.jobs.creation import JobTexts, command_text, train_job
from visionloop.bin.web.jobs.devices import CPU, Device, devices
from visionloop.bin.web.jobs.folder import read_json
from visionloop.bin.web.jobs.log import LogPart, read_log
from visionloop.bin.web.jobs.options import TaskOptions, Value, task_options
from visionloop.bin.web.jobs.records import JobDescription
from visionloop.bin.web.jobs.spec import ALIVE
from visionloop.bin.web.jobs.views import Job, view_with_position, views_of
from visionloop.bin.web.launchers.launch import LauncherOptions, LocalOptions
from visionloop.bin.web.problems import Problem
from visionloop.bin.web.runs.text import text_of
from visionloop.bin.web.security.augmentation import require_named_function
from visionloop.bin.web.studio import Studio
from visionloop.engine.types import JsonObject

router = APIRouter(tags=["jobs"])
# a file, perhaps in a folder
FILE_PATTERN = r"^([A-Za-z0-9_][A-Za-z0-9_.-]{0,99}/)?[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$"
IMAGES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}

OtherId: TypeAlias = Annotated[str, Field(pattern=JOB_ID_PATTERN)]
SettingName: TypeAlias = Annotated[str, Field(max_length=100)]
SettingText: TypeAlias = Annotated[str, Field(max_length=4096)]
SettingValue: TypeAlias = bool | int | float | SettingText | None


class NewJob(Body):
    """A training to start. The command that is run is that of `/jobs/preview`."""

    kind: Literal["train"] = "train"
    task: Annotated[str, Field(max_length=100)]
    settings: Annotated[dict[SettingName, SettingValue], Field(max_length=200)]
    launcher: LauncherOptions = Field(default_factory=LocalOptions)
    name: Name | None = None
    note: Note = ""
    run_name: Annotated[str, Field(max_length=200)] | None = Field(
        default=None, description="folder of the run; null: task-data-model, with a number"
    )
    start: bool = Field(default=True, description="false: the job waits until it is resumed")


class Mistake(BaseModel):
    """A mistake in a request, which a start would refuse."""

    code: str
    field: str | None
    message: str
    hint: str | None


class Preview(BaseModel):
    """Command that a start would run, and mistakes that would keep it from starting."""

    command: list[str]
    text: str = Field(description="the command for a shell")
    files: dict[str, str] = Field(description="files that are written before, such as a manifest")
    environment: dict[str, str]
    run: str
    problems: list[Mistake]


class DeviceRow(BaseModel):
    """A device that jobs wait for.

    job: id of the job that occupies it; run: name of a run that does, which is no job.
    """

    name: str
    kind: str
    label: str
    memory_gib: float | None
    job: str | None
    run: str | None

    @classmethod
    def of(cls, device: Device, job: str | None, run: str | None) -> "DeviceRow":
        return cls(
            name=device.name,
            kind=device.kind,
            label=device.label,
            memory_gib=device.memory_gib,
            job=job,
            run=run,
        )


class Jobs(BaseModel):
    """All jobs: those that live, those that wait in their order, then the others, latest first."""

    jobs: list[Job]
    devices: list[DeviceRow]


class PauseRequest(Body):
    """A pause. for: id of the job that is started before this one goes on; null: until resumed."""

    for_: OtherId | None = Field(default=None, alias="for")


class MoveRequest(Body):
    """A new place in the queue. before: id of the job behind it; null: the end."""

    before: OtherId | None = None


@router.get("/jobs")
def list_jobs(studio: Services) -> Jobs:
    """Return all jobs and devices."""
    used, run = studio.queue.devices_in_use(), studio.queue.cpu_run_elsewhere()
    others = {} if run is None else {CPU: text_of(run.name)}
    return Jobs(
        jobs=views_of(studio.queue),
        devices=[
            DeviceRow.of(device, used.get(device.name), others.get(device.name))
            for device in devices()
        ],
    )


@router.post("/jobs", status_code=201)
def create_job(body: NewJob, studio: Services) -> Job:
    """Put a training into the queue."""
    options = options_of(body, studio)
    if options.problems:
        raise options.problems[0]
    job = studio.queue.create(description_of(body, options, studio))
    return view_with_position(job, studio.queue)


@router.post("/jobs/preview")
def preview_job(body: NewJob, studio: Services) -> Preview:
    """Return the command that the same request to `/jobs` would run. Changes nothing."""
    options = options_of(body, studio)
    problems = list(options.problems)
    try:
        description = description_of(body, options, studio)
    except Problem as problem:
        problems.append(problem)
        plain = body.model_copy(update={"run_name": None, "launcher": LocalOptions()})
        description = description_of(plain, options, studio)
    launch = description.launch
    return Preview(
        command=list(launch.command),
        text=command_text(launch),
        files=dict(launch.files),
        environment=dict(launch.environment),
        run=str(description.spec.run),
        problems=[
            Mistake(code=one.code, field=one.field, message=str(one), hint=one.hint)
            for one in problems
        ],
    )


def options_of(body: NewJob, studio: Studio) -> TaskOptions:
    """Return the command-line options of a request."""
    given: dict[str, Value] = dict(body.settings)
    return task_options(body.task, given, studio.config)


def description_of(body: NewJob, options: TaskOptions, studio: Studio) -> JobDescription:
    """Return the job of a request, the same for the preview and the start."""
    return train_job(
        studio.config,
        options,
        body.launcher,
        known_runs={job.run for job in studio.store.jobs() if job.run is not None},
        run_name=body.run_name,
        texts=JobTexts(body.name or "", body.note),
        start=body.start,
    )


@router.get("/jobs/{id}")
def get_job(id: JobId, studio: Services) -> Job:
    """Return a job."""
    return view_with_position(studio.queue.get(id), studio.queue)


@router.patch("/jobs/{id}")
def edit_job(id: JobId, body: Texts, studio: Services) -> Job:
    """Change name or note of a job."""
    studio.queue.get(id)
    if changes := body.model_dump(exclude_none=True):
        studio.store.update(id, **changes)
    return view_with_position(studio.queue.get(id), studio.queue)


@router.delete("/jobs/{id}", status_code=204)
def remove_job(id: JobId, studio: Services) -> None:
    """Remove a job that does not live. The folder of its run stays."""
    studio.queue.remove(id)


@router.post("/jobs/{id}/stop")
def stop_job(id: JobId, studio: Services) -> Job:
    """Ask a job to save and stop. It is `stopped` when its processes have ended."""
    return view_with_position(studio.queue.stop(id), studio.queue)


@router.post("/jobs/{id}/kill")
def kill_job(id: JobId, studio: Services) -> Job:
    """End all processes of a job at once. Steps since its last checkpoint are lost."""
    return view_with_position(studio.queue.kill(id), studio.queue)


@router.post("/jobs/{id}/resume")
def resume_job(id: JobId, studio: Services) -> Job:
    """Put a job into the queue again, with the same command."""
    job = studio.queue.get(id)
    require_named_function(job.run, job.description["options"], studio.config)
    return view_with_position(studio.queue.resume(id), studio.queue)


@router.post("/jobs/{id}/pause")
def pause_job(id: JobId, studio: Services, body: PauseRequest | None = None) -> Job:
    """Stop a job until it is resumed, or until another one, which is started next, has run."""
    other = body.for_ if body else None
    return view_with_position(studio.queue.pause(id, other), studio.queue)


@router.post("/jobs/{id}/move")
def move_job(id: JobId, body: MoveRequest, studio: Services) -> Job:
    """Give a waiting job another place in the queue."""
    return view_with_position(studio.queue.move(id, body.before), studio.queue)


@router.get("/jobs/{id}/log")
def job_log(id: JobId, studio: Services, offset: LogOffset = 0) -> LogPart:
    """Return a part of the log. offset: `next` of the part before, -1: the last part."""
    job = studio.queue.get(id)
    path, limit = studio.queue.folder_of(id).log, studio.config.limits.log_bytes
    return read_log(path, offset, limit, is_alive=job.state in ALIVE)


@router.get("/jobs/{id}/result")
def job_result(id: JobId, studio: Services) -> JsonObject:
    """Return the result of a check, replay or comparison."""
    job = studio.queue.get(id)
    result = None if job.state in ALIVE else read_json(studio.queue.folder_of(id).result)
    if result is None:
        raise Problem(404, "no_result", f"the job is {job.state} and has no result")
    return result


@router.get("/jobs/{id}/files/{name:path}", response_class=FileResponse)
def job_file(
    id: JobId,
    name: Annotated[str, PathParameter(pattern=FILE_PATTERN)],
    studio: Services,
) -> FileResponse:
    """Return an image that a check or replay has written."""
    folder: Path = studio.queue.folder_of(studio.queue.get(id).id).path
    path = folder / name
    kind = IMAGES.get(path.suffix.lower())
    # neither the file nor its folder is a link
    if kind is None or path.resolve() != folder.resolve() / name or not path.is_file():
        raise Problem(404, "not_found", "there is no such image", field="name")
    return FileResponse(path, media_type=kind)


@router.post("/runs/{id}/stop")
def stop_run(id: RunId, studio: Services) -> Job:
    """Ask a run to save and stop. One that was started elsewhere becomes a job."""
    job = living_job(studio.runs.path_of(id), studio.queue, studio.config)
    return view_with_position(studio.queue.stop(job.id), studio.queue)


@router.post("/runs/{id}/kill")
def kill_run(id: RunId, studio: Services) -> Job:
    """End all processes of a run at once. Steps since its last checkpoint are lost."""
    job = living_job(studio.runs.path_of(id), studio.queue, studio.config)
    return view_with_position(studio.queue.kill(job.id), studio.queue)


@router.post("/runs/{id}/resume")
def resume_stopped_run(id: RunId, studio: Services) -> Job:
    """Put a run into the queue again, with the command that it was started with."""
    job = resume_run(studio.runs.path_of(id), studio.queue, studio.config)
    return view_with_position(job, studio.queue)
