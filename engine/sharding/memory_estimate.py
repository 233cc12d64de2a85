"""The memory that each GPU needs for a model and its training state, without activations.

With `torch.distributed.fsdp.fully_shard` every tensor is cut along its first dimension: of n rows
each of R ranks holds ceil(n / R), the last ranks fewer. All figures are those of rank 0, which has
the most. A unit is a module whose weights are gathered right before it computes; the weights
outside of all units belong to the root, which stays gathered from forward to backward.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

Shape = tuple[int, ...]
FP32_BYTES = 4
# the unit that computes, and the next one, which is gathered meanwhile
UNITS_AT_A_TIME = 2


@dataclass(frozen=True)
class ModelSizes:
    """The shapes of all weights of a model, by the unit that they are gathered with.

    Attributes:
        root: shapes of the weights outside of all units.
        units: shapes of the weights of each unit.
    """

    root: tuple[Shape, ...]
    units: tuple[tuple[Shape, ...], ...]

    @property
    def num_weights(self) -> int:
        """Number of weights of the whole model."""
        return _num_weights(self.root) + sum(map(_num_weights, self.units))

    def num_in_shard(self, ranks: int) -> int:
        """Return the number of weights that rank 0 of `ranks` holds."""
        shapes = (*self.root, *(shape for unit in self.units for shape in unit))
        return sum(_num_in_shard(shape, ranks) for shape in shapes)

    def num_in_root(self) -> int:
        """Return the number of weights outside of all units."""
        return _num_weights(self.root)

    def num_in_largest_units(self, number: int) -> int:
        """Return the number of weights of the `number` largest units together."""
        return sum(sorted(map(_num_weights, self.units), reverse=True)[:number])


@dataclass(frozen=True)
class ShardedMemory:
    """Bytes on one GPU during a training step, without activations.

    Attributes:
        weights: of this rank, fp32.
        gradients: of this rank, fp32.
        moments: of the optimizer, of this rank, fp32.
        ema: averaged weights of this rank, fp32.
        gathered: whole weights of the root and of the two largest units; 0 without sharding.
        unreduced: whole gradients of the root and of the largest unit, which the end of their
            backward pass divides over the ranks; 0 without sharding.
    """

    weights: int
    gradients: int
    moments: int
    ema: int
    gathered: int
    unreduced: int

    @property
    def state(self) -> int:
        """Bytes in every moment of a step: weights, gradients, moments and EMA."""
        return self.weights + self.gradients + self.moments + self.ema

    @property
    def total(self) -> int:
        """The largest sum within a step."""
        return self.state + self.gathered + self.unreduced


def model_sizes(module: nn.Module, blocks: Sequence[nn.Module]) -> ModelSizes:
    """Return the sizes of a module whose units are those of `blocks` that have weights.

    Each parameter counts once, with the first block that has it. Parameters without elements have
    no shard and do not count. Parameters on the meta device do.
    """
    seen: set[nn.Parameter] = set()
    units = [_new_shapes(block, seen) for block in blocks]
    return ModelSizes(root=_new_shapes(module, seen), units=tuple(unit for unit in units if unit))


def memory_per_gpu(
    sizes: ModelSizes, *, ranks: int, ema: bool, moments: int = 2, gather_bytes: int = FP32_BYTES
) -> ShardedMemory:
    """Return what a training step needs on the GPU that needs the most, all weights being trained.

    BatchNorm statistics and other buffers are left out, and so is the copy of a unit that an
    all-gather or a reduce-scatter makes for its duration.

    Args:
        sizes: of the model.
        ranks: GPUs that the model is divided over: all for full sharding, those of a node for
            sharding inside of nodes, 1 without sharding.
        ema: averaged weights are kept.
        moments: numbers that the optimizer keeps for each weight: 2 for AdamW.
        gather_bytes: bytes of a gathered weight: 4 for fp32, 2 for bf16.
    """
    shard = FP32_BYTES * sizes.num_in_shard(ranks)
    root, is_sharded = sizes.num_in_root(), ranks > 1
    gathered = gather_bytes * (root + sizes.num_in_largest_units(UNITS_AT_A_TIME))
    unreduced = FP32_BYTES * (root + sizes.num_in_largest_units(1))
    return ShardedMemory(
        weights=shard,
        gradients=shard,
        moments=moments * shard,
        ema=shard if ema else 0,
        gathered=gathered if is_sharded else 0,
        unreduced=unreduced if is_sharded else 0,
    )


def evaluation_memory(
    sizes: ModelSizes, *, ranks: int, ema: bool, moments: int = 2, gather_bytes: int = FP32_BYTES
) -> int:
    """Return the bytes on one GPU during an evaluation, without activations.

    Gradients are not there. With sharding, the whole weights are gathered once for all batches.
    Arguments: those of `memory_per_gpu`.
    """
    training = memory_per_gpu(sizes, ranks=ranks, ema=ema, moments=moments)
    whole = gather_bytes * sizes.num_weights if ranks > 1 else 0
    return training.state - training.gradients + whole


def _new_shapes(module: nn.Module, seen: set[nn.Parameter]) -> tuple[Shape, ...]:
    """Return the shapes of a module's parameters that are not in `seen`, and add them to it."""
    new = [parameter for parameter in module.parameters() if parameter not in seen]
    seen.update(new)
    return tuple(tuple(parameter.shape) for parameter in new if parameter.numel())


def _num_weights(shapes: Sequence[Shape]) -> int:
    return sum(map(math.prod, shapes))


def _num_in_shard(shape: Shape, ranks: int) -> int:
    """Return the number of elements in the first of `ranks` parts along the first dimension."""
    first, *rest = shape or (1,)
    return -(-first // ranks) * math.prod(rest)
