"""Conversion of Swin2SR weights between the authors' network and plain transformers.

Two heads of transformers differ from the authors' (see heads.py) by terms that a bias, or a factor
in the first and last convolution, can absorb. For these heads, `visionloop_heads` in config.json
says which weights a folder holds: "official" or "plain".

- x1: plain transformers computes (x + r) / range + mean instead of x + r / range, where r is the
  output of the last convolution. The range moves into the first and the last convolution of the
  network, which leaves range 1, and the mean into the last bias.
- pixelshuffle_aux: transformers gives conv_bicubic the input x instead of (x - mean) * range. Both
  move into that convolution. The images are the same but for their outer 2 pixels, where the zeros
  around the image mean black in one and the mean in the other.
"""

from collections.abc import Mapping

import torch
from transformers import PreTrainedConfig

from visionloop.tasks.super_resolution.heads import DIFFERENT_HEADS

Weights = dict[str, torch.Tensor]  # {name: tensor}

# the buffer of transformers, which is not among the weights
MEAN = torch.tensor([0.4488, 0.4371, 0.4040], dtype=torch.float64)
FIRST, LAST, BICUBIC = "swin2sr.first_convolution", "final_convolution", "upsample.conv_bicubic"
HEADS_KEY, RANGE_KEY = "visionloop_heads", "visionloop_img_range"  # our keys in config.json


def is_plain(config: PreTrainedConfig) -> bool:
    """Return True for the config.json of weights that were converted for plain transformers."""
    return getattr(config, HEADS_KEY, None) == "plain"


def mark_heads(config: PreTrainedConfig, *, official: bool) -> None:
    """Write into a config which kind of weights belong to it, for heads with two kinds."""
    if config.upsampler in DIFFERENT_HEADS:
        config.visionloop_heads = "official" if official else "plain"
        return
    remove_marks(config)


def remove_marks(config: PreTrainedConfig) -> None:
    """Remove our keys from a config."""
    for name in (HEADS_KEY, RANGE_KEY):
        if hasattr(config, name):
            delattr(config, name)


def restore_official_config(config: PreTrainedConfig) -> None:
    """Remove our keys from a config and restore the range that `to_plain` moved into weights."""
    config.img_range = getattr(config, RANGE_KEY, config.img_range)
    remove_marks(config)


def to_plain(
    config: PreTrainedConfig, weights: Mapping[str, torch.Tensor]
) -> tuple[PreTrainedConfig, Weights, list[str]]:
    """Convert official weights for plain transformers.

    Args:
        config: the official config; it is changed.
        weights: the official weights; they are not changed.

    Returns:
        (config, weights, lines about the changes).
    """
    kind, scale = config.upsampler, config.img_range
    if kind not in DIFFERENT_HEADS:
        return config, dict(weights), []
    changed = _copy_in_float64(weights, kind)
    if kind == "":
        changed[f"{FIRST}.weight"] *= scale
        changed[f"{LAST}.weight"] /= scale
        changed[f"{LAST}.bias"] = changed[f"{LAST}.bias"] / scale - MEAN
        line = (
            f"{LAST}.bias is corrected for plain transformers, whose x1 head adds the mean to the"
            " input"
        )
        if scale != 1:
            line += f"; img_range {scale:g} moved into the first and the last convolution"
            config.visionloop_img_range, config.img_range = scale, 1.0
    else:
        changed[f"{BICUBIC}.weight"] *= scale
        changed[f"{BICUBIC}.bias"] -= _output_for_mean(changed)
        line = (
            f"{BICUBIC} is corrected for plain transformers, which resizes raw pixels; the images"
            " are the same but for the outer 2 pixels"
        )
    mark_heads(config, official=False)
    return config, {**weights, **_cast_like(changed, weights)}, [line]


def to_official(
    config: PreTrainedConfig, weights: Mapping[str, torch.Tensor]
) -> tuple[PreTrainedConfig, Weights]:
    """Convert the weights of `to_plain` back, equal to 1e-7 of the range. The config is changed."""
    restore_official_config(config)
    kind, changed = config.upsampler, _copy_in_float64(weights, config.upsampler)
    if kind == "":
        changed[f"{FIRST}.weight"] /= config.img_range
        changed[f"{LAST}.weight"] *= config.img_range
        changed[f"{LAST}.bias"] = (changed[f"{LAST}.bias"] + MEAN) * config.img_range
    else:
        changed[f"{BICUBIC}.bias"] += _output_for_mean(changed)
        changed[f"{BICUBIC}.weight"] /= config.img_range
    return config, {**weights, **_cast_like(changed, weights)}


def _output_for_mean(weights: Weights) -> torch.Tensor:
    """Return the output of conv_bicubic, without its bias, for an image of the mean alone: [64]."""
    return (weights[f"{BICUBIC}.weight"] * MEAN.view(1, 3, 1, 1)).sum((1, 2, 3))


def _copy_in_float64(weights: Mapping[str, torch.Tensor], kind: str) -> Weights:
    """Copy the weights that a conversion changes to the CPU in float64."""
    layers = (FIRST, LAST) if kind == "" else (BICUBIC,)
    return {
        name: tensor.detach().to("cpu", torch.float64, copy=True)
        for name, tensor in weights.items()
        if name.rpartition(".")[0] in layers
    }


def _cast_like(changed: Weights, weights: Mapping[str, torch.Tensor]) -> Weights:
    """Cast the changed weights to the dtype of the original ones."""
    return {name: tensor.to(weights[name].dtype) for name, tensor in changed.items()}
