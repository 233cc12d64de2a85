"""The memory of each GPU by formula, and that of modules which `fully_shard` has divided."""

import itertools

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from transformers import EomtConfig, EomtForUniversalSegmentation

from visionloop.engine.distributed import join_world
from visionloop.engine.sharding.memory_estimate import (
    ModelSizes,
    evaluation_memory,
    memory_per_gpu,
    model_sizes,
)
from visionloop.engine.testing.short_runs import on_ranks

SIZES = ModelSizes(root=((5, 3), (7,)), units=(((8, 8), (8,)), ((3, 8),), ((16, 8), (16,))))
# widths of the released small model; few layers, and rows that 2 ranks cannot share evenly
FIELDS = {
    "hidden_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_blocks": 1,
    "num_queries": 9,
    "num_labels": 4,
    "image_size": 32,
}


def eomt():
    with torch.device("meta"):
        return EomtForUniversalSegmentation(EomtConfig(**FIELDS)).train()


def sharded_bytes():
    """Bytes of the shards of this rank after one step, as `memory_per_gpu` names them."""
    join_world("cpu")
    module = eomt()
    for unit in module.layers:
        fully_shard(unit)
    fully_shard(module, reshard_after_forward=False)
    module.to_empty(device="cpu")
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    optimizer = torch.optim.AdamW(module.parameters())
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    parameters = list(module.parameters())
    moments = itertools.chain.from_iterable(
        (state["exp_avg"], state["exp_avg_sq"]) for state in optimizer.state.values()
    )
    ema = [torch.zeros_like(parameter.to_local()) for parameter in parameters]
    groups = {
        "weights": [parameter.to_local() for parameter in parameters],
        "gradients": [parameter.grad.to_local() for parameter in parameters],
        "moments": [moment.to_local() for moment in moments],
        "ema": ema,
    }
    return {name: sum(tensor.nbytes for tensor in tensors) for name, tensors in groups.items()}


def test_the_shards_of_a_real_network_have_the_bytes_of_the_formula():
    module = eomt()
    memory = memory_per_gpu(model_sizes(module, module.layers), ranks=2, ema=True)
    first, second = on_ranks(2, sharded_bytes, context="fork")
    assert first == {name: getattr(memory, name) for name in first}
    # the rows that do not divide evenly are the first rank's
    assert all(0 < first[name] - second[name] < 0.01 * first[name] for name in first)


def test_the_sizes_of_a_module_are_all_its_weights_once():
    module = eomt()
    sizes = model_sizes(module, [*module.layers, nn.Identity()])
    assert sizes.num_weights == sum(parameter.numel() for parameter in module.parameters())
    assert len(sizes.units) == 3
    in_layer = sum(parameter.numel() for parameter in module.layers[0].parameters())
    assert sizes.num_in_largest_units(2) == 2 * in_layer
    assert sizes.num_in_root() == sizes.num_weights - 3 * in_layer


def test_a_shared_weight_counts_once_and_an_empty_one_not_at_all():
    module = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
    module["b"].weight = module["a"].weight
    module.register_parameter("tokens", nn.Parameter(torch.zeros(1, 0, 4)))
    sizes = model_sizes(module, [module["a"], module["b"]])
    assert sizes == ModelSizes(root=(), units=(((4, 4), (4,)), ((4,),)))


def test_without_sharding_everything_is_whole_and_nothing_is_gathered():
    memory = memory_per_gpu(SIZES, ranks=1, ema=True)
    whole = 4 * SIZES.num_weights
    assert (memory.weights, memory.gradients, memory.ema) == (whole, whole, whole)
    assert (memory.moments, memory.gathered, memory.unreduced) == (2 * whole, 0, 0)
    assert memory.total == memory.state == 5 * whole
    assert evaluation_memory(SIZES, ranks=1, ema=True) == 4 * whole


def test_rows_of_a_shard_are_rounded_up_for_each_tensor():
    rows = (3 * 3 + 4) + (4 * 8 + 4) + 2 * 8 + (8 * 8 + 8)  # of 5, 7, 8, 8, 3, 16, 16 by two
    assert memory_per_gpu(SIZES, ranks=2, ema=False).weights == 4 * rows
    many = memory_per_gpu(SIZES, ranks=1000, ema=False)
    assert many.weights == 4 * ((3 + 1) + (8 + 1) + 8 + (8 + 1))  # one row of each


@pytest.mark.parametrize("gather_bytes", [2, 4])
def test_the_root_and_the_two_largest_units_are_gathered_at_once(gather_bytes):
    memory = memory_per_gpu(SIZES, ranks=2, ema=True, gather_bytes=gather_bytes)
    root, largest, second = 22, 144, 72
    assert memory.gathered == gather_bytes * (root + largest + second)
    assert memory.unreduced == 4 * (root + largest)
    assert memory.total == memory.state + memory.gathered + memory.unreduced


def test_an_evaluation_has_the_whole_weights_and_no_gradients():
    memory = memory_per_gpu(SIZES, ranks=2, ema=True)
    assert evaluation_memory(SIZES, ranks=2, ema=True, gather_bytes=2) == (
        memory.weights + memory.moments + memory.ema + 2 * SIZES.num_weights
    )


def test_more_ranks_never_need_more():
    totals = [memory_per_gpu(SIZES, ranks=ranks, ema=True).state for ranks in (1, 2, 4, 8, 64)]
    assert totals == sorted(totals, reverse=True)
    assert memory_per_gpu(SIZES, ranks=2, ema=False).ema == 0
    assert memory_per_gpu(SIZES, ranks=2, ema=False, moments=0).moments == 0
