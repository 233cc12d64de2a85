"""Swin2SR models: built with random weights, loaded from a folder, or adapted to another scale."""

import logging
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from transformers import PreTrainedConfig, Swin2SRConfig

from visionloop.engine.errors import UserError
from visionloop.tasks.huggingface.hub import ModelSource
from visionloop.tasks.huggingface.loading import load_config, load_weights
from visionloop.tasks.super_resolution.architectures import (
    ARCHITECTURES,
    SCALES_OF_HEAD,
    config_fields,
)
from visionloop.tasks.super_resolution.network import Swin2SRForImageSuperResolution
from visionloop.tasks.super_resolution.weight_conversion import (
    is_plain,
    remove_marks,
    restore_official_config,
    to_official,
)

log = logging.getLogger(__name__)

Init = Literal["authors", "transformers"]

# weights that older files have in excess: they follow from the config
OBSOLETE_WEIGHTS = (
    ".relative_coords_table", ".relative_position_index", ".attn_mask", "swin2sr.mean",
)  # fmt: skip
# the layers of each head that depend on the scale; another head is new as a whole
SCALE_LAYERS = {
    "pixelshuffle": "upsample.upsample.",
    "pixelshuffle_aux": "upsample.upsample.",
    "pixelshuffledirect": "upsample.conv.",
}
HEAD_LAYERS = ("upsample.", "final_convolution.")
# fields of config.json with the only value that the network supports, and the reason
REQUIRED_FIELDS = (
    ("num_channels", 3, "images have three channels"),
    ("num_channels_out", 3, "images have three channels"),
    ("patch_size", 1, "a token is a pixel"),
    ("use_absolute_embeddings", False, "the forward of transformers fails with them"),
    ("resi_connection", "1conv", "transformers builds only half of the other kind"),
)


def build_model(
    source: ModelSource,
    config: PreTrainedConfig,
    *,
    official_heads: bool = True,
    init: Init = "authors",
) -> Swin2SRForImageSuperResolution:
    """Build the network of a source, in fp32 on the CPU, in train mode.

    A folder of another scale contributes all its weights but those of the upsampler that do not
    fit; a warning lists the new ones. From x1 and to x1 the whole head is new.

    Args:
        source: an architecture, or a folder whose weights are loaded or not.
        config: of `source_config`.
        official_heads: train the authors' heads; weights that were converted for plain
            transformers are converted back first. False takes the weights as they are, with the
            heads of plain transformers.
        init: initialization of random weights, see `new_model`.
    """
    if source.weights:
        assert source.folder is not None, "weights come from a folder"
        module = load_model(source.folder)
        if official_heads and is_plain(module.config):
            module = _with_official_weights(module)
        if (config.upscale, config.upsampler) != (module.scale, module.upsampler):
            module = _change_scale(module, config, source.folder, init)
    else:
        module = new_model(config, init)
    module.official_heads = official_heads
    module.train()
    return module


def new_model(config: PreTrainedConfig, init: Init = "authors") -> Swin2SRForImageSuperResolution:
    """Build a Swin2SR with random weights.

    Args:
        init: initialization of the convolutions, as the "authors" draw them or as transformers
            does; everything else is drawn by transformers.
    """
    config = copy_of(config)
    remove_marks(config)
    config.dtype = torch.float32
    module = Swin2SRForImageSuperResolution(config)
    if init == "authors":
        init_convolutions(module)
    return module


