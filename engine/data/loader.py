"""Micro-batches in the order of engine/data/sampler.py, for training and for evaluation."""

import signal
from functools import partial
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader

from visionloop.engine.data.forkserver import detach_fork_server, start_fork_server
from visionloop.engine.data.prefetch import DataError, Prefetcher
from visionloop.engine.data.sampler import EpochSampler, split_batch
from visionloop.engine.seeding import COLLATE, SAMPLE, seed_host
from visionloop.engine.system.memory import give_back_freed_memory

NOTHING = -1
MOST_SKIPPED = 0.01  # of the samples: more than that, and it is not the odd broken file


class Key(NamedTuple):
    """One sample of the run: its micro-batch (step, offset) and its place in the endless sequence."""

    step: int
    offset: int
    epoch: int
    position: int


class SeededDataset(torch.utils.data.Dataset):
    """dataset[key]: the sample at the key's place, made under a seed of (seed, epoch, index).

    before_sample(step): told first, see Task. With skip_unreadable, the next readable position of
    the same epoch takes the place of a sample that raises OSError. workers: workers that
    will share this object. Returns (key, sample, skipped names) or (key, DataError, ()).
    """

    def __init__(self, dataset, order, *, before_sample=None, skip_unreadable=False, workers=0):
        self.dataset, self.order, self.before_sample, self.skip_unreadable = (
            dataset,
            order,
            before_sample,
            skip_unreadable,
        )
        self._making = torch.full(
            (workers,), NOTHING
        ).share_memory_()  # by worker: the index it is at, for whoever waits for it

    def __getitem__(self, key):
        skipped = []
        if self.before_sample:
            self.before_sample(key.step)
        for ahead in range(self.order.num_samples):
            index = self.order.index(key.epoch, (key.position + ahead) % self.order.num_samples)
            seed_host(SAMPLE, self.order.seed, key.epoch, index)
            self._note(index)
            try:
                sample = self.dataset[index]
            except OSError as error:
                if not self.skip_unreadable:
                    return key, DataError(self.dataset.name(index), _why(error)), ()
                skipped.append(self.dataset.name(index))
                continue
            sample["sample_id"] = torch.tensor(index)
            return key, sample, tuple(skipped)
        return key, DataError("the whole dataset", "no sample can be read"), ()

    def _note(self, index):
        worker = torch.utils.data.get_worker_info()
        if worker is not None:
            self._making[worker.id] = index

    def in_work(self, workers=None):
        """Names of the samples that these workers are making, or made last; None: all processes."""
        making = self._making.tolist()
        return [
            self.dataset.name(making[i])
            for i in (range(len(making)) if workers is None else workers)
            if making[i] != NOTHING
        ]


def _why(error):
    return str(getattr(error, "why", None) or error.strerror or error)


class MicroBatchCollate:
    """Seeds, then calls the task's collate. Returns (Batch, skipped names) or (DataError, ())."""

    def __init__(self, collate, seed):
        self.collate, self.seed = collate, seed

    def __call__(self, fetched):
        for _, sample, _ in fetched:
            if isinstance(sample, DataError):
                return sample, ()
        key = fetched[0][0]
        seed_host(COLLATE, self.seed, key.step, key.offset)
        batch = self.collate([sample for _, sample, _ in fetched], key.step, key.offset)
        return batch, tuple(name for _, _, skipped in fetched for name in skipped)


class MicroBatchSampler:
    """The keys of this rank's pieces of steps start..stop, piece by piece."""

    def __init__(self, order, pieces, world, start, stop):
        self.order, self.pieces, self.world, self.start, self.stop = (
            order,
            pieces,
            world,
            start,
            stop,
        )

    def __iter__(self):
        for step in range(self.start, self.stop):
            places = self.order.batch(step)
            for first, last in self.pieces[self.world.rank :: self.world.size]:
                yield [Key(step, first, epoch, position) for epoch, position in places[first:last]]


def worker_context(workers):
    """How the workers of a loader are started; None where there are none."""
    if not workers:
        return None
    start_fork_server()
    return "forkserver"


def start_worker(_worker_id):
    """Loader workers leave stopping to the training process and use one thread each."""
    give_back_freed_memory()  # of the dataset's pickle
    detach_fork_server()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


class TrainingData:
    """This rank's micro-batches, step by step."""

    def __init__(self, task, dataset, config, world, start_step):
        self.dataset = dataset
        self.order = EpochSampler(len(dataset), config.batch_size, config.seed)
        self.pieces = split_batch(config.batch_size, world.size, config.micro_batch)
        self.skipped, self.error = [], None
        loader = DataLoader(
            SeededDataset(
                dataset,
                self.order,
                before_sample=partial(task.before_sample, steps=config.steps),
                skip_unreadable=config.skip_unreadable,
                workers=config.workers,
            ),
            batch_sampler=MicroBatchSampler(
                self.order, self.pieces, world, start_step, config.steps
            ),
            collate_fn=MicroBatchCollate(task.collate, config.seed),
            num_workers=config.workers,
            worker_init_fn=start_worker,
            generator=torch.Generator(),  # else every iter() draws from the main generator
            multiprocessing_context=worker_context(config.workers),
        )
        self.per_step = len(self.pieces) // world.size
        self._fetcher = Prefetcher(
            loader, ahead=max(2, self.per_step), pin=world.device.type == "cuda"
        )

    def fetch(self, give_up):
        """The host batches of this rank's next step; None when a stop came first or a sample cannot be read (see `error`)."""
        fetched = self._fetcher.fetch(self.per_step, give_up)
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
        return [batch for batch, _ in fetched]

    def close(self):
        self._fetcher.close()


def too_many_skipped(names, num_samples):
    """A DataError when the samples left out so far, each named once, are more than 1 % of all (and more than one), else None."""
    skipped = len(names)
    if skipped <= max(1, MOST_SKIPPED * num_samples):
        return None
    why = f"--skip-unreadable: {skipped} of {num_samples} samples cannot be read, the last of them this one; at most 1 % are left out"
    return DataError(names[-1], why, code="too_many_unreadable")


def collate_evaluation(task, samples, _step, _offset):
    return task.collate_eval(samples)


def evaluation_loader(task, dataset, *, batch_size, workers, rank=0, world_size=1):
    """Batches cut from one fixed order; batch j goes whole to rank j mod W. Yields (Batch or DataError, ()).

    The order is mixed, since an index is often sorted by class and the first batch is the one that
    is drawn.
    """
    order = EpochSampler(len(dataset), batch_size, seed=0)
    starts = range(0, len(dataset), batch_size)[rank::world_size]
    keys = [
        [Key(0, 0, 0, position) for position in range(start, min(start + batch_size, len(dataset)))]
        for start in starts
    ]
    return DataLoader(
        SeededDataset(dataset, order, workers=workers),
        batch_sampler=keys,
        collate_fn=MicroBatchCollate(partial(collate_evaluation, task), seed=0),
        num_workers=workers,
        worker_init_fn=start_worker,
        generator=torch.Generator(),
        multiprocessing_context=worker_context(workers),
    )
