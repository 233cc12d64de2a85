"""Attention by the faster way is attention."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from visionloop.tasks.attention import FEW_TOKENS, NAME, attend, library_attention
from visionloop.tasks.classification.model import build_model
from visionloop.tasks.classification.sources import CATALOGUE


def count_kernels(call):
    """How often the fused kernel of the CPU runs within."""
    with torch.profiler.profile() as profiler:
        call()
    return sum(event.count for event in profiler.key_averages() if event.key == "aten::_scaled_dot_product_flash_attention_for_cpu")


def random_heads(tokens, dtype):
    return torch.randn(3, 2, 2, tokens, 16, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize(("dtype", "tokens", "fused"), [
    (torch.bfloat16, 20, 0), (torch.bfloat16, FEW_TOKENS + 1, 1), (torch.float32, 20, 1),
])  # fmt: skip
def test_the_fused_kernel_is_left_where_it_is_slow_and_the_answer_is_the_same(dtype, tokens, fused):
    query, key, value = random_heads(tokens, dtype)
    assert count_kernels(lambda: attend(query, key, value, scale=0.25)) == fused
    theirs = scaled_dot_product_attention(query.float(), key.float(), value.float(), scale=0.25)
    torch.testing.assert_close(attend(query, key, value, scale=0.25).float(), theirs, atol=2e-2, rtol=2e-2)


def test_dropout_is_never_lost():
    query, key, value = random_heads(20, torch.bfloat16)
    assert not attend(query, key, value, dropout_p=1.0, scale=0.25).any()


def test_gradients_in_bf16_are_as_near_to_fp32_as_the_kernel_s():
    distances = []
    exact = [tensor.requires_grad_() for tensor in random_heads(65, torch.float32).unbind()]
    wanted = torch.autograd.grad(scaled_dot_product_attention(*exact, scale=0.25).square().sum(), exact)
    for way in (attend, scaled_dot_product_attention):
        rough = [tensor.detach().bfloat16().requires_grad_() for tensor in exact]
        found = torch.autograd.grad(way(*rough, scale=0.25).float().square().sum(), rough)
        distances.append(max(float((a.float() - b).norm() / b.norm()) for a, b in zip(found, wanted, strict=True)))
    assert distances[0] < max(0.02, 1.5 * distances[1])


def test_evaluation_keeps_the_library_s_way_bit_for_bit():
    query, key, value = random_heads(20, torch.bfloat16)
    module = torch.nn.Identity()
    module.is_causal = False
    with torch.no_grad():
        ours, _ = library_attention(module, query, key, value, None, scaling=0.25)
    assert torch.equal(ours, scaled_dot_product_attention(query, key, value, scale=0.25).transpose(1, 2))


def test_a_new_vit_attends_this_way_and_its_folder_does_not_say_so(tmp_path):
    module = build_model(CATALOGUE.find("tiny", True), ["cat", "dog"])
    assert module.config._attn_implementation == NAME
    module.save_pretrained(tmp_path)
    assert NAME not in (tmp_path / "config.json").read_text()
    pixels = torch.randn(2, 3, 64, 64)
    ours = module(pixel_values=pixels).logits
    module.set_attn_implementation("sdpa")
    torch.testing.assert_close(ours, module(pixel_values=pixels).logits, atol=0, rtol=0)
