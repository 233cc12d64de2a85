"""An exponential moving average of the weights, kept as a dict of tensors."""

from contextlib import contextmanager

import torch


def named_state(module):
    """{name: tensor} of every parameter and persistent buffer once; tied tensors under their first name."""
    kept = module.state_dict(keep_vars=True)
    found, seen = {}, set()
    for name, tensor in kept.items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor
    return found


def ema_state(module, average):
    """{name in memory: averaged tensor}, tied names too. average: {first name: tensor}, like `ExponentialMovingAverage.tensors`."""
    first_names = {id(tensor): name for name, tensor in named_state(module).items()}
    return {
        name: average[first_names[id(tensor)]]
        for name, tensor in module.state_dict(keep_vars=True).items()
    }


def ema_decay_for(decay, steps):
    """The decay for a run of this length: the average spans at most a tenth of it."""
    return min(decay, 1 - min(1.0, 10 / steps))


def place_of(module, name):
    """(the dict of a submodule, key) that hold a tensor of the state dict: looked up anew, it is seen when another took its place."""
    owner, _, key = name.rpartition(".")
    owner = module.get_submodule(owner)
    return (owner._parameters if key in owner._parameters else owner._buffers), key


class ExponentialMovingAverage:
    """average <- average + (1 - d_t)(weight - average), d_t = min(decay, (1 + t)/(10 + t)) at step t.

    Floating tensors are averaged, whole-number buffers copied. A module-shaped copy would still run
    the original's weights once wrapped, so `applied` lends the averaged tensors to the module
    instead.
    """

    def __init__(self, module, decay):
        self.decay = decay
        self.tensors = {
            name: tensor.detach().clone() for name, tensor in named_state(module).items()
        }
        # a state dict made at each step would cost half of the update: D-FINE's has 684 names
        self._places = {name: place_of(module, name) for name in self.tensors}
        self._floating = [
            name for name, tensor in self.tensors.items() if tensor.is_floating_point()
        ]
        # The formula is one step of plain SGD from the average towards the weight, and the fused
        # one skips a non-finite step on the device.
        self._steps = torch.optim.SGD(
            [self.tensors[name] for name in self._floating], lr=1.0, fused=True
        )

    @torch.no_grad()
    def update(self, step, bad):
        """After the optimizer step `step` (0-based). bad: 0/1 float tensor on the device; a non-finite step changes no bit."""
        live = {name: owner[key] for name, (owner, key) in self._places.items()}
        averages = [self.tensors[name] for name in self._floating]
        for average, way in zip(
            averages,
            torch._foreach_sub(averages, [live[name] for name in self._floating]),
            strict=True,
        ):
            average.grad = way
        self._steps.param_groups[0]["lr"] = 1 - min(self.decay, (1 + step) / (10 + step))
        self._steps.found_inf = bad
        self._steps.step()
        self._steps.zero_grad(set_to_none=True)
        is_bad = bad > 0
        for name, tensor in live.items():
            if not tensor.is_floating_point():
                torch.where(is_bad, self.tensors[name], tensor, out=self.tensors[name])

    @contextmanager
    def applied(self, module):
        """Inside, the module computes with the EMA weights; nothing is copied."""
        live = named_state(module)
        own = {name: tensor.data for name, tensor in live.items()}
        try:
            for name, tensor in live.items():
                tensor.data = self.tensors[name]
            yield
        finally:
            for name, tensor in live.items():
                tensor.data = own[name]

    def load(self, tensors):
        """Copy a checkpoint's tensors; raises ValueError when names or shapes differ."""
        if {name: t.shape for name, t in tensors.items()} != {
            name: t.shape for name, t in self.tensors.items()
        }:
            raise ValueError("EMA weights do not fit the model: other names or shapes")
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])