@torch.no_grad()
def init_convolutions(module: nn.Module) -> None:
    """Draw all convolutions with torch's default initialization, as the authors do.

    Source: `_init_weights` in models/network_swin2sr.py of `mv-lab/swin2sr`, which covers Linear
    and LayerNorm alone. transformers draws the convolutions from a normal of 0.02 too, half as
    wide as theirs for 24 channels.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()


def load_model(folder: str | Path) -> Swin2SRForImageSuperResolution:
    """Load the Swin2SR of a folder in fp32, with its own scale and the heads of its config.

    Raises:
        UserError: a weight is missing or unexpected.
    """
    config = read_config(folder)
    config.dtype = torch.float32
    module: Swin2SRForImageSuperResolution = load_weights(
        Swin2SRForImageSuperResolution,
        folder,
        config,
        lambda _, name: name.endswith(OBSOLETE_WEIGHTS),
    )
    return module


def source_config(
    source: ModelSource, *, scale: int | None = None, image_size: int | None = None
) -> PreTrainedConfig:
    """Return the config of the network to build for a source.

    Args:
        source: an architecture or a folder.
        scale: upscaling factor; None keeps the folder's own, or the architecture's default.
        image_size: side of the training images in input pixels. It only decides whether the blocks
            of random weights shift their windows; a network with weights keeps the size that it
            was trained with.

    Raises:
        UserError: there is no head for the scale, or no block would shift at this size.
    """
    if source.folder is None:
        config = new_config(source.name, scale, image_size)
    else:
        config = read_config(source.folder)
        if scale and scale != config.upscale:
            config.upscale, config.upsampler = scale, _head_for(config, scale, source.folder)
        if not source.weights:
            restore_official_config(config)
            config.image_size = image_size or config.image_size
    if not source.weights and config.image_size <= config.window_size:
        raise UserError(
            f"--patch-size: {config.image_size} pixels, expected more than the window's"
            f" {config.window_size}: no block would shift its windows",
            field="patch_size",
        )
    return config


def new_config(name: str, scale: int | None = None, image_size: int | None = None) -> Swin2SRConfig:
    """Return the config of an architecture.

    Raises:
        UserError: the architecture does not support the scale.
    """
    try:
        return Swin2SRConfig(**config_fields(name, scale, image_size))
    except KeyError:
        scales = ", ".join(map(str, sorted(ARCHITECTURES[name].scales)))
        raise UserError(
            f"--scale {scale}: {name} supports the scales {scales}", field="scale"
        ) from None


def read_config(folder: str | Path) -> PreTrainedConfig:
    """Read the config of a Swin2SR folder.

    Raises:
        UserError: it is another model, or a Swin2SR that the network does not support.
    """
    config = load_config(folder)
    if config.model_type != "swin2sr":
        raise _unsupported(folder, f"a {config.model_type} model, expected swin2sr")
    for name in ("image_size", "patch_size"):
        sides = getattr(config, name)
        sides = [sides] if isinstance(sides, int) else list(sides)
        if len(set(sides)) > 1:
            raise _unsupported(folder, f"config.json has {name} {sides}, expected a square")
        setattr(config, name, sides[0])
    for name, expected, why in REQUIRED_FIELDS:
        value = getattr(config, name)
        if value != expected:
            raise _unsupported(
                folder, f"config.json has {name} {value!r}, expected {expected!r}: {why}"
            )
    if config.upscale not in SCALES_OF_HEAD.get(config.upsampler, ()):
        raise _unsupported(
            folder,
            f"config.json has upsampler {config.upsampler!r} and upscale {config.upscale}, which"
            " do not go together",
        )
    return config


def _unsupported(folder: str | Path, why: str) -> UserError:
    return UserError(f"--model {folder}: {why}", field="model", file=str(folder))


def copy_of(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return a copy of a config that may be changed."""
    return type(config).from_dict(config.to_dict())


def _head_for(config: PreTrainedConfig, scale: int, folder: Path) -> str:
    """Return the upsampler for another scale.

    It is the folder's own where transformers can build it; after x1 it is the one of the authors'
    network of that width.
    """
    if scale == 1:
        return ""
    upsampler: str = config.upsampler or (
        "pixelshuffle" if config.embed_dim > 60 else "pixelshuffledirect"
    )
    if scale not in SCALES_OF_HEAD[upsampler]:
        scales = ", ".join(map(str, SCALES_OF_HEAD[upsampler]))
        raise UserError(
            f"--scale {scale}: the head of {folder} ({upsampler}) supports the scales {scales}",
            field="scale",
            file=str(folder),
        )
    return upsampler


def _with_official_weights(
    module: Swin2SRForImageSuperResolution,
) -> Swin2SRForImageSuperResolution:
    """Return the same network with the weights for plain transformers converted back."""
    config, weights = to_official(copy_of(module.config), module.state_dict())
    official = Swin2SRForImageSuperResolution(config)
    official.load_state_dict(weights)
    return official


def _change_scale(
    module: Swin2SRForImageSuperResolution, config: PreTrainedConfig, folder: Path, init: Init
) -> Swin2SRForImageSuperResolution:
    """Build a network of another scale with all weights that fit, and log the new ones."""
    new_scale_config = copy_of(module.config)
    new_scale_config.upscale, new_scale_config.upsampler = config.upscale, config.upsampler
    network = new_model(new_scale_config, init)
    old, new = module.state_dict(), network.state_dict()
    same_head = module.upsampler == network.upsampler
    may_be_new = (SCALE_LAYERS[module.upsampler],) if same_head else HEAD_LAYERS
    fitting = {
        name: tensor
        for name, tensor in old.items()
        if name in new
        and new[name].shape == tensor.shape
        and (same_head or not name.startswith(HEAD_LAYERS))
    }
    initialized = sorted(new.keys() - fitting.keys())
    differing = {*initialized, *(old.keys() - fitting.keys())}
    assert all(name.startswith(may_be_new) for name in differing), "the body fits any head"
    network.load_state_dict(fitting, strict=False)
    log.warning(
        "%s: from x%d to x%d, new weights: %s",
        folder,
        module.scale,
        network.scale,
        ", ".join(initialized) or "none",
    )
    return network
