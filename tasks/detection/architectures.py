"""Architectures of D-FINE, and the names of their released weights.

Imports no torch: recipes are asked before there is a model. Widths and depths: configs/dfine,
configs/dfine/include and src/nn/backbone/hgnetv2.py of `Peterande/D-FINE`; the fields are those of
HGNetV2Config and DFineConfig of transformers, whose defaults hold for what is not listed.
"""

from visionloop.engine.types import JsonObject
from visionloop.tasks.huggingface.hub import ModelNames

_B0: JsonObject = {
    "stem_channels": [3, 16, 16],
    "stage_in_channels": [16, 64, 256, 512],
    "stage_mid_channels": [16, 32, 64, 128],
    "stage_out_channels": [64, 256, 512, 1024],
    "stage_num_blocks": [1, 1, 2, 1],
    "stage_numb_of_layers": [3, 3, 3, 3],
    "hidden_sizes": [128, 256, 512, 1024],
    "use_learnable_affine_block": True,
}
_B2: JsonObject = {
    "stem_channels": [3, 24, 32],
    "stage_in_channels": [32, 96, 384, 768],
    "stage_mid_channels": [32, 64, 128, 256],
    "stage_out_channels": [96, 384, 768, 1536],
    "stage_num_blocks": [1, 1, 3, 1],
    "stage_numb_of_layers": [4, 4, 4, 4],
    "hidden_sizes": [192, 384, 768, 1536],
    "use_learnable_affine_block": True,
}
_B4: JsonObject = {
    "stem_channels": [3, 32, 48],
    "stage_in_channels": [48, 128, 512, 1024],
    "stage_mid_channels": [48, 96, 192, 384],
    "stage_out_channels": [128, 512, 1024, 2048],
    "stage_num_blocks": [1, 1, 3, 1],
    "stage_numb_of_layers": [6, 6, 6, 6],
    "hidden_sizes": [256, 512, 1024, 2048],
    "use_learnable_affine_block": False,
}
_B5: JsonObject = _B4 | {
    "stem_channels": [3, 32, 64],
    "stage_in_channels": [64, 128, 512, 1024],
    "stage_mid_channels": [64, 128, 256, 512],
    "stage_num_blocks": [1, 2, 5, 2],
}
_TINY: JsonObject = {
    "stem_channels": [3, 8, 8],
    "stage_in_channels": [8, 16, 32, 48],
    "stage_mid_channels": [8, 8, 16, 16],
    "stage_out_channels": [16, 32, 48, 64],
    "stage_num_blocks": [1, 1, 1, 1],
    "stage_numb_of_layers": [1, 1, 1, 1],
    "hidden_sizes": [16, 32, 48, 64],
    "depths": [1, 1, 1, 1],
    "embedding_size": 8,
    "use_learnable_affine_block": True,
}
THREE_LEVELS: JsonObject = {
    "num_feature_levels": 3,
    "feat_strides": [8, 16, 32],
    "encode_proj_layers": [2],
    "decoder_n_points": [3, 6, 3],
}
# name -> (HGNetV2Config fields, DFineConfig fields, side of the training images in pixels)
ARCHITECTURES: dict[str, tuple[JsonObject, JsonObject, int]] = {
    "tiny": (
        _TINY | {"out_indices": [2, 3, 4]},
        THREE_LEVELS
        | {
            "encoder_in_channels": [32, 48, 64],
            "encoder_hidden_dim": 32,
            "encoder_ffn_dim": 64,
            "encoder_attention_heads": 4,
            "decoder_in_channels": [32, 32, 32],
            "d_model": 32,
            "decoder_ffn_dim": 64,
            "decoder_attention_heads": 4,
            "decoder_layers": 3,
            "hidden_expansion": 0.5,
            "depth_mult": 0.34,
            "num_queries": 100,
            "num_denoising": 100,
        },
        256,
    ),
    "dfine-nano": (
        _B0 | {"out_indices": [3, 4]},
        {
            "num_feature_levels": 2,
            "feat_strides": [16, 32],
            "encode_proj_layers": [1],
            "decoder_n_points": [6, 6],
            "encoder_in_channels": [512, 1024],
            "encoder_hidden_dim": 128,
            "encoder_ffn_dim": 512,
            "decoder_in_channels": [128, 128],
            "d_model": 128,
            "decoder_ffn_dim": 512,
            "decoder_layers": 3,
            "hidden_expansion": 0.34,
            "depth_mult": 0.5,
        },
        640,
    ),
    "dfine-small": (
        _B0 | {"out_indices": [2, 3, 4]},
        THREE_LEVELS
        | {
            "encoder_in_channels": [256, 512, 1024],
            "decoder_layers": 3,
            "hidden_expansion": 0.5,
            "depth_mult": 0.34,
        },
        640,
    ),
    "dfine-medium": (
        _B2 | {"out_indices": [2, 3, 4]},
        THREE_LEVELS
        | {"encoder_in_channels": [384, 768, 1536], "decoder_layers": 4, "depth_mult": 0.67},
        640,
    ),
    "dfine-large": (
        _B4 | {"out_indices": [2, 3, 4]},
        THREE_LEVELS | {"encoder_in_channels": [512, 1024, 2048], "decoder_layers": 6},
        640,
    ),
    "dfine-xlarge": (
        _B5 | {"out_indices": [2, 3, 4]},
        THREE_LEVELS
        | {
            "encoder_in_channels": [512, 1024, 2048],
            "encoder_hidden_dim": 384,
            "encoder_ffn_dim": 2048,
            "decoder_in_channels": [384, 384, 384],
            "decoder_layers": 6,
            "reg_scale": 8.0,
        },
        640,
    ),
}
OWNER = "ustc-community/"
# released weights by size; -coco: trained on COCO, -obj2coco: on Objects365 and then COCO,
# -obj365: on Objects365 alone (366 classes)
RELEASED = {
    "dfine-nano": ["dfine-nano-coco"],
    "dfine-small": ["dfine-small-coco", "dfine-small-obj2coco", "dfine-small-obj365"],
    "dfine-medium": ["dfine-medium-coco", "dfine-medium-obj2coco", "dfine-medium-obj365"],
    "dfine-large": ["dfine-large-coco", "dfine-large-obj2coco-e25", "dfine-large-obj365"],
    "dfine-xlarge": ["dfine-xlarge-coco", "dfine-xlarge-obj2coco", "dfine-xlarge-obj365"],
}


def _aliases() -> dict[str, str]:
    """Return {other name: hub id}: ids without their owner, and old ids (dfine_x_coco)."""
    aliases: dict[str, str] = {}
    for names in RELEASED.values():
        for name in names:
            _, size, data = name.split("-", 2)
            old = f"dfine_{size[0]}_{data.replace('-', '_')}"
            aliases |= dict.fromkeys((name, old, OWNER + old), OWNER + name)
    return aliases


MODEL_NAMES = ModelNames(
    architectures=tuple(ARCHITECTURES),
    pretrained={size: OWNER + names[0] for size, names in RELEASED.items()},
    default="tiny",
    example="ustc-community/dfine-small-coco",
    aliases=_aliases(),
    architecture_of={OWNER + name: size for size, names in RELEASED.items() for name in names},
)
