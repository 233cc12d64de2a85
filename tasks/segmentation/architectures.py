"""Architectures of EoMT, and the names of their released weights.

Imports no torch: recipes are asked before there is a model. Widths, depths, query blocks and
queries: configs/** of `tue-mps/eomt` and the released config.json files; the fields are those of
transformers' EomtConfig. A field that is not listed has its default there (patch 16, 4 register
tokens, MLP of 4 widths).
"""

from visionloop.engine.types import JsonObject
from visionloop.tasks.huggingface.hub import ModelNames

SIDE = 512  # of the training images in pixels


def _vit(width: int, layers: int, heads: int, query_blocks: int) -> JsonObject:
    """Return the fields of an EoMT on a ViT of DINOv2's shapes, with 100 queries."""
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_blocks": query_blocks,
        "num_queries": 100,
    }


# name -> (EomtConfig fields, side of the training images in pixels). `tiny` is ours: it trains on a
# CPU in minutes.
ARCHITECTURES: dict[str, tuple[JsonObject, int]] = {
    "tiny": (
        {
            "hidden_size": 96,
            "num_hidden_layers": 6,
            "num_attention_heads": 3,
            "patch_size": 8,
            "num_register_tokens": 0,
            "num_blocks": 2,
            "num_queries": 24,
            "num_upscale_blocks": 1,
        },
        96,
    ),
    "eomt-small": (_vit(384, 12, 6, 3), SIDE),
    "eomt-base": (_vit(768, 12, 12, 3), SIDE),
    "eomt-large": (_vit(1024, 24, 16, 4), SIDE),
    "eomt-giant": (_vit(1536, 40, 24, 5) | {"use_swiglu_ffn": True}, SIDE),
}

OWNER = "tue-mps/"
# released weights of each size; the first are those of the size's own name. Only the semantic ones
# of ADE20K and Cityscapes are of our task; from the others the ViT and the queries are a good
# start. The DINOv3 releases are differences to weights that are not free: not here.
RELEASED = {
    "eomt-small": [f"{OWNER}coco_panoptic_eomt_small_640_2x"],
    "eomt-base": [f"{OWNER}coco_panoptic_eomt_base_640_2x"],
    "eomt-large": [
        f"{OWNER}ade20k_semantic_eomt_large_512",
        f"{OWNER}cityscapes_semantic_eomt_large_1024",
        f"{OWNER}coco_panoptic_eomt_large_640",
        f"{OWNER}coco_panoptic_eomt_large_1280",
        f"{OWNER}ade20k_panoptic_eomt_large_640",
        f"{OWNER}ade20k_panoptic_eomt_large_1280",
        f"{OWNER}coco_instance_eomt_large_640",
        f"{OWNER}coco_instance_eomt_large_1280",
    ],
    "eomt-giant": [
        f"{OWNER}coco_panoptic_eomt_giant_640",
        f"{OWNER}coco_panoptic_eomt_giant_1280",
        f"{OWNER}ade20k_panoptic_eomt_giant_640",
        f"{OWNER}ade20k_panoptic_eomt_giant_1280",
    ],
}
# names in use that no hub id has: `tue-mps/eomt-vit-large` is in old guides, but never was an id
ALIASES = {
    "eomt-vit-large": RELEASED["eomt-large"][0],
    f"{OWNER}eomt-vit-large": RELEASED["eomt-large"][0],
    "eomt-large-cityscapes": RELEASED["eomt-large"][1],
    "eomt-large-panoptic": RELEASED["eomt-large"][2],
    "eomt-giant-panoptic": RELEASED["eomt-giant"][0],
}

MODEL_NAMES = ModelNames(
    architectures=tuple(ARCHITECTURES),
    pretrained={size: hub_ids[0] for size, hub_ids in RELEASED.items()},
    default="tiny",
    example=RELEASED["eomt-large"][0],
    aliases=ALIASES
    | {hub_id.removeprefix(OWNER): hub_id for hub_ids in RELEASED.values() for hub_id in hub_ids},
    architecture_of={hub_id: size for size, hub_ids in RELEASED.items() for hub_id in hub_ids},
)
