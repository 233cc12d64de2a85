"""What travels from the loader to the task."""

import torch


class Batch(dict):
    """The tensors and lists of one micro-batch, and its place in the run.

    step: the optimizer step it belongs to; offset: position of its first sample in the global batch
    of that step. Always holds "pixel_values" (uint8 on the wire) and "sample_ids" (int64 [B],
    indices into the dataset).
    """

    def __init__(self, items=(), *, step=0, offset=0):
        super().__init__(items)
        self.step, self.offset = step, offset

    def __len__(self):
        """Number of samples."""
        return len(self["sample_ids"])

    def map_tensors(self, function):
        """The same batch with `function` applied to every tensor, in lists and dicts too."""
        return Batch(
            {key: _map(value, function) for key, value in self.items()},
            step=self.step,
            offset=self.offset,
        )

    def to(self, device):
        return self.map_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self):
        return self.map_tensors(torch.Tensor.pin_memory)


def _map(value, function):
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: _map(item, function) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_map(item, function) for item in value)
    return value
