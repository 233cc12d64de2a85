"""Recomputing activations changes no bit of a gradient."""

import copy

import pytest
import torch
from torch import nn
from toy_task import ToyConfig, ToyModel, ToyTask

from visionloop.engine.grad_checkpointing import apply_grad_checkpointing
from visionloop.engine.seeding import seed_noise


def build_model(batch_norm=False):
    torch.manual_seed(0)
    return ToyModel(dropout=0.5, batch_norm=batch_norm).train()


def gradients(module, autocast=False):
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    seed_noise(0, 3, 0)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = nn.functional.cross_entropy(module(images).float(), torch.arange(6) % 2)
    loss.backward()
    return {
        "loss": loss.detach(),
        **{name: parameter.grad for name, parameter in module.named_parameters()},
    }


def bits(tensors):
    return {name: tensor.detach().numpy().tobytes() for name, tensor in tensors.items()}


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_gradients_with_recomputation_are_those_without_bit_for_bit_dropout_included(
    autocast, batch_norm
):
    plain, recomputed = build_model(batch_norm), build_model(batch_norm)
    apply_grad_checkpointing(ToyTask(ToyConfig()).grad_checkpointing_blocks(recomputed))
    assert bits(gradients(recomputed, autocast)) == bits(gradients(plain, autocast))
    assert bits(recomputed.state_dict()) == bits(plain.state_dict()), (
        "statistics outside of the block are counted once"
    )


def test_dropout_was_really_on():
    first, second = build_model(), build_model()
    second.block[2].p = 0.0
    assert bits(gradients(first)) != bits(gradients(second))


class CountingBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.calls = nn.Linear(4, 4), 0

    def forward(self, x, *, scale=1.0):
        self.calls += 1
        return scale * self.linear(x).relu()


def test_a_block_runs_again_in_the_backward_pass_and_only_there():
    block = CountingBlock()
    apply_grad_checkpointing([block])
    out = block(torch.randn(2, 4), scale=2.0)
    assert block.calls == 1
    out.sum().backward()
    assert block.calls == 2
    with torch.no_grad():
        block(torch.randn(2, 4))
    assert block.calls == 3


def test_keyword_arguments_reach_the_block():
    plain, recomputed = CountingBlock(), CountingBlock()
    recomputed.load_state_dict(plain.state_dict())
    apply_grad_checkpointing([recomputed])
    x = torch.randn(2, 4)
    assert torch.equal(recomputed(x, scale=3.0), plain(x, scale=3.0))


def test_names_on_disk_do_not_change():
    plain, recomputed = build_model(), build_model()
    apply_grad_checkpointing([recomputed.block])
    assert list(recomputed.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in recomputed.named_parameters()] == [
        name for name, _ in plain.named_parameters()
    ]


def test_a_copy_of_a_recomputed_block_computes_with_its_own_weights():
    block = CountingBlock()
    apply_grad_checkpointing([block])
    other = copy.deepcopy(block)
    other.linear.weight.data.zero_()
    other.linear.bias.data.zero_()
    assert not other(torch.randn(2, 4)).any()
    assert block(torch.ones(2, 4)).shape == (2, 4)


def test_a_trained_batch_norm_inside_a_block_is_refused():
    with pytest.raises(AssertionError, match="BatchNorm"):
        apply_grad_checkpointing([nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).train()])


def test_a_frozen_batch_norm_inside_a_block_is_welcome():
    block = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    block[1].eval()
    apply_grad_checkpointing([block])
    block(torch.randn(3, 4)).sum().backward()
    assert block[1].num_batches_tracked == 0 and block[0].weight.grad is not None
