"""Architectures of image classification, and their released weights, which models.toml lists.

Imports no torch, since recipes read the table before a model exists.
"""

from typing import NamedTuple

from visionloop.tasks.huggingface.hub import ModelNames
from visionloop.tasks.model_zoo import read_models, released_weights


class Architecture(NamedTuple):
    """Hyperparameters of a Vision Transformer; patch and image size in pixels."""

    hidden_size: int
    num_layers: int
    num_heads: int
    mlp_size: int
    patch_size: int
    image_size: int


# vit-tiny and vit-small: DeiT paper, table 1 (arXiv:2012.12877); vit-base: ViT paper, table 1
# (arXiv:2010.11929). `tiny` is our own and trains on a CPU in minutes.
ARCHITECTURES = {
    "tiny": Architecture(96, 6, 3, 384, 8, 64),
    "vit-tiny": Architecture(192, 12, 3, 768, 16, 224),
    "vit-small": Architecture(384, 12, 6, 1536, 16, 224),
    "vit-base": Architecture(768, 12, 12, 3072, 16, 224),
}

MODEL_NAMES = ModelNames(
    architectures=tuple(ARCHITECTURES),
    default="tiny",
    example="google/vit-base-patch16-224",
    architecture_of=released_weights(read_models("classification")),
)
