"""Model zoo of super-resolution.

Imports no torch, since the models are listed before one is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visionloop.tasks.model_zoo import (
    ARCHITECTURE,
    CHOSEN,
    RELATED,
    Model,
    ModelZoo,
    UseCase,
    counted,
)
from visionloop.tasks.super_resolution.architectures import (
    ARCHITECTURES,
    MODEL_NAMES,
    PRETRAINED,
    scale_of,
)
from visionloop.tasks.super_resolution.config import SuperResolutionConfig
from visionloop.tasks.super_resolution.recipes import recipe

if TYPE_CHECKING:
    from torch import nn

    from visionloop.engine.metric import MetricSpec

KAIR = "training patch in options/swinir of cszn/KAIR, the set-up that the authors name"
ARCHITECTURES_FILE = "tasks/super_resolution/architectures.py"
# {(architecture, scale): (weights, description)}, the recommended model first
MODELS = {
    ("classical", 2): (12_091_571, "Upscales clean images x2."),
    ("classical", 4): (12_239_283, "Upscales clean images x4."),
    ("lightweight", 2): (1_005_348, "Upscales clean images x2 with a twelfth of the weights."),
    ("real-world", 4): (
        12_054_643,
        "Upscales images with unknown noise, blur and compression x4.",
    ),
    ("compressed", 4): (12_244_598, "Upscales JPEG files x4."),
    ("tiny", 2): (
        252_828,
        "A small Swin2SR of our own without released weights, which trains on a CPU in minutes.",
    ),
    ("denoise", 1): (11_843_247, "Removes noise; without released weights."),
    ("jpeg", 1): (11_843_247, "Removes JPEG artifacts; without released weights."),
}
TINY_USE_CASES = (
    UseCase(
        "Few images, no GPU",
        "Upscaling x2, 9000 steps of 4 from random weights in 23 minutes.",
        "T91 to train on, Set5 to score",
        before={"psnr": 33.67, "ssim": 0.9303},
        after={"psnr": 37.19, "ssim": 0.9573},
    ),
)


def build_network(model: Model) -> nn.Module:
    """Build the module of a row with random weights."""
    from visionloop.tasks.super_resolution.model import new_config, new_model

    name = MODEL_NAMES.architecture_of.get(model.model_id, model.model_id)
    network: nn.Module = new_model(new_config(name, scale_of(model.model_id)), init="transformers")
    return network


def load_metrics() -> tuple[MetricSpec, ...]:
    """Return the metrics of the task."""
    from visionloop.tasks.super_resolution.evaluate import METRICS

    return METRICS


def _describe_architecture(name: str) -> str:
    fields = ARCHITECTURES[name].fields
    depths, head = fields["depths"], ARCHITECTURES[name].upsampler or "a convolution"
    return (
        f"Swin2SR: {len(depths)} stages of {depths[0]} blocks, width {fields['embed_dim']},"
        f" windows of {fields['window_size']} px, head {head}"
    )


def _model(name: str, scale: int) -> Model:
    """Return the row of an architecture at a scale."""
    params, description = MODELS[name, scale]
    hub_id = PRETRAINED.get((name, scale))
    sources = {
        "params": counted(),
        "input_size": KAIR if name != "tiny" else ARCHITECTURES_FILE,
        "upscale_factor": "the scale in the model's name" if hub_id else ARCHITECTURES_FILE,
    }
    if hub_id:
        sources |= {
            "performance": "the paper's table (arXiv:2209.11345) could not be read",
            "weights_license": "README.md of mv-lab/swin2sr: the project, which released the"
            " weights, is under Apache 2.0",
        }
    if name == "tiny":
        sources["use_cases"] = "tasks/super_resolution/README.md, Results; before: bicubic"
    is_first = (name, scale) == next(iter(MODELS))
    return Model(
        model_id=hub_id or name,
        display_name=f"Swin2SR {name}" + (f" x{scale}" if scale > 1 else ""),
        description=description,
        architecture=_describe_architecture(name),
        params=params,
        input_size=ARCHITECTURES[name].patch_size,
        upscale_factor=scale,
        weights_license="apache-2.0" if hub_id else None,
        tags=("swin2sr", name, *(() if hub_id else ("from scratch",))),
        priority=CHOSEN if is_first else RELATED if hub_id else ARCHITECTURE,
        use_cases=TINY_USE_CASES if name == "tiny" else (),
        sources=sources,
    )


MODEL_ZOO = ModelZoo(
    value="super_resolution",
    command="super_resolution",
    label={"en": "Super-resolution", "ko": "초해상도"},
    icon="🔍",
    primary_metric="psnr",
    data_layout=(
        "train/HR/*.png",
        "train/LR_x2/*.png (or x3, x4, x8; else made from HR)",
        "val/HR/*.png",
        "val/LR_x2/*.png",
    ),
    model_names=MODEL_NAMES,
    config_class=SuperResolutionConfig,
    recipe=recipe,
    recipe_source="default preset of tasks/super_resolution/recipes.py: options/swinir of"
    " cszn/KAIR; own runs for tiny",
    build_network=build_network,
    load_metrics=load_metrics,
    use_cases=(
        UseCase(
            "Larger images of one kind",
            "Adapt to the images of one camera or subject, starting from weights for photographs.",
            "your own: large images, with or without their small versions",
        ),
    ),
    models=tuple(_model(*key) for key in MODELS),
)
