"""Swin2SR built at random, loaded from a Hugging Face folder, or started from the weights of another scale."""

import logging

import torch
from torch import nn
from transformers import Swin2SRConfig

from visionloop.engine.errors import UserError
from visionloop.tasks.huggingface.loading import load_config, load_weights
from visionloop.tasks.super_resolution.architectures import (
    ARCHITECTURES,
    SCALES_OF_HEAD,
    config_fields,
)
from visionloop.tasks.super_resolution.network import Swin2SRForImageSuperResolution
from visionloop.tasks.super_resolution.weight_conversion import clear, is_plain, make_official, undo

# Random weights as Swin2SR's authors draw them.
#
# Source: `_init_weights` in models/network_swin2sr.py of `mv-lab/swin2sr`, which knows Linear and
# LayerNorm alone. The library draws the convolutions from a normal of 0.02 too, half as wide as
# theirs for 24 channels.


@torch.no_grad()
def initialize(module):
    """Draw all convolutions anew, as torch does by default. Linear layers and norms are as the library has drawn them."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()


log = logging.getLogger(__name__)
# what an older file may have too much of: numbers that follow from the config
MAY_BE_TOO_MUCH = (
    ".relative_coords_table",
    ".relative_position_index",
    ".attn_mask",
    "swin2sr.mean",
)
# the part of each head that depends on the scale; another head is new as a whole
PARTS_OF_SCALE = {
    "pixelshuffle": "upsample.upsample.",
    "pixelshuffle_aux": "upsample.upsample.",
    "pixelshuffledirect": "upsample.conv.",
}
HEADS = ("upsample.", "final_convolution.")


def build_model(source, config, *, official_heads=True, init="authors"):
    """The network of `source`, in fp32 on the CPU, in train mode.

    config: of `source_config`. A folder of another scale gives all its weights but those of the
    upsampler that do not fit, and one line names what is new. From x1 and to x1 the whole head is
    new. official_heads: train the authors' heads; weights that were corrected for plain
    transformers are turned back first. False: weights as they are, heads as plain transformers has
    them. init: of random weights, see `new_model`.
    """
    if source.weights:
        module = load_model(source.folder)
        if official_heads and is_plain(module.config):
            module = _with_official_weights(module)
        if (config.upscale, config.upsampler) != (module.scale, module.upsampler):
            module = _to_scale(module, config, source.folder, init)
    else:
        module = new_model(config, init)
    module.official_heads = official_heads
    return module.train()


def source_config(source, *, scale=None, image_size=None):
    """The library's config of the network that a ModelSource stands for.

    scale: None keeps the folder's own, or takes an architecture's default. image_size: side of the
    training images in pixels of the input. It decides about random weights alone, whether blocks
    shift their windows; a network with weights keeps what it was trained with. Raises UserError for
    a scale that there is no head for, and for a size at which nothing would shift.
    """
    if source.folder is None:
        config = new_config(source.name, scale, image_size)
    else:
        config = read_config(source.folder)
        if scale and scale != config.upscale:
            config.upscale, config.upsampler = scale, _head_for(config, scale, source.folder)
        if not source.weights:
            make_official(config)
            config.image_size = image_size or config.image_size
    if not source.weights and config.image_size <= config.window_size:
        why = f"{config.image_size} pixels, expected more than the window's {config.window_size}: no block would shift its windows"
        raise UserError(f"--patch-size: {why}", field="patch_size")
    return config


def new_config(name, scale=None, image_size=None):
    """The library's config of one of our architectures. Raises UserError for a scale that it does not have."""
    try:
        return Swin2SRConfig(**config_fields(name, scale, image_size))
    except KeyError:
        scales = ", ".join(map(str, sorted(ARCHITECTURES[name].scales)))
        raise UserError(f"--scale {scale}: {name} is for {scales}", field="scale") from None


def new_model(config, init="authors"):
    """A Swin2SR with random weights. init: whose convolutions, the "authors"' or the "library"'s; all else is drawn by the library."""
    config = copy_of(config)
    clear(config)
    config.dtype = torch.float32
    module = Swin2SRForImageSuperResolution(config)
    if init == "authors":
        initialize(module)
    return module


