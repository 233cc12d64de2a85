"""Architectures of EoMT, and the names of their released weights, which models.toml lists.

Imports no torch, since recipes read the table before a model exists. Widths, depths, query blocks
and queries: configs/** of `tue-mps/eomt` and the released config.json files; the fields are those
of transformers' EomtConfig. A field that is not listed has its default there (patch 16, 4 register
tokens, MLP of 4 widths).
"""

from visionloop.engine.types import JsonObject
from visionloop.tasks.huggingface.hub import ModelNames
from visionloop.tasks.model_zoo import released_weights
from visionloop.tasks.segmentation.releases import WORDS, model_tables

SIDE = 512  # of the training images of semantic segmentation in pixels
# of instance and panoptic segmentation: one query for each object, not for each class
SEGMENTS_SIDE, SEGMENTS_QUERIES = 640, 200


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
    # width, depth and heads: vision_transformer.py of `facebookresearch/webssl`; query blocks and
    # the register tokens, which that ViT has none of: read by others from the released config.json
    "eomt-7b": (_vit(4096, 32, 32, 5) | {"use_swiglu_ffn": True}, SIDE),
}

# names in use that no hub id has: `tue-mps/eomt-vit-large` is in old guides, but never was an id
ALIASES = {
    "eomt-vit-large": "tue-mps/ade20k_semantic_eomt_large_512",
    "tue-mps/eomt-vit-large": "tue-mps/ade20k_semantic_eomt_large_512",
    "eomt-large-cityscapes": "tue-mps/cityscapes_semantic_eomt_large_1024",
    "eomt-large-panoptic": "tue-mps/coco_panoptic_eomt_large_640",
    "eomt-giant-panoptic": "tue-mps/coco_panoptic_eomt_giant_640",
    "eomt-7b-panoptic": "tue-mps/coco_panoptic_eomt_7b_640",
    "eomt-large-instance": "tue-mps/coco_instance_eomt_large_640",
}


def _model_names(task: str) -> ModelNames:
    """Return the names that `--model` of a task accepts."""
    tables = model_tables(task)
    released = released_weights(tables)
    return ModelNames(
        architectures=tuple(ARCHITECTURES),
        default="tiny",
        example=next(iter(released)),
        aliases=ALIASES | {hub_id.removeprefix("tue-mps/"): hub_id for hub_id in released},
        architecture_of=released,
        pickles=frozenset(model["model_id"] for model in tables["models"] if model.get("pickled")),
    )


# {task: its names}
MODEL_NAMES: dict[str, ModelNames] = {task: _model_names(task) for task in WORDS}
