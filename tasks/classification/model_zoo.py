"""The models table of image classification. No torch here: it is listed before a model is built."""

from visionloop.tasks.classification.architectures import ARCHITECTURES, REGISTRY, RELEASED
from visionloop.tasks.classification.config import ClassificationConfig
from visionloop.tasks.classification.recipes import recipe
from visionloop.tasks.model_zoo import (
    ARCHITECTURE,
    CHOSEN,
    RELATED,
    Model,
    TaskModels,
    UseCase,
    counted,
)

IMAGENET = "ImageNet-1k validation"
IMAGENET_CLASSES = 1000
TIMM = "top-1 of results/results-imagenet.csv of huggingface/pytorch-image-models"


def _architecture(name):
    hidden, layers, heads, mlp, patch, _ = ARCHITECTURES[name]
    return (
        f"ViT: {layers} layers of width {hidden}, {heads} heads, MLP {mlp}, patches of {patch} px"
    )


def _released(name, *, accuracy, score_source, licence_source, **fields):
    """A row with released weights; they are of ImageNet-1k's classes."""
    return Model(
        model_id=RELEASED[name],
        architecture=_architecture(name),
        input_size=ARCHITECTURES[name][-1],
        classes=IMAGENET_CLASSES,
        performance={IMAGENET: {"accuracy": accuracy}},
        sources={
            "params": counted(IMAGENET_CLASSES),
            "input_size": "the size in the model's name",
            "performance": score_source,
            "weights_license": licence_source,
        },
        **fields,
    )


def build_network(model):
    """The torch module of a row, with random weights."""
    from visionloop.tasks.classification.model import new_model
    from visionloop.tasks.huggingface.hub import ModelSource

    name = REGISTRY.architecture_of.get(model.model_id, model.model_id)
    return new_model(
        ModelSource(name, None, weights=False), [f"class {i}" for i in range(model.classes)]
    )


def load_metrics():
    """The task's MetricSpecs."""
    from visionloop.tasks.classification.evaluate import METRICS

    return METRICS


TABLE = TaskModels(
    value="image_classification",
    command="classification",
    label={"en": "Image classification", "ko": "이미지 분류"},
    icon="🏷️",
    primary_metric="accuracy",
    data_layout=("train/<class>/*.jpg", "val/<class>/*.jpg"),
    registry=REGISTRY,
    config_class=ClassificationConfig,
    recipe=recipe,
    recipe_source="default preset of tasks/classification/recipes.py: FINETUNE.md of facebookresearch/mae; own runs without weights",
    build_network=build_network,
    load_metrics=load_metrics,
    use_cases=(
        UseCase(
            "Your own classes", "Sort images into the classes of your folders, starting from weights that know ImageNet.",
            "your own: one folder of images per class",
        ),
    ),
    models=(
        _released(
            "vit-base",
            display_name="ViT-B/16 224",
            description="Vision Transformer, trained on ImageNet-21k and then on ImageNet-1k by its authors.",
            params=86_567_656,
            accuracy=0.8131,
            score_source=f"huggingface/transformers issue 28264, with the model's own processor; {TIMM} has 81.78 with a crop of 0.9",
            weights_license="apache-2.0",
            licence_source="licence tag of the model on the hub, read in an index of it (unfragile.ai, 2026-05)",
            tags=("vit", "imagenet"),
            priority=CHOSEN,
        ),
        _released(
            "vit-small",
            display_name="DeiT-S/16 224",
            description="The same network at half the width, trained on ImageNet-1k alone.",
            params=22_050_664,
            accuracy=0.7986,
            score_source=TIMM,
            licence_source="the model's page could not be read",
            tags=("vit", "deit", "imagenet"),
            priority=RELATED,
        ),
        _released(
            "vit-tiny",
            display_name="DeiT-Ti/16 224",
            description="The same network at a quarter of the width, trained on ImageNet-1k alone.",
            params=5_717_416,
            accuracy=0.7219,
            score_source=TIMM,
            weights_license="apache-2.0",
            licence_source="front matter of the model's README on the hub",
            tags=("vit", "deit", "imagenet"),
            priority=RELATED,
        ),
        Model(
            model_id="tiny",
            display_name="Tiny ViT",
            description="A small Vision Transformer of ours without released weights, which trains on a CPU in minutes.",
            architecture=_architecture("tiny"),
            params=697_066,
            input_size=ARCHITECTURES["tiny"][-1],
            classes=10,
            tags=("vit", "small", "from scratch"),
            priority=ARCHITECTURE,
            use_cases=(
                UseCase(
                    "Few images, no GPU", "Hand signs 0 to 9, 1000 steps of 32 from random weights, mean of three seeds.",
                    "Sign-Language-Digits-Dataset: 1633 photographs to train on, 429 of other pupils to score",
                    before={"accuracy": 0.10}, after={"accuracy": 0.802},
                ),
            ),
            sources={
                "params": counted(10), "input_size": "tasks/classification/architectures.py",
                "use_cases": "README.md, Results; before: chance",
            },
        ),
    ),
)  # fmt: skip
