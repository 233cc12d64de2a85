"""Masked attention for the rows that need it: queries see their own patches, everything else is unmasked."""

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from visionloop.tasks.attention import attend

NAME = "eomt_split"


def split_attention(module, query, key, value, attention_mask, *, scaling, dropout=0.0, **_):
    """The library's attention interface: query, key, value [B, heads, N, D] -> ([B, N, heads, D], None).

    attention_mask: bool [B, 1, Q, N], True where query token q may look, for the first Q rows; None: nothing is masked. The library's own
    form is a float [B, heads, N, N], kept for the backward pass. Two calls leave the rows without a mask to a flash kernel.
    """
    if attention_mask is None:
        return attend(query, key, value, dropout_p=dropout, scale=scaling).transpose(1, 2), None
    num_masked = attention_mask.shape[-2]
    parts = [
        attend(query[:, :, :num_masked], key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling),
        attend(query[:, :, num_masked:], key, value, dropout_p=dropout, scale=scaling),
    ]
    return torch.cat(parts, dim=2).transpose(1, 2), None


ALL_ATTENTION_FUNCTIONS.register(NAME, split_attention)
