"""EoMT on the weights of a plain ViT: DINOv2 with and without registers, ViT, DINOv3.

With the ViT's own image and patch size, hidden states before the queries equal the ViT's to the
last bit.
"""

import re
from pathlib import Path
from typing import NoReturn

import torch
from transformers import (
    AutoModel,
    EomtConfig,
    EomtDinov3Config,
    PretrainedConfig,
    PreTrainedModel,
)

from visionloop.engine.errors import UserError
from visionloop.engine.types import JsonObject
from visionloop.tasks.huggingface.loading import load_config, load_weights
from visionloop.tasks.segmentation.architectures import SIDE
from visionloop.tasks.segmentation.positions import resample_patches, resize_table

MODEL_TYPES = ("dinov2", "dinov2_with_registers", "vit", "dinov3_vit")
NUM_QUERIES = 100
MIN_SIDE = 196  # a ViT of smaller images than that keeps its number of patches
# weights outside the trunk that a folder may have or lack: of classifiers and of pretraining
OUTSIDE_TRUNK = re.compile(r"pooler\.|mask_token|classifier\.|lm_head\.|decoder\.")
TRUNK = ("embeddings.", "layers.", "layernorm.")
# fields of a DINOv3 config that EoMT's has too
DINOV3_FIELDS = (
    "intermediate_size",
    "use_gated_mlp",
    "query_bias",
    "key_bias",
    "value_bias",
    "proj_bias",
    "mlp_bias",
    "pos_embed_shift",
    "pos_embed_jitter",
    "pos_embed_rescale",
)
# transformers' name of a weight in the backbone -> its name in EoMT; any other keeps its name
RENAMED = {
    "dinov2": (
        (r"^encoder\.layer\.", "layers."),
        (r"\.attention\.o_proj\.", ".attention.out_proj."),
    ),
    "vit": (
        (r"\.layernorm_before\.", ".norm1."),
        (r"\.layernorm_after\.", ".norm2."),
        (r"\.attention\.o_proj\.", ".attention.out_proj."),
    ),
    "dinov3_vit": (
        (r"^model\.layer\.", "layers."),
        (r"^norm\.", "layernorm."),
    ),
}
RENAMED["dinov2_with_registers"] = RENAMED["dinov2"]


