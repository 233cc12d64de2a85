"""Micro-batches, and the normalizers that their losses are divided by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, overload

import torch

# quoted: at run time `slice` takes no parameters
Slice: TypeAlias = "slice[int | None, int | None, int | None]"


class RaggedTensor(Sequence[torch.Tensor]):
    """The tensors [N_b, ...] of B samples, joined: one copy to the device instead of B.

    It is used as the list of the B tensors would be.

    Args:
        values: [sum of N_b, ...], one sample after the other.
        sizes: N_b of each sample, on the host.
    """

    def __init__(self, values: torch.Tensor, sizes: Sequence[int]) -> None:
        self.values, self.sizes = values, tuple(sizes)

    @classmethod
    def cat(cls, tensors: Sequence[torch.Tensor]) -> RaggedTensor:
        """Join tensors that differ in their first dimension alone."""
        return cls(torch.cat(list(tensors)), [len(tensor) for tensor in tensors])

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.sizes)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self.values.split(self.sizes))

    @overload
    def __getitem__(self, index: int) -> torch.Tensor: ...
    @overload
    def __getitem__(self, index: Slice) -> Sequence[torch.Tensor]: ...
    def __getitem__(self, index: int | Slice) -> torch.Tensor | Sequence[torch.Tensor]:
        return self.values.split(self.sizes)[index]


class Batch(dict[str, Any]):  # type: ignore[explicit-any]  # keys differ by task
    """The tensors and lists of one micro-batch, and its place in the run.

    Every batch holds "pixel_values" (uint8 as it comes from the loader) and "sample_ids"
    (int64 [B], indices into the dataset).

    Args:
        items: the content, {name: tensor, RaggedTensor, or list or dict of tensors}.
        step: the optimizer step that the batch belongs to.
        offset: position of its first sample in the global batch of that step.
    """

    def __init__(
        self,
        items: Mapping[str, object] | Iterable[tuple[str, object]] = (),
        *,
        step: int = 0,
        offset: int = 0,
    ) -> None:
        super().__init__(items)
        self.step, self.offset = step, offset

    def __len__(self) -> int:
        """Return the number of samples, not of keys."""
        return len(self["sample_ids"])

    def replace(self, **items: object) -> Batch:
        """Return a batch at the same place in the run with some items replaced."""
        return Batch({**self, **items}, step=self.step, offset=self.offset)

    def map_tensors(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """Apply `function` to every tensor, in lists and dicts too, and return the new batch."""
        return self.replace(**{key: _map(value, function) for key, value in self.items()})

    def to(self, device: torch.device) -> Batch:
        """Copy every tensor to a device; from pinned memory to CUDA it does not block the host."""
        # on Metal the memory of the host might be reused before it is read
        is_cuda = device.type == "cuda"
        return self.map_tensors(lambda tensor: tensor.to(device, non_blocking=is_cuda))

    def pin_memory(self) -> Batch:
        """Copy every tensor to page-locked host memory."""
        return self.map_tensors(torch.Tensor.pin_memory)


def _map(value: object, function: Callable[[torch.Tensor], torch.Tensor]) -> object:
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, RaggedTensor):
        return RaggedTensor(function(value.values), value.sizes)
    if isinstance(value, dict):
        return {key: _map(item, function) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_map(item, function) for item in value)
    return value


class Normalizers(dict[str, float]):
    """Divisors of the losses of one step: {name: total over all ranks / number of ranks}.

    A loss is a sum divided by a normalizer of the whole step, never a mean over one batch, so the
    gradients of micro-batches and ranks add up to the gradient of the global batch.

    Args:
        values: {name: number}, the same on all ranks (see `distributed.agree`).
        sum_over_ranks: element-wise sum of a list of host numbers over all ranks, for a normalizer
            that is known only after the forward (the union of D-FINE's matches). It is a
            collective: all ranks call it equally often, with at most 255 numbers. The default is
            one process alone.
    """

    def __init__(
        self,
        values: Mapping[str, float] | Iterable[tuple[str, float]] = (),
        *,
        sum_over_ranks: Callable[[Sequence[float]], list[float]] = list,
    ) -> None:
        super().__init__(values)
        self.sum_over_ranks = sum_over_ranks
