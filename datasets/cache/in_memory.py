"""In-memory cache of decoded images: a small dataset is decoded once, not in every epoch."""

import os
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch.utils.data import get_worker_info

Tensors: TypeAlias = tuple[torch.Tensor, ...]


class InMemoryCache:
    """Cache the results of a function of 0 .. size - 1 as long as all of them would fit.

    Whether all will fit is estimated from the mean size so far; as soon as they will not, nothing
    is cached. Results must not be changed in place.
    """

    def __init__(self, read: Callable[[int], Tensors], size: int, budget: int) -> None:
        """Make an empty cache.

        Args:
            read: the function; its errors are not cached.
            size: number of different arguments.
            budget: bytes for one machine, divided among its training processes and their workers,
                each of which has its own cache.
        """
        self.read, self.size, self.budget = read, size, budget
        self.results: dict[int, Tensors] = {}
        self.used_bytes = 0

    def __getstate__(self) -> dict[str, object]:
        # a worker gets no results: tensors are passed there by file descriptors
        return self.__dict__ | {"results": {}, "used_bytes": 0}

    def __call__(self, i: int) -> Tensors:
        """Return the result for `i`, from the cache if possible."""
        if i in self.results:
            return self.results[i]
        result = self.read(i)
        if self.budget:
            self.results[i] = result
            self.used_bytes += sum(tensor.nbytes for tensor in result)
            expected = self.used_bytes / len(self.results) * self.size
            if expected > self.budget / local_reader_count():
                self.results, self.budget = {}, 0
        return result

    def cached_bytes(self) -> tuple[int, int]:
        """Return (bytes cached in this process now, and once everything was read)."""
        expected = self.used_bytes / max(1, len(self.results)) * self.size
        return self.used_bytes, round(expected)


def local_reader_count() -> int:
    """Return the number of processes of this machine that read the same data."""
    worker = get_worker_info()
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) * (worker.num_workers if worker else 1)
