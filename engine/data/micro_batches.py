"""The size of the micro-batches of each step: `--micro-batch`, halved where memory ran out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from visionloop.engine.data.sampler import legal_sizes, split_batch


@dataclass(frozen=True)
class Halving:
    """A step at which a micro-batch did not fit into memory.

    Attributes:
        step: the first step with smaller micro-batches, 0-based.
        before: samples of the largest micro-batch that did not fit.
        micro_batch: most samples of a micro-batch from this step on.
    """

    step: int
    before: int
    micro_batch: int


@dataclass(frozen=True)
class MicroBatchPlan:
    """The micro-batches of every step, a pure function of the settings and the halvings.

    Attributes:
        batch_size: samples of the global batch.
        world_size: number of processes.
        micro_batch: most samples of a micro-batch, as set.
        halvings: what did not fit, in the order in which it was recorded.
        smallest: fewest samples that the training needs in a micro-batch.
    """

    batch_size: int
    world_size: int
    micro_batch: int
    halvings: tuple[Halving, ...] = ()
    smallest: int = 1

    def size(self, step: int) -> int:
        """Return the most samples of a micro-batch in this step."""
        limits = (halving.micro_batch for halving in self.halvings if halving.step <= step)
        return min([self.micro_batch, *limits])

    def ranges(self, step: int) -> list[tuple[int, int]]:
        """Return [(start, stop)] of the micro-batches of this step, of all ranks."""
        return self._ranges_of_sizes[self.size(step)]

    def per_rank(self, step: int) -> int:
        """Return the number of micro-batches of each rank in this step."""
        return len(self.ranges(step)) // self.world_size

    @cached_property
    def _ranges_of_sizes(self) -> dict[int, list[tuple[int, int]]]:
        """Return {size: ranges} of all sizes in the plan.

        A recorded size may not divide the batch over another number of processes. Then the next
        smaller size that does is taken, or the smallest there is.
        """
        ranges = {self.micro_batch: split_batch(self.batch_size, self.world_size, self.micro_batch)}
        for size in {self.size(halving.step) for halving in self.halvings} - ranges.keys():
            legal = legal_sizes(self.batch_size, self.world_size, self.smallest)
            fitting = max((other for other in legal if other <= size), default=legal[0])
            ranges[size] = split_batch(self.batch_size, self.world_size, fitting)
        return ranges

    def halved_at(self, step: int) -> MicroBatchPlan | None:
        """Return the plan with micro-batches of half the size from a step on.

        None where they cannot be smaller.
        """
        before = longest(self.ranges(step))
        legal = legal_sizes(self.batch_size, self.world_size, self.smallest)
        smaller = [size for size in legal if size < before]
        if not smaller:
            return None
        size = max((size for size in smaller if 2 * size <= before), default=smaller[0])
        return replace(self, halvings=(*self.halvings, Halving(step, before, size)))


def longest(ranges: Sequence[tuple[int, int]]) -> int:
    """Return the samples of the largest of these micro-batches."""
    return max(stop - start for start, stop in ranges)
