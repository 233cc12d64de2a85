"""Presets: what `--preset` and the kind of model change in the defaults.

scratch   random weights (default without weights): the authors' schedule over the run's own length;
`tiny` by our own runs finetune  released weights on new data, or the weights of another scale
(default with weights): half the rate

Source: options/swinir of `cszn/KAIR`, the set-up that Swin2SR's authors name; code of their own for
training was never published.
"""

import json
from pathlib import Path

from visionloop.engine.config.suggest import did_you_mean
from visionloop.engine.errors import UserError
from visionloop.tasks.super_resolution.architectures import ARCHITECTURES, REGISTRY, scale_of
from visionloop.tasks.super_resolution.config import RESTORATION

PRESETS = ("scratch", "finetune")
AUTHORS = {
    "optimizer": "adam", "weight_decay": 0.0, "clip_grad": float("inf"), "warmup_steps": 0, "schedule": "step",
    "schedule_milestones": "0.5,0.8,0.9,0.95", "ema": True, "ema_decay": 0.999,
    # whole images with what they are compared with: 32 of 2K would lie in memory as 600 MB
    "eval_batch_size": 8,
}  # fmt: skip
LR = {"scratch": 2e-4, "finetune": 1e-4}
STEPS = {"scratch": 500_000, "finetune": 250_000}
# mode -> (batch, loss)
OF_MODE = {
    "classical": (32, "l1"), "lightweight": (64, "l1"), "real-world": (32, "l1"), "compressed": (32, "l1"),
    "denoise": (8, "charbonnier"), "jpeg": (8, "charbonnier"),
}  # fmt: skip
# Tuned on 91 small images at x2, for the minutes of one core: many small steps at a high rate
TINY = {
    "lr": 2e-3, "batch_size": 4, "beta2": 0.99, "clip_grad": 1.0, "warmup_steps": None, "schedule": "cosine", "lr_min": 0.0,
}  # fmt: skip
TINY_STEPS = 9000
# crops of the architecture's own size that a process holds at once; --batch-size stays what it is
MICRO_BATCH = {
    "tiny": 16,
    "lightweight": 16,
    "classical": 4,
    "real-world": 4,
    "compressed": 8,
    "denoise": 1,
    "jpeg": 1,
}
MODE_OF_HEAD = {
    "pixelshuffledirect": "lightweight",
    "nearest+conv": "real-world",
    "pixelshuffle_aux": "compressed",
}
# what is read of a local folder's config.json, and its type; the library's embed_dim where it is
# left out is 180
CONFIG_FIELDS = {
    "embed_dim": int,
    "depths": list,
    "upscale": int,
    "upsampler": str,
    "visionloop_mode": str,
}


def recipe(values):
    """{setting: value} that model, mode and preset change in the defaults. values: {setting: value} settled so far."""
    advised = REGISTRY.start(values, PRESETS)
    model, preset = advised["model"], advised["preset"]
    if values["layer_decay"] != 1:
        raise UserError("--layer-decay: not for super-resolution", field="layer_decay")
    if values["image_size"] is not None:
        raise UserError(
            "--image-size: not for super-resolution; --patch-size is the side of the training crops",
            field="image_size",
        )
    if values["best_metric"] == "lpips" and values["lpips_weights"] is None:
        raise UserError("--best-metric lpips: needs --lpips-weights", field="best_metric")
    mode = values["mode"] or mode_of(model)
    if mode not in OF_MODE:
        raise UserError(
            f"--mode: expected one of {', '.join(OF_MODE)}, got {mode!r}{did_you_mean(mode, OF_MODE)}",
            field="mode",
        )
    scale = values["scale"] or (
        1 if mode in RESTORATION else scale_of(model) or _local_config(model).get("upscale")
    )
    if scale is not None and (scale == 1) != (mode in RESTORATION):
        why = (
            "denoise and jpeg keep the size"
            if scale > 1
            else "name what is restored with --mode denoise or jpeg"
        )
        raise UserError(f"--scale {scale}: {why}", field="scale")
    batch, loss = OF_MODE[mode]
    advised |= AUTHORS | {
        "mode": mode,
        "scale": scale,
        "batch_size": batch,
        "loss": loss,
        "lr": LR[preset],
    }
    endless = values["epochs"] is None and values["steps"] is None
    if architecture_of(model) == "tiny":
        return advised | TINY | ({"steps": TINY_STEPS} if endless else {})
    return advised | ({"steps": STEPS[preset]} if endless else {})


def settle(values, steps):
    """Micro-batches by the size of the model."""
    return {"micro_batch": MICRO_BATCH.get(architecture_of(values["model"]), 4)}


def mode_of(model):
    """The mode that a model is for: what a local folder's config says, or its head; an architecture's name; else classical."""
    config, name = _local_config(model), architecture_of(model)
    if config.get("visionloop_mode") in OF_MODE:
        return config["visionloop_mode"]
    return MODE_OF_HEAD.get(config.get("upsampler")) or (name if name in OF_MODE else "classical")


def architecture_of(model):
    """The name in ARCHITECTURES of a known model, or of the nearest to a local folder's config; None for any other."""
    name = REGISTRY.aliases.get(model, model)
    name = REGISTRY.architecture_of.get(name, name)
    if name in ARCHITECTURES:
        return name
    config = _local_config(model)
    if not config:
        return None
    if config.get("embed_dim", 180) <= 60:
        return "lightweight" if len(config.get("depths", [])) > 2 else "tiny"
    if config.get("visionloop_mode") in ARCHITECTURES:
        return config["visionloop_mode"]
    return MODE_OF_HEAD.get(config.get("upsampler"), "classical")


def _local_config(model):
    """{field: value} of CONFIG_FIELDS in a local folder's config.json, those of the right type; {} of any other name."""
    if model in ARCHITECTURES:
        return {}
    try:
        found = json.loads((Path(model).expanduser() / "config.json").read_text())
    except (OSError, ValueError):
        return {}  # loading it will say what is wrong
    return (
        {name: found[name] for name, kind in CONFIG_FIELDS.items() if type(found.get(name)) is kind}
        if isinstance(found, dict)
        else {}
    )
