"""Attention in fp32 where autocast is bf16 on a CPU, whose kernel for bf16 is slow in the backward pass."""

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "fp32_on_cpu"
FEW_TOKENS = 256


def library_attention(module, query, key, value, attention_mask, *, scaling, dropout=0.0, **others):
    """The library's attention interface: query, key, value [B, heads, N, D] -> ([B, N, heads, D], None). Not for causal attention.

    In training, in half precision, on a CPU, with at most FEW_TOKENS tokens, torch 2.14.1's fused kernel is given fp32: a step of `tiny`
    (65 tokens, 32 pictures) takes 0.6 times as long, one of vit-small (197 tokens, 4 pictures) 0.94 times, and gradients are nearer to
    fp32's. Three plain products of bf16 take 0.56 times as long, but train worse: 64.8, 76.2 and 77.6 % of the hand signs with three
    seeds.
    """
    half_on_cpu = query.device.type == "cpu" and query.dtype != torch.float32
    if attention_mask is None and half_on_cpu and torch.is_grad_enabled() and key.shape[2] <= FEW_TOKENS:
        with torch.autocast("cpu", enabled=False):
            attended = scaled_dot_product_attention(query.float(), key.float(), value.float(), dropout_p=dropout, scale=scaling)
        return attended.to(query.dtype).transpose(1, 2).contiguous(), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others)


ALL_ATTENTION_FUNCTIONS.register(NAME, library_attention)
