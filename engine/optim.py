"""Parameter groups and optimizers.

All optimizers are fused: a non-finite step is skipped on the device through `found_inf`, on Metal
by the host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NotRequired, TypedDict

import torch
from torch import nn

from visionloop.engine.tensors import load_by_name

if TYPE_CHECKING:
    from visionloop.engine.config.train_config import TrainConfig

# Devices whose fused kernels take `found_inf` and may not read it (torch's source for Metal): there
# the host decides. Restoring weights and moments instead would copy all of them in each step.
IGNORING_FOUND_INF = ("mps",)


class ParameterGroup(TypedDict):
    """One parameter group of a task.

    Attributes:
        name: the name of its learning rate in the logs.
        params: its parameters.
        lr_scale: factor on the learning rate of the run.
        weight_decay: None for that of the run.
        warmup: warm-up steps of this group, None for those of the run.
        start: the step before which the learning rate is zero (default: 0).
    """

    name: str
    params: list[nn.Parameter]
    lr_scale: float
    weight_decay: float | None
    warmup: NotRequired[int | None]
    start: NotRequired[int]


def default_parameter_groups(
    module: nn.Module,
    *,
    layer_of: Callable[[str], int] | None = None,
    num_layers: int = 0,
    layer_decay: float = 1.0,
    no_decay: Sequence[str] = (),
) -> list[ParameterGroup]:
    """Put every trainable parameter into one group, with or without weight decay.

    Vectors (norms, biases) get no weight decay. With `layer_of`, layer i has
    lr_scale = layer_decay ** (num_layers - i) (BEiT's rule, timm/optim/_param_groups.py).

    Args:
        module: the model.
        layer_of: maps a parameter's name to its layer, 0..num_layers.
        num_layers: the layer whose lr_scale is 1.
        layer_decay: factor from each layer to the one below.
        no_decay: parameters whose name contains one of these words get no weight decay either.
    """
    groups: dict[str, ParameterGroup] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim > 1 and not any(word in name for word in no_decay)
        layer = layer_of(name) if layer_of else num_layers
        label = (f"layer_{layer}" if layer_of else "all") + ("" if decays else "_no_decay")
        group = groups.setdefault(
            label,
            {
                "name": label,
                "params": [],
                "lr_scale": layer_decay ** (num_layers - layer),
                "weight_decay": None if decays else 0.0,
                "warmup": None,
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


def build_optimizer(
    groups: Sequence[ParameterGroup], module: nn.Module, config: TrainConfig
) -> torch.optim.Optimizer:
    """Build the fused optimizer of `config.optimizer`, with the state of every parameter.

    Asserts that every trainable parameter of `module` is in exactly one group.
    """
    listed = [id(parameter) for group in groups for parameter in group["params"]]
    trainable = {id(parameter) for parameter in module.parameters() if parameter.requires_grad}
    assert len(listed) == len(set(listed)) and set(listed) == trainable, (
        "parameter_groups: each trainable parameter must be in exactly one group"
    )
    torch_groups: list[dict[str, object]] = [
        {
            "name": group["name"],
            "params": group["params"],
            "lr_scale": group["lr_scale"],
            "warmup": group.get("warmup"),
            "start": group.get("start", 0),
            "weight_decay": config.weight_decay
            if group["weight_decay"] is None
            else group["weight_decay"],
        }
        for group in groups
    ]
    optimizer: torch.optim.Optimizer
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            torch_groups, lr=config.lr, momentum=config.momentum, fused=True
        )
    else:
        optimizer_class = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[config.optimizer]
        betas = (config.beta1, config.beta2)
        optimizer = optimizer_class(torch_groups, lr=config.lr, betas=betas, fused=True)
    fill_state(optimizer, config)
    return optimizer


def fill_state(optimizer: torch.optim.Optimizer, config: TrainConfig) -> None:
    """Create the state of every parameter before the first step.

    Fused SGD leaves its momentum buffer uninitialized when the very first step is skipped, and a
    checkpoint can only be restored by name into state that exists.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if config.optimizer == "sgd":
                state = (
                    {"momentum_buffer": torch.zeros_like(parameter)} if config.momentum > 0 else {}
                )
            else:
                state = {
                    "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
            optimizer.state[parameter].update(state)


def step_if_finite(optimizer: torch.optim.Optimizer, nonfinite: torch.Tensor) -> None:
    """Take a step of a fused optimizer; a non-finite one changes no weight and no moment.

    No host sync, but for one on Metal.

    Args:
        optimizer: with gradients in true units.
        nonfinite: 0 or 1, a float scalar on the device.
    """
    if nonfinite.device.type in IGNORING_FOUND_INF and nonfinite.item():
        return
    # GradScaler.step would set its own found_inf, which does not see a norm that overflows
    optimizer.grad_scale, optimizer.found_inf = None, nonfinite  # type: ignore[attr-defined]
    optimizer.step()


def state_by_name(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, torch.Tensor]:
    """Return {"<parameter>/<entry>": tensor}, independent of the parameter groups."""
    return {
        f"{name}/{entry}": value
        for name, parameter in module.named_parameters()
        for entry, value in optimizer.state.get(parameter, {}).items()
    }


def load_state_by_name(
    optimizer: torch.optim.Optimizer, module: nn.Module, stored: Mapping[str, torch.Tensor]
) -> None:
    """Copy a checkpoint's tensors into the existing optimizer state.

    Groups and learning rates stay as they are; torch's `load_state_dict` would overwrite lr and
    `fused`.

    Raises:
        ValueError: names or shapes differ.
    """
    load_by_name(state_by_name(optimizer, module), stored, "optimizer state")


def batch_norms(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return the BatchNorm layers of a module."""
    return [
        layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)
    ]
