"""Random weights as D-FINE's authors draw them.

Sources: `Peterande/D-FINE`, src/zoo/dfine/dfine_decoder.py and hybrid_encoder.py (the
`_reset_parameters` of each module). The library draws almost every weight from N(0, 0.01) or N(0,
0.02) instead, with which small networks learn slowly.
"""

import math

import torch
from torch import nn


@torch.no_grad()
def initialize(module, class_prior=0.01):
    """Draw all weights of a D-FINE anew, from torch's default generator. class_prior: the score that every class starts with."""
    network, decoder = module.model, module.model.decoder
    kept = _kept_layers(network)
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and layer not in kept:
            layer.reset_parameters()
    for block in [
        *decoder.layers,
        *(layer for stack in network.encoder.aifi for layer in stack.layers),
    ]:
        _initialize_attention(block.self_attn)
    for layer in decoder.layers:
        for linear in _linears(layer.mlp):
            nn.init.xavier_uniform_(linear.weight)
    for linear in [*_linears(decoder.query_pos_head), network.enc_output[0]]:
        nn.init.xavier_uniform_(linear.weight)
    # boxes start at their anchors and distributions flat
    for head in (network.enc_bbox_head, decoder.pre_bbox_head, *decoder.bbox_embed):
        last = _linears(head)[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    for head in (network.enc_score_head, *decoder.class_embed):
        nn.init.constant_(head.bias, -math.log((1 - class_prior) / class_prior))
    if module.config.num_denoising:
        nn.init.normal_(network.denoising_class_embed.weight)
        network.denoising_class_embed.weight[-1].zero_()  # the row of padding


def _kept_layers(network):
    """Layers whose start in the library is the authors' already: gates, sampling offsets and attention weights, quality estimators."""
    kept = set()
    for layer in network.decoder.layers:
        kept |= {
            layer.gateway.gate,
            layer.encoder_attn.sampling_offsets,
            layer.encoder_attn.attention_weights,
        }
    return kept | {_linears(estimator.reg_conf)[-1] for estimator in network.decoder.lqe_layers}


def _linears(module):
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


def _initialize_attention(attention):
    """As torch's MultiheadAttention: Xavier over the three stacked projections, no bias."""
    width = attention.q_proj.in_features
    bound = math.sqrt(6 / (width + 3 * width))
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        nn.init.uniform_(projection.weight, -bound, bound)
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj):
        nn.init.zeros_(projection.bias)
