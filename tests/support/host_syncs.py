"""Counts of the operations that make the host wait for the device in a short run."""

from collections import Counter
from dataclasses import replace

from torch.utils._python_dispatch import TorchDispatchMode

from visionloop.engine.testing.short_runs import CONFIG, train_steps

# reading a value, or an operation whose output shape depends on values
READS = {
    "local_scalar_dense",
    "is_nonzero",
    "nonzero",
    "masked_select",
    "bincount",  # its length is the largest value plus 1
    "equal",
    "item",
    "unique",
    "unique2",
}


class CountReads(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.reads = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__.lstrip("_")
        if name in READS:
            self.reads[name] += 1
        return function(*args, **(kwargs or {}))


def reads_of(task, folder, *, steps, log_every):
    """Host reads of a run with EMA, clipping, bf16 and two micro-batches; it logs its last step."""
    config = replace(
        CONFIG,
        steps=steps,
        log_every=log_every,
        eval_every=0,
        save_every=0,
        micro_batch=4,
        clip_grad=1.0,
        precision="bf16",
    )
    with CountReads() as counter:
        train_steps(task, folder, config=config)
    return sum(counter.reads.values())
