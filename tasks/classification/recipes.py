"""Presets: what `--preset` and the kind of start change in the defaults. Sources: the recipe's table and our own runs.

quick     the library's example, with warm-up: what people expect from a first run of a pretrained
model finetune  MAE's and BEiT's fine-tuning, for pretrained weights (default with weights) scratch
a small model from random weights on small data (default without weights)
"""

import json
from pathlib import Path

from visionloop.datasets.io.layout import SPLIT_FOLDERS, is_hidden
from visionloop.tasks.classification.architectures import ARCHITECTURES, REGISTRY

PRESETS = ("quick", "finetune", "scratch")
EPOCHS = {
    "quick": 3.0,
    "finetune": 20.0,
    "scratch": 100.0,
}  # where neither --epochs nor --steps is given
MANY_IMAGES = 10_000  # from here on mixup and cutmix pay when fine-tuning
WIDTH_OF_SMALL, WIDTH_OF_BASE = 384, 768

QUICK = {
    "lr": 5e-5,
    "weight_decay": 0.01,
    "schedule": "cosine",
    "crop_scale_min": 0.35,
    "ema": False,
}
FINETUNE = {
    "weight_decay": 0.05,
    "schedule": "cosine",
    "lr_min": 1e-6,
    "clip_grad": 1.0,
    "crop_scale_min": 0.35,
    "rand_augment_ops": 2,
    "rand_augment_magnitude": 9,
    "random_erasing": 0.25,
    "label_smoothing": 0.1,
    "drop_path": 0.1,
    "ema": True,
}
GENTLE = {"crop_scale_min": 0.7, "rand_augment_ops": 0, "random_erasing": 0.0}
# Tuned on 1633 photographs of hand signs at 64 px, 1000 steps of 32: the start of the weights is
# worth far more than all else.
SCRATCH = {
    "lr": 5e-4,
    "weight_decay": 0.05,
    "schedule": "cosine",
    "crop_scale_min": 0.7,
    "label_smoothing": 0.1,
    "drop_path": 0.1,
    "ema": True,
}


def recipe(values):
    """{setting: value} that model, preset and amount of data change in the defaults. values: {setting: value} settled so far."""
    advised = REGISTRY.start(values, PRESETS)
    model, preset = advised["model"], advised["preset"]
    if values["epochs"] is None and values["steps"] is None:
        advised["epochs"] = EPOCHS[preset]
    if preset == "quick":
        return (
            advised
            | QUICK
            | ({"warmup_steps": round(0.1 * values["steps"])} if values["steps"] else {})
        )
    if preset == "scratch":
        return (
            advised
            | SCRATCH
            | {"init": "mimetic" if kind_of(model) in ("vit", "deit") else "library"}
        )
    width = width_of(model) or WIDTH_OF_BASE
    # narrow models bear, and need, larger steps: the rate goes with one over the width; and they
    # have no capacity to spare for strong augmentation, nor so much to keep in their lower layers
    advised |= (
        FINETUNE
        | (GENTLE if width < WIDTH_OF_SMALL else {})
        | {
            "lr": 5e-4 * values["batch_size"] / 256 * max(1.0, WIDTH_OF_BASE / width),
            "layer_decay": 0.85
            if width < WIDTH_OF_SMALL
            else 0.75
            if width > WIDTH_OF_BASE
            else 0.65,
        }
    )
    if has_many_images(values["data"]):
        advised |= {"mixup": 0.8, "cutmix": 1.0}
    return advised


def width_of(model):
    """Hidden size of a model as far as its name or its local config tells; None otherwise."""
    name = REGISTRY.architecture_of.get(model, model)
    if name in ARCHITECTURES:
        return ARCHITECTURES[name][0]
    return local_config(model).get("hidden_size") or (1024 if "large" in model else None)


def kind_of(model):
    """The library's model_type as far as name or local config tells; None otherwise."""
    if REGISTRY.architecture_of.get(model, model) in ARCHITECTURES:
        return "vit"
    return local_config(model).get("model_type") or next(
        (kind for kind in ("vit", "deit") if f"/{kind}-" in model), None
    )


def local_config(model):
    """The config.json of a local folder; {} when there is none that can be read (loading it will say what is wrong)."""
    try:
        content = json.loads((Path(model).expanduser() / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def has_many_images(data):
    """True from MANY_IMAGES files in the training folder on; counting stops there."""
    found = 0
    for name in SPLIT_FOLDERS["train"]:
        for path in (Path(data) / name).glob("*/*") if data else ():
            found += not is_hidden(path.name)
            if found >= MANY_IMAGES:
                return True
    return False
