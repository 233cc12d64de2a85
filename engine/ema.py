"""Exponential moving average (EMA) of the weights, kept as a dict of tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from visionloop.engine.optim import step_if_finite
from visionloop.engine.tensors import load_by_name, local


def named_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return every parameter and persistent buffer once, tied tensors under their first name."""
    unique: dict[str, torch.Tensor] = {}
    ids: set[int] = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in ids:
            ids.add(id(tensor))
            unique[name] = tensor
    return unique


def ema_state(module: nn.Module, ema: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the averaged tensors under all names of the state dict, tied names too.

    Args:
        module: the model.
        ema: {first name: tensor}, as `ExponentialMovingAverage.tensors`.
    """
    first_names = {id(tensor): name for name, tensor in named_state(module).items()}
    return {
        name: ema[first_names[id(tensor)]]
        for name, tensor in module.state_dict(keep_vars=True).items()
    }


def ema_decay_for(decay: float, steps: int) -> float:
    """Return the decay for a run of this length: the EMA spans at most a tenth of it."""
    return min(decay, 1 - min(1.0, 10 / steps))


def owner_of(module: nn.Module, name: str) -> tuple[dict[str, torch.Tensor], str]:
    """Return the dict of a submodule, and its key, that hold a tensor of the state dict.

    A lookup there also finds a tensor that has taken the place of another.
    """
    path, _, key = name.rpartition(".")
    owner = module.get_submodule(path)
    tensors = owner._parameters if key in owner._parameters else owner._buffers
    return tensors, key  # type: ignore[return-value]  # what is in a state dict is not None


class ExponentialMovingAverage:
    """EMA of weights: ema <- ema + (1 - d_t)(weight - ema), d_t = min(decay, (1 + t)/(10 + t)).

    Floating-point tensors are averaged, integer buffers copied. Of sharded weights each rank
    averages its own rows. A copy of the module would still run the weights of the original once
    wrapped, so `applied` swaps the averages into the module instead.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {
            name: tensor.detach().clone() for name, tensor in named_state(module).items()
        }
        self._averages = {name: local(tensor) for name, tensor in self.tensors.items()}
        # a state dict made at each step would cost half of the update: D-FINE's has 684 names
        self._owners = {name: owner_of(module, name) for name in self.tensors}
        self._floating = [
            name for name, tensor in self.tensors.items() if tensor.is_floating_point()
        ]
        # The formula is one step of plain SGD from the EMA towards the weight, and the fused one
        # skips a non-finite step on the device.
        self._sgd = torch.optim.SGD(
            [self._averages[name] for name in self._floating], lr=1.0, fused=True
        )

    @torch.no_grad()
    def update(self, step: int, nonfinite: torch.Tensor) -> None:
        """Update after an optimizer step.

        Args:
            step: the step, 0-based.
            nonfinite: 0 or 1, a float scalar on the device; with 1 no bit changes.
        """
        live = {name: local(owner[key]) for name, (owner, key) in self._owners.items()}
        averages = [self._averages[name] for name in self._floating]
        differences = torch._foreach_sub(averages, [live[name] for name in self._floating])
        for average, difference in zip(averages, differences, strict=True):
            average.grad = difference
        self._sgd.param_groups[0]["lr"] = 1 - min(self.decay, (1 + step) / (10 + step))
        step_if_finite(self._sgd, nonfinite)
        self._sgd.zero_grad(set_to_none=True)
        is_nonfinite = nonfinite > 0
        for name, tensor in live.items():
            if not tensor.is_floating_point():
                average = self._averages[name]
                torch.where(is_nonfinite, average, tensor, out=average)

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Let the module compute with the EMA weights inside the context.

        Meanwhile `tensors` holds those of the module. They are exchanged in place, one by one:
        FSDP reads its weights from memory of its own, and would not see another tensor.
        """
        live = {name: local(tensor) for name, tensor in named_state(module).items()}
        exchange(live, self._averages)
        try:
            yield
        finally:
            exchange(live, self._averages)

    @torch.no_grad()
    def restart(self, module: nn.Module) -> None:
        """Begin again with the weights of the module."""
        for name, tensor in named_state(module).items():
            self._averages[name].copy_(local(tensor))

    def load(self, stored: Mapping[str, torch.Tensor]) -> None:
        """Copy the whole tensors of a checkpoint. Raises ValueError when names or shapes differ."""
        load_by_name(self.tensors, stored, "EMA weights")


@torch.no_grad()
def exchange(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> None:
    """Exchange the contents of tensors of equal names and shapes, bit for bit."""
    for name, tensor in left.items():
        before = tensor.clone()
        tensor.copy_(right[name])
        right[name].copy_(before)
