"""Prediction for a list of image files, for `predict` and for notebooks.

The images are read in batches that depend on the list alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader

from visionloop.engine.batch import Batch
from visionloop.engine.data.loader import (
    LoadedSample,
    SampleKey,
    SeededDataset,
    init_worker,
    share_batch,
    worker_context,
)
from visionloop.engine.data.prefetch import DataError, Prefetcher
from visionloop.engine.precision import exact_products
from visionloop.engine.task import Task
from visionloop.engine.types import JsonObject, Sample, TaskModule

READ_AHEAD = 2  # batches that wait for the model, with workers


class ImageList(torch.utils.data.Dataset[Sample]):
    """Image files as a trained task reads them, without targets.

    Args:
        task: reads the samples.
        root: a folder.
        names: of the files, relative to `root`.
    """

    def __init__(self, task: Task, root: Path, names: Sequence[str]) -> None:
        self.task, self.root, self.names = task, root, names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        return self.task.read_sample(self.root / self.names[index])

    def name(self, index: int) -> str:
        """Return the name of a file."""
        return self.names[index]

    def fingerprint(self) -> str:
        """Return the names of all files."""
        return "\n".join(self.names)


class SequentialSampler:
    """The order of samples that come once, as they are listed; see `EpochSampler`."""

    seed = 0

    def __init__(self, num_samples: int) -> None:
        self.num_samples = num_samples

    def index(self, epoch: int, position: int) -> int:
        """Return the dataset index at this position."""
        return position


class ReadBatch(NamedTuple):
    """One batch of a list of files.

    Attributes:
        batch: of the files that can be read, None when there are none.
        number: of the batch in the list.
        places: positions of the readable files in the list.
        errors: {position: reason} of the others.
    """

    batch: Batch | None
    number: int
    places: list[int]
    errors: dict[int, str]


class PredictedBatch(NamedTuple):
    """The predictions of one batch, in the order of its files.

    Images come as iterables, since large ones need not be in memory together.

    Attributes:
        rows: one row of predictions.jsonl for each file, {"file", "error"} for an unreadable one.
        names: of the readable files.
        drawn: {kind: uint8 array [H, W, 3] for each of `names`}.
        images: {folder: image of `Task.prediction_images` for each of `names`}.
    """

    rows: list[JsonObject]
    names: list[str]
    drawn: Mapping[str, Iterable[NDArray[np.uint8]]]
    images: Mapping[str, Iterable[NDArray[np.uint8] | Image.Image]]


def num_batches(num_images: int, batch_size: int) -> int:
    """Return the number of batches of a list."""
    return -(-num_images // batch_size)


def places_in(number: int, batch_size: int, num_images: int) -> range:
    """Return the positions in a list of the images of batch `number`."""
    return range(number * batch_size, min((number + 1) * batch_size, num_images))


def read_batches(
    task: Task,
    root: Path,
    names: Sequence[str],
    *,
    batch_size: int,
    numbers: Iterable[int],
    workers: int = 0,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[ReadBatch]:
    """Read batches of a list of files, until `stop()` returns True.

    Args:
        task: reads and collates the samples.
        root: a folder.
        names: of the files, relative to `root`.
        batch_size: images of a batch.
        numbers: of the batches to read; iterated over as reading proceeds.
        workers: processes that read ahead.
        stop: called before each batch; True stops.
    """
    # a batch of predict has no step: its number takes that place in the key
    keys = (
        [SampleKey(number, 0, 0, place) for place in places_in(number, batch_size, len(names))]
        for number in numbers
    )
    loader = DataLoader(
        SeededDataset(ImageList(task, root, names), SequentialSampler(len(names)), workers=workers),
        batch_sampler=keys,  # in the place of indices
        collate_fn=partial(collate_readable, task),
        num_workers=workers,
        worker_init_fn=init_worker,
        generator=torch.Generator(),
        multiprocessing_context=worker_context(workers),
    )
    prefetcher = Prefetcher(loader, ahead=READ_AHEAD)
    try:
        while not stop():
            try:
                fetched = prefetcher.fetch(1, stop)
            except StopIteration:  # the number of batches is known when `numbers` ends
                return
            if fetched is None:
                return
            if isinstance(fetched[0][0], DataError):  # a worker is gone, or cannot pass it on
                raise fetched[0][0].as_user_error()
            yield fetched[0]
    finally:
        prefetcher.close()


def collate_readable(
    task: Task, loaded: Sequence[LoadedSample]
) -> ReadBatch | tuple[DataError, tuple[()]]:
    """Collate the samples of one batch that could be read.

    Returns:
        (DataError, ()) where a worker cannot pass the batch on.
    """
    samples: list[Sample] = []
    places: list[int] = []
    errors: dict[int, str] = {}
    for key, sample, _ in loaded:
        if isinstance(sample, DataError):
            errors[key.position] = sample.why
        else:
            samples.append(sample)
            places.append(key.position)
    batch = share_batch(task.collate_eval(samples)) if samples else None
    if isinstance(batch, DataError):
        return batch, ()
    return ReadBatch(batch, loaded[0].key.step, places, errors)


@torch.no_grad()
def predict_batch(
    task: Task,
    module: TaskModule,
    read: ReadBatch,
    root: Path,
    names: Sequence[str],
    device: torch.device,
    *,
    kinds: Sequence[str] = ("images",),
) -> PredictedBatch:
    """Predict one batch of a list of files.

    Args:
        task: the task of the model.
        module: the model in eval mode.
        read: a batch of `read_batches`.
        root: a folder.
        names: of all files of the list, relative to `root`.
        device: where the model is.
        kinds: of drawings: "images" by `Task.draw_predictions`, others by `Task.explain`.
    """
    rows: dict[int, JsonObject] = {
        place: {"file": names[place], "error": reason} for place, reason in read.errors.items()
    }
    if read.batch is None:
        return PredictedBatch([rows[place] for place in sorted(rows)], [], {}, {})
    readable = [names[place] for place in read.places]
    paths = [root / name for name in readable]
    batch = read.batch.to(device)
    with exact_products(device):
        predictions = task.predict(module, batch)
        descriptions = task.describe_predictions(batch, predictions, readable)
        drawn = {
            kind: task.draw_predictions(paths, descriptions, predictions)
            if kind == "images"
            else task.explain(module, batch, kind)
            for kind in kinds
        }
    rows |= dict(zip(read.places, descriptions, strict=True))
    return PredictedBatch(
        [rows[place] for place in sorted(rows)],
        readable,
        drawn,
        task.prediction_images(paths, predictions),
    )
