"""Random weights as D-FINE's authors draw them.

Sources: `_reset_parameters` of each module in src/zoo/dfine/dfine_decoder.py and hybrid_encoder.py
of `Peterande/D-FINE`. transformers draws almost every weight from N(0, 0.01) or N(0, 0.02)
instead, with which small models learn slowly.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import DFineForObjectDetection, DFineModel
    from transformers.models.d_fine.modeling_d_fine import DFineSelfAttention


@torch.no_grad()
def initialize(module: DFineForObjectDetection, class_prior: float = 0.01) -> None:
    """Draw new weights for a whole D-FINE from torch's default generator.

    Args:
        module: the model, changed in place.
        class_prior: the score that every class starts with, in 0..1.
    """
    model, decoder = module.model, module.model.decoder
    excluded = _layers_like_transformers(model)
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and layer not in excluded:
            layer.reset_parameters()
    encoder_layers = [layer for stack in model.encoder.aifi for layer in stack.layers]
    for block in [*decoder.layers, *encoder_layers]:
        _initialize_attention(block.self_attn)
    for layer in decoder.layers:
        for linear in _linears(layer.mlp):
            nn.init.xavier_uniform_(linear.weight)
    for linear in [*_linears(decoder.query_pos_head), model.enc_output[0]]:
        nn.init.xavier_uniform_(linear.weight)
    # boxes start at their anchors and distributions flat
    for head in (model.enc_bbox_head, decoder.pre_bbox_head, *decoder.bbox_embed):
        last = _linears(head)[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    for head in (model.enc_score_head, *decoder.class_embed):
        nn.init.constant_(head.bias, -math.log((1 - class_prior) / class_prior))
    if module.config.num_denoising:
        nn.init.normal_(model.denoising_class_embed.weight)
        model.denoising_class_embed.weight[-1].zero_()  # the row of padding


def _layers_like_transformers(model: DFineModel) -> set[nn.Module]:
    """Return the layers that transformers initializes as the authors do.

    These are gates, sampling offsets, attention weights and the estimators of localization
    quality.
    """
    layers: set[nn.Module] = {
        _linears(estimator.reg_conf)[-1] for estimator in model.decoder.lqe_layers
    }
    for layer in model.decoder.layers:
        attention = layer.encoder_attn
        layers |= {layer.gateway.gate, attention.sampling_offsets, attention.attention_weights}
    return layers


def _linears(module: nn.Module) -> list[nn.Linear]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


def _initialize_attention(attention: DFineSelfAttention) -> None:
    """Draw as torch's MultiheadAttention: Xavier over the three stacked projections, no bias."""
    width = attention.q_proj.in_features
    bound = math.sqrt(6 / (width + 3 * width))
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        nn.init.uniform_(projection.weight, -bound, bound)
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj):
        nn.init.zeros_(projection.bias)
