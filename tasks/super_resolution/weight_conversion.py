"""Weights with which plain transformers computes what the authors' network does, and the way back.

Two of the library's heads differ from the authors' (see heads.py), by terms that a bias, or a
factor in the first and last convolution, can take. In config.json `visionloop_heads` says for these
heads which weights a folder holds: "official" or "plain".

x1: plain transformers gives (x + r) / range + mean where x + r / range is meant, r what the last
convolution answers. The range moves into the convolutions on both ends of the network, which leaves
range 1, and the mean into the last bias. pixelshuffle_aux: the library gives conv_bicubic the input
x where (x - mean) * range is meant. Both move into that convolution. The images are the same but
for their outer 2 pixels, where the zeros around the image mean black to one and the mean to the
other.
"""

import torch

from visionloop.tasks.super_resolution.heads import DIFFERENT_HEADS

MEAN = torch.tensor(
    [0.4488, 0.4371, 0.4040], dtype=torch.float64
)  # the library's buffer; not in the weights
FIRST, LAST, BICUBIC = "swin2sr.first_convolution", "final_convolution", "upsample.conv_bicubic"
MARKERS = ("visionloop_heads", "visionloop_img_range")


def is_plain(config):
    """Whether config.json says that its weights were corrected for plain transformers."""
    return getattr(config, MARKERS[0], None) == "plain"


def mark(config, *, official):
    """Say in a config which kind of weights go with it, where there are two kinds."""
    if config.upsampler in DIFFERENT_HEADS:
        config.visionloop_heads = "official" if official else "plain"
        return
    clear(config)


def clear(config):
    """Take our own keys out of a config."""
    for name in MARKERS:
        if hasattr(config, name):
            delattr(config, name)


def make_official(config):
    """Take our own keys out of a config, and take back the range that `correct` moved into the weights."""
    config.img_range = getattr(config, MARKERS[1], config.img_range)
    clear(config)


def correct(config, weights):
    """(config, weights) for plain transformers, and lines that say what was done. config: official, changed; weights: not changed."""
    kind, scale = config.upsampler, config.img_range
    if kind not in DIFFERENT_HEADS:
        return config, weights, []
    changed = _doubles(weights, kind)
    if kind == "":
        changed[f"{FIRST}.weight"] *= scale
        changed[f"{LAST}.weight"] /= scale
        changed[f"{LAST}.bias"] = changed[f"{LAST}.bias"] / scale - MEAN
        line = f"{LAST}.bias is corrected for plain transformers, whose x1 head adds the mean to the input"
        if scale != 1:
            line += f"; img_range {scale:g} moved into the first and the last convolution"
            config.visionloop_img_range, config.img_range = scale, 1.0
    else:
        changed[f"{BICUBIC}.weight"] *= scale
        changed[f"{BICUBIC}.bias"] -= _answer_to_mean(changed)
        line = f"{BICUBIC} is corrected for plain transformers, which resizes raw pixels; the same images but for the outer 2 pixels"
    mark(config, official=False)
    return config, weights | _like(changed, weights), [line]


def undo(config, weights):
    """(config, weights) for the authors' heads from those that `correct` gave, equal to 1e-7 of the range. config: changed."""
    make_official(config)
    kind, changed = config.upsampler, _doubles(weights, config.upsampler)
    if kind == "":
        changed[f"{FIRST}.weight"] /= config.img_range
        changed[f"{LAST}.weight"] *= config.img_range
        changed[f"{LAST}.bias"] = (changed[f"{LAST}.bias"] + MEAN) * config.img_range
    else:
        changed[f"{BICUBIC}.bias"] += _answer_to_mean(changed)
        changed[f"{BICUBIC}.weight"] /= config.img_range
    return config, weights | _like(changed, weights)


def _answer_to_mean(weights):
    """What conv_bicubic makes of an image that is the mean everywhere, without its bias: [64]."""
    return (weights[f"{BICUBIC}.weight"] * MEAN.view(1, 3, 1, 1)).sum((1, 2, 3))


def _doubles(weights, kind):
    """Copies in float64, on the CPU, of the weights that a correction changes."""
    layers = (FIRST, LAST) if kind == "" else (BICUBIC,)
    return {
        name: tensor.detach().to("cpu", torch.float64, copy=True)
        for name, tensor in weights.items()
        if name.rpartition(".")[0] in layers
    }


def _like(changed, weights):
    """The changed weights in the type of the old ones."""
    return {name: tensor.to(weights[name].dtype) for name, tensor in changed.items()}
