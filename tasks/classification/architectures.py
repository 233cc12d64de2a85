"""The names that `--model` knows for image classification. No torch here: recipes are asked before there is a model."""

from visionloop.tasks.huggingface.hub import ModelRegistry

# hidden, layers, heads, mlp, patch, image size. vit-tiny and vit-small: DeiT paper, table 1
# (arXiv:2012.12877); vit-base: ViT paper, table 1 (arXiv:2010.11929). `tiny` is ours: trains on a
# CPU in minutes.
ARCHITECTURES = {
    "tiny": (96, 6, 3, 384, 8, 64),
    "vit-tiny": (192, 12, 3, 768, 16, 224),
    "vit-small": (384, 12, 6, 1536, 16, 224),
    "vit-base": (768, 12, 12, 3072, 16, 224),
}
RELEASED = {
    "vit-tiny": "facebook/deit-tiny-patch16-224",
    "vit-small": "facebook/deit-small-patch16-224",
    "vit-base": "google/vit-base-patch16-224",
}

REGISTRY = ModelRegistry(
    architectures=tuple(ARCHITECTURES),
    pretrained=RELEASED,
    default="tiny",
    example=RELEASED["vit-base"],
    architecture_of={hub_id: name for name, hub_id in RELEASED.items()},
)
