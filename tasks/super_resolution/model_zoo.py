"""The models table of super-resolution. No torch here: it is listed before a model is built."""

from visionloop.tasks.model_zoo import (
    ARCHITECTURE,
    CHOSEN,
    RELATED,
    Model,
    TaskModels,
    UseCase,
    counted,
)
from visionloop.tasks.super_resolution.architectures import (
    ARCHITECTURES,
    REGISTRY,
    RELEASED,
    scale_of,
)
from visionloop.tasks.super_resolution.config import SuperResolutionConfig
from visionloop.tasks.super_resolution.recipes import recipe

KAIR = "training patch in options/swinir of cszn/KAIR, the set-up that the authors name"
# (architecture, scale), the default where there is one alone, in the order of the table: (weights,
# what it does)
MODELS = {
    ("classical", 2): (12_091_571, "Doubles the sides of clean images."),
    ("classical", 4): (12_239_283, "Four times the sides of clean images."),
    ("lightweight", 2): (
        1_005_348,
        "Doubles the sides of clean images with a twelfth of the weights.",
    ),
    ("real-world", 4): (
        12_054_643,
        "Four times the sides of images with noise, blur and compression of unknown kind.",
    ),
    ("compressed", 4): (12_244_598, "Four times the sides of JPEG files."),
    ("tiny", 2): (
        252_828,
        "A small Swin2SR of ours without released weights, which trains on a CPU in minutes.",
    ),
    ("denoise", 1): (11_843_247, "Takes noise away; without released weights."),
    ("jpeg", 1): (
        11_843_247,
        "Takes the marks of JPEG compression away; without released weights.",
    ),
}
TINY_CASES = (
    UseCase(
        "Few images, no GPU", "Twice the sides, 9000 steps of 4 from random weights in 23 minutes.", "T91 to train on, Set5 to score",
        before={"psnr": 33.67, "ssim": 0.9303}, after={"psnr": 37.19, "ssim": 0.9573},
    ),
)  # fmt: skip


def _architecture(name):
    fields = ARCHITECTURES[name].fields
    width, depths, window = fields["embed_dim"], fields["depths"], fields["window_size"]
    head = ARCHITECTURES[name].upsampler or "a convolution"
    return f"Swin2SR: {len(depths)} stages of {depths[0]} blocks, width {width}, windows of {window} px, head {head}"


def _model(architecture, scale):
    params, does = MODELS[architecture, scale]
    hub_id = RELEASED.get((architecture, scale))
    first = (architecture, scale) == next(iter(MODELS))
    sources = {
        "params": counted(),
        "input_size": KAIR if architecture != "tiny" else "tasks/super_resolution/architectures.py",
        "upscale_factor": "the scale in the model's name"
        if hub_id
        else "tasks/super_resolution/architectures.py",
    }
    if hub_id:
        sources |= {
            "performance": "the paper's table (arXiv:2209.11345) could not be read",
            "weights_license": "README.md of mv-lab/swin2sr: the project, which released the weights, is under Apache 2.0",
        }
    if architecture == "tiny":
        sources["use_cases"] = "tasks/super_resolution/README.md, Results; before: bicubic"
    return Model(
        model_id=hub_id or architecture,
        display_name=f"Swin2SR {architecture}" + (f" x{scale}" if scale > 1 else ""),
        description=does,
        architecture=_architecture(architecture),
        params=params,
        input_size=ARCHITECTURES[architecture].patch_size,
        upscale_factor=scale,
        weights_license="apache-2.0" if hub_id else None,
        tags=("swin2sr", architecture, *(() if hub_id else ("from scratch",))),
        priority=CHOSEN if first else RELATED if hub_id else ARCHITECTURE,
        use_cases=TINY_CASES if architecture == "tiny" else (),
        sources=sources,
    )


def build_network(model):
    """The torch module of a row, with random weights."""
    from visionloop.tasks.super_resolution.model import new_config, new_model

    name = REGISTRY.architecture_of.get(model.model_id, model.model_id)
    return new_model(new_config(name, scale_of(model.model_id)), init="library")


def load_metrics():
    """The task's MetricSpecs."""
    from visionloop.tasks.super_resolution.evaluate import METRICS

    return METRICS


TABLE = TaskModels(
    value="super_resolution",
    command="super_resolution",
    label={"en": "Super-resolution", "ko": "초해상도"},
    icon="🔍",
    primary_metric="psnr",
    data_layout=("train/HR/*.png", "train/LR_x2/*.png (or x3, x4, x8; else made from HR)", "val/HR/*.png", "val/LR_x2/*.png"),
    registry=REGISTRY,
    config_class=SuperResolutionConfig,
    recipe=recipe,
    recipe_source="default preset of tasks/super_resolution/recipes.py: options/swinir of cszn/KAIR; own runs for tiny",
    build_network=build_network,
    load_metrics=load_metrics,
    use_cases=(
        UseCase(
            "Larger images of one kind", "Adapt to the images of one camera or subject, starting from weights for photographs.",
            "your own: large images, with small ones beside them or without",
        ),
    ),
    models=tuple(_model(*key) for key in MODELS),
)  # fmt: skip
