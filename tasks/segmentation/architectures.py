"""The architectures of EoMT, and the names under which their weights were released. No torch here: recipes are asked before a model.

Widths, depths, joint blocks and queries: configs/** of `tue-mps/eomt` and the released config.json
files; the fields are those of the library's EomtConfig. What is not listed is the library's default
(patch 16, 4 register tokens, MLP of 4 widths).
"""

from visionloop.tasks.huggingface.hub import ModelRegistry

SIDE = 512  # of the training images, in pixels
# name -> (EomtConfig fields, side of the training images in pixels). `tiny` is ours: trains on a
# CPU in minutes.
ARCHITECTURES = {
    "tiny": (
        {
            "hidden_size": 96, "num_hidden_layers": 6, "num_attention_heads": 3, "patch_size": 8, "num_register_tokens": 0,
            "num_blocks": 2, "num_queries": 24, "num_upscale_blocks": 1,
        },
        96,
    ),
    "eomt-small": (
        {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "num_blocks": 3, "num_queries": 100},
        SIDE,
    ),
    "eomt-base": (
        {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "num_blocks": 3, "num_queries": 100},
        SIDE,
    ),
    "eomt-large": (
        {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "num_blocks": 4, "num_queries": 100},
        SIDE,
    ),
    "eomt-giant": (
        {
            "hidden_size": 1536, "num_hidden_layers": 40, "num_attention_heads": 24, "num_blocks": 5, "num_queries": 100,
            "use_swiglu_ffn": True,
        },
        SIDE,
    ),
}  # fmt: skip
OWNER = "tue-mps/"
# released weights by size, the first is what the size's own name leads to. Only ADE20K's and
# Cityscapes' semantic ones are of our task; from the others the ViT and the queries are a good
# start. The DINOv3 releases are differences to weights that are not free: not here.
RELEASED = {
    "eomt-small": [OWNER + "coco_panoptic_eomt_small_640_2x"],
    "eomt-base": [OWNER + "coco_panoptic_eomt_base_640_2x"],
    "eomt-large": [
        OWNER + name
        for name in (
            "ade20k_semantic_eomt_large_512", "cityscapes_semantic_eomt_large_1024",
            "coco_panoptic_eomt_large_640", "coco_panoptic_eomt_large_1280",
            "ade20k_panoptic_eomt_large_640", "ade20k_panoptic_eomt_large_1280",
            "coco_instance_eomt_large_640", "coco_instance_eomt_large_1280",
        )
    ],
    "eomt-giant": [
        OWNER + name
        for name in (
            "coco_panoptic_eomt_giant_640", "coco_panoptic_eomt_giant_1280",
            "ade20k_panoptic_eomt_giant_640", "ade20k_panoptic_eomt_giant_1280",
        )
    ],
}  # fmt: skip
# what users bring, and what no hub id says: `tue-mps/eomt-vit-large` stands in old guides, but
# never was an id
ALIASES = {
    "eomt-vit-large": RELEASED["eomt-large"][0],
    OWNER + "eomt-vit-large": RELEASED["eomt-large"][0],
    "eomt-large-cityscapes": RELEASED["eomt-large"][1],
    "eomt-large-panoptic": RELEASED["eomt-large"][2],
    "eomt-giant-panoptic": RELEASED["eomt-giant"][0],
}

REGISTRY = ModelRegistry(
    architectures=tuple(ARCHITECTURES),
    pretrained={size: hub_ids[0] for size, hub_ids in RELEASED.items()},
    default="tiny",
    example=RELEASED["eomt-large"][0],
    aliases=ALIASES
    | {hub_id.removeprefix(OWNER): hub_id for hub_ids in RELEASED.values() for hub_id in hub_ids},
    architecture_of={hub_id: size for size, hub_ids in RELEASED.items() for hub_id in hub_ids},
)
