"""Tables of tasks, models and metrics, which do not change while a server runs."""

from functools import cache

from pydantic import BaseModel, Field

from visionloop.bin.model_zoo.listing import MODEL_ZOOS, all_models, metrics_of, zoos_of
from visionloop.bin.web.config import StudioConfig
from visionloop.bin.web.problems import Problem
from visionloop.bin.web.security.roots import resolve_below
from visionloop.engine.errors import UserError
from visionloop.tasks.model_zoo import Model, ModelZoo


class TaskRow(BaseModel):
    """A task as `models tasks --json` prints it, and the name of its command."""

    value: str
    label: dict[str, str]
    icon: str
    primary_metric: str
    data_layout: list[str]
    command: str


class UseCaseRow(BaseModel):
    """An application of a model, with scores without and with training on `dataset`."""

    title: str
    description: str
    dataset: str
    metrics: dict[str, dict[str, float | None] | None]


class ModelRow(BaseModel):
    """A model as `models list --json` prints it, and where its weights are."""

    display_name: str
    description: str
    framework: str
    task_type: str
    model_id: str
    params: int
    input_size: int
    upscale_factor: int | None
    pretrained_available: bool
    recommended_batch_size: int
    recommended_lr: float
    tags: list[str]
    priority: int
    architecture: str
    performance: dict[str, dict[str, float]] | None
    use_cases: list[UseCaseRow]
    aliases: list[str]
    weights_license: str | None
    sources: dict[str, str]
    command: str
    weights: str = Field(description="cached: on this machine; hub: to be downloaded; none")


class MetricRow(BaseModel):
    """A score of a task."""

    key: str
    label: str
    format: str
    higher_is_better: bool
    description: str


class TaskMetrics(BaseModel):
    """The scores of a task: the one that is shown first, and the one that picks best/."""

    primary: str
    best: str
    metrics: list[MetricRow]


@cache
def metrics_table() -> dict[str, TaskMetrics]:
    """Return {task type: scores}."""
    return {zoo.value: TaskMetrics(**metrics_of(zoo)) for zoo in MODEL_ZOOS}


def zoo_of(task: str) -> ModelZoo:
    """Return the model zoo of a task by its type or command. Raises Problem (404)."""
    try:
        (zoo,) = zoos_of(task)
    except UserError as error:
        raise Problem(404, "unknown_task", str(error), field="task") from None
    return zoo


@cache
def task_rows() -> tuple[TaskRow, ...]:
    """Return the rows of all tasks."""
    return tuple(TaskRow(**zoo.as_json(), command=zoo.command) for zoo in MODEL_ZOOS)


def model_rows(task: str | None) -> list[ModelRow]:
    """Return the models of a task or of all, the recommended ones first."""
    name = None if task is None else zoo_of(task).value
    return [
        _row_of(zoo.value, model.model_id).model_copy(update={"weights": weights_of(zoo, model)})
        for zoo, model in all_models(name)
    ]


@cache
def _row_of(task: str, model_id: str) -> ModelRow:
    zoo = zoo_of(task)
    model = next(model for model in zoo.models if model.model_id == model_id)
    return ModelRow(**zoo.row(model), command=zoo.command, weights="none")


def weights_of(zoo: ModelZoo, model: Model) -> str:
    """Return "cached" for weights on this machine, "hub" for others, "none" without any."""
    if not zoo.is_released(model):
        return "none"
    from huggingface_hub import try_to_load_from_cache

    names = ("model.safetensors", "model.safetensors.index.json")
    in_cache = any(isinstance(try_to_load_from_cache(model.model_id, name), str) for name in names)
    return "cached" if in_cache else "hub"


def model_name(zoo: ModelZoo, name: str, config: StudioConfig) -> str:
    """Return a name of `--model` that a client may give: one of the table, or a path below a root.

    Raises Problem for any other.
    """
    if name in zoo.model_names.names():
        return name
    if not name.startswith("/"):
        raise Problem(
            422,
            "unknown_model",
            f"model: {name} is not a model of {zoo.command}",
            field="model",
            hint="choose one of the models page, or a folder below a root of models or runs",
        )
    return str(resolve_below(name, (*config.models, *config.runs), "model"))
