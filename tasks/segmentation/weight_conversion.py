"""Weights of EoMT by the names of its authors' code, renamed for transformers.

Source: models/ of `tue-mps/eomt` on timm's ViT, and transformers' `convert_eomt_to_hf.py`.
"""

import re
from collections.abc import Mapping

import torch

AUTHORS = "network."  # the first word of the authors' names
BLOCK = r"^network\.encoder\.backbone\.blocks\.(\d+)\."
RENAMED = (
    (r"^network\.encoder\.backbone\.cls_token$", "embeddings.cls_token"),
    (r"^network\.encoder\.backbone\.reg_token$", "embeddings.register_tokens"),
    (r"^network\.encoder\.backbone\.pos_embed$", "embeddings.position_embeddings.weight"),
    (
        r"^network\.encoder\.backbone\.patch_embed\.proj\.",
        "embeddings.patch_embeddings.projection.",
    ),
    (r"^network\.encoder\.backbone\.norm\.", "layernorm."),
    (BLOCK + r"attn\.(qkv|proj)\.", r"layers.\1.attention.\2."),
    (BLOCK + r"ls([12])\.gamma$", r"layers.\1.layer_scale\2.lambda1"),
    (BLOCK + r"(norm[12]|mlp\.fc[12])\.", r"layers.\1.\2."),
    (r"^network\.q\.", "query."),
    (r"^network\.class_head\.", "class_predictor."),
    (r"^network\.mask_head\.0\.", "mask_head.fc1."),
    (r"^network\.mask_head\.2\.", "mask_head.fc2."),
    (r"^network\.mask_head\.4\.", "mask_head.fc3."),
    (r"^network\.upscale\.(\d+)\.(conv[12])\.", r"upscale_block.block.\1.\2."),
    (r"^network\.upscale\.(\d+)\.norm\.", r"upscale_block.block.\1.layernorm2d."),
    (r"^network\.attn_mask_probs$", "attn_mask_probs"),
)
# constants of the image normalization and of the loss
LEFT_OUT = ("network.encoder.pixel_mean", "network.encoder.pixel_std", "criterion.")
ATTENTION = {"qkv": ("q_proj", "k_proj", "v_proj"), "proj": ("out_proj",)}
# the first half of fc1 is the gate, as in timm's and DINOv2's SwiGLU
SWIGLU = {"fc1": ("gate_proj", "up_proj"), "fc2": ("down_proj",)}


def uses_authors_names(weights: Mapping[str, torch.Tensor]) -> bool:
    """Return True for weights that the authors' code has saved."""
    return any(name.startswith(AUTHORS) for name in weights)


def to_transformers(
    weights: Mapping[str, torch.Tensor], *, use_swiglu: bool
) -> dict[str, torch.Tensor]:
    """Rename weights from the authors' code, and split those of several layers. Copies nothing.

    Args:
        weights: {name in the authors' code: tensor}.
        use_swiglu: `use_swiglu_ffn` of the model's config.

    Raises:
        ValueError: a name that the authors' code on timm's ViT does not have.
    """
    converted: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        if name.startswith(LEFT_OUT):
            continue
        new_name = _renamed(name)
        if new_name == "embeddings.position_embeddings.weight":
            tensor = tensor.squeeze(0)  # [1, h*w, C]
        new_names = _parts(new_name, SWIGLU if use_swiglu else {})
        converted |= dict(zip(new_names, tensor.chunk(len(new_names)), strict=True))
    if "embeddings.register_tokens" not in converted and "embeddings.cls_token" in converted:
        # transformers has an empty tensor for a ViT without registers
        converted["embeddings.register_tokens"] = converted["embeddings.cls_token"][:, :0]
    return converted


def _renamed(name: str) -> str:
    for pattern, replacement in RENAMED:
        renamed, number = re.subn(pattern, replacement, name)
        if number:
            return renamed
    raise ValueError(f"{name}: not a weight of EoMT on timm's ViT, nor one of transformers")


def _parts(name: str, mlp: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return the weights that a renamed one consists of, in order."""
    head, _, kind = name.rpartition(".")
    owner, _, layer = head.rpartition(".")
    layers = ATTENTION if owner.endswith(".attention") else mlp if owner.endswith(".mlp") else {}
    return [f"{owner}.{part}.{kind}" for part in layers[layer]] if layer in layers else [name]
