"""Model zoo of object detection.

Imports no torch, since the models are listed before one is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visionloop.tasks.detection.architectures import MODEL_NAMES
from visionloop.tasks.detection.config import DetectionConfig
from visionloop.tasks.detection.recipes import PRESETS, recipe
from visionloop.tasks.detection.scores import METRICS
from visionloop.tasks.model_zoo import Model, ModelZoo, zoo_fields

if TYPE_CHECKING:
    from torch import nn


def build_network(model: Model) -> nn.Module:
    """Build the torch module of a model of the zoo, with random weights."""
    from visionloop.tasks.detection.model import new_config, new_model

    classes = [f"class {i}" for i in range(model.classes or 0)]
    network: nn.Module = new_model(new_config(model.architecture_name), classes)
    return network


MODEL_ZOO = ModelZoo(
    **zoo_fields("detection"),
    model_names=MODEL_NAMES,
    config_class=DetectionConfig,
    recipe=recipe,
    presets=PRESETS,
    build_network=build_network,
    metrics=METRICS,
)
