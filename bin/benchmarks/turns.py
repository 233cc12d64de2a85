"""Losses in turn in one process: how long each takes forward and backward, and what it reads from the device."""

import statistics
import time

from visionloop.bin.benchmarks.reads import counted_reads


def take_turns(sides, leaves, device, repeats):
    """({name: median ms}, {name: how often "library" takes as long, median over turns}, {name_reads: {operation: number}}).

    sides: {name: () -> loss}, one of them "library"; leaves: tensors to take the gradient of.
    """
    import torch

    seconds, reads = {name: [] for name in sides}, {}
    for name, compute in sides.items():
        with counted_reads() as found:
            torch.autograd.grad(compute(), leaves, allow_unused=True)
        reads[f"{name}_reads"] = dict(found)
    for turn in range(repeats + 1):
        for name, compute in sides.items():
            began = synchronised(device)
            torch.autograd.grad(compute(), leaves, allow_unused=True)
            if turn:  # the first one warms up
                seconds[name].append(synchronised(device) - began)
    medians = {
        f"{name}_ms": round(1000 * statistics.median(values), 2) for name, values in seconds.items()
    }
    library = seconds.pop("library")
    shares = {
        name: [other / own for own, other in zip(values, library, strict=True)]
        for name, values in seconds.items()
    }
    ratios = {name: round(statistics.median(values), 2) for name, values in shares.items()}
    return medians, ratios, reads


def synchronised(device):
    """The clock, once the device has done all it was given."""
    import torch

    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()
