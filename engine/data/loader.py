"""Loaders of micro-batches for training and evaluation, in the order of engine/data/sampler.py."""

import os
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from multiprocessing.queues import Queue
from typing import NamedTuple, NoReturn, Protocol

import torch
from torch.utils.data import DataLoader

from visionloop.engine.batch import Batch
from visionloop.engine.config.branch_point import START, DataOrigin
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.data.forkserver import detach_fork_server, start_fork_server
from visionloop.engine.data.micro_batches import MicroBatchPlan
from visionloop.engine.data.prefetch import (
    SENDING_FAILED,
    UNREADABLE,
    DataError,
    Prefetcher,
    no_shared_memory,
)
from visionloop.engine.data.sampler import EpochSampler
from visionloop.engine.distributed import World
from visionloop.engine.errors import DEFECT
from visionloop.engine.seeding import COLLATE, SAMPLE, seed_host
from visionloop.engine.system.memory import give_back_freed_memory, is_out_of_memory
from visionloop.engine.system.shared_memory import error_number, shared_memory_errors
from visionloop.engine.task import Task
from visionloop.engine.types import Sample, SampleDataset

NO_INDEX = -1
# of the samples: more than single broken files
MAX_SKIPPED_SHARE = 0.01


class SampleKey(NamedTuple):
    """One sample of the run: its micro-batch (step, offset) and its place in the sequence."""

    step: int
    offset: int
    epoch: int
    position: int


class LoadedSample(NamedTuple):
    """The sample at a key, or the reason why there is none, and the names of skipped samples."""

    key: SampleKey
    sample: Sample | DataError
    skipped: tuple[str, ...]


class SampleOrder(Protocol):
    """The order of a dataset's samples; see `EpochSampler`."""

    num_samples: int
    seed: int

    def index(self, epoch: int, position: int) -> int:
        """Return the dataset index at this position of this epoch."""


class SeededDataset(torch.utils.data.Dataset[LoadedSample]):
    """A dataset of keys: each sample is made under a seed of (seed, epoch, index).

    Args:
        dataset: the samples, by index.
        sampler: the order that a key is a place of.
        before_sample: called with the step before each sample, see `Task.before_sample`.
        skip_unreadable: the next readable position of the same epoch takes the place of a sample
            that raises OSError.
        workers: number of workers that will share this object.
    """

    def __init__(
        self,
        dataset: SampleDataset,
        sampler: SampleOrder,
        *,
        before_sample: Callable[[int], None] | None = None,
        skip_unreadable: bool = False,
        workers: int = 0,
    ) -> None:
        self.dataset, self.sampler = dataset, sampler
        self.before_sample, self.skip_unreadable = before_sample, skip_unreadable
        # the index that each worker is reading, for messages of the training process
        with shared_memory_errors():
            self._index_in_progress = torch.full((workers,), NO_INDEX).share_memory_()

    def __getitem__(self, key: SampleKey) -> LoadedSample:
        skipped: list[str] = []
        if self.before_sample:
            self.before_sample(key.step)
        num_samples = self.sampler.num_samples
        for ahead in range(num_samples):
            index = self.sampler.index(key.epoch, (key.position + ahead) % num_samples)
            seed_host(SAMPLE, self.sampler.seed, key.epoch, index)
            self._note_progress(index)
            try:
                sample = self.dataset[index]
            except OSError as error:
                failure = sample_error(error, self.dataset.name(index))
                if failure.code != UNREADABLE or not self.skip_unreadable:
                    return LoadedSample(key, failure, ())
                skipped.append(self.dataset.name(index))
                continue
            sample["sample_id"] = torch.tensor(index)
            return LoadedSample(key, sample, tuple(skipped))
        return LoadedSample(key, DataError("the whole dataset", "no sample can be read"), ())

    def _note_progress(self, index: int) -> None:
        worker = torch.utils.data.get_worker_info()
        if worker is not None:
            self._index_in_progress[worker.id] = index

    def samples_in_progress(self, workers: Iterable[int] | None = None) -> list[str]:
        """Name the samples that some workers are reading, or read last; all workers for None."""
        indices = self._index_in_progress.tolist()
        return [
            self.dataset.name(indices[worker])
            for worker in (range(len(indices)) if workers is None else workers)
            if indices[worker] != NO_INDEX
        ]


