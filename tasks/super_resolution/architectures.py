"""The architectures of Swin2SR, and the names under which their weights were released. No torch here: recipes are asked before a model.

Sources: main_test_swin2sr.py of `mv-lab/swin2sr` and options/swinir of `cszn/KAIR`; the fields are
those of the library's Swin2SRConfig. What is not listed is the library's default (qkv bias, no
dropout).
"""

import re
from dataclasses import dataclass

from visionloop.tasks.huggingface.hub import ModelRegistry


@dataclass(frozen=True)
class Architecture:
    """One body and its head. fields: of Swin2SRConfig, the same at every scale; scales: the first is the default.

    upsampler: the head above x1, in the library's words; patch_size: side of the training images
    in pixels of the input.
    """

    fields: dict
    upsampler: str
    scales: tuple[int, ...]
    patch_size: int


def _body(embed_dim, stages, depth, **fields):
    """Fields of a body of equal stages. The library ignores drop_path_rate; 0 is what its networks are trained with."""
    depths = {"embed_dim": embed_dim, "depths": [depth] * stages, "num_heads": [6] * stages}
    return (
        depths
        | {"window_size": 8, "mlp_ratio": 2.0, "img_range": 1.0, "drop_path_rate": 0.0}
        | fields
    )


LARGE = _body(180, 6, 6)
# `tiny` is ours: trains on a CPU in minutes
ARCHITECTURES = {
    "tiny": Architecture(_body(60, 2, 2), "pixelshuffledirect", (2, 3, 4, 8, 1), 24),
    "lightweight": Architecture(_body(60, 4, 6), "pixelshuffledirect", (2, 3, 4), 64),
    "classical": Architecture(LARGE, "pixelshuffle", (2, 3, 4, 8), 64),
    "real-world": Architecture(LARGE, "nearest+conv", (4,), 64),
    "compressed": Architecture(LARGE, "pixelshuffle_aux", (4,), 48),
    "denoise": Architecture(LARGE, "", (1,), 128),
    # windows of 7, because the blocks of a JPEG file are 8 wide; pixels of 0..255
    "jpeg": Architecture(LARGE | {"window_size": 7, "img_range": 255.0}, "", (1,), 126),
}
# the scales that each of the library's heads can be built for
SCALES_OF_HEAD = {
    "": (1,),
    "pixelshuffle": (2, 3, 4, 8),
    "pixelshuffledirect": (2, 3, 4, 8),
    "pixelshuffle_aux": (2, 3, 4, 8),
    "nearest+conv": (4,),
}
OWNER = "caidas/"
# (architecture, scale) -> hub id
RELEASED = {
    ("classical", 2): OWNER + "swin2SR-classical-sr-x2-64",
    ("classical", 4): OWNER + "swin2SR-classical-sr-x4-64",
    ("lightweight", 2): OWNER + "swin2SR-lightweight-x2-64",
    ("real-world", 4): OWNER + "swin2SR-realworld-sr-x4-64-bsrgan-psnr",
    ("compressed", 4): OWNER + "swin2SR-compressed-sr-x4-48",
}


def _aliases():
    """{other name: hub id}: short names such as classical-x4, and the hub's with other capitals and hyphens, with and without owner.

    `caidas/swin2sr-classicalsr-x2-64` stands in the library's own documentation, but never was an
    id.
    """
    found = {}
    for (architecture, scale), hub_id in RELEASED.items():
        kind, end = re.fullmatch(
            r"swin2SR-([a-z]+?)(?:-sr)?-(x\d.*)", hub_id.removeprefix(OWNER)
        ).groups()
        spellings = (
            f"{owner}{start}-{word}{joint}-{end}"
            for owner in (OWNER, "")
            for start in ("swin2SR", "swin2sr", "Swin2SR")
            for word in (kind, architecture)
            for joint in ("-sr", "sr", "-SR", "SR", "")
        )
        found |= dict.fromkeys((f"{architecture}-x{scale}", *spellings), hub_id)
        found.pop(hub_id)
    return found


REGISTRY = ModelRegistry(
    architectures=tuple(ARCHITECTURES),
    pretrained={
        architecture: hub_id
        for (architecture, scale), hub_id in RELEASED.items()
        if scale == ARCHITECTURES[architecture].scales[0]
    },
    default="tiny",
    example=RELEASED["classical", 2],
    aliases=_aliases(),
    architecture_of={hub_id: architecture for (architecture, _), hub_id in RELEASED.items()},
)


def scale_of(name):
    """The scale that a name of the registry stands for, an architecture's default; None for a folder or an id that we do not know."""
    name = REGISTRY.aliases.get(name, name)
    if name in ARCHITECTURES:
        return ARCHITECTURES[name].scales[0]
    return next((scale for (_, scale), hub_id in RELEASED.items() if hub_id == name), None)


def start_of(name, scale=None):
    """What `REGISTRY.find` should look for: for an architecture its released weights of that scale, else those of x2, else the name.

    Any other name stays as it is.
    """
    if name not in ARCHITECTURES:
        return name
    return RELEASED.get((name, scale or scale_of(name))) or RELEASED.get((name, 2)) or name


def config_fields(name, scale=None, patch_size=None):
    """Fields of Swin2SRConfig for one of our architectures; None: its default. Raises KeyError for a scale that it does not have."""
    architecture = ARCHITECTURES[name]
    scale = scale or architecture.scales[0]
    if scale not in architecture.scales:
        raise KeyError(scale)
    upsampler = architecture.upsampler if scale > 1 else ""
    size = {"upscale": scale, "image_size": patch_size or architecture.patch_size}
    return architecture.fields | {"upsampler": upsampler} | size
