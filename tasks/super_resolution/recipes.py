"""Presets: defaults that `--preset`, the mode and the model change.

- scratch: random weights (the default without weights), with the authors' schedule over the length
  of the run; `tiny` has a recipe from our own runs
- finetune: released weights on new data, or the weights of another scale (the default with
  weights), at half the learning rate

Source: options/swinir of `cszn/KAIR`, the set-up that Swin2SR's authors name; they never published
training code. Imports no torch.
"""

from visionloop.engine.config.suggest import did_you_mean
from visionloop.engine.errors import UserError
from visionloop.engine.types import JsonObject
from visionloop.tasks.huggingface.hub import local_config
from visionloop.tasks.super_resolution.architectures import ARCHITECTURES, MODEL_NAMES, scale_of
from visionloop.tasks.super_resolution.config import MODES, RESTORATION, Mode

PRESETS = ("scratch", "finetune")
AUTHORS = {
    "optimizer": "adam",
    "weight_decay": 0.0,
    "clip_grad": float("inf"),
    "warmup_steps": 0,
    "schedule": "step",
    "schedule_milestones": "0.5,0.8,0.9,0.95",
    "ema": True,
    "ema_decay": 0.999,
    # whole images with their targets: 32 of 2K would take 600 MB of memory
    "eval_batch_size": 8,
}
LR = {"scratch": 2e-4, "finetune": 1e-4}
STEPS = {"scratch": 500_000, "finetune": 250_000}
# {mode: (batch size, loss)}
RECIPE_OF_MODE = {
    "classical": (32, "l1"),
    "lightweight": (64, "l1"),
    "real-world": (32, "l1"),
    "compressed": (32, "l1"),
    "denoise": (8, "charbonnier"),
    "jpeg": (8, "charbonnier"),
}
# Tuned on 91 small images at x2, for the minutes of one core: many small steps at a high learning
# rate.
TINY = {
    "lr": 2e-3,
    "batch_size": 4,
    "beta2": 0.99,
    "clip_grad": 1.0,
    "warmup_steps": None,
    "schedule": "cosine",
    "lr_min": 0.0,
}
TINY_STEPS = 9000
# crops of the architecture's own size in one micro-batch; --batch-size stays the same
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
DEFAULT_EMBED_DIM = 180  # of transformers
# {field of a local folder's config.json: its type}
CONFIG_FIELDS = {
    "embed_dim": int,
    "depths": list,
    "upscale": int,
    "upsampler": str,
    "visionloop_mode": str,
}


def recipe(values: JsonObject) -> JsonObject:
    """Return the defaults that model, mode and preset change, {setting: value}.

    Args:
        values: {setting: value} of all settings resolved so far.

    Raises:
        UserError: a setting that super-resolution does not have, or settings that contradict each
            other.
    """
    advised = MODEL_NAMES.start(values, PRESETS)
    model, preset = advised["model"], advised["preset"]
    _refuse_other_settings(values)
    mode = values["mode"] or mode_of(model)
    if mode not in RECIPE_OF_MODE:
        raise UserError(
            f"--mode: expected one of {', '.join(RECIPE_OF_MODE)}, got {mode!r}"
            f"{did_you_mean(mode, RECIPE_OF_MODE)}",
            field="mode",
        )
    batch_size, loss = RECIPE_OF_MODE[mode]
    advised |= AUTHORS | ({"flips": False} if values["augment_only"] else {})
    advised |= {
        "mode": mode,
        "scale": _resolve_scale(values["scale"], mode, model),
        "batch_size": batch_size,
        "loss": loss,
        "lr": LR[preset],
    }
    has_length = values["epochs"] is not None or values["steps"] is not None
    if architecture_of(model) == "tiny":
        return advised | TINY | ({} if has_length else {"steps": TINY_STEPS})
    return advised | ({} if has_length else {"steps": STEPS[preset]})


def _refuse_other_settings(values: JsonObject) -> None:
    if values["layer_decay"] != 1:
        raise UserError("--layer-decay: not for super-resolution", field="layer_decay")
    if values["image_size"] is not None:
        raise UserError(
            "--image-size: not for super-resolution; --patch-size is the side of the training"
            " crops",
            field="image_size",
        )
    if values["best_metric"] == "lpips" and values["lpips_weights"] is None:
        raise UserError("--best-metric lpips: needs --lpips-weights", field="best_metric")


def _resolve_scale(scale: int | None, mode: str, model: str) -> int | None:
    """Return the scale of a mode and a model; None where neither has one."""
    if not scale:
        if mode in RESTORATION:
            return 1
        scale = scale_of(model) or _local_config(model).get("upscale")
    if scale is not None and (scale == 1) != (mode in RESTORATION):
        why = (
            "denoise and jpeg keep the image size"
            if scale > 1
            else "choose the restoration with --mode denoise or jpeg"
        )
        raise UserError(f"--scale {scale}: {why}", field="scale")
    return scale


def resolve_defaults(values: JsonObject, steps: int) -> JsonObject:
    """Return the default micro-batch size of the model, {"micro_batch": crops}."""
    return {"micro_batch": MICRO_BATCH.get(architecture_of(values["model"]) or "", 4)}


def mode_of(model: str) -> Mode:
    """Return the mode that a model is for.

    It is read from a local folder's config or head, else from the name of the architecture; the
    default is classical.
    """
    config = _local_config(model)
    candidates = (
        config.get("visionloop_mode"),
        MODE_OF_HEAD.get(config.get("upsampler", "")),
        architecture_of(model),
    )
    return next((mode for name in candidates for mode in MODES if mode == name), "classical")


def architecture_of(model: str) -> str | None:
    """Return the architecture of a known name, or the one nearest to a local folder's config.

    None for any other name.
    """
    name = MODEL_NAMES.aliases.get(model, model)
    name = MODEL_NAMES.architecture_of.get(name, name)
    if name in ARCHITECTURES:
        return name
    config = _local_config(model)
    if not config:
        return None
    if config.get("embed_dim", DEFAULT_EMBED_DIM) <= 60:
        return "lightweight" if len(config.get("depths", [])) > 2 else "tiny"
    if config.get("visionloop_mode") in ARCHITECTURES:
        return str(config["visionloop_mode"])
    return MODE_OF_HEAD.get(config.get("upsampler", ""), "classical")


def _local_config(model: str) -> JsonObject:
    """Return the CONFIG_FIELDS of a local folder that have the right type; {} for other names."""
    if model in ARCHITECTURES:
        return {}
    config = local_config(model)
    return {
        name: config[name] for name, kind in CONFIG_FIELDS.items() if type(config.get(name)) is kind
    }
