"""A plain ViT as the start of EoMT: DINOv2 with and without registers, ViT, DINOv3.

With the ViT's own size of image and patch, hidden states before the queries are the ViT's to the
last bit.
"""

import re

import torch
from transformers import AutoModel, EomtConfig, EomtDinov3Config

from visionloop.engine.errors import UserError
from visionloop.tasks.huggingface.loading import load_config, load_weights
from visionloop.tasks.segmentation.architectures import SIDE
from visionloop.tasks.segmentation.positions import resample_patches, resize_table

KINDS = ("dinov2", "dinov2_with_registers", "vit", "dinov3_vit")
NUM_QUERIES = 100
LEAST_SIDE = 196  # a ViT of smaller images than that keeps its size
# what a folder may lack or have too much of: parts around the trunk, of classifiers and of
# pretraining
AROUND_THE_TRUNK = re.compile(r"pooler\.|mask_token|classifier\.|lm_head\.|decoder\.")
TRUNK = ("embeddings.", "layers.", "layernorm.")
# the library's name of a weight in the backbone -> in EoMT; what is not listed has the same name
RENAMED = {
    "dinov2": ((r"^encoder\.layer\.", "layers."), (r"\.attention\.o_proj\.", ".attention.out_proj.")),
    "vit": (
        (r"\.layernorm_before\.", ".norm1."), (r"\.layernorm_after\.", ".norm2."), (r"\.attention\.o_proj\.", ".attention.out_proj."),
    ),
    "dinov3_vit": ((r"^model\.layer\.", "layers."), (r"^norm\.", "layernorm.")),
}  # fmt: skip
RENAMED["dinov2_with_registers"] = RENAMED["dinov2"]


def eomt_config(config, folder):
    """The config of an EoMT on the backbone of `config`, for images of the size that suits it. Raises UserError.

    Patches whose side is no power of two (DINOv2's 14) become the next larger (16): each upscaling
    block of the mask head doubles the resolution, up to a quarter of the image's. Joint blocks:
    the last 3 of 12, 4 of 24, 5 of 40, a third at most.
    """
    layers, patch = config.num_hidden_layers, _new_patch(config)
    fields = {
        "hidden_size": config.hidden_size, "num_hidden_layers": layers, "num_attention_heads": config.num_attention_heads,
        "hidden_act": config.hidden_act, "initializer_range": config.initializer_range, "layer_norm_eps": config.layer_norm_eps,
        "layerscale_value": getattr(config, "layerscale_value", 1.0),
        "num_register_tokens": getattr(config, "num_register_tokens", 0), "num_channels": config.num_channels,
        "patch_size": patch, "image_size": _side_of_images(config), "num_queries": NUM_QUERIES,
        "num_upscale_blocks": max(1, patch.bit_length() - 3),
        "num_blocks": min(3 if layers <= 12 else 4 if layers <= 24 else 5, max(1, layers // 3)),
    }  # fmt: skip
    if config.num_channels != 3:
        _refuse(folder, f"it reads {config.num_channels} channels, expected 3")
    if config.model_type == "dinov3_vit":
        same = ("intermediate_size", "use_gated_mlp", "query_bias", "key_bias", "value_bias", "proj_bias", "mlp_bias",
                "pos_embed_shift", "pos_embed_jitter", "pos_embed_rescale")  # fmt: skip
        rope = {"rope_type": "default", "rope_theta": config.rope_theta}
        return EomtDinov3Config(
            **fields, rope_parameters=rope, **{name: getattr(config, name) for name in same}
        )
    if config.model_type == "vit":
        if config.intermediate_size % config.hidden_size:
            why = f"its MLP's width {config.intermediate_size} is no multiple of its width {config.hidden_size}, which EoMT wants"
            _refuse(folder, why)
        return EomtConfig(**fields, mlp_ratio=config.intermediate_size // config.hidden_size)
    return EomtConfig(**fields, mlp_ratio=config.mlp_ratio, use_swiglu_ffn=config.use_swiglu_ffn)


def load_backbone(folder):
    """The bare ViT of a folder, in fp32; a classifier's head is left out. Raises UserError when a weight of the trunk is missing."""
    return load_weights(
        AutoModel, folder, load_config(folder), lambda _, name: bool(AROUND_THE_TRUNK.search(name))
    )


@torch.no_grad()
def carry_trunk(backbone, module):
    """Copy the weights of a backbone into an EoMT made by `eomt_config`: everything but queries and heads. Raises UserError."""
    stored = trunk_weights(backbone, module)
    for name, tensor in module.state_dict().items():
        if not name.startswith(TRUNK) or not tensor.numel():  # no register tokens: an empty tensor
            continue
        if name in stored and stored[name].shape == tensor.shape:
            tensor.copy_(stored[name])
        elif name in stored:
            _refuse(
                backbone.name_or_path,
                f"{name} is {list(stored[name].shape)} there and {list(tensor.shape)} in EoMT",
            )
        elif "layer_scale" in name:
            tensor.fill_(1)  # ViT has none
        elif name.endswith("_proj.bias"):
            tensor.zero_()  # of a ViT without bias
        else:
            _refuse(backbone.name_or_path, f"it has no {name}, which EoMT needs")


def trunk_weights(backbone, module):
    """{EoMT's name: tensor} of a backbone, with patches and positions resampled for `module`."""
    config, renamed = backbone.config, {}
    for name, tensor in backbone.state_dict().items():
        for pattern, replacement in RENAMED[config.model_type]:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    positions = renamed.pop(
        "embeddings.position_embeddings", None
    )  # [1, 1 + h*w, C]; DINOv3 has none
    if positions is not None:
        # EoMT's class token has no position of its own
        renamed["embeddings.cls_token"] = renamed["embeddings.cls_token"] + positions[:, :1]
        patch_hw, size_hw = _pair(config.patch_size), _pair(config.image_size)
        grid_hw = (size_hw[0] // patch_hw[0], size_hw[1] // patch_hw[1])
        renamed["embeddings.position_embeddings.weight"] = resize_table(
            positions[0, 1:], grid_hw, tuple(module.grid_size)
        )
    for name in (
        "embeddings.patch_embeddings.projection.weight",
        "embeddings.patch_embeddings.weight",
    ):
        if name in renamed:
            renamed[name] = resample_patches(renamed[name], module.config.patch_size)
    return renamed


def _new_patch(config):
    """The side of EoMT's patches: the next power of two."""
    return 1 << (max(_pair(config.patch_size)) - 1).bit_length()


def _side_of_images(config):
    """512 px for the usual patches (14 and 16) and sizes; otherwise what keeps the backbone's number of patches."""
    patch, side = max(_pair(config.patch_size)), min(_pair(config.image_size))
    return SIDE if patch in (14, 16) and side >= LEAST_SIDE else side // patch * _new_patch(config)


def _pair(size):
    return (size, size) if isinstance(size, int) else tuple(size)


def _refuse(folder, why):
    raise UserError(f"--model {folder}: no start for EoMT, {why}", field="model", file=str(folder))
