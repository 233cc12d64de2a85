"""Tables of tasks, models and metrics, which do not change while a server runs."""

import json
import logging
import os
import subprocess
import threading
from functools import cache
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from visionloop.bin.model_zoo.listing import MODEL_ZOOS, all_models, zoos_of
from visionloop.bin.web.config import StudioConfig
from visionloop.bin.web.jobs.spec import python_command
from visionloop.bin.web.problems import Problem
from visionloop.bin.web.security.roots import resolve_below
from visionloop.engine.errors import UserError
from visionloop.tasks.model_zoo import Model, ModelZoo

TASKS = Path(__file__).parents[3] / "tasks"
TIMEOUT = 120  # seconds for the import of torch on a busy machine
log = logging.getLogger("visionloop.studio")


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


METRICS = TypeAdapter(dict[str, TaskMetrics])


class Tables:
    """The tables of a server.

    The metrics need torch, so a process of their own prints them once for each version; a file in
    the state folder keeps them.
    """

    def __init__(self, config: StudioConfig) -> None:
        self.config = config
        self._metrics: dict[str, TaskMetrics] | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Read the metrics in a thread, so that the first page need not wait for them."""
        threading.Thread(target=self._warm_up, name="metrics", daemon=True).start()

    def _warm_up(self) -> None:
        try:
            self.metrics()
        except Problem as problem:
            log.warning("metrics: %s", problem)

    def metrics(self) -> dict[str, TaskMetrics]:
        """Return {task type: scores}. Raises Problem (503) where the command fails."""
        with self._lock:
            if self._metrics is None:
                self._metrics = self._stored_metrics() or self._fresh_metrics()
            return self._metrics

    @property
    def known_metrics(self) -> dict[str, TaskMetrics]:
        """The metrics once they are read, {} before: for a list that need not wait for them."""
        return self._metrics or {}

    @property
    def _file(self) -> Path:
        # a checkout changes without a new version
        changed = max(path.stat().st_mtime_ns for path in TASKS.glob("*/evaluate.py"))
        return self.config.state / f"metrics-{metadata.version('visionloop')}-{changed}.json"

    def _stored_metrics(self) -> dict[str, TaskMetrics] | None:
        try:
            return METRICS.validate_json(self._file.read_bytes())
        except (OSError, ValidationError):
            return None

    def _fresh_metrics(self) -> dict[str, TaskMetrics]:
        command = python_command("models", "metrics", "--json")
        try:
            done = subprocess.run(command, capture_output=True, check=True, timeout=TIMEOUT)
            metrics = METRICS.validate_json(done.stdout)
        except (OSError, subprocess.SubprocessError, ValidationError) as error:
            detail = f"bin/models.py metrics failed ({type(error).__name__})"
            raise Problem(503, "no_metrics", detail, hint="run it in a terminal") from None
        part = self._file.with_suffix(".part")
        try:
            part.write_text(json.dumps(METRICS.dump_python(metrics)), encoding="ascii")
            os.replace(part, self._file)
        except OSError as error:
            log.warning("%s: %s", part, error.strerror)
        return metrics


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