def load_model(folder):
    """The Swin2SR of a folder, in fp32, as it is: its own scale, and heads as its config says. Raises UserError for a wrong weight."""
    config = read_config(folder)
    config.dtype = torch.float32
    return load_weights(
        Swin2SRForImageSuperResolution,
        folder,
        config,
        lambda _, name: name.endswith(MAY_BE_TOO_MUCH),
    )


def read_config(folder):
    """The config of the Swin2SR that a folder holds. Raises UserError for any other model and for what we cannot follow."""
    config = load_config(folder)
    if config.model_type != "swin2sr":
        raise refusal(folder, f"a {config.model_type} model, expected swin2sr")
    for name in ("image_size", "patch_size"):
        sides = getattr(config, name)
        sides = [sides] if isinstance(sides, int) else list(sides)
        if len(set(sides)) > 1:
            raise refusal(folder, f"config.json has {name} {sides}, expected a square")
        setattr(config, name, sides[0])
    for name, value, why in (
        ("num_channels", 3, "images have three channels"),
        ("num_channels_out", 3, "images have three channels"),
        ("patch_size", 1, "a token is a pixel"),
        ("use_absolute_embeddings", False, "the library's forward fails with them"),
        ("resi_connection", "1conv", "the library builds half of the other kind"),
    ):
        if getattr(config, name) != value:
            raise refusal(
                folder,
                f"config.json has {name} {getattr(config, name)!r}, expected {value!r}: {why}",
            )
    if config.upscale not in SCALES_OF_HEAD.get(config.upsampler, ()):
        raise refusal(
            folder,
            f"config.json has upsampler {config.upsampler!r} and upscale {config.upscale}, which do not go together",
        )
    return config


def refusal(folder, why):
    """The UserError of a folder that is not ours."""
    return UserError(f"--model {folder}: {why}", field="model", file=str(folder))


def copy_of(config):
    """A config of its own, to be changed."""
    return type(config).from_dict(config.to_dict())


def _head_for(config, scale, folder):
    """The upsampler of another scale: the folder's own where it can be built; after x1 the one of the authors' network of that width."""
    if scale == 1:
        return ""
    upsampler = config.upsampler or (
        "pixelshuffle" if config.embed_dim > 60 else "pixelshuffledirect"
    )
    if scale not in SCALES_OF_HEAD[upsampler]:
        scales = ", ".join(map(str, SCALES_OF_HEAD[upsampler]))
        raise UserError(
            f"--scale {scale}: the head of {folder} ({upsampler}) is for {scales}",
            field="scale",
            file=str(folder),
        )
    return upsampler


def _with_official_weights(module):
    """The same network with weights that were corrected for plain transformers turned back."""
    config, weights = undo(copy_of(module.config), module.state_dict())
    official = Swin2SRForImageSuperResolution(config)
    official.load_state_dict(weights)
    return official


def _to_scale(module, config, folder, init):
    """A new network of another scale with all weights of `module` that fit; says in one line what does not."""
    wanted = copy_of(module.config)
    wanted.upscale, wanted.upsampler = config.upscale, config.upsampler
    larger = new_model(wanted, init)
    old, new = module.state_dict(), larger.state_dict()
    same_head = module.upsampler == larger.upsampler
    may_be_new = (PARTS_OF_SCALE[module.upsampler],) if same_head else HEADS
    fitting = {
        name: tensor
        for name, tensor in old.items()
        if name in new and new[name].shape == tensor.shape
    }
    if not same_head:
        fitting = {name: tensor for name, tensor in fitting.items() if not name.startswith(HEADS)}
    fresh = sorted(new.keys() - fitting.keys())
    assert all(name.startswith(may_be_new) for name in {*fresh, *(old.keys() - fitting.keys())}), (
        "the body fits any head"
    )
    larger.load_state_dict(fitting, strict=False)
    log.warning(
        "%s: from x%d to x%d, new weights: %s",
        folder,
        module.scale,
        larger.scale,
        ", ".join(fresh) or "none",
    )
    return larger
