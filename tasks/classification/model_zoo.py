"""Model zoo of image classification.

Imports no torch, since the models are listed before one is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visionloop.tasks.classification.architectures import ARCHITECTURES, MODEL_NAMES, PRETRAINED
from visionloop.tasks.classification.config import ClassificationConfig
from visionloop.tasks.classification.recipes import recipe
from visionloop.tasks.model_zoo import (
    ARCHITECTURE,
    CHOSEN,
    RELATED,
    Model,
    ModelZoo,
    UseCase,
    counted,
)

if TYPE_CHECKING:
    from torch import nn

    from visionloop.engine.metric import MetricSpec

IMAGENET = "ImageNet-1k validation"
IMAGENET_CLASSES = 1000
TIMM = "top-1 of results/results-imagenet.csv of huggingface/pytorch-image-models"


def build_network(model: Model) -> nn.Module:
    """Build the module of a row with random weights."""
    from visionloop.tasks.classification.model import new_model
    from visionloop.tasks.huggingface.hub import ModelSource

    name = MODEL_NAMES.architecture_of.get(model.model_id, model.model_id)
    classes = [f"class {i}" for i in range(model.classes or 0)]
    network: nn.Module = new_model(ModelSource(name, None, weights=False), classes)
    return network


def load_metrics() -> tuple[MetricSpec, ...]:
    """Return the metrics of the task."""
    from visionloop.tasks.classification.evaluate import METRICS

    return METRICS


def _describe_architecture(name: str) -> str:
    architecture = ARCHITECTURES[name]
    return (
        f"ViT: {architecture.num_layers} layers of width {architecture.hidden_size},"
        f" {architecture.num_heads} heads, MLP {architecture.mlp_size},"
        f" patches of {architecture.patch_size} px"
    )


def _pretrained_model(
    name: str,
    *,
    display_name: str,
    description: str,
    params: int,
    accuracy: float,
    score_source: str,
    license_source: str,
    weights_license: str | None,
    tags: tuple[str, ...],
    priority: int,
) -> Model:
    """Return the row of released weights with the classes of ImageNet-1k."""
    return Model(
        model_id=PRETRAINED[name],
        display_name=display_name,
        description=description,
        architecture=_describe_architecture(name),
        params=params,
        input_size=ARCHITECTURES[name].image_size,
        classes=IMAGENET_CLASSES,
        performance={IMAGENET: {"accuracy": accuracy}},
        weights_license=weights_license,
        tags=tags,
        priority=priority,
        sources={
            "params": counted(IMAGENET_CLASSES),
            "input_size": "the size in the model's name",
            "performance": score_source,
            "weights_license": license_source,
        },
    )


MODELS = (
    _pretrained_model(
        "vit-base",
        display_name="ViT-B/16 224",
        description="Vision Transformer, trained on ImageNet-21k and then on ImageNet-1k by its"
        " authors.",
        params=86_567_656,
        accuracy=0.8131,
        score_source="huggingface/transformers issue 28264, with the model's own processor;"
        f" {TIMM} has 81.78 with a crop of 0.9",
        weights_license="apache-2.0",
        license_source="license tag of the model on the hub, read in an index of it"
        " (unfragile.ai, 2026-05)",
        tags=("vit", "imagenet"),
        priority=CHOSEN,
    ),
    _pretrained_model(
        "vit-small",
        display_name="DeiT-S/16 224",
        description="The same network at half the width, trained on ImageNet-1k alone.",
        params=22_050_664,
        accuracy=0.7986,
        score_source=TIMM,
        weights_license=None,
        license_source="the model's page could not be read",
        tags=("vit", "deit", "imagenet"),
        priority=RELATED,
    ),
    _pretrained_model(
        "vit-tiny",
        display_name="DeiT-Ti/16 224",
        description="The same network at a quarter of the width, trained on ImageNet-1k alone.",
        params=5_717_416,
        accuracy=0.7219,
        score_source=TIMM,
        weights_license="apache-2.0",
        license_source="front matter of the model's README on the hub",
        tags=("vit", "deit", "imagenet"),
        priority=RELATED,
    ),
    Model(
        model_id="tiny",
        display_name="Tiny ViT",
        description="A small Vision Transformer of our own without released weights, which trains"
        " on a CPU in minutes.",
        architecture=_describe_architecture("tiny"),
        params=697_066,
        input_size=ARCHITECTURES["tiny"].image_size,
        classes=10,
        tags=("vit", "small", "from scratch"),
        priority=ARCHITECTURE,
        use_cases=(
            UseCase(
                "Few images, no GPU",
                "Hand signs 0 to 9, 1000 steps of 32 from random weights, mean of three seeds.",
                "Sign-Language-Digits-Dataset: 1633 photographs to train on, 429 of other pupils"
                " to score",
                before={"accuracy": 0.10},
                after={"accuracy": 0.802},
            ),
        ),
        sources={
            "params": counted(10),
            "input_size": "tasks/classification/architectures.py",
            "use_cases": "README.md, Results; before: chance",
        },
    ),
)

MODEL_ZOO = ModelZoo(
    value="image_classification",
    command="classification",
    label={"en": "Image classification", "ko": "이미지 분류"},
    icon="🏷️",
    primary_metric="accuracy",
    data_layout=("train/<class>/*.jpg", "val/<class>/*.jpg"),
    model_names=MODEL_NAMES,
    config_class=ClassificationConfig,
    recipe=recipe,
    recipe_source="default preset of tasks/classification/recipes.py: FINETUNE.md of"
    " facebookresearch/mae; own runs without weights",
    build_network=build_network,
    load_metrics=load_metrics,
    use_cases=(
        UseCase(
            "Your own classes",
            "Sort images into the classes of your folders, starting from weights trained on"
            " ImageNet.",
            "your own: one folder of images per class",
        ),
    ),
    models=MODELS,
)