def sample_error(error: OSError, name: str) -> DataError:
    """Return the error of a sample. name: of the sample; the error may know its file better."""
    # a sample may have several files: an image and its mask
    path = getattr(error, "path", None) or name
    reason = str(getattr(error, "why", None) or error.strerror or error)
    # a sample that other memory would read is no broken one: a resume would take it
    code = "no_memory" if is_out_of_memory(error) else getattr(error, "code", UNREADABLE)
    return DataError(path, reason, code, getattr(error, "details", ""))


class MicroBatchCollate:
    """Seeds the host, then calls the task's `collate(samples, step, offset)`.

    Returns (Batch, names of skipped samples), or (DataError, ()) when a sample is missing.
    """

    def __init__(self, collate: Callable[[list[Sample], int, int], Batch], seed: int) -> None:
        self.collate, self.seed = collate, seed

    def __call__(self, loaded: Sequence[LoadedSample]) -> tuple[Batch | DataError, tuple[str, ...]]:
        samples = []
        for _, sample, _ in loaded:
            if isinstance(sample, DataError):
                return sample, ()
            samples.append(sample)
        key = loaded[0].key
        seed_host(COLLATE, self.seed, key.step, key.offset)
        batch = share_batch(self.collate(samples, key.step, key.offset))
        if isinstance(batch, DataError):
            return batch, ()
        return batch, tuple(name for _, _, skipped in loaded for name in skipped)


def share_batch(batch: Batch) -> Batch | DataError:
    """Move the tensors of a batch to shared memory, in a worker; nothing in the main process.

    The worker's queue would do so in a thread, which prints an error and goes on: the batch would
    never arrive.

    Returns:
        The batch, or a DataError where there is no room for it.
    """
    if torch.utils.data.get_worker_info() is None:
        return batch
    try:
        return batch.map_tensors(torch.Tensor.share_memory_)
    except RuntimeError as error:
        number = error_number(error)
        if number is None:
            raise
        return no_shared_memory(number)


class MicroBatchSampler:
    """The keys of this rank's micro-batches of the steps start..stop - 1, one list for each.

    Args:
        sampler: the order of samples.
        plan: how each step's global batch is split into micro-batches.
        world: this process and how many there are.
        start: first step.
        stop: step to stop before.
    """

    def __init__(
        self,
        sampler: EpochSampler,
        plan: MicroBatchPlan,
        world: World,
        start: int,
        stop: int,
    ) -> None:
        self.sampler, self.plan, self.world = sampler, plan, world
        self.start, self.stop = start, stop

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for step in range(self.start, self.stop):
            places = self.sampler.batch(step)
            for first, last in self.plan.ranges(step)[self.world.rank :: self.world.size]:
                yield [SampleKey(step, first, *place) for place in places[first:last]]


def worker_context(workers: int) -> str | None:
    """Return the start method of a loader's workers; None where there are none."""
    if not workers:
        return None
    start_fork_server()
    return "forkserver"


def init_worker(_worker_id: int) -> None:
    """Let a worker leave stopping to the training process and use one thread."""
    give_back_freed_memory()  # of the dataset's pickle
    detach_fork_server()
    Queue._on_queue_feeder_error = staticmethod(end_worker)  # type: ignore[attr-defined]  # private
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def end_worker(error: Exception, _batch: object) -> NoReturn:
    """End a worker that cannot send its batch; `Prefetcher` reports the number in its exit code.

    By default the thread that sends prints the error and goes on: the batch would never arrive.
    """
    number = error_number(error)
    if number is None:  # a defect
        traceback.print_exception(error)
    os._exit(DEFECT if number is None else SENDING_FAILED + number)


