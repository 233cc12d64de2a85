"""How fast this machine multiplies matrices, the limit that a step's arithmetic is held against, and how much of it a step has."""

import statistics

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

SIDES = {
    "cpu": 2048,
    "mps": 4096,
    "cuda": 8192,
}  # of a matrix large enough that more would not be faster
# the counter knows the kernels of attention on CUDA alone; these two are the CPU's. Values: of the
# shapes of what they are given
ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda *shapes, **_: (
        sdpa_flop_count(*shapes[:3])
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda *shapes, **_: (
        sdpa_backward_flop_count(*shapes[:4])
    ),
}


class MatrixProduct:
    """The product of two square matrices of random numbers, taken again and again."""

    def __init__(self, dtype, device, clock):
        """clock: () -> seconds, once the device has done all it was given."""
        self.side, self.clock, self.rates = SIDES[device.type], clock, []
        self.first, self.second = (
            torch.randn(self.side, self.side, device=device).to(dtype) for _ in range(2)
        )
        torch.matmul(self.first, self.second)  # warms up

    def flops_per_second(self):
        """Of one product now: 2 n^3 operations by its time."""
        began = self.clock()
        torch.matmul(self.first, self.second)
        self.rates.append(2 * self.side**3 / (self.clock() - began))
        return self.rates[-1]

    def median_gflops(self):
        """10^9 operations a second, median of all products so far."""
        return round(statistics.median(self.rates) / 1e9, 1)


def count_flops(call):
    """Floating-point operations of what `call()` runs, backward passes included: matrix products, convolutions and attention only."""
    with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
        call()
    return counter.get_total_flops()
