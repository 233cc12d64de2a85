"""Attention in bf16 on the CPU, where the library's kernel is slow in the backward pass."""

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "plain_on_cpu"
FEW_TOKENS = 640


def attend(query, key, value, attn_mask=None, dropout_p=0.0, *, scale):
    """Attention by the faster way. query: [B, heads, Q, D]; key, value: [B, heads, N, D]; attn_mask: bool, True where a query may look."""
    half_on_cpu = query.device.type == "cpu" and query.dtype != torch.float32
    way = plain_attention if half_on_cpu and key.shape[2] <= FEW_TOKENS and not dropout_p else scaled_dot_product_attention
    return way(query, key, value, attn_mask=attn_mask, dropout_p=dropout_p, scale=scale)


def plain_attention(query, key, value, attn_mask=None, dropout_p=0.0, *, scale):
    """The same in three plain operations, without dropout, for the CPU.

    torch 2.14.1's flash kernel takes 3.1 times as long in bf16 with 169 tokens and 1.7 times with 600, where this one begins to need much
    memory: it keeps all N x N shares. A step of a ViT takes 0.56 times as long with 65 tokens (`tiny`, 32 pictures) and 0.83 times with
    197 (vit-small, 4 pictures); in fp32, with casts, the kernel needs 0.60 and 0.94 of its own time. The shares of bf16 are fp32's, rounded
    once (softmax computes in fp32 inside); a copy in fp32 for the backward pass makes a step of `tiny` a tenth longer and its gradient no
    better.
    """
    scores = (query * scale) @ key.mT
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    return scores.softmax(-1) @ value


def library_attention(module, query, key, value, attention_mask, *, scaling, dropout=0.0, **others):
    """The library's attention interface, the faster way in training: query, key, value [B, heads, N, D] -> ([B, N, heads, D], None).

    Not for causal attention.
    """
    if attention_mask is None and torch.is_grad_enabled():
        return attend(query, key, value, dropout_p=dropout, scale=scaling).transpose(1, 2).contiguous(), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others)


ALL_ATTENTION_FUNCTIONS.register(NAME, library_attention)
