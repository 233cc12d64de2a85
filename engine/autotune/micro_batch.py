"""`--micro-batch auto`: the largest micro-batch whose step fits into memory, found once by real steps on growing ones."""

from functools import partial

from visionloop.engine.batch import Batch
from visionloop.engine.data.loader import Key, MicroBatchCollate, SeededDataset
from visionloop.engine.data.sampler import EpochSampler, split_batch
from visionloop.engine.distributed import barrier, gather_objects
from visionloop.engine.errors import UserError
from visionloop.engine.optim import build_optimizer
from visionloop.engine.precision import build_precision
from visionloop.engine.prepare import build_module, set_process
from visionloop.engine.seeding import STEP, seed_host
from visionloop.engine.step import add_gradients
from visionloop.engine.system.memory import DeviceMemory, HostMemory, is_out_of_memory

# steps of the run that are tried with the smallest micro-batch: masks, sizes and targets differ
# from step to step
PLACES = 6
GROWTH = 4  # a micro-batch is at most so many times as large as one that has been seen to fit
GIB = 2**30


def find_micro_batch(task, config, world, train_set):
    """(the largest micro-batch that fits, a text that says how that is known). All ranks agree on the least of theirs.

    Raises UserError where not even the smallest fits.
    """
    set_process(config)
    barrier(world)  # nobody else is taking memory while it is asked how much there is
    trial = Trial(task, config, world, train_set)
    sizes = legal_sizes(config.batch_size, world.size, task.min_micro_batch_size(trial.module))
    barrier(world)
    found = largest_fitting(sizes, trial.grown, trial.room)
    fewest, room = min(gather_objects(world, (found or 0, trial.room)))
    grown = trial.seen
    del trial
    if not fewest:
        hint = "take a smaller --image-size or model, or --grad-checkpointing"
        message = f"--micro-batch auto: not even {sizes[0]} fits into the {max(0, room) / GIB:.2f} GiB that may be used; {hint}"
        raise UserError(message, code="is_out_of_memory", field="micro_batch")
    least = min(size for size in sizes if size >= fewest)
    kind = "of the device's memory" if world.device.type == "cuda" else "of memory"
    return (
        least,
        f"a step takes {grown.get(least, 0) / GIB:.2f} of {room / GIB:.2f} GiB {kind} that may be used",
    )


def legal_sizes(batch_size, world_size, smallest):
    """The micro-batches that cut a global batch differently, smallest first; UserError where there is none."""
    sizes = {}
    for number in range(1, batch_size + 1):
        size = -(-batch_size // (world_size * number))
        try:
            pieces = split_batch(batch_size, world_size, size)
        except UserError:
            if size == 1:
                break
            continue
        if min(stop - start for start, stop in pieces) >= smallest:
            sizes[max(stop - start for start, stop in pieces)] = None
        if size == 1:
            break
    if not sizes:
        split_batch(
            batch_size, world_size, batch_size
        )  # says so when there are fewer samples than processes
        raise UserError(
            f"--batch-size {batch_size}: this training needs {smallest} samples at once in each process",
            field="batch_size",
        )
    return sorted(sizes)


def largest_fitting(sizes, grown, room):
    """The largest size that fits, or None.

    grown(size): bytes that its step takes, None when they cannot be had. Nothing is tried that is
    not expected to fit.
    """
    seen = []  # [(size, bytes)] of those that fit
    while True:
        larger = [size for size in sizes if not seen or size > seen[-1][0]]
        near = [size for size in larger if seen and size <= GROWTH * seen[-1][0]] or larger[
            :1
        ]  # sizes may lie further apart
        wanted = [size for size in near if expected(seen, size) <= room]
        if not wanted:
            return seen[-1][0] if seen else None
        size = wanted[-1]
        taken = grown(size)
        if taken is None or taken > room:
            sizes = [other for other in sizes if other < size]
        else:
            seen.append((size, taken))


def expected(seen, size):
    """Bytes that a step of this size takes, as the two largest seen so far tell: a part that all have and a part for each sample."""
    if not seen:
        return 0
    (fewer, less), (more, most) = seen[-2] if len(seen) > 1 else (0, 0), seen[-1]
    return most + max(0, most - less) / (more - fewer) * (size - more)


class Trial:
    """Steps of the run's model on micro-batches of any size, in this process alone."""

    def __init__(self, task, config, world, train_set):
        self.task, self.config, self.device, self.train_set = task, config, world.device, train_set
        self.module = build_module(task, config, world)
        self.optimizer = build_optimizer(task.parameter_groups(self.module), self.module, config)
        self.precision = build_precision(config.precision, world.device, tf32=config.tf32)
        self.memory = DeviceMemory(world.device) if world.device.type == "cuda" else HostMemory()
        state = sum(tensor.nbytes for tensor in self.module.state_dict().values())
        # a checkpoint is a copy of weights, moments and average in the host's memory
        self.room = (
            self.memory.room()
            - (0 if world.device.type == "cuda" else (3 + config.ema) * state)
            - config.ema * state
        )
        self.places, self.seen = range(0, config.steps, max(1, config.steps // PLACES)), {}

    def grown(self, size):
        """Bytes that a step takes, None where they cannot be had. The first call finds the heaviest of several steps of the run."""
        heaviest = self.places[0]
        try:
            with self.memory.fenced(self.room):
                for place in self.places:
                    before = self.memory.grown()
                    self.take(place, size)
                    heaviest = place if self.memory.grown() > before else heaviest
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self.optimizer.zero_grad(set_to_none=True)
            return None
        self.places, self.seen[size] = [heaviest], self.memory.grown()
        return self.seen[size]

    def take(self, step, size):
        """One optimizer step at this place of the run, on one micro-batch."""
        batch = batch_of(self.task, self.config, self.train_set, step, size)
        seed_host(STEP, self.config.seed, step)
        self.task.before_step(self.module, step, self.config.steps)
        count = {name: max(1.0, number) for name, number in self.task.count([batch]).items()}
        add_gradients(
            self.task,
            self.module,
            [batch],
            count,
            step,
            seed=self.config.seed,
            precision=self.precision,
            device=self.device,
        )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def batch_of(task, config, train_set, step, size) -> Batch:
    """A host batch of the samples that a run with this batch size would see in this step. Raises UserError for one that cannot be read."""
    order = EpochSampler(len(train_set), size, config.seed)
    samples = SeededDataset(
        train_set,
        order,
        before_sample=partial(task.before_sample, steps=config.steps),
        skip_unreadable=config.skip_unreadable,
    )
    made = [samples[Key(step, 0, epoch, position)] for epoch, position in order.batch(step)]
    batch, _ = MicroBatchCollate(task.collate, config.seed)(made)
    if not isinstance(batch, Batch):
        raise batch.as_user_error()
    return batch
