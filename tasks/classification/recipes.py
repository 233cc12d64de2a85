"""Presets: defaults that `--preset`, the model and the amount of data change.

- quick: the fine-tuning example of transformers with warm-up, for a first look
- finetune: the fine-tuning of MAE and BEiT (the default for pretrained weights)
- scratch: a small model with random weights on little data (the default without weights)

Sources: the recipe table of the README and our own runs. Imports no torch.
"""

from pathlib import Path

from visionloop.datasets.io.layout import SPLIT_FOLDERS, is_hidden
from visionloop.engine.types import JsonObject
from visionloop.tasks.classification.architectures import ARCHITECTURES, MODEL_NAMES
from visionloop.tasks.huggingface.hub import local_config

PRESETS = ("quick", "finetune", "scratch")
# epochs where neither --epochs nor --steps is given
EPOCHS = {"quick": 3.0, "finetune": 20.0, "scratch": 100.0}
MANY_IMAGES = 10_000  # from here on mixup and CutMix help when fine-tuning
WIDTH_OF_SMALL, WIDTH_OF_BASE = 384, 768  # hidden sizes of ViT-S and ViT-B

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
# for models narrower than WIDTH_OF_SMALL
WEAK_AUGMENTATION = {"crop_scale_min": 0.7, "rand_augment_ops": 0, "random_erasing": 0.0}
# Tuned on 1633 photographs of hand signs at 64 px, 1000 steps of 32: the initialization matters
# far more than everything else.
SCRATCH = {
    "lr": 5e-4,
    "weight_decay": 0.05,
    "schedule": "cosine",
    "crop_scale_min": 0.7,
    "label_smoothing": 0.1,
    "drop_path": 0.1,
    "ema": True,
}


# of --augment-only
AUGMENT_ONLY = {
    "crop_scale_min": 1.0,
    "hflip": False,
    "rand_augment_ops": 0,
    "random_erasing": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
}


def recipe(values: JsonObject) -> JsonObject:
    """Return the defaults that model, preset and amount of data change, {setting: value}.

    Args:
        values: {setting: value} of all settings resolved so far.
    """
    return _recipe_of_preset(values) | (AUGMENT_ONLY if values["augment_only"] else {})


def _recipe_of_preset(values: JsonObject) -> JsonObject:
    advised = MODEL_NAMES.start(values, PRESETS)
    model, preset = advised["model"], advised["preset"]
    if values["epochs"] is None and values["steps"] is None:
        advised["epochs"] = EPOCHS[preset]
    if preset == "quick":
        warmup = {"warmup_steps": round(0.1 * values["steps"])} if values["steps"] else {}
        return advised | QUICK | warmup
    if preset == "scratch":
        init = "mimetic" if model_type_of(model) in ("vit", "deit") else "transformers"
        return advised | SCRATCH | {"init": init}
    width = width_of(model) or WIDTH_OF_BASE
    advised |= FINETUNE | {
        # narrow models tolerate, and need, larger steps: the learning rate goes with 1 / width
        "lr": 5e-4 * values["batch_size"] / 256 * max(1.0, WIDTH_OF_BASE / width),
        "layer_decay": 0.75 if width > WIDTH_OF_BASE else 0.65,
    }
    if width < WIDTH_OF_SMALL:
        # and they have no capacity for strong augmentation, nor as much to preserve in the lower
        # layers
        advised |= WEAK_AUGMENTATION | {"layer_decay": 0.85}
    if has_many_images(values["data"]):
        advised |= {"mixup": 0.8, "cutmix": 1.0}
    return advised


def width_of(model: str) -> int | None:
    """Return the hidden size of a model by its name or local config; None if unknown."""
    name = MODEL_NAMES.architecture_of.get(model, model)
    if name in ARCHITECTURES:
        return ARCHITECTURES[name].hidden_size
    return local_config(model).get("hidden_size") or (1024 if "large" in model else None)


def model_type_of(model: str) -> str | None:
    """Return the model_type of a model by its name or local config; None if unknown."""
    if MODEL_NAMES.architecture_of.get(model, model) in ARCHITECTURES:
        return "vit"
    return local_config(model).get("model_type") or next(
        (kind for kind in ("vit", "deit") if f"/{kind}-" in model), None
    )


def has_many_images(data: str | None) -> bool:
    """Return True for a training folder with MANY_IMAGES files or more; counting stops there."""
    count = 0
    for name in SPLIT_FOLDERS["train"]:
        for path in (Path(data) / name).glob("*/*") if data else ():
            count += not is_hidden(path.name)
            if count >= MANY_IMAGES:
                return True
    return False
