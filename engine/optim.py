"""Parameter groups and optimizers. All fused: a non-finite step is skipped on the device through `found_inf`."""

import torch
from torch import nn


def default_parameter_groups(module, *, layer_of=None, num_layers=0, layer_decay=1.0, no_decay=()):
    """[{"name", "params", "lr_scale", "weight_decay", "warmup"}] over every trainable parameter once.

    Vectors (norms, biases) and parameters whose name contains a word of `no_decay` are not decayed.
    With `layer_of(name) -> 0..num_layers`, layer i has lr_scale layer_decay^(num_layers - i)
    (BEiT's rule, timm/optim/_param_groups.py).
    """
    groups = {}
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


def build_optimizer(groups, module, config):
    """The fused optimizer of `config.optimizer`. Asserts that every trainable parameter is in exactly one group."""
    listed = [id(parameter) for group in groups for parameter in group["params"]]
    trainable = {id(parameter) for parameter in module.parameters() if parameter.requires_grad}
    assert len(listed) == len(set(listed)) and set(listed) == trainable, (
        "parameter_groups: each trainable parameter once"
    )
    torch_groups = [
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
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            torch_groups, lr=config.lr, momentum=config.momentum, fused=True
        )
    else:
        kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[config.optimizer]
        optimizer = kind(torch_groups, lr=config.lr, betas=(config.beta1, config.beta2), fused=True)
    fill_state(optimizer, config)
    return optimizer


def fill_state(optimizer, config):
    """Create the state of every parameter before the first step.

    Fused SGD leaves its momentum buffer uninitialised when the very first step is skipped, and a
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


def state_by_name(optimizer, module):
    """{"<parameter>/<entry>": tensor}: flat, the same whatever the groups are."""
    return {
        f"{name}/{entry}": value
        for name, parameter in module.named_parameters()
        for entry, value in optimizer.state.get(parameter, {}).items()
    }


def load_state_by_name(optimizer, module, tensors):
    """Copy a checkpoint's tensors into the existing state. Groups and rates stay ours: `load_state_dict` would overwrite lr and `fused`."""
    mine = state_by_name(optimizer, module)
    missing, extra = sorted(set(mine) - set(tensors)), sorted(set(tensors) - set(mine))
    if missing or extra:
        first = (missing + extra)[0]
        raise ValueError(
            f"optimizer state does not fit the model: {len(missing)} missing, {len(extra)} unknown, first {first}"
        )
    for name, value in mine.items():
        if value.shape != tensors[name].shape:
            raise ValueError(
                f"optimizer state does not fit the model: {name} is {list(tensors[name].shape)}, not {list(value.shape)}"
            )
        value.copy_(tensors[name])


def batch_norms(module):
    """The BatchNorm layers of a module."""
    return [
        layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)
    ]
