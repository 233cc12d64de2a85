"""From files to answers, for `predict` and for notebooks: images are read in batches that their list alone decides, answered, drawn."""

from functools import partial
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader

from visionloop.engine.batch import Batch
from visionloop.engine.data.loader import Key, SeededDataset, start_worker, worker_context
from visionloop.engine.data.prefetch import DataError, Prefetcher

AHEAD = 2  # batches that wait for the model, where workers make them


class ImageList(torch.utils.data.Dataset):
    """Files as a trained task reads them, without targets. names: of the files, relative to the folder `root`."""

    def __init__(self, task, root, names):
        self.task, self.root, self.names = task, root, names

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        return self.task.read_sample(self.root / self.names[index])

    def name(self, index):
        return self.names[index]


class SequentialSampler:
    """The order of engine/data/sampler.py for samples that come as they are listed, once."""

    seed = 0

    def __init__(self, num_samples):
        self.num_samples = num_samples

    def index(self, epoch, position):
        return position


class ReadBatch(NamedTuple):
    """Batch `number` of a list. batch: of the files that can be read, or None; places: theirs in the list; errors: {place: why}."""

    batch: Batch | None
    number: int
    places: list
    errors: dict


class Answers(NamedTuple):
    """What is said of the files of a batch, in order.

    rows: one json-able dict each, {"file", "error"} for one that cannot be read; names: of the
    readable ones, and for each of those drawn: {kind: uint8 [H, W, 3]} and made: {folder: image
    of `Task.prediction_images`}, as iterables: large ones need not lie in memory together.
    """

    rows: list
    names: list
    drawn: dict
    made: dict


def num_batches(num_images, batch_size):
    return -(-num_images // batch_size)


def places_in(number, batch_size, num_images):
    """The places in a list of the images of batch `number`."""
    return range(number * batch_size, min((number + 1) * batch_size, num_images))


def read_batches(task, root, names, *, batch_size, numbers, workers=0, stop=lambda: False):
    """Yields the ReadBatch of each of these batches of the list, until `stop()` is true.

    numbers: of the batches, any iterable; it is asked as reading goes on. workers: workers
    that read ahead.
    """
    loader = DataLoader(
        SeededDataset(ImageList(task, root, names), SequentialSampler(len(names)), workers=workers),
        batch_sampler=(
            [Key(number, 0, 0, place) for place in places_in(number, batch_size, len(names))]
            for number in numbers
        ),
        collate_fn=partial(collate_read, task),
        num_workers=workers,
        worker_init_fn=start_worker,
        generator=torch.Generator(),
        multiprocessing_context=worker_context(workers),
    )
    fetcher = Prefetcher(loader, ahead=AHEAD)
    try:
        while not stop():
            try:
                fetched = fetcher.fetch(1, stop)
            except StopIteration:  # how many there are is known when `numbers` ends
                return
            if fetched is None:
                return
            if isinstance(fetched[0][0], DataError):  # a worker is gone
                raise fetched[0][0].as_user_error()
            yield fetched[0]
    finally:
        fetcher.close()


def collate_read(task, fetched):
    """fetched: [(key, sample or DataError, _)] of one batch -> ReadBatch."""
    samples = [sample for _, sample, _ in fetched if not isinstance(sample, DataError)]
    return ReadBatch(
        batch=task.collate_eval(samples) if samples else None,
        number=fetched[0][0].step,
        places=[key.position for key, sample, _ in fetched if not isinstance(sample, DataError)],
        errors={
            key.position: sample.why for key, sample, _ in fetched if isinstance(sample, DataError)
        },
    )


@torch.no_grad()
def answer(task, module, read, root, names, device, *, kinds=("images",)):
    """The Answers to a ReadBatch of this list. kinds: what is drawn: "images" by `Task.draw_predictions`, others by `Task.explain`."""
    rows = {place: {"file": names[place], "error": why} for place, why in read.errors.items()}
    if read.batch is None:
        return Answers([rows[place] for place in sorted(rows)], [], {}, {})
    readable = [names[place] for place in read.places]
    paths = [root / name for name in readable]
    batch = read.batch.to(device)
    predictions = task.predict(module, batch)
    told = task.describe_predictions(batch, predictions, readable)
    rows |= dict(zip(read.places, told, strict=True))
    drawn = {
        kind: task.draw_predictions(paths, told, predictions)
        if kind == "images"
        else task.explain(module, batch, kind)
        for kind in kinds
    }
    return Answers(
        [rows[place] for place in sorted(rows)],
        readable,
        drawn,
        task.prediction_images(paths, predictions),
    )
