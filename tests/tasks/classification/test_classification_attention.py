"""Attention in fp32 under bf16 on a CPU is attention."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from visionloop.tasks.classification.architectures import MODEL_NAMES
from visionloop.tasks.classification.attention import (
    ATTENTION,
    MAX_FP32_TOKENS,
    attention_forward,
)
from visionloop.tasks.classification.model import build_model


def random_heads(tokens, dtype):
    return (
        torch.randn(3, 2, 2, tokens, 16, generator=torch.Generator().manual_seed(0))
        .to(dtype)
        .unbind()
    )


def transformers_module():
    module = torch.nn.Identity()
    module.is_causal = False
    return module


@pytest.mark.parametrize(
    ("tokens", "kernel"), [(MAX_FP32_TOKENS, torch.float32), (MAX_FP32_TOKENS + 1, torch.bfloat16)]
)
def test_few_tokens_are_attended_in_fp32_under_autocast_too(tokens, kernel):
    query, key, value = random_heads(tokens, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        ours, _ = attention_forward(transformers_module(), query, key, value, None, scaling=0.25)
    theirs = scaled_dot_product_attention(
        *(tensor.to(kernel) for tensor in (query, key, value)), scale=0.25
    )
    assert ours.dtype == torch.bfloat16 and torch.equal(ours, theirs.bfloat16().transpose(1, 2))


def test_gradients_in_bf16_are_no_farther_from_fp32_than_the_kernel_s():
    exact = [tensor.float().requires_grad_() for tensor in random_heads(65, torch.bfloat16)]
    expected = torch.autograd.grad(
        scaled_dot_product_attention(*exact, scale=0.25).square().sum(), exact
    )

    def distance(attend):
        rough = [tensor.detach().bfloat16().requires_grad_() for tensor in exact]
        gradients = torch.autograd.grad(attend(*rough).float().square().sum(), rough)
        return max(
            float((a.float() - b).norm() / b.norm())
            for a, b in zip(gradients, expected, strict=True)
        )

    ours = distance(
        lambda *heads: attention_forward(transformers_module(), *heads, None, scaling=0.25)[0]
    )
    assert ours <= distance(lambda *heads: scaled_dot_product_attention(*heads, scale=0.25))


def test_dropout_is_never_lost():
    query, key, value = random_heads(20, torch.bfloat16)
    assert not attention_forward(
        transformers_module(), query, key, value, None, scaling=0.25, dropout=1.0
    )[0].any()


def test_evaluation_computes_what_transformers_does_bit_for_bit():
    query, key, value = random_heads(20, torch.bfloat16)
    with torch.no_grad():
        ours, _ = attention_forward(transformers_module(), query, key, value, None, scaling=0.25)
    assert torch.equal(
        ours, scaled_dot_product_attention(query, key, value, scale=0.25).transpose(1, 2)
    )


def test_a_new_vit_uses_this_kernel_and_its_folder_does_not_name_it(tmp_path):
    module = build_model(MODEL_NAMES.find("tiny", True), ["cat", "dog"])
    assert module.config._attn_implementation == ATTENTION
    module.save_pretrained(tmp_path)
    assert ATTENTION not in (tmp_path / "config.json").read_text()
    pixels = torch.randn(2, 3, 64, 64)
    ours = module(pixel_values=pixels).logits
    module.set_attn_implementation("sdpa")
    torch.testing.assert_close(ours, module(pixel_values=pixels).logits, atol=0, rtol=0)
