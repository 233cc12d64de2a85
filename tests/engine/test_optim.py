"""Parameter groups, fused optimizers, and their state by name."""

from dataclasses import replace

import pytest
import torch
from toy_task import ToyModel

from visionloop.engine.checkpoints.writer import load_tensors, save_tensors
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.optim import (
    batch_norms,
    build_optimizer,
    default_parameter_groups,
    load_state_by_name,
    state_by_name,
    step_if_finite,
)

CONFIG = TrainConfig(steps=10, lr=1e-2, weight_decay=0.1)
KINDS = ("adamw", "adam", "sgd")


def build_model(seed=0):
    torch.manual_seed(seed)
    return ToyModel(dropout=0.0, batch_norm=True)


def optimizer_for(module, **changes):
    return build_optimizer(default_parameter_groups(module), module, replace(CONFIG, **changes))


def give_gradients(module, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def take_step(module, optimizer, seed, *, nonfinite=0.0):
    give_gradients(module, seed)
    step_if_finite(optimizer, torch.tensor(nonfinite))


def layer_of(name):
    return {"stem": 0, "norm": 0, "block": 1, "head": 2}[name.split(".")[0]]


def bits(tensors):
    return {name: tensor.detach().numpy().tobytes() for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    "layers",
    [{}, {"layer_of": layer_of, "num_layers": 2, "layer_decay": 0.5}],
    ids=["plain", "layers"],
)
def test_groups_cover_every_trainable_parameter_once(layers):
    module = build_model()
    module.stem.requires_grad_(False)
    groups = default_parameter_groups(module, **layers)
    listed = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(listed) == sorted(
        id(parameter) for parameter in module.parameters() if parameter.requires_grad
    )
    assert len({group["name"] for group in groups}) == len(groups)


def test_vectors_and_named_parameters_are_not_decayed():
    module = build_model()
    groups = default_parameter_groups(module, no_decay=("stem",))
    decayed = {
        id(parameter)
        for group in groups
        if group["weight_decay"] is None
        for parameter in group["params"]
    }
    names = {name for name, parameter in module.named_parameters() if id(parameter) in decayed}
    assert names == {"block.0.weight", "head.weight"}
    assert {group["weight_decay"] for group in groups} == {None, 0.0}


def test_layer_decay_slows_each_layer_below_the_head():
    groups = default_parameter_groups(
        build_model(), layer_of=layer_of, num_layers=2, layer_decay=0.5
    )
    assert {group["name"]: group["lr_scale"] for group in groups} == {
        "layer_0": 0.25,
        "layer_0_no_decay": 0.25,
        "layer_1": 0.5,
        "layer_1_no_decay": 0.5,
        "layer_2": 1.0,
        "layer_2_no_decay": 1.0,
    }  # fmt: skip


def test_a_tied_parameter_is_in_one_group():
    module = build_model()
    module.tied = torch.nn.Linear(32, 2)
    module.tied.weight = module.head.weight
    optimizer = optimizer_for(module)
    take_step(module, optimizer, 0)
    assert "head.weight/exp_avg" in state_by_name(
        optimizer, module
    ) and "tied.weight/exp_avg" not in state_by_name(optimizer, module)


def test_a_group_starts_at_its_start_step_and_at_once_without_one():
    module = build_model()
    first, *others = default_parameter_groups(module)
    optimizer = build_optimizer([first | {"start": 7, "warmup": 3}, *others], module, CONFIG)
    starts = {group["name"]: (group["start"], group["warmup"]) for group in optimizer.param_groups}
    assert starts == {first["name"]: (7, 3)} | {group["name"]: (0, None) for group in others}


def test_a_parameter_in_no_group_or_in_two_is_our_defect():
    module = build_model()
    groups = default_parameter_groups(module)
    with pytest.raises(AssertionError, match="in exactly one group"):
        build_optimizer(groups[:1], module, CONFIG)
    with pytest.raises(AssertionError, match="in exactly one group"):
        build_optimizer([*groups, {**groups[0], "name": "again"}], module, CONFIG)


@pytest.mark.parametrize("kind", KINDS)
def test_the_run_s_weight_decay_fills_what_a_group_leaves_open(kind):
    optimizer = optimizer_for(build_model(), optimizer=kind)
    assert {group["name"]: group["weight_decay"] for group in optimizer.param_groups} == {
        "all": 0.1,
        "all_no_decay": 0.0,
    }
    assert all(group["fused"] for group in optimizer.param_groups)


@pytest.mark.parametrize("kind", KINDS)
def test_fused_steps_are_those_of_the_plain_optimizer(kind):
    module, other = build_model(), build_model()
    optimizer = optimizer_for(module, optimizer=kind)
    groups = [
        {
            "params": group["params"],
            "weight_decay": 0.1 if group["weight_decay"] is None else 0.0,
        }
        for group in default_parameter_groups(other)
    ]
    plain = {
        "adamw": lambda: torch.optim.AdamW(groups, lr=1e-2, foreach=False),
        "adam": lambda: torch.optim.Adam(groups, lr=1e-2, foreach=False),
        "sgd": lambda: torch.optim.SGD(groups, lr=1e-2, momentum=0.9, foreach=False),
    }[kind]()
    for step in range(4):
        take_step(module, optimizer, step)
        give_gradients(other, step)
        plain.step()
    for own, reference in zip(module.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(own, reference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("momentum", [0.9, 0.0])
@pytest.mark.parametrize("kind", KINDS)
def test_state_by_name_is_restored_bit_for_bit_and_training_continues_unchanged(
    kind, momentum, tmp_path
):
    straight = build_model()
    optimizer = optimizer_for(straight, optimizer=kind, momentum=momentum)
    for step in range(3):
        take_step(straight, optimizer, step)
    save_tensors(tmp_path / "optimizer.safetensors", state_by_name(optimizer, straight))

    resumed = build_model(seed=1)
    resumed.load_state_dict(straight.state_dict())
    # the state is looked up by name, whatever the groups and the order of the parameters are
    groups = default_parameter_groups(resumed, layer_of=layer_of, num_layers=2)[::-1]
    other = build_optimizer(groups, resumed, replace(CONFIG, optimizer=kind, momentum=momentum))
    load_state_by_name(other, resumed, load_tensors(tmp_path / "optimizer.safetensors"))
    assert bits(state_by_name(other, resumed)) == bits(state_by_name(optimizer, straight))
    for step in range(3, 6):
        take_step(straight, optimizer, step)
        take_step(resumed, other, step)
    assert bits(resumed.state_dict()) == bits(straight.state_dict())
    assert bits(state_by_name(other, resumed)) == bits(state_by_name(optimizer, straight))


def test_loading_keeps_our_rate_and_the_fused_kernel():
    module = build_model()
    optimizer = optimizer_for(module)
    saved = {name: tensor.clone() for name, tensor in state_by_name(optimizer, module).items()}
    for group in optimizer.param_groups:
        group["lr"] = 0.123
    load_state_by_name(optimizer, module, saved)
    assert all(group["lr"] == 0.123 and group["fused"] for group in optimizer.param_groups)


@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_state_with_other_names_is_refused_and_names_the_first(change):
    module = build_model()
    optimizer = optimizer_for(module)
    tensors = {name: tensor.clone() for name, tensor in state_by_name(optimizer, module).items()}
    if change == "missing":
        del tensors["head.bias/exp_avg"]
    else:
        tensors["head.bias/exp_avg_other"] = torch.zeros(2)
    with pytest.raises(ValueError, match=f"1 {change}, .*head.bias/exp_avg"):
        load_state_by_name(optimizer, module, tensors)


@pytest.mark.parametrize("kind", KINDS)
def test_a_skipped_step_changes_no_bit_of_weights_and_state(kind):
    module = build_model()
    optimizer = optimizer_for(module, optimizer=kind)
    take_step(module, optimizer, 0)
    before = bits(module.state_dict()), bits(state_by_name(optimizer, module))
    take_step(module, optimizer, 1, nonfinite=1.0)
    assert (bits(module.state_dict()), bits(state_by_name(optimizer, module))) == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_skipped_first_step_leaves_a_defined_state(kind):
    """Fused SGD would leave its momentum buffer uninitialized."""
    skipped, never = build_model(), build_model()
    optimizer, other = (optimizer_for(module, optimizer=kind) for module in (skipped, never))
    assert all(not tensor.any() for tensor in state_by_name(optimizer, skipped).values())
    take_step(skipped, optimizer, 7, nonfinite=1.0)
    for step in range(3):
        take_step(skipped, optimizer, step)
        take_step(never, other, step)
    assert bits(skipped.state_dict()) == bits(never.state_dict())
    assert bits(state_by_name(optimizer, skipped)) == bits(state_by_name(other, never))


def test_batch_norms_are_found_in_every_kind():
    norms = [torch.nn.BatchNorm1d(2), torch.nn.BatchNorm2d(2), torch.nn.SyncBatchNorm(2)]
    module = torch.nn.Sequential(
        torch.nn.Sequential(*norms), torch.nn.LayerNorm(2), torch.nn.GroupNorm(1, 2)
    )
    assert batch_norms(module) == norms
