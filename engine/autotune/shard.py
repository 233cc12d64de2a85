"""`--shard auto`: the least division of a model that leaves memory for activations."""

from __future__ import annotations

import torch

from visionloop.engine.config.train_config import Shard, TrainConfig
from visionloop.engine.distributed import World, broadcast_object, gather_objects
from visionloop.engine.precision import DTYPES
from visionloop.engine.run import RunSpec
from visionloop.engine.sharding.memory_estimate import (
    ModelSizes,
    evaluation_memory,
    memory_per_gpu,
    model_sizes,
)
from visionloop.engine.system.memory import memory_of
from visionloop.engine.task import Task

# of the available memory; the rest is for activations, whose size only a step shows
SHARE_FOR_WEIGHTS = 0.5
GIB = 2**30


def choose_sharding(spec: RunSpec) -> tuple[Shard, str]:
    """Choose the division of this run by the estimate of its memory. All ranks.

    Returns:
        (value of --shard, the reason in words).
    """
    world, sizes = spec.world, sizes_of(spec.task)
    available = min(gather_objects(world, memory_of(world.device).available_bytes()))
    return broadcast_object(world, least_division(sizes, spec.config, world, available))


def least_division(
    sizes: ModelSizes, config: TrainConfig, world: World, available: int
) -> tuple[Shard, str]:
    """Return (value of --shard, the reason in words) for `available` bytes on each device."""
    divisions: dict[Shard, int] = {"none": 1}
    if 1 < world.local_size < world.size:
        divisions["node"] = world.local_size
    if world.size > 1:
        divisions["full"] = world.size
    needed = {kind: needed_bytes(sizes, config, ranks) for kind, ranks in divisions.items()}
    fitting = [kind for kind, size in needed.items() if size <= SHARE_FOR_WEIGHTS * available]
    kind = fitting[0] if fitting else list(divisions)[-1]
    figures = ", ".join(f"{name} {size / GIB:.2f}" for name, size in needed.items())
    return kind, (
        f"GiB of weights and optimizer state on each device: {figures}; available: "
        f"{available / GIB:.2f}, half of it for activations"
    )


def sharding_proposal(task: Task, config: TrainConfig, device: torch.device) -> str | None:
    """Propose --shard where a run of one process leaves less than half of the memory; else None."""
    sizes = sizes_of(task)
    return smallest_division(sizes, config, memory_of(device).available_bytes())


def sizes_of(task: Task) -> ModelSizes:
    """Return the sizes of a task's model, which is built for it and dropped."""
    module = task.build_model()
    return model_sizes(module, task.sharding_units(module))


def smallest_division(sizes: ModelSizes, config: TrainConfig, available: int) -> str | None:
    """Name the fewest processes that leave half of `available` bytes; None where one does."""
    whole = needed_bytes(sizes, config, 1)
    if whole <= SHARE_FOR_WEIGHTS * available:
        return None
    needed = {ranks: needed_bytes(sizes, config, ranks) for ranks in (2, 4, 8, 16, 32, 64)}
    fitting = [n for n, size in needed.items() if size <= SHARE_FOR_WEIGHTS * available]
    ranks = fitting[0] if fitting else max(needed)
    return (
        f"weights and optimizer state take {whole / GIB:.2f} of {available / GIB:.2f} GiB of "
        f"memory; --shard full divides them: {needed[ranks] / GIB:.2f} GiB on each of {ranks} such "
        "devices"
    )


def needed_bytes(sizes: ModelSizes, config: TrainConfig, ranks: int) -> int:
    """Return the bytes on a device of a run that is divided over `ranks`, without activations."""
    moments = 2 if config.optimizer != "sgd" else int(config.momentum > 0)
    gather_bytes = torch.finfo(DTYPES[config.shard_dtype]).bits // 8
    training = memory_per_gpu(
        sizes, ranks=ranks, ema=config.ema, moments=moments, gather_bytes=gather_bytes
    )
    evaluation = evaluation_memory(
        sizes, ranks=ranks, ema=config.ema, moments=moments, gather_bytes=gather_bytes
    )
    return max(training.total, evaluation)
