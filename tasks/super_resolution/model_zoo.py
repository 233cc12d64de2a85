"""Model zoo of super-resolution.

Imports no torch, since the models are listed before one is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visionloop.tasks.model_zoo import Model, ModelZoo, zoo_fields
from visionloop.tasks.super_resolution.architectures import MODEL_NAMES
from visionloop.tasks.super_resolution.config import SuperResolutionConfig
from visionloop.tasks.super_resolution.recipes import PRESETS, recipe
from visionloop.tasks.super_resolution.scores import METRICS

if TYPE_CHECKING:
    from torch import nn


def build_network(model: Model) -> nn.Module:
    """Build the torch module of a model of the zoo, with random weights."""
    from visionloop.tasks.super_resolution.model import new_config, new_model

    config = new_config(model.architecture_name, model.upscale_factor)
    network: nn.Module = new_model(config, init="transformers")
    return network


MODEL_ZOO = ModelZoo(
    **zoo_fields("super_resolution"),
    model_names=MODEL_NAMES,
    config_class=SuperResolutionConfig,
    recipe=recipe,
    presets=PRESETS,
    build_network=build_network,
    metrics=METRICS,
)
