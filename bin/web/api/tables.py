"""`/tasks`, `/metrics`, `/models` and the settings of a task."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi import Path as PathParameter
from pydantic import BaseModel, Field

from visionloop.bin.web.api.parameters import Services
from visionloop.bin.web.security.roots import resolve_below
from visionloop.bin.web.tables.local_models import LocalModel, find_local_models
from visionloop.bin.web.tables.settings import SettingsTable, Value, settings_table
from visionloop.bin.web.tables.tables import (
    ModelRow,
    TaskMetrics,
    TaskRow,
    metrics_table,
    model_name,
    model_rows,
    task_rows,
    zoo_of,
)

router = APIRouter(tags=["tables"])
TaskName = Annotated[str, Query(max_length=100, description="type or command of a task")]
PathText = Annotated[str, Query(max_length=4096)]


class Tasks(BaseModel):
    """The tasks."""

    tasks: list[TaskRow]


class Models(BaseModel):
    """The models that a training may start from."""

    models: list[ModelRow] = Field(description="of the model zoo, the recommended ones first")
    local: list[LocalModel] = Field(description="of runs and folders below the roots, latest first")


@router.get("/tasks")
def tasks() -> Tasks:
    """Return the tasks with labels in English and Korean."""
    return Tasks(tasks=list(task_rows()))


@router.get("/metrics")
def metrics() -> dict[str, TaskMetrics]:
    """Return {task type: scores}."""
    return metrics_table()


@router.get("/models")
def models(studio: Services, task: TaskName | None = None) -> Models:
    """Return the models of a task, or of all."""
    config, command = studio.config, None if task is None else zoo_of(task).command
    roots = list(dict.fromkeys((*config.models, *config.runs)))
    local = [model for model in find_local_models(roots) if command in (None, model.task)]
    return Models(models=model_rows(task), local=local)


@router.get("/tasks/{task}/settings")
def settings(
    task: Annotated[str, PathParameter(max_length=100)],
    studio: Services,
    model: PathText | None = None,
    preset: Annotated[str | None, Query(max_length=100)] = None,
    data: PathText | None = None,
    from_scratch: bool | None = None,
) -> SettingsTable:
    """Return the settings of a task, with the values that model, preset and data give them."""
    zoo, config = zoo_of(task), studio.config
    given: dict[str, Value] = {"preset": preset, "from_scratch": from_scratch}
    given["model"] = model_name(zoo, model, config) if model else None
    given["data"] = str(resolve_below(data, config.data, "data")) if data else None
    return settings_table(zoo, given, config.augment)
