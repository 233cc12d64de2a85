"""Masked attention for the rows that need it: queries see their own patches, everything else is unmasked."""

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "eomt_split"
FEW_TOKENS = 640


def split_attention(module, query, key, value, attention_mask, *, scaling, dropout=0.0, **_):
    """The library's attention interface: query, key, value [B, heads, N, D] -> ([B, N, heads, D], None).

    attention_mask: bool [B, 1, Q, N], True where query token q may look, for the first Q rows; None: nothing is masked. The library's own
    form is a float [B, heads, N, N], kept for the backward pass. Two calls leave the rows without a mask to a flash kernel.
    """
    half_on_cpu = query.device.type == "cpu" and query.dtype != torch.float32
    attend = plain_attention if half_on_cpu and key.shape[2] <= FEW_TOKENS and not dropout else scaled_dot_product_attention
    if attention_mask is None:
        return attend(query, key, value, dropout_p=dropout, scale=scaling).transpose(1, 2), None
    num_masked = attention_mask.shape[-2]
    parts = [
        attend(query[:, :, :num_masked], key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling),
        attend(query[:, :, num_masked:], key, value, dropout_p=dropout, scale=scaling),
    ]
    return torch.cat(parts, dim=2).transpose(1, 2), None


def plain_attention(query, key, value, attn_mask=None, dropout_p=0.0, *, scale):
    """The same in three plain operations, without dropout, for the CPU.

    torch 2.14.1's flash kernel takes 3.1 times as long in bf16 with 169 tokens and 1.7 times with 600, where this one begins to need much
    memory: it keeps all N x N shares. Those of bf16 are fp32's, rounded once (softmax computes in fp32 inside); a copy in fp32 for the
    backward pass makes a step of `tiny` a tenth longer and its gradient no better.
    """
    scores = (query * scale) @ key.mT
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    return scores.softmax(-1) @ value


ALL_ATTENTION_FUNCTIONS.register(NAME, split_attention)
