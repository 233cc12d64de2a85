"""Architectures of Swin2SR, and their released weights, which models.toml lists.

Imports no torch, since recipes read the table before a model exists.

Sources: main_test_swin2sr.py of `mv-lab/swin2sr` and options/swinir of `cszn/KAIR`. The fields are
those of Swin2SRConfig in transformers; a field that is not listed has its default there (qkv bias,
no dropout).
"""

import re
from dataclasses import dataclass

from visionloop.engine.types import JsonObject
from visionloop.tasks.huggingface.hub import ModelNames
from visionloop.tasks.model_zoo import read_models, released_weights


@dataclass(frozen=True)
class Architecture:
    """A body and its head.

    Attributes:
        fields: fields of Swin2SRConfig, the same at every scale.
        upsampler: the head above x1, as transformers names it.
        scales: supported scales; the first is the default.
        patch_size: side of the training crops in input pixels.
    """

    fields: JsonObject
    upsampler: str
    scales: tuple[int, ...]
    patch_size: int


def _body(embed_dim: int, stages: int, depth: int) -> JsonObject:
    """Return the fields of a body with equal stages."""
    return {
        "embed_dim": embed_dim,
        "depths": [depth] * stages,
        "num_heads": [6] * stages,
        "window_size": 8,
        "mlp_ratio": 2.0,
        "img_range": 1.0,
        # transformers ignores it; its networks are trained with 0
        "drop_path_rate": 0.0,
    }


LARGE = _body(180, 6, 6)
# `tiny` is our own and trains on a CPU in minutes
ARCHITECTURES = {
    "tiny": Architecture(_body(60, 2, 2), "pixelshuffledirect", (2, 3, 4, 8, 1), 24),
    "lightweight": Architecture(_body(60, 4, 6), "pixelshuffledirect", (2, 3, 4), 64),
    "classical": Architecture(LARGE, "pixelshuffle", (2, 3, 4, 8), 64),
    "real-world": Architecture(LARGE, "nearest+conv", (4,), 64),
    "compressed": Architecture(LARGE, "pixelshuffle_aux", (4,), 48),
    "denoise": Architecture(LARGE, "", (1,), 128),
    # windows of 7, since the blocks of a JPEG file are 8 wide; pixels in 0..255
    "jpeg": Architecture(LARGE | {"window_size": 7, "img_range": 255.0}, "", (1,), 126),
}
# scales that each head of transformers can be built for
SCALES_OF_HEAD = {
    "": (1,),
    "pixelshuffle": (2, 3, 4, 8),
    "pixelshuffledirect": (2, 3, 4, 8),
    "pixelshuffle_aux": (2, 3, 4, 8),
    "nearest+conv": (4,),
}
OWNER = "caidas/"
RELEASED = released_weights(read_models("super_resolution"))
# {(architecture, scale): hub id of its released weights}
PRETRAINED: dict[tuple[str, int], str] = {
    (model["architecture_name"], model["upscale_factor"]): model["model_id"]
    for model in read_models("super_resolution")["models"]
    if model["model_id"] in RELEASED
}


def _aliases() -> dict[str, str]:
    """Return {alias: hub id}.

    Aliases are short names such as classical-x4, and the hub ids with other capitals and hyphens,
    with and without owner: `caidas/swin2sr-classicalsr-x2-64` is in the documentation of
    transformers, but never was an id.
    """
    aliases: dict[str, str] = {}
    for (architecture, scale), hub_id in PRETRAINED.items():
        parts = re.fullmatch(r"swin2SR-([a-z]+?)(?:-sr)?-(x\d.*)", hub_id.removeprefix(OWNER))
        assert parts, hub_id
        kind, end = parts.groups()
        spellings = (
            f"{owner}{start}-{word}{joint}-{end}"
            for owner in (OWNER, "")
            for start in ("swin2SR", "swin2sr", "Swin2SR")
            for word in (kind, architecture)
            for joint in ("-sr", "sr", "-SR", "SR", "")
        )
        aliases |= dict.fromkeys((f"{architecture}-x{scale}", *spellings), hub_id)
        aliases.pop(hub_id)
    return aliases


MODEL_NAMES = ModelNames(
    architectures=tuple(ARCHITECTURES),
    default="tiny",
    example=PRETRAINED["classical", 2],
    aliases=_aliases(),
    architecture_of=RELEASED,
)


def scale_of(name: str) -> int | None:
    """Return the scale of a known name, for an architecture its default; None for any other."""
    name = MODEL_NAMES.aliases.get(name, name)
    if name in ARCHITECTURES:
        return ARCHITECTURES[name].scales[0]
    return next((scale for (_, scale), hub_id in PRETRAINED.items() if hub_id == name), None)


def pretrained_name(name: str, scale: int | None = None) -> str:
    """Return the hub id of the weights that an architecture starts from.

    These are its released weights of that scale, else those of x2. A name that is no architecture,
    or that has no released weights, is returned unchanged.
    """
    if name not in ARCHITECTURES:
        return name
    own_scale = scale or ARCHITECTURES[name].scales[0]
    return PRETRAINED.get((name, own_scale)) or PRETRAINED.get((name, 2)) or name


def config_fields(name: str, scale: int | None = None, patch_size: int | None = None) -> JsonObject:
    """Return the fields of Swin2SRConfig for an architecture; None means its default.

    Raises:
        KeyError: the architecture does not support the scale.
    """
    architecture = ARCHITECTURES[name]
    scale = scale or architecture.scales[0]
    if scale not in architecture.scales:
        raise KeyError(scale)
    upsampler = architecture.upsampler if scale > 1 else ""
    size = {"upscale": scale, "image_size": patch_size or architecture.patch_size}
    return architecture.fields | {"upsampler": upsampler} | size
