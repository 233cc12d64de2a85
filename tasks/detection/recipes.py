"""Presets: what `--preset` and the size of the model change in the defaults.

finetune  released weights on new data (default with weights): the authors' Objects365-to-custom
configs scratch   random weights (default without weights): the authors' COCO configs; `tiny` by our
own runs

Source: configs/dfine of `Peterande/D-FINE` (commit 4a1f73a). Rates there are for their batch sizes
and scale with ours.
"""

import json
from pathlib import Path

from visionloop.engine.errors import UserError
from visionloop.tasks.detection.architectures import ARCHITECTURES, REGISTRY

PRESETS = ("finetune", "scratch")
# size -> (batch, lr, backbone lr, weight decay, epochs, share of them with strong augmentation,
# repeats of the base size)
SCRATCH = {
    "dfine-nano": (128, 8e-4, 4e-4, 1e-4, 160, 148 / 160, 0),
    "dfine-small": (32, 2e-4, 1e-4, 1e-4, 132, 120 / 132, 20),
    "dfine-medium": (32, 2e-4, 2e-5, 1e-4, 132, 120 / 132, 6),
    "dfine-large": (32, 2.5e-4, 1.25e-5, 1.25e-4, 80, 72 / 80, 4),
    "dfine-xlarge": (32, 2.5e-4, 2.5e-6, 1.25e-4, 80, 72 / 80, 3),
}
FINETUNE = {
    "dfine-nano": (128, 8e-4, 4e-4, 1e-4, 64, 56 / 64, 0),
    "dfine-small": (32, 2.5e-4, 1.25e-4, 1.25e-4, 64, 56 / 64, 10),
    "dfine-medium": (32, 2.5e-4, 2.5e-5, 1.25e-4, 56, 48 / 56, 6),
    "dfine-large": (32, 2.5e-4, 1.25e-5, 1.25e-4, 36, 30 / 36, 4),
    "dfine-xlarge": (32, 2.5e-4, 2.5e-6, 1.25e-4, 36, 30 / 36, 3),
}
# Tuned on 205 micrographs at 256 px, 1500 steps of 8.
TINY = {
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
LONGEST_WARMUP = 500  # steps; a twentieth of shorter runs
# images of 640 px that a process holds at once; --batch-size stays what it is
MICRO_BATCH = {
    "tiny": 32,
    "dfine-nano": 32,
    "dfine-small": 16,
    "dfine-medium": 8,
    "dfine-large": 8,
    "dfine-xlarge": 4,
}


def recipe(values):
    """{setting: value} that model and preset change in the defaults. values: {setting: value} settled so far."""
    advised = REGISTRY.start(values, PRESETS)
    model, preset = advised["model"], advised["preset"]
    if values["layer_decay"] != 1:
        raise UserError(
            "--layer-decay: not for detection; --backbone-lr-scale slows the backbone down",
            field="layer_decay",
        )
    advised["ema_decay"] = 0.9999
    size = size_of(model)
    endless = values["epochs"] is None and values["steps"] is None
    if size == "tiny":
        return advised | TINY | ({"epochs": TINY_EPOCHS} if endless else {})
    batch, lr, backbone_lr, weight_decay, epochs, strong_share, repeats = (
        FINETUNE if preset == "finetune" else SCRATCH
    )[size]
    advised |= {
        "lr": lr * values["batch_size"] / batch,
        "backbone_lr_scale": backbone_lr / lr,
        "weight_decay": weight_decay,
        "schedule": "constant",
        "clip_grad": 0.1,
        "ema": True,
        "strong_share": strong_share,
        "multi_scale": repeats,
    }
    return advised | ({"epochs": float(epochs)} if endless else {})


def settle(values, steps):
    """The authors' warm-up of 500 steps, shortened for short runs; micro-batches by the size of the model."""
    return {
        "warmup_steps": min(LONGEST_WARMUP, round(0.05 * steps)),
        "micro_batch": MICRO_BATCH[size_of(values["model"])],
    }


def size_of(model):
    """The name in ARCHITECTURES that a model is nearest to, by its name or the width and depth in its local config."""
    name = REGISTRY.aliases.get(model, model)
    name = REGISTRY.architecture_of.get(name, name)
    if name in ARCHITECTURES:
        return name
    try:
        config = json.loads((Path(model).expanduser() / "config.json").read_text())
        found = config["d_model"], config["decoder_layers"], config["encoder_hidden_dim"]
    except (OSError, ValueError, KeyError, TypeError):
        return "dfine-small"  # loading it will say what is wrong
    if found[0] < 128:
        return "tiny"
    if found[0] < 256:
        return "dfine-nano"
    if found[1] < 6:
        return "dfine-small" if found[1] == 3 else "dfine-medium"
    return "dfine-xlarge" if found[2] > 256 else "dfine-large"
