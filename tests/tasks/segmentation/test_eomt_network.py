"""The forward of EoMT against that of transformers: levels, masks, annealing, checkpointing."""

import copy

import pytest
import torch
import transformers
from torch import nn
from transformers import EomtDinov3Config

from visionloop.engine.grad_checkpointing import apply_grad_checkpointing
from visionloop.tasks.segmentation.model import new_model
from visionloop.tasks.segmentation.network import (
    EomtForUniversalSegmentation,
    plain_attention,
    transposed_conv,
)

DINOV3 = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
    "num_blocks": 2,
    "num_queries": 8,
    "num_upscale_blocks": 1,
    "num_register_tokens": 2,
    "pos_embed_rescale": None,
}


@pytest.fixture(params=["eomt", "eomt_dinov3"])
def module(request, tiny_module):
    if request.param == "eomt":
        return tiny_module(num_register_tokens=2)
    torch.manual_seed(0)
    return new_model(EomtDinov3Config(**DINOV3), ["sky", "road", "tree"])


def transformers_twin(module):
    """Return the class of transformers with the same weights and its own kind of attention."""
    config = type(module.config).from_dict(module.config.to_dict())
    config._attn_implementation = "sdpa"
    twin = getattr(transformers, type(module).__name__)(config)
    twin.load_state_dict(module.state_dict())
    twin.attn_mask_probs.copy_(torch.tensor(module.mask_probs))
    return twin


def levels_of(twin, pixels):
    """Return (mask logits, class logits) of every level, recorded from transformers' forward."""
    levels, predict = [], twin.predict

    def record(tokens):
        levels.append(predict(tokens))
        return levels[-1]

    twin.predict = record
    twin(pixels)
    masks, classes = zip(*levels, strict=True)
    return torch.stack(masks, dim=1), torch.stack(classes, dim=1)


@pytest.mark.parametrize("training", [True, False])
def test_all_levels_equal_transformers_while_all_queries_are_masked(module, training):
    twin, pixels = transformers_twin(module).train(training), torch.randn(3, 3, 32, 32)
    ours = module.train(training)(pixels, all_levels=True)
    assert ours[0].shape == (3, 3, 8, 8, 8) and ours[1].shape == (3, 3, 8, 4)
    for mine, theirs in zip(ours, levels_of(twin, pixels), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_partly_masked_queries_equal_transformers_for_the_same_draws(module):
    module.mask_probs = [0.4, 1.0]
    twin, pixels = transformers_twin(module).train(), torch.randn(2, 3, 32, 32)
    torch.manual_seed(5)
    mine = module.train()(pixels)
    torch.manual_seed(5)
    theirs = levels_of(twin, pixels)
    torch.testing.assert_close(mine[0], theirs[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mine[1], theirs[1], atol=1e-5, rtol=1e-5)


def test_without_masks_one_prediction_equals_the_last_level_of_transformers(module):
    module.mask_probs = [0.0, 0.0]
    twin, pixels, calls = transformers_twin(module).eval(), torch.randn(2, 3, 32, 32), []
    module.eval().heads.register_forward_hook(lambda *_: calls.append(1))
    masks, classes = module(pixels)
    assert len(calls) == 1 and masks.shape[1] == 1
    theirs = twin(pixels)
    torch.testing.assert_close(masks[:, 0], theirs.masks_queries_logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(classes[:, 0], theirs.class_queries_logits, atol=1e-5, rtol=1e-5)


def test_a_block_without_masks_does_not_inherit_those_of_the_block_before(module):
    module.mask_probs = [1.0, 0.0]
    masks = []
    for layer in module.eval().layers:
        layer.register_forward_pre_hook(
            lambda _, args, kwargs: masks.append(kwargs["attention_mask"]), with_kwargs=True
        )
    module(torch.randn(2, 3, 32, 32))
    assert (
        masks[0] is None
        and masks[1].shape == (2, 1, 8, 8 + 3 + 16)
        and masks[1].dtype == torch.bool
        and masks[2] is None
    )
    assert masks[1][..., :11].all(), "queries, class and register tokens are never masked"


def test_draws_alone_decide_which_queries_are_masked(module):
    module.mask_probs = [0.5, 0.5]
    pixels, draws = torch.randn(2, 3, 32, 32), torch.rand(2, 2, 8)
    module.eval()
    first = module(pixels, draws=draws)
    torch.rand(7)
    assert torch.equal(module(pixels, draws=draws)[0], first[0])
    assert torch.equal(
        module(pixels[1:], draws=draws[1:])[0][0], module(pixels[1:], draws=draws[1:])[0][0]
    )


def test_recomputed_blocks_and_heads_give_the_same_gradients(module):
    pixels = torch.randn(2, 3, 32, 32)
    module.mask_probs = [0.5, 1.0]
    plain, recomputed = copy.deepcopy(module).train(), copy.deepcopy(module).train()
    apply_grad_checkpointing([*recomputed.layers, recomputed.heads])
    for twin in (plain, recomputed):
        torch.manual_seed(3)
        masks, classes = twin(pixels)
        (masks.square().mean() + classes.square().mean()).backward()
    for (name, mine), theirs in zip(plain.named_parameters(), recomputed.parameters(), strict=True):
        assert mine.grad is not None or not mine.numel(), name
        assert mine.grad is None or torch.equal(mine.grad, theirs.grad), name


def test_a_copy_runs_its_own_heads(tiny_module):
    module = tiny_module().eval()
    twin = copy.deepcopy(module)
    nn.init.zeros_(twin.class_predictor.weight)
    pixels = torch.randn(1, 3, 32, 32)
    assert not torch.equal(twin(pixels)[1], module(pixels)[1])
    assert not any(name.startswith("heads") for name in module.state_dict())


def test_dinov3_reads_images_of_any_shape():
    torch.manual_seed(0)
    module = new_model(EomtDinov3Config(**DINOV3), ["sky", "road"]).eval()
    masks, classes = module(torch.randn(1, 3, 24, 48))
    assert masks.shape == (1, 1, 8, 6, 12) and classes.shape == (1, 1, 8, 3)


def test_plain_attention_equals_the_kernel():
    query, key, value = torch.randn(3, 2, 2, 20, 16)
    mask = torch.rand(2, 1, 20, 20) > 0.5
    mask[..., 0] = True
    for one in (None, mask):
        theirs = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=one, scale=0.25
        )
        torch.testing.assert_close(
            plain_attention(query, key, value, one, scale=0.25), theirs, atol=1e-5, rtol=1e-5
        )


def test_the_product_is_the_transposed_convolution():
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(6, 5, kernel_size=2, stride=2)
    maps = torch.randn(2, 6, 3, 4).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(transposed_conv(layer, maps), layer(maps))


def test_bf16_stays_near_fp32(tiny_module):
    module, pixels = tiny_module().eval(), torch.randn(2, 3, 32, 32)
    module.mask_probs = [0.0, 0.0]
    exact = module(pixels)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = module(pixels)[0].float()
    assert isinstance(module, EomtForUniversalSegmentation)
    assert (rough - exact).abs().max() < 0.1 * exact.abs().max()
