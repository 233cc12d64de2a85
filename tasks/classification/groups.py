"""Which parameters learn how fast, which stand still, and which layers may recompute their activations."""

import re

from visionloop.engine.errors import UserError
from visionloop.engine.optim import default_parameter_groups

# never decayed, besides norms and biases
NO_DECAY = ("cls_token", "distillation_token", "mask_token", "position_embedding", "relative_position_bias_table")
# names in memory: `vit.layers.3.mlp.fc1.weight`, `dinov2.encoder.layer.3.norm1.weight` (files keep older names)
LAYER = re.compile(r"^\w+\.(?:encoder\.)?layers?\.(\d+)\.")
TRANSFORMERS = ("vit", "deit", "beit", "data2vec-vision", "dinov2", "dinov2_with_registers", "ijepa", "vit_msn")
# blocks in the order of the forward, for kinds that come in stages: layer decay steps down from block to block
STAGED_BLOCKS = (
    "SwinLayer", "Swinv2Layer", "ConvNextLayer", "ConvNextV2Layer",
    "ResNetBasicLayer", "ResNetBottleNeckLayer", "MobileNetV2InvertedResidual",
)


def layers_in_order(module):
    """[(name, block)] from the input up; [] for a kind without blocks that we know."""
    if module.config.model_type in TRANSFORMERS:
        return [(name, block) for name, block in module.named_modules() if LAYER.fullmatch(name + ".")]
    return [(name, block) for name, block in module.named_modules() if type(block).__name__ in STAGED_BLOCKS]


def parameter_groups(module, layer_decay):
    """Groups (layer, decayed or not), with lr_scale = layer_decay^(L + 1 - layer) (timm/optim/_param_groups.py).

    Layer 0: patch embedding, class token, positions; i: the i-th block; L + 1: final norm and head. What lies between two
    blocks of a staged model (downsampling) belongs to the block before it.
    """
    blocks = [name + "." for name, _ in layers_in_order(module)]
    if layer_decay == 1.0 or not blocks:
        return default_parameter_groups(module, no_decay=NO_DECAY)
    layer_of = _assign_layers([name for name, _ in module.named_parameters()], blocks)
    return default_parameter_groups(
        module, layer_of=layer_of.__getitem__, num_layers=len(blocks) + 1, layer_decay=layer_decay, no_decay=NO_DECAY
    )


def _assign_layers(names, blocks):
    """{parameter name: layer}. Parameters stand in the order of the modules, embeddings first and the head last."""
    last_block_at = max(i for i, name in enumerate(names) if name.startswith(blocks[-1]))
    layers, layer = {}, 0
    for i, name in enumerate(names):
        block = next((j for j, prefix in enumerate(blocks, start=1) if name.startswith(prefix)), None)
        layer = block or layer
        layers[name] = layer if i <= last_block_at else len(blocks) + 1
    return layers


def recomputed_blocks(module):
    """The transformer layers of `module`, which may be recomputed in the backward pass. Raises UserError where there are none."""
    kind = module.config.model_type
    if kind in TRANSFORMERS or kind in ("swin", "swinv2"):
        return [block for _, block in layers_in_order(module)]
    raise UserError(f"--grad-checkpointing: not for {kind}, which has no transformer layers", field="grad_checkpointing")
