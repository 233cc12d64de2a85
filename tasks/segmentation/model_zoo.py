"""Model zoos of semantic, instance and panoptic segmentation.

Imports no torch, since the models are listed before one is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visionloop.tasks.model_zoo import Model, ModelZoo, zoo_fields
from visionloop.tasks.segmentation.recipes import PRESETS, EomtRecipe
from visionloop.tasks.segmentation.releases import model_tables

if TYPE_CHECKING:
    from torch import nn

    from visionloop.engine.config.train_config import TaskConfig
    from visionloop.engine.metric import MetricSpec


def model_zoo(
    task: str,
    config_class: type[TaskConfig],
    recipe: EomtRecipe,
    metrics: tuple[MetricSpec, ...],
) -> ModelZoo:
    """Return the model zoo of a task, by the name of its launcher."""
    return ModelZoo(
        **zoo_fields(task, model_tables(task)),
        model_names=recipe.names,
        config_class=config_class,
        recipe=recipe.recipe,
        presets=PRESETS,
        build_network=build_network,
        metrics=metrics,
    )


def build_network(model: Model) -> nn.Module:
    """Build the torch module of a model of the zoo, with random weights."""
    from visionloop.tasks.segmentation.model import new_config, new_model

    config = new_config(model.architecture_name)
    config.image_size = model.input_size
    config.num_queries = model.queries or config.num_queries
    network: nn.Module = new_model(config, [f"class {i}" for i in range(model.classes or 0)])
    return network
