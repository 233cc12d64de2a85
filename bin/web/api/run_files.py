"""`/runs/{id}`: records of evaluations, the best weights, the log, and replays of a step."""

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Response
from fastapi import Path as PathParameter
from pydantic import BaseModel, Field
from starlette.responses import StreamingResponse

from visionloop.bin.model_zoo.listing import MODEL_ZOOS
from visionloop.bin.web.api.parameters import MOST_STEPS, Body, LogOffset, Services, TheRun
from visionloop.bin.web.jobs.creation import service_job
from visionloop.bin.web.jobs.log import LogPart, read_log
from visionloop.bin.web.jobs.spec import ALIVE, JobKind
from visionloop.bin.web.jobs.views import Job, view_with_position
from visionloop.bin.web.problems import Problem
from visionloop.bin.web.runs.archive import best_files, model_card, zip_name, zip_parts, zip_size
from visionloop.bin.web.runs.index import IndexedRun
from visionloop.bin.web.runs.records import read_image, read_record
from visionloop.bin.web.runs.text import AsciiJson
from visionloop.bin.web.security.augmentation import require_named_function
from visionloop.bin.web.security.roots import resolve_below
from visionloop.bin.web.studio import Studio

router = APIRouter(tags=["runs"])
REPLAY = "replay"  # folder of the images, in that of the job
Step = Annotated[int, PathParameter(ge=0, lt=10**15)]


class BestFile(BaseModel):
    """A file of the best weights. size: in bytes."""

    name: str
    size: int
    sha256: str


class BestFiles(BaseModel):
    """The best weights of a run: a folder that `from_pretrained` loads."""

    files: list[BestFile]
    model_card: str | None = Field(description="Markdown")


class NewReplay(Body):
    """A step to repeat. The first step is 1."""

    step: Annotated[int, Field(ge=1, lt=MOST_STEPS)]


@router.get("/runs/{id}/evaluations/{step}", response_model=dict[str, Any])
def read_evaluation(run: TheRun, step: Step) -> Response:
    """Return the record of an evaluation, see engine/evaluation/record.py."""
    return AsciiJson(read_record(run.path, step))


@router.get(
    "/runs/{id}/evaluations/{step}/images/{name}",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}, "image/png": {}}}},
)
def read_evaluation_image(
    run: TheRun, step: Step, name: Annotated[str, PathParameter(max_length=255)]
) -> Response:
    """Return an image of an evaluation."""
    content, media_type = read_image(run.path, step, name)
    # a resumed run may write other images under the same names
    headers = {"Cache-Control": "private, no-cache"}
    return Response(content, media_type=media_type, headers=headers)


@router.get("/runs/{id}/best")
def read_best(studio: Services, run: TheRun) -> BestFiles:
    """Return the files of the best weights with their hashes, and the model card."""
    try:
        files = [
            BestFile(name=file.name, size=file.size, sha256=studio.hashes.of(file.path))
            for file in best_files(run.path)
        ]
    except OSError:
        raise replaced() from None
    return BestFiles(files=files, model_card=model_card(run.path))


def replaced() -> Problem:
    """Return the error of weights that a run replaces at this moment."""
    detail = "the run is writing new best weights"
    return Problem(503, "changing", detail, hint="try again in a few seconds")


@router.get(
    "/runs/{id}/best.zip",
    response_class=Response,
    responses={200: {"content": {"application/zip": {}}}},
)
def download_best(run: TheRun) -> Response:
    """Download the best weights with a SHA256SUMS file, as a zip without compression."""
    files = best_files(run.path)
    size = zip_size(files)
    headers = {"Content-Disposition": f'attachment; filename="{zip_name(run.path)}"'}
    if size is not None:
        headers["Content-Length"] = str(size)
    return StreamingResponse(zip_parts(files), media_type="application/zip", headers=headers)


@router.get("/runs/{id}/log")
def read_run_log(studio: Services, run: TheRun, offset: LogOffset = 0) -> LogPart:
    """Return a part of the log of the job that trains the run. offset: as of `/jobs/{id}/log`."""
    job = studio.store.job_of_run(run.path)
    if job is None:
        raise Problem(
            404,
            "no_log",
            "the run was started elsewhere: this server has no log of it",
            hint="its log is where it was started",
        )
    path, limit = studio.queue.folder_of(job.id).log, studio.config.limits.log_bytes
    return read_log(path, offset, limit, is_alive=job.state in ALIVE)


@router.post("/runs/{id}/replays", status_code=201)
def create_replay(studio: Services, run: TheRun, body: NewReplay) -> Job:
    """Repeat a step of a run as a job. The images are at `/jobs/ID/files/replay/NAME`."""
    task = trained_task(run)
    data_of(run, studio)
    require_named_function(run.path, (), studio.config)
    words = ("--run", str(run.path), "--step", str(body.step), "--output", REPLAY, "--json")
    name = f"replay {run.name} step {body.step}"[:200]
    job = studio.queue.create(service_job(studio.config, JobKind.REPLAY, task, words, name=name))
    return view_with_position(job, studio.queue)


def trained_task(run: IndexedRun) -> str:
    """Return the command of a run's task. Raises Problem (409) for an unknown one."""
    task = run.value("task")
    if task not in {zoo.command for zoo in MODEL_ZOOS}:
        raise Problem(409, "no_task", "settings.json names no task of visionloop", field="id")
    return str(task)


def data_of(run: IndexedRun, studio: Studio) -> Path:
    """Return the data folder of a run, as it was resolved.

    Raises Problem for one outside the roots, since its images would be shown, and for a relative
    path, whose start is not recorded.
    """
    data = str(run.value("data") or "")
    if not data.startswith("/"):
        detail = f"data: the run was started with the relative path {data!a}"
        hint = "run the command in the folder where the run was started"
        raise Problem(409, "relative_data", detail, field="data", hint=hint)
    return resolve_below(data, studio.config.data, "data")
