"""Model zoo of semantic segmentation.

Imports no torch, since the models are listed before one is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visionloop.tasks.model_zoo import Model, ModelZoo, zoo_fields
from visionloop.tasks.segmentation.architectures import MODEL_NAMES
from visionloop.tasks.segmentation.config import SegmentationConfig
from visionloop.tasks.segmentation.recipes import PRESETS, recipe
from visionloop.tasks.segmentation.scores import METRICS

if TYPE_CHECKING:
    from torch import nn


def build_network(model: Model) -> nn.Module:
    """Build the torch module of a model of the zoo, with random weights."""
    from visionloop.tasks.segmentation.model import new_config, new_model

    config = new_config(model.architecture_name)
    config.image_size = model.input_size
    config.num_queries = model.queries or config.num_queries
    network: nn.Module = new_model(config, [f"class {i}" for i in range(model.classes or 0)])
    return network


MODEL_ZOO = ModelZoo(
    **zoo_fields("segmentation"),
    model_names=MODEL_NAMES,
    config_class=SegmentationConfig,
    recipe=recipe,
    presets=PRESETS,
    build_network=build_network,
    metrics=METRICS,
)
