"""The attention of classifiers, in fp32 where torch's kernel for bf16 is slow."""

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from visionloop.engine.system.kernels import is_half_on_cpu

ATTENTION = "fp32_on_cpu"  # the name of `attention_forward` in transformers
MAX_FP32_TOKENS = 256


def attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    dropout: float = 0.0,
    **others: object,
) -> tuple[torch.Tensor, None]:
    """Compute attention, in fp32 where autocast is bf16 on a CPU; not for causal attention.

    It has the attention interface of transformers. torch's bf16 kernel for CPUs is slow in the
    backward pass. In training, in half precision, on a CPU, with at most MAX_FP32_TOKENS tokens,
    torch 2.14.1's fused kernel gets fp32: a step of `tiny` (65 tokens, 32 images) takes 0.6 times
    as long, one of vit-small (197 tokens, 4 images) 0.94 times, and gradients are nearer to those
    of fp32. Three plain products of bf16 take 0.56 times as long, but train worse: 64.8, 76.2 and
    77.6 % of the hand signs with three seeds.

    Args:
        query, key, value: [B, heads, N, D].

    Returns:
        ([B, N, heads, D], None).
    """
    if (
        attention_mask is None
        and is_half_on_cpu(query)
        and torch.is_grad_enabled()
        and key.shape[2] <= MAX_FP32_TOKENS
    ):
        with torch.autocast("cpu", enabled=False):
            attended = scaled_dot_product_attention(
                query.float(), key.float(), value.float(), dropout_p=dropout, scale=scaling
            )
        return attended.to(query.dtype).transpose(1, 2).contiguous(), None
    attended, _ = sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
    )
    return attended, None


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attention_forward)
