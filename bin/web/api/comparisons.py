"""`/comparisons`: several runs in one report, and the difference of two on the same samples."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from visionloop.bin.web.api.parameters import RUN_ID_PATTERN, Body, Services
from visionloop.bin.web.api.run_files import data_of, trained_task
from visionloop.bin.web.jobs.creation import service_job
from visionloop.bin.web.jobs.devices import gpus
from visionloop.bin.web.jobs.spec import JobKind, python_command
from visionloop.bin.web.jobs.views import Job, view_with_position
from visionloop.bin.web.problems import Problem
from visionloop.bin.web.runs.archive import best_files
from visionloop.bin.web.runs.comparison import compared
from visionloop.bin.web.runs.text import AsciiJson

router = APIRouter(tags=["comparisons"])
MOST_RUNS = 10
OneId = Annotated[str, Field(pattern=f"^{RUN_ID_PATTERN}$")]
Ids = Annotated[
    str,
    Query(
        pattern=f"^{RUN_ID_PATTERN}(,{RUN_ID_PATTERN}){{1,{MOST_RUNS - 1}}}$",
        description=f"ids of two to {MOST_RUNS} runs, with commas between them",
    ),
]


class Comparison(BaseModel):
    """Object of a report of several runs, see bin/reports/schema.json."""

    model_config = ConfigDict(extra="allow")
    tasks: list[dict[str, Any]]
    runs: list[dict[str, Any]]
    ids: list[str] = Field(description="of the runs, in the same order")
    differences: dict[str, list[Any]] = Field(description="{setting: values of the runs}")


class NewComparison(Body):
    """Ids of the two runs, whose best weights are compared."""

    runs: Annotated[list[OneId], Field(min_length=2, max_length=2)]


@router.get("/comparisons", response_model=Comparison)
def compare_runs(studio: Services, runs: Ids) -> Response:
    """Return the report of several runs and the settings that differ."""
    ids = runs.split(",")
    if len(set(ids)) < len(ids):
        raise Problem(422, "bad_input", "runs: a run is given twice", field="runs")
    return AsciiJson(compared([studio.runs.run(id) for id in ids], studio.reader))


@router.post("/comparisons", status_code=201)
def create_comparison(studio: Services, body: NewComparison) -> Job:
    """Evaluate two runs on the same validation images as a job.

    Its result is the object of `compare --json`, with the first run as the baseline.
    """
    first, second = (studio.runs.run(id) for id in body.runs)
    if first.id == second.id:
        raise Problem(422, "bad_input", "runs: a run is given twice", field="runs")
    task = trained_task(first)
    data = str(data_of(first, studio))
    for run in (first, second):
        best_files(run.path)
    device = ("--device", "cpu") if gpus() else ()  # trainings have the GPUs
    words = (str(first.path), str(second.path), "--data", data, *device, "--json")
    job = service_job(
        studio.config,
        JobKind.COMPARE,
        task,
        words,
        name=f"{first.name} - {second.name}"[:200],
        command=python_command("compare", *words),
    )
    return view_with_position(studio.queue.create(job), studio.queue)
