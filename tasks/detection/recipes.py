"""Presets: the defaults that `--preset` and the size of the model change.

- finetune: trained weights on new data (default with weights): the authors' configs from
  Objects365 to custom data
- scratch: random weights (default without weights): the authors' COCO configs; `tiny` by our own
  runs

Source: configs/dfine of `Peterande/D-FINE` (commit 4a1f73a). Learning rates there are for their
batch sizes and are scaled to ours.
"""

import json
from pathlib import Path
from typing import NamedTuple

from visionloop.engine.errors import UserError
from visionloop.engine.types import JsonObject
from visionloop.tasks.detection.architectures import ARCHITECTURES, MODEL_NAMES

PRESETS = ("finetune", "scratch")


class Schedule(NamedTuple):
    """The training of one size: strong_share of the epochs have strong augmentation.

    base_size_repeats: of `--multi-scale`.
    """

    batch_size: int
    lr: float
    backbone_lr: float
    weight_decay: float
    epochs: int
    strong_share: float
    base_size_repeats: int


SCRATCH = {
    "dfine-nano": Schedule(128, 8e-4, 4e-4, 1e-4, 160, 148 / 160, 0),
    "dfine-small": Schedule(32, 2e-4, 1e-4, 1e-4, 132, 120 / 132, 20),
    "dfine-medium": Schedule(32, 2e-4, 2e-5, 1e-4, 132, 120 / 132, 6),
    "dfine-large": Schedule(32, 2.5e-4, 1.25e-5, 1.25e-4, 80, 72 / 80, 4),
    "dfine-xlarge": Schedule(32, 2.5e-4, 2.5e-6, 1.25e-4, 80, 72 / 80, 3),
}
FINETUNE = {
    "dfine-nano": Schedule(128, 8e-4, 4e-4, 1e-4, 64, 56 / 64, 0),
    "dfine-small": Schedule(32, 2.5e-4, 1.25e-4, 1.25e-4, 64, 56 / 64, 10),
    "dfine-medium": Schedule(32, 2.5e-4, 2.5e-5, 1.25e-4, 56, 48 / 56, 6),
    "dfine-large": Schedule(32, 2.5e-4, 1.25e-5, 1.25e-4, 36, 30 / 36, 4),
    "dfine-xlarge": Schedule(32, 2.5e-4, 2.5e-6, 1.25e-4, 36, 30 / 36, 3),
}
# tuned on 205 micrographs at 256 px, 1500 steps of 8
TINY: JsonObject = {
    "batch_size": 8,
    "lr": 3e-3,
    "backbone_lr_scale": 1.0,
    # few weights at few pixels: with zoom-out and crops nothing was learned in 700 steps
    "zoom_out": 0.0,
    "iou_crop": 0.0,
    # convolutions of 8 channels are no faster in bf16; on the CPU they take three times as long
    "precision": "fp32",
    "weight_decay": 1e-4,
    "schedule": "cosine",
    "lr_min": 0.0,
    "clip_grad": 1.0,
    "ema": True,
}
TINY_EPOCHS = 60.0
# of --augment-only; without stages there is nothing to begin from the best weights
AUGMENT_ONLY = {
    "photometric": 0.0,
    "zoom_out": 0.0,
    "iou_crop": 0.0,
    "hflip": False,
    "multi_scale": 0,
    "strong_share": 1.0,
}
MAX_WARMUP = 500  # steps; a twentieth of shorter runs
# images of 640 px that a process holds at once; does not change --batch-size
MICRO_BATCH = {
    "tiny": 32,
    "dfine-nano": 32,
    "dfine-small": 16,
    "dfine-medium": 8,
    "dfine-large": 8,
    "dfine-xlarge": 4,
}


def recipe(values: JsonObject) -> JsonObject:
    """Return {setting: value} of the defaults that model and preset change.

    Args:
        values: {setting: value} resolved so far.

    Raises:
        UserError: for --layer-decay, which detection does not have.
    """
    return _recipe_of_preset(values) | (AUGMENT_ONLY if values["augment_only"] else {})


def _recipe_of_preset(values: JsonObject) -> JsonObject:
    defaults = MODEL_NAMES.start(values, PRESETS)
    model, preset = defaults["model"], defaults["preset"]
    if values["layer_decay"] != 1:
        raise UserError(
            "--layer-decay: not supported by detection; use --backbone-lr-scale for a smaller "
            "learning rate of the backbone",
            field="layer_decay",
        )
    defaults["ema_decay"] = 0.9999
    size = size_of(model)
    has_length = values["epochs"] is not None or values["steps"] is not None
    if size == "tiny":
        return defaults | TINY | ({} if has_length else {"epochs": TINY_EPOCHS})
    schedule = (FINETUNE if preset == "finetune" else SCRATCH)[size]
    defaults |= {
        "lr": schedule.lr * values["batch_size"] / schedule.batch_size,
        "backbone_lr_scale": schedule.backbone_lr / schedule.lr,
        "weight_decay": schedule.weight_decay,
        "schedule": "constant",
        "clip_grad": 0.1,
        "ema": True,
        "strong_share": schedule.strong_share,
        "multi_scale": schedule.base_size_repeats,
    }
    return defaults | ({} if has_length else {"epochs": float(schedule.epochs)})


def resolve_defaults(values: JsonObject, steps: int) -> JsonObject:
    """Return the warm-up, the authors' 500 steps or less, and the micro-batch of the model's size.

    Args:
        values: {setting: value} resolved so far.
        steps: length of the run.
    """
    return {
        "warmup_steps": min(MAX_WARMUP, round(0.05 * steps)),
        "micro_batch": MICRO_BATCH[size_of(values["model"])],
    }


def size_of(model: str) -> str:
    """Return the architecture that a model is nearest to.

    It follows from the name of the model, or from the width and depth in its local config.
    """
    name = MODEL_NAMES.aliases.get(model, model)
    name = MODEL_NAMES.architecture_of.get(name, name)
    if name in ARCHITECTURES:
        return name
    try:
        config = json.loads((Path(model).expanduser() / "config.json").read_text())
        width, layers = config["d_model"], config["decoder_layers"]
        encoder_width = config["encoder_hidden_dim"]
    except (OSError, ValueError, KeyError, TypeError):
        return "dfine-small"  # loading the model will raise the error
    if width < 128:
        return "tiny"
    if width < 256:
        return "dfine-nano"
    if layers < 6:
        return "dfine-small" if layers == 3 else "dfine-medium"
    return "dfine-xlarge" if encoder_width > 256 else "dfine-large"
