"""The model zoo: the models of each task, with size, license, published scores and their sources.

Imports no torch, so that `models list` is quick. The models are data, in tasks/<task>/models.toml;
recommended settings come from the task's recipe.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from visionloop.engine.config.options import resolve
from visionloop.engine.config.train_config import TaskConfig, TrainConfig
from visionloop.engine.types import JsonObject, Scores
from visionloop.tasks.huggingface.hub import ModelNames

if TYPE_CHECKING:
    from torch import nn

    from visionloop.engine.metric import MetricSpec

# priorities: the recommended model of a task, its family, models that are only a start for it,
# and architectures without released weights
CHOSEN, FAMILY, START, UNRELEASED = 1, 2, 3, 4
FRAMEWORK = "huggingface"


@dataclass(frozen=True)
class UseCase:
    """An application of a model, with the scores of training on `dataset`.

    before, after: {metric key: score} of the data without and with that training; None: not
    measured.
    """

    title: str
    description: str
    dataset: str
    before: Scores | None = None
    after: Scores | None = None

    def as_json(self) -> JsonObject:
        """Return the use case as platforms read it."""
        return {
            "title": self.title,
            "description": self.description,
            "dataset": self.dataset,
            "metrics": {"before": self.before, "after": self.after},
        }


@dataclass(frozen=True)
class Model:
    """A model of the zoo: the part of its row that does not follow from names and recipe.

    model_id: hub id, or the name of an architecture without released weights.
    architecture_name: of the task's ARCHITECTURES; `model_id` again without released weights.
    architecture: the architecture in words.
    params: number of weights, with a head of `classes` classes and `queries` queries.
    input_size: side in pixels of the images that the model was trained on.
    priority: place in a list: CHOSEN, FAMILY, START or UNRELEASED.
    sources: {key of the row: source of its value}, for every number and for the license.
    classes: None: the model has no classes.
    queries: None: those of the architecture.
    performance: {dataset: {metric: score}}, shares in 0..1; None: not measured.
    weights_license: None: not known.
    pickled: the released weights are a pickle, which `models convert-weights` rewrites.
    """

    model_id: str
    architecture_name: str
    display_name: str
    description: str
    architecture: str
    params: int
    input_size: int
    priority: int
    sources: dict[str, str]
    classes: int | None = None
    queries: int | None = None
    upscale_factor: int | None = None
    performance: dict[str, Scores] | None = None
    weights_license: str | None = None
    tags: tuple[str, ...] = ()
    use_cases: tuple[UseCase, ...] = ()
    pickled: bool = False


@dataclass(frozen=True)
class ModelZoo:
    """The models of one task, the chosen one first, and the task as a user interface shows it.

    value: the task type on platforms.
    command: name of the task's launcher.
    label: {language: text}.
    primary_metric: key of the metric that platforms show.
    data_layout: paths below the data folder.
    model_names: the names that `--model` accepts.
    config_class: the task's settings.
    recipe: of the task's recipes.py; recipe_source: where its numbers are from.
    presets: the values of `--preset`.
    build_network: builds the torch module of a model, with random weights; imports torch.
    metrics: the task's scores, the one that picks best/ first.
    """

    value: str
    command: str
    label: dict[str, str]
    icon: str
    primary_metric: str
    data_layout: tuple[str, ...]
    model_names: ModelNames
    config_class: type[TaskConfig]
    recipe: Callable[[JsonObject], JsonObject]
    presets: tuple[str, ...]
    recipe_source: str
    models: tuple[Model, ...]
    build_network: Callable[[Model], nn.Module]
    metrics: tuple[MetricSpec, ...]

    def as_json(self) -> JsonObject:
        """Return the task as `models tasks --json` prints it."""
        return {
            "value": self.value,
            "label": self.label,
            "icon": self.icon,
            "primary_metric": self.primary_metric,
            "data_layout": list(self.data_layout),
        }

    def row(self, model: Model) -> JsonObject:
        """Return the row of a model, with exactly the keys that platforms read."""
        settings = resolve(
            (self.config_class, TrainConfig), {"model": model.model_id}, recipe=self.recipe
        )
        aliases = [
            name
            for name, model_id in self.model_names.names().items()
            if model_id == model.model_id != name
        ]
        recommended = dict.fromkeys(
            ("recommended_batch_size", "recommended_lr"), self.recipe_source
        )
        return {
            "display_name": model.display_name,
            "description": model.description,
            "framework": FRAMEWORK,
            "task_type": self.value,
            "model_id": model.model_id,
            "params": model.params,
            "input_size": model.input_size,
            "upscale_factor": model.upscale_factor,
            "pretrained_available": self.is_released(model),
            "recommended_batch_size": settings["batch_size"].value,
            "recommended_lr": settings["lr"].value,
            "tags": list(model.tags),
            "priority": model.priority,
            "architecture": model.architecture,
            "performance": model.performance,
            "use_cases": [use_case.as_json() for use_case in model.use_cases],
            "aliases": aliases,
            "weights_license": model.weights_license,
            "sources": recommended | model.sources,
        }

    def is_released(self, model: Model) -> bool:
        """Return True when there are weights to download."""
        return model.model_id not in self.model_names.architectures

    def find(self, name: str) -> Model | None:
        """Return the model that a name of `--model` stands for; None for any other name."""
        model_id = self.model_names.names().get(name)
        return next((model for model in self.models if model.model_id == model_id), None)


@cache
def read_models(task: str) -> JsonObject:
    """Read the models.toml of a task, by the name of its folder. Read-only: callers share it."""
    path = Path(__file__).parent / task / "models.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def released_weights(tables: JsonObject) -> dict[str, str]:
    """Return {hub id: architecture} of the released weights, in the order of the tables.

    tables: of `read_models`.
    """
    return {
        model["model_id"]: model["architecture_name"]
        for model in tables["models"]
        if _is_released(model)
    }


def zoo_fields(command: str, tables: JsonObject | None = None) -> JsonObject:
    """Return the fields of ModelZoo that are data: all but the names and functions of the task.

    command: name of the task's launcher; tables: None: of the models.toml of that name.
    """
    tables = tables or read_models(command)
    models = tuple(_model(table, tables["defaults"]) for table in tables["models"])
    data_layout = tuple(tables["task"]["data_layout"])
    return tables["task"] | {"command": command, "data_layout": data_layout, "models": models}


def _is_released(table: JsonObject) -> bool:
    return bool(table["model_id"] != table["architecture_name"])


def _model(table: JsonObject, defaults: JsonObject) -> Model:
    """Return a model of models.toml; `defaults` are for those with released weights."""
    if not _is_released(table):
        defaults = {}
    fields = defaults | table
    fields["sources"] = (
        {"params": _source_of_params(fields.get("classes"), fields.get("queries"))}
        | defaults.get("sources", {})
        | table.get("sources", {})
    )
    fields["tags"] = tuple(fields["tags"])
    fields["use_cases"] = tuple(UseCase(**case) for case in fields.get("use_cases", ()))
    return Model(**fields)


def _source_of_params(classes: int | None, queries: int | None) -> str:
    """Return the source of `params`. classes, queries: of the head that is counted too."""
    head = (f" with {classes} classes" if classes else "") + (
        f" and {queries} queries" if queries else ""
    )
    return f"counted{head} on the meta device; `bin/models.py verify` counts again"
