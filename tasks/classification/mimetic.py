"""The mimetic start (see visionloop/tasks/mimetic.py) of the library's ViT classifiers."""

import torch

from visionloop.engine.errors import UserError
from visionloop.tasks.mimetic import mimetic_embeddings, mimetic_layers


@torch.no_grad()
def mimetic_init(module):
    """Rewrite the weights and the position embeddings of a new ViT or DeiT. Raises UserError for any other kind."""
    config = module.config
    if config.model_type not in ("vit", "deit") or config.hidden_size % 4:
        raise UserError(f"--init mimetic: for vit and deit of a width divisible by 4; this is a {config.model_type}", field="init")
    mimetic_layers(module.base_model.layers, config.num_attention_heads, "o_proj")
    embeddings = module.base_model.embeddings
    num_patches = (config.image_size // config.patch_size) ** 2
    positions = embeddings.position_embeddings[0, -num_patches:]  # those of special tokens come first
    mimetic_embeddings(embeddings.patch_embeddings.projection.weight, positions)
