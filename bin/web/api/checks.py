"""`/checks`: is the data right, and what would a training take."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from visionloop.bin.web.api.jobs import SettingName, SettingValue
from visionloop.bin.web.api.parameters import Body, Services
from visionloop.bin.web.jobs.creation import service_job
from visionloop.bin.web.jobs.options import Value, task_options
from visionloop.bin.web.jobs.spec import JobKind
from visionloop.bin.web.jobs.views import Job, view_with_position

router = APIRouter(tags=["datasets"])
SHEET = "sheet.png"  # in the folder of the job, where the command runs


class NewCheck(Body):
    """A check of data, model and settings; without a model that of the task's smallest one."""

    task: Annotated[str, Field(max_length=100)]
    settings: Annotated[dict[SettingName, SettingValue], Field(max_length=200)]
    estimate: bool = Field(
        default=True, description="false: the data only, without steps that are measured"
    )


@router.post("/checks", status_code=201)
def create_check(body: NewCheck, studio: Services) -> Job:
    """Start a check as a job. Its result is the object of `check --json`.

    The contact sheet is at `/jobs/ID/files/sheet.png`.
    """
    given: dict[str, Value] = dict(body.settings)
    options = task_options(body.task, given, studio.config, needs_length=False)
    if options.problems:
        raise options.problems[0]
    words = (*options.words, "--sheet", SHEET, "--json")
    if not body.estimate:
        words = (*words, "--no-estimate")
    job = studio.queue.create(service_job(studio.config, JobKind.CHECK, options.task, words))
    return view_with_position(job, studio.queue)
