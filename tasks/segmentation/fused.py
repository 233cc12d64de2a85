"""What a folder's weight files hold, and the SwiGLU layers that older files of EoMT hold in one piece.

The library splits such layers for DINOv2 alone; in an EoMT file it takes them for unknown, and leaves random ones in their place.
"""

import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from visionloop.engine.errors import UserError

FUSED = re.compile(r"^(layers\.\d+\.mlp)\.weights_(in|out)\.(weight|bias)$")


def stored_tensors(folder):
    """{name of a weight: file that holds it}. Reads headers alone. Raises UserError for a file that cannot be read."""
    found = {}
    for path in sorted(Path(folder).glob("model*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                found |= dict.fromkeys(file.keys(), path)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path}: {str(error).splitlines()[0]}", field="model", file=str(path)) from None
    return found


def parts_of(name):
    """The library's names of what a fused weight consists of, in order; empty for any other weight."""
    found = FUSED.match(name)
    if not found:
        return []
    mlp, which, kind = found.groups()
    return [f"{mlp}.{part}.{kind}" for part in (("gate_proj", "up_proj") if which == "in" else ("down_proj",))]


@torch.no_grad()
def split_fused(module, stored):
    """Copy the fused weights of `stored`, as stored_tensors answers, into the parts that `module` has."""
    parameters = dict(module.named_parameters())
    for name, path in stored.items():
        parts = parts_of(name)
        if not parts:
            continue
        with safe_open(path, framework="pt") as file:
            for part, tensor in zip(parts, file.get_tensor(name).chunk(len(parts)), strict=True):
                parameters[part].copy_(tensor)
