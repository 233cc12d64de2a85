"""The model zoo of semantic segmentation. Imports no torch, so that it is listed quickly."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from visionloop.tasks.model_zoo import (
    ARCHITECTURE,
    CHOSEN,
    RELATED,
    START,
    Model,
    ModelZoo,
    UseCase,
    counted,
)
from visionloop.tasks.segmentation.architectures import ARCHITECTURES, MODEL_NAMES, OWNER
from visionloop.tasks.segmentation.config import SegmentationConfig
from visionloop.tasks.segmentation.recipes import recipe

if TYPE_CHECKING:
    from torch import nn

    from visionloop.engine.metric import MetricSpec

ZOO = "model_zoo/dinov2.md of tue-mps/eomt"
# targets of a released head: (dataset, classes, queries, metric)
HEADS = {
    "ade20k_semantic": ("ADE20K", 150, 100, "miou"),
    "cityscapes_semantic": ("Cityscapes", 19, 100, "miou"),
    "coco_panoptic": ("COCO", 133, 200, "panoptic_quality"),
    "ade20k_panoptic": ("ADE20K", 150, 200, "panoptic_quality"),
    "coco_instance": ("COCO", 80, 200, "mask_AP"),
}
# in the order of the list: number of weights, and score as published
RELEASED = {
    "ade20k_semantic_eomt_large_512": (316_020_887, 0.584),
    "cityscapes_semantic_eomt_large_1024": (319_032_340, 0.842),
    "coco_panoptic_eomt_small_640_2x": (23_975_942, 0.467),
    "coco_panoptic_eomt_base_640_2x": (93_663_110, 0.516),
    "coco_panoptic_eomt_large_640": (316_695_686, 0.560),
    "coco_panoptic_eomt_large_1280": (321_610_886, 0.583),
    "coco_panoptic_eomt_giant_640": (1_163_622_022, 0.570),
    "coco_panoptic_eomt_giant_1280": (1_170_994_822, 0.592),
    "ade20k_panoptic_eomt_large_640": (316_713_111, 0.506),
    "ade20k_panoptic_eomt_large_1280": (321_628_311, 0.517),
    "ade20k_panoptic_eomt_giant_640": (1_163_648_151, 0.513),
    "ade20k_panoptic_eomt_giant_1280": (1_171_020_951, 0.528),
    "coco_instance_eomt_large_640": (316_641_361, 0.452),
    "coco_instance_eomt_large_1280": (321_556_561, 0.488),
}


def build_network(model: Model) -> nn.Module:
    """Build the torch module of a model, with random weights."""
    from visionloop.tasks.segmentation.model import new_config, new_model

    config = new_config(MODEL_NAMES.architecture_of.get(model.model_id, model.model_id))
    config.image_size = model.input_size
    if model.model_id.startswith(OWNER):
        config.num_queries = HEADS[_parts(model.model_id.removeprefix(OWNER))[0]][2]
    assert model.classes is not None
    network: nn.Module = new_model(config, [f"class {i}" for i in range(model.classes)])
    return network


def load_metrics() -> tuple[MetricSpec, ...]:
    """Return the MetricSpecs of the task."""
    from visionloop.tasks.segmentation.evaluate import METRICS

    return METRICS


def _parts(name: str) -> tuple[str, str, int]:
    """Return (head, size, side in pixels) of a released name."""
    parts = re.fullmatch(r"(\w+)_eomt_([a-z]+)_(\d+)(?:_2x)?", name)
    assert parts is not None
    head, size, side = parts.groups()
    return head, size, int(side)


def _architecture(name: str) -> str:
    """Describe an architecture."""
    fields, _ = ARCHITECTURES[name]
    width, layers, blocks = fields["hidden_size"], fields["num_hidden_layers"], fields["num_blocks"]
    return (
        f"EoMT: ViT of {layers} layers of width {width}, queries in the last {blocks}, patches of "
        f"{fields.get('patch_size', 16)} px"
    )


def _released(name: str) -> Model:
    """Return the Model of a released name."""
    head, size, side = _parts(name)
    dataset, classes, queries, metric = HEADS[head]
    params, score = RELEASED[name]
    kind = head.split("_")[1]
    description = (
        f"A plain ViT (DINOv2) that predicts masks, trained on {dataset} at {side} px by its "
        "authors."
    )
    priority = CHOSEN if name == next(iter(RELEASED)) else RELATED
    params_source = counted(classes, queries)
    if kind != "semantic":
        description += (
            f" Its predictions are {kind}: for semantic segmentation its ViT and queries are a "
            "start."
        )
        priority = START
    if kind == "instance":
        params_source += "; its panoptic models' 200, 100 would be 0.03 % less"
    size_name = "g" if size == "giant" else size[0].upper()
    return Model(
        model_id=OWNER + name,
        display_name=f"EoMT {size_name} {side} ({dataset} {kind})",
        description=description,
        architecture=_architecture(f"eomt-{size}"),
        params=params,
        input_size=side,
        classes=classes,
        performance={f"{dataset} validation": {metric: score}},
        tags=("eomt", "dinov2", dataset.lower(), kind),
        priority=priority,
        sources={
            "params": params_source,
            "input_size": ZOO,
            "performance": ZOO,
            "weights_license": "the model's page could not be read; the code of tue-mps/eomt is"
            " MIT",
        },
    )


TINY = Model(
    model_id="tiny",
    display_name="Tiny EoMT",
    description="A small EoMT of ours without released weights, which trains on a CPU in minutes.",
    architecture=_architecture("tiny"),
    params=774_252,
    input_size=ARCHITECTURES["tiny"][-1],
    classes=11,
    tags=("eomt", "small", "from scratch"),
    priority=ARCHITECTURE,
    use_cases=(
        UseCase(
            "Few images, no GPU",
            "Street scenes, 2000 steps of 8 at 160 px from random weights, mean of three seeds.",
            "CamVid: 70 frames to train on, 24 of other drives to score, 11 classes",
            before={"miou": 0.03, "pixel_accuracy": 0.31},
            after={"miou": 0.385, "pixel_accuracy": 0.768},
        ),
    ),
    sources={
        "params": counted(11),
        "input_size": "tasks/segmentation/architectures.py",
        "use_cases": "README.md, Results; before: always the most frequent class",
    },
)

MODEL_ZOO = ModelZoo(
    value="semantic_segmentation",
    command="segmentation",
    label={"en": "Semantic segmentation", "ko": "시맨틱 분할"},
    icon="🎨",
    primary_metric="miou",
    data_layout=(
        "classes.json",
        "images/train/*.jpg",
        "masks/train/*.png",
        "images/val/*.jpg",
        "masks/val/*.png",
    ),
    model_names=MODEL_NAMES,
    config_class=SegmentationConfig,
    recipe=recipe,
    recipe_source="default preset of tasks/segmentation/recipes.py: configs/**/semantic of"
    " tue-mps/eomt; own runs for tiny",
    build_network=build_network,
    load_metrics=load_metrics,
    use_cases=(
        UseCase(
            "A class for every pixel",
            "Maps of your own classes, starting from a ViT that has learned scenes.",
            "your own: images, masks of class ids and classes.json",
        ),
    ),
    models=(*map(_released, RELEASED), TINY),
)