def eomt_config(config: PretrainedConfig, folder: str | Path) -> PretrainedConfig:
    """Return the config of an EoMT on a ViT, for images of the size that suits it.

    Patches whose side is no power of two (DINOv2's 14) become the next larger (16): each upscaling
    block of the mask head doubles the resolution, up to a quarter of the image's. Query blocks:
    the last 3 of 12, 4 of 24, 5 of 40, a third at most.

    Args:
        config: of the ViT.
        folder: it is from, for messages.

    Raises:
        UserError: EoMT cannot express this ViT.
    """
    if config.num_channels != 3:
        _refuse(folder, f"it reads {config.num_channels} channels, expected 3")
    fields = _shared_fields(config)
    if config.model_type == "dinov3_vit":
        return EomtDinov3Config(
            **fields,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            **{name: getattr(config, name) for name in DINOV3_FIELDS},
        )
    if config.model_type == "vit":
        width, mlp_width = config.hidden_size, config.intermediate_size
        if mlp_width % width:
            why = f"its MLP's width {mlp_width} is no multiple of its width {width}"
            _refuse(folder, f"{why}, which EoMT needs")
        return EomtConfig(**fields, mlp_ratio=mlp_width // width)
    return EomtConfig(**fields, mlp_ratio=config.mlp_ratio, use_swiglu_ffn=config.use_swiglu_ffn)


def load_backbone(folder: str | Path) -> PreTrainedModel:
    """Load the bare ViT of a folder in fp32, without the head of a classifier.

    Raises UserError when a weight of the trunk is missing.
    """
    return load_weights(
        AutoModel, folder, load_config(folder), lambda _, name: bool(OUTSIDE_TRUNK.search(name))
    )


@torch.no_grad()
def copy_trunk(backbone: PreTrainedModel, module: PreTrainedModel) -> None:
    """Copy the weights of a ViT into an EoMT of `eomt_config`: all but queries and heads.

    Raises UserError when a weight is missing or of another shape.
    """
    stored = trunk_weights(backbone, module)
    for name, tensor in module.state_dict().items():
        if not name.startswith(TRUNK) or not tensor.numel():  # no register tokens: an empty tensor
            continue
        if name in stored and stored[name].shape == tensor.shape:
            tensor.copy_(stored[name])
        elif name in stored:
            shapes = f"{list(stored[name].shape)} there and {list(tensor.shape)} in EoMT"
            _refuse(backbone.name_or_path, f"{name} is {shapes}")
        elif "layer_scale" in name:
            tensor.fill_(1)  # ViT has none
        elif name.endswith("_proj.bias"):
            tensor.zero_()  # of a ViT without bias
        else:
            _refuse(backbone.name_or_path, f"it has no {name}, which EoMT needs")


def trunk_weights(backbone: PreTrainedModel, module: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return the weights of a ViT by EoMT's names, patches and positions resampled for `module`."""
    config = backbone.config
    weights: dict[str, torch.Tensor] = {}
    for name, tensor in backbone.state_dict().items():
        for pattern, replacement in RENAMED[config.model_type]:
            name = re.sub(pattern, replacement, name)
        weights[name] = tensor
    # [1, 1 + h*w, C]; DINOv3 has none
    positions = weights.pop("embeddings.position_embeddings", None)
    if positions is not None:
        # EoMT's class token has no position embedding
        weights["embeddings.cls_token"] = weights["embeddings.cls_token"] + positions[:, :1]
        patch_hw, size_hw = _pair(config.patch_size), _pair(config.image_size)
        grid_hw = (size_hw[0] // patch_hw[0], size_hw[1] // patch_hw[1])
        weights["embeddings.position_embeddings.weight"] = resize_table(
            positions[0, 1:], grid_hw, tuple(module.grid_size)
        )
    for name in (
        "embeddings.patch_embeddings.projection.weight",
        "embeddings.patch_embeddings.weight",
    ):
        if name in weights:
            weights[name] = resample_patches(weights[name], module.config.patch_size)
    return weights


def _shared_fields(config: PretrainedConfig) -> JsonObject:
    """Return the fields of EoMT's config that do not depend on the kind of ViT."""
    layers, patch = config.num_hidden_layers, _new_patch(config)
    return {
        "hidden_size": config.hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": config.num_attention_heads,
        "hidden_act": config.hidden_act,
        "initializer_range": config.initializer_range,
        "layer_norm_eps": config.layer_norm_eps,
        "layerscale_value": getattr(config, "layerscale_value", 1.0),
        "num_register_tokens": getattr(config, "num_register_tokens", 0),
        "num_channels": config.num_channels,
        "patch_size": patch,
        "image_size": _image_size(config),
        "num_queries": NUM_QUERIES,
        "num_upscale_blocks": max(1, patch.bit_length() - 3),
        "num_blocks": min(3 if layers <= 12 else 4 if layers <= 24 else 5, max(1, layers // 3)),
    }


def _new_patch(config: PretrainedConfig) -> int:
    """Return the side of EoMT's patches in pixels: the next power of two."""
    return 1 << (max(_pair(config.patch_size)) - 1).bit_length()


def _image_size(config: PretrainedConfig) -> int:
    """Return the side of the images in pixels.

    512 for the usual patches (14 and 16) and sizes, otherwise what keeps the number of patches.
    """
    patch, side = max(_pair(config.patch_size)), min(_pair(config.image_size))
    return SIDE if patch in (14, 16) and side >= MIN_SIDE else side // patch * _new_patch(config)


def _pair(size: int | list[int]) -> tuple[int, ...]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _refuse(folder: str | Path, why: str) -> NoReturn:
    raise UserError(f"--model {folder}: no start for EoMT, {why}", field="model", file=str(folder))
