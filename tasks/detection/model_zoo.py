"""The model zoo of object detection. Imports no torch: it is listed before a model is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visionloop.tasks.detection.architectures import ARCHITECTURES, MODEL_NAMES, OWNER
from visionloop.tasks.detection.config import DetectionConfig
from visionloop.tasks.detection.recipes import recipe
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

if TYPE_CHECKING:
    from torch import nn

    from visionloop.engine.metric import MetricSpec

SCORES_SOURCE = "model zoo in README.md of Peterande/D-FINE"
COCO, OBJECTS365 = "COCO val2017", "Objects365 validation"
COCO_CLASSES, OBJECTS365_CLASSES = 80, 366
# size: (its letter, weights with COCO's classes, with those of Objects365)
SIZES = {
    "dfine-nano": ("N", 3_782_693, None),
    "dfine-small": ("S", 10_321_877, 10_689_101),
    "dfine-medium": ("M", 19_590_064, 20_030_790),
    "dfine-large": ("L", 31_244_152, 31_831_882),
    "dfine-xlarge": ("X", 62_621_560, 63_209_290),
}
# in the order of the table: AP as published, None where none is of these weights (the 44.7 of
# Objects365's L is of another training)
SCORES = {
    "dfine-xlarge-coco": 0.558,
    "dfine-large-coco": 0.540,
    "dfine-medium-coco": 0.523,
    "dfine-small-coco": 0.485,
    "dfine-nano-coco": 0.428,
    "dfine-xlarge-obj2coco": 0.593,
    "dfine-large-obj2coco-e25": 0.573,
    "dfine-medium-obj2coco": 0.551,
    "dfine-small-obj2coco": 0.507,
    "dfine-xlarge-obj365": 0.495,
    "dfine-large-obj365": None,
    "dfine-medium-obj365": 0.386,
    "dfine-small-obj365": 0.310,
}
TRAINED_ON = {"coco": "COCO", "obj2coco": "Objects365 and then COCO", "obj365": "Objects365"}


def _architecture(name: str) -> str:
    backbone, detector, _ = ARCHITECTURES[name]
    channels, width = backbone["stage_out_channels"][-1], detector.get("encoder_hidden_dim", 256)
    levels, layers = detector["num_feature_levels"], detector["decoder_layers"]
    return (
        f"D-FINE: HGNetV2 of up to {channels} channels, encoder of width {width} on {levels} "
        f"levels, {layers} decoder layers"
    )


def _released(name: str) -> Model:
    size = MODEL_NAMES.architecture_of[OWNER + name]
    letter, with_coco, with_objects365 = SIZES[size]
    data = name.removeprefix(f"{size}-").split("-")[0]
    is_pretraining = data == "obj365"
    classes = OBJECTS365_CLASSES if is_pretraining else COCO_CLASSES
    params = with_objects365 if is_pretraining else with_coco
    assert params is not None, f"no number of weights for {name}"
    score, scored_on = SCORES[name], OBJECTS365 if is_pretraining else COCO
    return Model(
        model_id=OWNER + name,
        display_name=f"D-FINE {letter} ({TRAINED_ON[data].replace(' and then ', ' + ')})",
        description=f"Detector with {classes} classes, trained on {TRAINED_ON[data]} by its "
        "authors; needs no non-maximum suppression.",
        architecture=_architecture(size),
        params=params,
        input_size=ARCHITECTURES[size][-1],
        classes=classes,
        performance=None if score is None else {scored_on: {"mAP": score}},
        weights_license="apache-2.0",
        tags=("d-fine", *TRAINED_ON[data].lower().split(" and then ")),
        priority=CHOSEN if name == "dfine-xlarge-coco" else START if is_pretraining else RELATED,
        sources={
            "params": counted(classes),
            "input_size": "configs/dfine of Peterande/D-FINE",
            "performance": SCORES_SOURCE + (": none of these weights" if score is None else ""),
            "weights_license": "license of Peterande/D-FINE, which released the weights",
        },
    )


def build_network(model: Model) -> nn.Module:
    """Build the torch module of a model of the zoo, with random weights."""
    from visionloop.tasks.detection.model import new_config, new_model

    name = MODEL_NAMES.architecture_of.get(model.model_id, model.model_id)
    assert model.classes is not None, "every detector of the zoo has classes"
    module: nn.Module = new_model(new_config(name), [f"class {i}" for i in range(model.classes)])
    return module


def load_metrics() -> tuple[MetricSpec, ...]:
    """Return the MetricSpecs of the task, whose import needs torch."""
    from visionloop.tasks.detection.evaluate import METRICS

    return METRICS


TINY_MODEL = Model(
    model_id="tiny",
    display_name="Tiny D-FINE",
    description="A small D-FINE without released weights, which trains on a CPU in minutes.",
    architecture=_architecture("tiny"),
    params=158_295,
    input_size=ARCHITECTURES["tiny"][-1],
    classes=3,
    tags=("d-fine", "small", "from scratch"),
    priority=ARCHITECTURE,
    use_cases=(
        UseCase(
            "Few images, no GPU",
            "Blood cells of three kinds, 1500 steps of 8 from random weights, mean of three seeds.",
            "BCCD: 205 micrographs to train on, 87 to score",
            after={"mAP": 0.541, "mAP50": 0.815},
        ),
    ),
    sources={
        "params": counted(3),
        "input_size": "tasks/detection/architectures.py",
        "use_cases": "README.md, Results",
    },
)
MODEL_ZOO = ModelZoo(
    value="object_detection",
    command="detection",
    label={"en": "Object detection", "ko": "객체 검출"},
    icon="🎯",
    primary_metric="mAP50",
    data_layout=("train.json", "train/*.jpg", "val.json", "val/*.jpg"),
    model_names=MODEL_NAMES,
    config_class=DetectionConfig,
    recipe=recipe,
    recipe_source="default preset of tasks/detection/recipes.py: configs/dfine of "
    "Peterande/D-FINE; own runs for tiny",
    build_network=build_network,
    load_metrics=load_metrics,
    use_cases=(
        UseCase(
            "Find and count objects",
            "Boxes around objects of your own classes, starting from weights that know everyday "
            "objects.",
            "your own: COCO json or a YOLO folder",
        ),
    ),
    models=(*map(_released, SCORES), TINY_MODEL),
)
