"""Check that a user's augmentation is a function of the sample and its generator alone.

Only then is a run the same after a stop, and with any number of workers and processes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from torch.utils.data import DataLoader

from visionloop.engine.augmentation import COPY, Augmentation, augmentation_of
from visionloop.engine.data.loader import init_worker, sample_error, worker_context
from visionloop.engine.data.prefetch import UNREADABLE, DataError
from visionloop.engine.data.subsets import evenly_spaced
from visionloop.engine.errors import UserError
from visionloop.engine.seeding import SAMPLE, seed_host
from visionloop.engine.types import SampleDataset

NUM_SAMPLES = 8
EPOCHS = (0, 1)
Key: TypeAlias = tuple[int, int]  # (epoch, index)
Digests: TypeAlias = dict[str, str]
STATELESS = (
    "draw random numbers from the generator, or from torch's, numpy's or random's own, which are "
    "seeded for each call, and keep nothing from one call to the next"
)
ALBUMENTATIONS = (
    "; an Albumentations transform needs transform.set_random_seed(generator.initial_seed()) "
    "before each call"
)


class RecordedCalls(torch.utils.data.Dataset[Digests | DataError]):
    """Digests of what the function returns for keys (epoch, index), by the seeds of training."""

    def __init__(self, dataset: SampleDataset, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitem__(self, key: Key) -> Digests | DataError:
        epoch, index = key
        augmentation = augmentation_of(self.dataset)
        assert augmentation is not None
        augmentation.digests = {}
        seed_host(SAMPLE, self.seed, epoch, index)
        try:
            self.dataset[index]
        except OSError as error:
            return sample_error(error, self.dataset.name(index))
        return augmentation.digests


def verify_augmentation(
    dataset: SampleDataset, output: str | Path | None, *, seed: int, workers: int
) -> str | None:
    """Call a user's function twice for a few samples and compare the bytes of the results.

    The second time it is loaded anew, in a data worker if the run has any, and the samples come in
    reverse order.

    Args:
        dataset: the training set.
        output: folder of the run, for the line.
        seed: of the run.
        workers: of the run.

    Returns:
        A line about the function, None for a dataset without one.

    Raises:
        UserError: the function fails, returns what the task cannot use, or two results differ.
    """
    augmentation = augmentation_of(dataset)
    if augmentation is None:
        return None
    indices = evenly_spaced(len(dataset), NUM_SAMPLES).tolist()
    keys = [(epoch, index) for epoch in EPOCHS for index in indices]
    augmentation.records = True
    calls = RecordedCalls(dataset, seed)
    first = [calls[key] for key in keys]
    augmentation.forget()
    second = _calls_in_worker(calls, keys[::-1]) if workers else [calls[key] for key in keys[::-1]]
    augmentation.records = False
    for (_, index), one, other in zip(keys, first, second[::-1], strict=True):
        for result in (one, other):
            # an unreadable file is named when training reads it
            if isinstance(result, DataError) and result.code != UNREADABLE:
                raise result.as_user_error()
        if one != other:
            raise _not_a_function(augmentation, dataset.name(index), one, other)
    kept = f", kept in {Path(output) / COPY}" if output else ""
    return f"augmentation: {augmentation.spec}, called twice for {len(indices)} samples{kept}"


def _calls_in_worker(calls: RecordedCalls, keys: Sequence[Key]) -> list[Digests | DataError]:
    loader: DataLoader[Digests | DataError] = DataLoader(
        calls,
        batch_size=None,
        sampler=keys,
        num_workers=1,
        worker_init_fn=init_worker,
        generator=torch.Generator(),
        multiprocessing_context=worker_context(1),
    )
    return list(loader)


def _not_a_function(
    augmentation: Augmentation, sample: str, one: Digests | DataError, other: Digests | DataError
) -> UserError:
    assert not isinstance(one, DataError) and not isinstance(other, DataError)
    parts = ", ".join(name for name in one if one[name] != other.get(name))
    hint = STATELESS + (ALBUMENTATIONS if "albumentations" in augmentation.text else "")
    return UserError(
        f"--augment {augmentation.spec}: two calls for {sample} with the same generator gave "
        f"another {parts}; {hint}",
        code="bad_augment",
        field="augment",
        file=augmentation.spec.rpartition(":")[0],
        hint=hint,
    )
