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


def decay_for(decay, steps):
    """The decay for a run of this length: the average spans at most a tenth of it."""
    return min(decay, 1 - min(1.0, 10 / steps))


class WeightAverage:
    """average <- average + (1 - d_t)(weight - average), d_t = min(decay, (1 + t)/(10 + t)) at step t.

    Floating tensors are averaged, whole-number buffers copied. A module-shaped copy would still run the original's weights
    once wrapped, so `applied` lends the averaged tensors to the module instead.
    """

    def __init__(self, module, decay):
        self.decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in named_state(module).items()}

    @torch.no_grad()
    def update(self, module, step, bad):
        """After the optimizer step `step` (0-based). bad: 0/1 float tensor on the device; a bad step changes nothing."""
        weight = (1 - min(self.decay, (1 + step) / (10 + step))) * (1 - bad)
        live = named_state(module)
        floating = [name for name, tensor in live.items() if tensor.is_floating_point()]
        averages = [self.tensors[name] for name in floating]
        # not lerp: its weight may not be a device scalar for many tensors at once, and reading it would sync
        change = torch._foreach_sub([live[name].detach() for name in floating], averages)
        torch._foreach_mul_(change, weight)
        torch._foreach_add_(averages, change)
        for name, tensor in live.items():
            if not tensor.is_floating_point():
                self.tensors[name].copy_(tensor)

    @contextmanager
    def applied(self, module):
        """Inside, the module computes with the averaged weights; nothing is copied."""
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
        """Copy a checkpoint's tensors; raises ValueError when the names differ."""
        if set(tensors) != set(self.tensors):
            raise ValueError("averaged weights do not fit the model: other names")
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])