class TrainingData:
    """The micro-batches of this rank, step by step.

    Attributes:
        sampler: the order of samples.
        plan: how each step's global batch is split into micro-batches.
        skipped: names of the unreadable samples that this rank has left out.
        error: the DataError that `fetch` has stopped at, or None.
    """

    def __init__(
        self,
        task: Task,
        dataset: SampleDataset,
        config: TrainConfig,
        world: World,
        start_step: int,
        plan: MicroBatchPlan | None = None,
        origin: DataOrigin = START,
    ) -> None:
        self.dataset = dataset
        self.sampler = EpochSampler(len(dataset), config.batch_size, config.seed, origin)
        self.plan = plan or MicroBatchPlan(config.batch_size, world.size, config.micro_batch)
        self.skipped: list[str] = []
        self.error: DataError | None = None
        self._task, self._config, self._world = task, config, world
        self._start(start_step)

    def _start(self, step: int) -> None:
        """Start the workers and the fetching thread, at the first micro-batch of a step."""
        config = self._config
        loader = DataLoader(
            SeededDataset(
                self.dataset,
                self.sampler,
                before_sample=partial(self._task.before_sample, steps=config.steps),
                skip_unreadable=config.skip_unreadable,
                workers=config.workers,
            ),
            batch_sampler=MicroBatchSampler(
                self.sampler, self.plan, self._world, step, config.steps
            ),
            collate_fn=MicroBatchCollate(self._task.collate, config.seed),
            num_workers=config.workers,
            worker_init_fn=init_worker,
            generator=torch.Generator(),  # else every iter() draws from the main generator
            multiprocessing_context=worker_context(config.workers),
        )
        self._next_step = step
        self._prefetcher = Prefetcher(
            loader, ahead=max(2, self.plan.per_rank(step)), device=self._world.device
        )

    def restart(self, step: int, plan: MicroBatchPlan) -> None:
        """Go back to the first micro-batch of a step, split by another plan.

        Batches in other sizes that were prepared ahead are discarded: mixing and other work of
        `Task.collate` depends on the size.
        """
        self._prefetcher.close()
        self.plan = plan
        self._start(step)

    def fetch(self, should_stop: Callable[[], bool]) -> list[Batch] | None:
        """Return this rank's CPU batches of the next step.

        None when `should_stop()` is True first, or when a sample cannot be read (see `error`).
        """
        fetched = self._prefetcher.fetch(self.plan.per_rank(self._next_step), should_stop)
        if fetched is None:
            return None
        for batch, skipped in fetched:
            if isinstance(batch, DataError):
                self.error = batch
                return None
            for name in skipped:  # the same ones come again in each epoch
                if name not in self.skipped:
                    self.skipped.append(name)
        self.error = too_many_skipped(self.skipped, len(self.dataset))
        if self.error:
            return None
        self._next_step += 1
        return [batch for batch, _ in fetched]

    def close(self) -> None:
        """End the workers and the fetching thread."""
        self._prefetcher.close()


def too_many_skipped(names: Sequence[str], num_samples: int) -> DataError | None:
    """Return a DataError when more than 1 % of the samples, and more than one, were left out.

    Args:
        names: the samples left out so far, each once.
        num_samples: the size of the dataset.
    """
    if len(names) <= max(1, MAX_SKIPPED_SHARE * num_samples):
        return None
    why = (
        f"--skip-unreadable: {len(names)} of {num_samples} samples cannot be read, this one the "
        "last of them; at most 1 % are left out"
    )
    return DataError(names[-1], why, code="too_many_unreadable")


def collate_evaluation(task: Task, samples: list[Sample], _step: int, _offset: int) -> Batch:
    """Collate samples for evaluation, where neither step nor offset have a meaning."""
    return task.collate_eval(samples)


def evaluation_loader(
    task: Task,
    dataset: SampleDataset,
    *,
    batch_size: int,
    workers: int,
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader[LoadedSample]:
    """Build a loader of (Batch or DataError, ()); rank j mod W gets batch j.

    Batches are cut from one fixed, shuffled order: an index is often sorted by class, and the first
    batch is the one that is drawn.
    """
    sampler = EpochSampler(len(dataset), batch_size, seed=0)
    starts = range(0, len(dataset), batch_size)[rank::world_size]
    keys = [
        [
            SampleKey(0, 0, 0, position)
            for position in range(start, min(start + batch_size, len(dataset)))
        ]
        for start in starts
    ]
    return DataLoader(
        SeededDataset(dataset, sampler, workers=workers),
        batch_sampler=keys,
        collate_fn=MicroBatchCollate(partial(collate_evaluation, task), seed=0),
        num_workers=workers,
        worker_init_fn=init_worker,
        generator=torch.Generator(),
        multiprocessing_context=worker_context(workers),
    )
