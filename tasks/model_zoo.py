"""The models table: what platforms and people are told of each model and each task. No torch here, so that listing is quick.

The names are those of a task's `ModelRegistry`, the recommended settings those of its recipe: neither
is written a second time.
"""

from collections.abc import Callable
from dataclasses import dataclass

from visionloop.engine.config.options import resolve
from visionloop.engine.config.train_config import TrainConfig
from visionloop.tasks.huggingface.hub import ModelRegistry

CHOSEN, RELATED, START, ARCHITECTURE = (
    1,
    2,
    3,
    4,
)  # priorities: ours to recommend; its family; only a start for the task; no weights
FRAMEWORK = "huggingface"


@dataclass(frozen=True)
class UseCase:
    """What a model is good for. before, after: {metric key: score} of training on `dataset`; None: not measured."""

    title: str
    description: str
    dataset: str
    before: dict | None = None
    after: dict | None = None

    def as_json(self):
        return {
            "title": self.title,
            "description": self.description,
            "dataset": self.dataset,
            "metrics": {"before": self.before, "after": self.after},
        }


@dataclass(frozen=True)
class Model:
    """One row, as far as it is a fact of the model's own.

    model_id: hub id, or the name of an architecture without weights; classes: of the head that
    `params` counts, None: no classes; input_size: side in pixels of the images it was trained on;
    performance: {dataset: {metric: score}}, shares as 0..1; sources: {key of the row: where its
    value is from}, for every number and for the licence. None: not measured, or not known.
    """

    model_id: str
    display_name: str
    description: str
    architecture: str
    params: int
    input_size: int
    priority: int
    sources: dict
    classes: int | None = None
    upscale_factor: int | None = None
    performance: dict | None = None
    weights_license: str | None = None
    tags: tuple[str, ...] = ()
    use_cases: tuple[UseCase, ...] = ()


@dataclass(frozen=True)
class TaskModels:
    """A task as a user interface shows it, and its models, the chosen one first.

    value: the task type; command: what its launcher is called; label: {language: text};
    primary_metric: the key that platforms show; data_layout: paths below the data folder; recipe:
    of the task's recipes.py, and `recipe_source` where its numbers are from. build_network(model):
    the torch module of a row, random; load_metrics(): the task's MetricSpecs, the one that picks
    best/ first. Both import torch.
    """

    value: str
    command: str
    label: dict
    icon: str
    primary_metric: str
    data_layout: tuple[str, ...]
    registry: ModelRegistry
    config_class: type
    recipe: Callable
    recipe_source: str
    models: tuple[Model, ...]
    build_network: Callable
    load_metrics: Callable
    use_cases: tuple[UseCase, ...]  # of every released model that has none of its own

    def as_json(self):
        """What `tasks --json` prints."""
        return {
            "value": self.value,
            "label": self.label,
            "icon": self.icon,
            "primary_metric": self.primary_metric,
            "data_layout": list(self.data_layout),
        }

    def row(self, model):
        """The row of a Model with what follows from registry and recipe: exactly the keys that platforms read."""
        released = self.is_released(model)
        settings = resolve(
            (self.config_class, TrainConfig), {"model": model.model_id}, recipe=self.recipe
        )
        aliases = [
            name
            for name, model_id in self.registry.names().items()
            if model_id == model.model_id != name
        ]
        cases = model.use_cases or (self.use_cases if released else ())
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
            "pretrained_available": released,
            "recommended_batch_size": settings["batch_size"].value,
            "recommended_lr": settings["lr"].value,
            "tags": list(model.tags),
            "priority": model.priority,
            "architecture": model.architecture,
            "performance": model.performance,
            "use_cases": [case.as_json() for case in cases],
            "aliases": aliases,
            "weights_license": model.weights_license,
            "sources": recommended | model.sources,
        }

    def is_released(self, model):
        """True when there are weights to download."""
        return model.model_id not in self.registry.architectures

    def find(self, name):
        """The Model that a name of the registry stands for; None for any other name."""
        model_id = self.registry.names().get(name)
        return next((model for model in self.models if model.model_id == model_id), None)


def counted(classes=None, queries=None):
    """The source of `params`. classes, queries: of the head that is counted with the rest."""
    head = (f" with {classes} classes" if classes else "") + (
        f" and {queries} queries" if queries else ""
    )
    return f"counted{head} on the meta device; `bin/models.py verify` counts again"
