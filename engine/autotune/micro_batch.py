"""`--micro-batch auto`: the largest micro-batch whose step fits into memory.

It is measured once, before the first step, by real steps on growing micro-batches.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from visionloop.engine.batch import Batch, Normalizers
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.data.loader import MicroBatchCollate, SampleKey, SeededDataset
from visionloop.engine.data.sampler import EpochSampler, legal_sizes
from visionloop.engine.distributed import World, barrier, gather_objects
from visionloop.engine.errors import UserError
from visionloop.engine.optim import build_optimizer
from visionloop.engine.precision import build_precision
from visionloop.engine.prepare import build_module, set_process
from visionloop.engine.run import RunSpec
from visionloop.engine.seeding import STEP, seed_host
from visionloop.engine.step import add_gradients
from visionloop.engine.system.memory import is_out_of_memory, memory_of
from visionloop.engine.task import Task
from visionloop.engine.types import SampleDataset

# steps of the run that are tried with the smallest micro-batch: masks, sizes and targets differ
# from step to step
NUM_PROBED_STEPS = 6
MAX_GROWTH = 4  # factor from the largest micro-batch that fits to the next one that is tried
GIB = 2**30


def find_micro_batch(spec: RunSpec) -> tuple[int, str]:
    """Find the largest micro-batch that fits. All ranks, in lock step.

    Returns:
        (samples of a micro-batch, the measurement in words).

    Raises:
        UserError: not even the smallest micro-batch fits.
    """
    task, config, world = spec.task, spec.config, spec.world
    set_process(config)
    barrier(world)  # no other rank is taking memory while the available memory is read
    probe = MicroBatchProbe(spec)
    memory = probe.memory
    sizes = legal_sizes(config.batch_size, world.size, task.min_micro_batch_size(probe.module))
    available = min(gather_objects(world, probe.available))
    found = search_in_lock_step(probe, world, sizes, available)
    del probe
    gc.collect()
    memory.reset_peak()  # the peak that is logged is the run's own
    if not found:
        raise UserError(
            f"--micro-batch auto: not even {sizes[0]} samples fit into the "
            f"{max(0, available) / GIB:.2f} GiB that may be used; "
            "choose a smaller --image-size or model, or --grad-checkpointing",
            code="no_memory",
            field="micro_batch",
        )
    size, taken = found
    kind = "memory" if world.device.type == "cpu" else "device memory"
    return size, f"a step takes {taken / GIB:.2f} of {available / GIB:.2f} GiB available {kind}"


def refuse_sharding(shard: str) -> None:
    """Raise UserError for a sharded run, whose micro-batch cannot be measured.

    Every forward of sharded weights waits for the other ranks, so that a rank that runs out of
    memory in a step that is tried would leave them waiting.
    """
    if shard != "none":
        raise UserError(
            f"--micro-batch auto: not with --shard {shard}, where a process without memory for a "
            "step leaves the others waiting; give a number, such as --micro-batch 1",
            field="micro_batch",
        )


def search_in_lock_step(
    probe: MicroBatchProbe, world: World, sizes: Sequence[int], available: int
) -> tuple[int, int] | None:
    """Let all ranks try the same sizes at the same time, as they will train. All ranks.

    Args:
        probe: of this rank.
        world: the processes.
        sizes: micro-batch sizes, smallest first.
        available: bytes that a step may take, the same on all ranks.

    Returns:
        (the largest size that fits, the most bytes that its step takes on a rank), None where no
        size fits.
    """
    measured: dict[int, int] = {}

    def step_bytes(size: int) -> int | None:
        taken = gather_objects(world, probe.step_bytes(size))
        fitting = [num_bytes for num_bytes in taken if num_bytes is not None]
        if len(fitting) < world.size:
            return None
        measured[size] = max(fitting)
        return measured[size]

    size = largest_fitting(sizes, step_bytes, available)
    return None if size is None else (size, measured[size])


def largest_fitting(
    sizes: Sequence[int], step_bytes: Callable[[int], int | None], available: float
) -> int | None:
    """Return the largest size that fits, None when none does.

    No size is tried that is not expected to fit.

    Args:
        sizes: micro-batch sizes, smallest first.
        step_bytes: measures the bytes of a step with this size; None when they are not available.
        available: bytes that may be used.
    """
    fitting: list[tuple[int, int]] = []  # (size, bytes), in growing order
    candidates = list(sizes)
    while True:
        larger = [size for size in candidates if not fitting or size > fitting[-1][0]]
        near = [size for size in larger if fitting and size <= MAX_GROWTH * fitting[-1][0]]
        # sizes may be further apart
        next_sizes = [
            size for size in near or larger[:1] if expected_bytes(fitting, size) <= available
        ]
        if not next_sizes:
            return fitting[-1][0] if fitting else None
        size = next_sizes[-1]
        num_bytes = step_bytes(size)
        if num_bytes is None or num_bytes > available:
            candidates = [other for other in candidates if other < size]
        else:
            fitting.append((size, num_bytes))


def expected_bytes(fitting: Sequence[tuple[int, int]], size: int) -> float:
    """Extrapolate the bytes of a step from the two largest sizes so far.

    A constant part plus a part for each sample.
    """
    if not fitting:
        return 0
    (fewer, less), (more, most) = fitting[-2] if len(fitting) > 1 else (0, 0), fitting[-1]
    return most + max(0, most - less) / (more - fewer) * (size - more)


class MicroBatchProbe:
    """Runs steps of the run's model on micro-batches of any size, in this process alone.

    No step is a collective: a rank that runs out of memory leaves no other waiting. So BatchNorm
    is not yet converted to SyncBatchNorm, and losses are summed over this rank alone.

    Attributes:
        available: bytes that a step may take.
    """

    def __init__(self, spec: RunSpec) -> None:
        task, config, world = spec.task, spec.config, spec.world
        self.task, self.config, self.device = task, config, world.device
        self.train_set = spec.train_set
        self.module = build_module(task, replace(config, sync_bn=False), world)
        self.optimizer = build_optimizer(task.parameter_groups(self.module), self.module, config)
        self.precision = build_precision(config.precision, world.device, tf32=config.tf32)
        on_cuda = world.device.type == "cuda"
        self.memory = memory_of(world.device)
        weights = sum(tensor.nbytes for tensor in self.module.state_dict().values())
        # a checkpoint is a copy of weights, moments and EMA in host memory
        checkpoint = 0 if on_cuda else (3 + config.ema) * weights
        self.available = self.memory.available_bytes() - checkpoint - config.ema * weights
        self.steps: Sequence[int] = range(0, config.steps, max(1, config.steps // NUM_PROBED_STEPS))

    def step_bytes(self, size: int) -> int | None:
        """Measure the bytes of a step, None when they are not available.

        The first call selects the one of several steps of the run that takes most memory.
        """
        heaviest = self.steps[0]
        self.memory.reset_peak()
        # an error is judged while the limit holds
        with self.memory.limit_growth(self.available):
            try:
                for step in self.steps:
                    before = self.memory.peak_growth()
                    self.run_step(step, size)
                    heaviest = step if self.memory.peak_growth() > before else heaviest
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                self.optimizer.zero_grad(set_to_none=True)
                return None
        self.steps = [heaviest]
        return self.memory.peak_growth()

    def run_step(self, step: int, size: int) -> None:
        """Run a step of the run on one micro-batch."""
        batch = batch_of(self.task, self.config, self.train_set, step, size)
        seed_host(STEP, self.config.seed, step)
        self.task.before_step(self.module, step, self.config.steps)
        add_gradients(
            self.task,
            self.module,
            [batch],
            clamped(self.task.count_normalizers([batch])),
            step,
            seed=self.config.seed,
            precision=self.precision,
            device=self.device,
        )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def clamped(normalizers: Mapping[str, float]) -> Normalizers:
    """Return normalizers of at least 1, as on a single process."""
    return Normalizers({name: max(1.0, number) for name, number in normalizers.items()})


def batch_of(
    task: Task, config: TrainConfig, train_set: SampleDataset, step: int, size: int
) -> Batch:
    """Return the CPU batch that a run with this batch size would see in this step.

    Raises:
        UserError: a sample cannot be read.
    """
    sampler = EpochSampler(len(train_set), size, config.seed)
    samples = SeededDataset(
        train_set,
        sampler,
        before_sample=partial(task.before_sample, steps=config.steps),
        skip_unreadable=config.skip_unreadable,
    )
    loaded = [
        samples[SampleKey(step, 0, epoch, position)] for epoch, position in sampler.batch(step)
    ]
    batch, _ = MicroBatchCollate(task.collate, config.seed)(loaded)
    if not isinstance(batch, Batch):
        raise batch.as_user_error()
    return batch
