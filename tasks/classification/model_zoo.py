"""Model zoo of image classification.

Imports no torch, since the models are listed before one is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visionloop.tasks.classification.architectures import MODEL_NAMES
from visionloop.tasks.classification.config import ClassificationConfig
from visionloop.tasks.classification.recipes import PRESETS, recipe
from visionloop.tasks.classification.scores import METRICS
from visionloop.tasks.huggingface.hub import ModelSource
from visionloop.tasks.model_zoo import Model, ModelZoo, zoo_fields

if TYPE_CHECKING:
    from torch import nn


def build_network(model: Model) -> nn.Module:
    """Build the torch module of a model of the zoo, with random weights."""
    from visionloop.tasks.classification.model import new_model

    classes = [f"class {i}" for i in range(model.classes or 0)]
    source = ModelSource(model.architecture_name, None, weights=False)
    network: nn.Module = new_model(source, classes)
    return network


MODEL_ZOO = ModelZoo(
    **zoo_fields("classification"),
    model_names=MODEL_NAMES,
    config_class=ClassificationConfig,
    recipe=recipe,
    presets=PRESETS,
    build_network=build_network,
    metrics=METRICS,
)
