"""Samples are functions of their place in the run; fetching them never blocks the loop and leaves nothing behind."""

import contextlib
import multiprocessing
import os
import random
import signal
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_task import ToyConfig, ToyImages, ToyTask

from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.data import loader, prefetch
from visionloop.engine.data.loader import (
    DataError,
    Key,
    SeededDataset,
    TrainingData,
    evaluation_loader,
)
from visionloop.engine.data.sampler import EpochSampler
from visionloop.engine.distributed import World
from visionloop.engine.train import Subset

CPU = torch.device("cpu")
CONFIG = TrainConfig(steps=20, batch_size=8, micro_batch=4, workers=0, seed=3)
TASK = ToyTask(ToyConfig())


@pytest.fixture(autouse=True)
def end_workers_that_are_left():
    """A worker that outlives its test would keep pytest from ending; which test forbids it is written below."""
    yield
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's own reports a killed worker
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()
    signal.signal(signal.SIGCHLD, handler)


def never():
    return False


def changed(**changes):
    return TrainConfig(**{**CONFIG.__dict__, **changes})


def training_data(dataset=None, *, rank=0, size=1, start_step=0, **changes):
    dataset = dataset or ToyImages(21, split="train", augment=True)
    return TrainingData(TASK, dataset, changed(**changes), World(rank, rank, size, CPU), start_step)


def content(batch):
    """A micro-batch as plain values, images included."""
    return (
        batch.step,
        batch.offset,
        batch["sample_ids"].tolist(),
        batch["pixel_values"].numpy().tobytes(),
        batch["labels"].tolist(),
    )


def steps_of(data, number):
    try:
        return [[content(batch) for batch in data.fetch(never)] for _ in range(number)]
    finally:
        data.close()


def sample_bytes(samples, key):
    return samples[key][1]["pixel_values"].numpy().tobytes()


@settings(max_examples=40, deadline=None)
@given(
    before=st.lists(st.integers(0, 20), max_size=6),
    position=st.integers(0, 20),
    draws=st.integers(0, 5),
)
def test_a_sample_is_the_same_whatever_came_before(before, position, draws):
    samples = SeededDataset(ToyImages(21, split="train", augment=True), EpochSampler(21, 8, 3))
    expected = sample_bytes(samples, Key(0, 0, 1, position))
    for other in before:
        samples[Key(0, 0, 0, other)]
    torch.rand(draws), np.random.rand(draws), [random.random() for _ in range(draws)]
    # nor does it matter which step and piece it is for
    assert sample_bytes(samples, Key(9, 4, 1, position)) == expected


def test_the_augmentation_of_a_sample_differs_from_epoch_to_epoch():
    order = EpochSampler(21, 8, 3)
    samples = SeededDataset(ToyImages(21, split="train", augment=True), order)
    places = [list(order.permutation(epoch)).index(5) for epoch in range(4)]
    assert (
        len({sample_bytes(samples, Key(0, 0, epoch, place)) for epoch, place in enumerate(places)})
        == 4
    )


def test_a_sample_does_not_depend_on_its_neighbours():
    """Other batch and micro-batch sizes: the same sample at the same place of the sequence."""
    found = {}
    for batch_size, micro_batch in ((8, 4), (12, 12), (6, 1)):
        batches = []
        data = training_data(batch_size=batch_size, micro_batch=micro_batch, steps=24 // batch_size)
        for _ in range(24 // batch_size):
            batches += data.fetch(never)
        data.close()
        images = [image.numpy().tobytes() for batch in batches for image in batch["pixel_values"]]
        ids = [index for batch in batches for index in batch["sample_ids"].tolist()]
        found[batch_size] = list(zip(ids, images, strict=True))
    assert found[8] == found[12] == found[6]


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
def test_the_same_batches_with_no_one_and_three_workers():
    alone, one, three = (steps_of(training_data(workers=workers), 7) for workers in (0, 1, 3))
    assert alone == one == three


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resume_continues_at_the_next_sample(workers):
    straight = steps_of(training_data(workers=workers), 8)
    assert steps_of(training_data(workers=workers, start_step=5), 3) == straight[5:]


def test_the_last_step_can_be_fetched_and_is_the_last():
    data = training_data(steps=2, workers=2)
    assert [data.fetch(never)[0].step for _ in range(2)] == [0, 1]
    data.close()


@pytest.mark.parametrize(("batch_size", "size"), [(8, 2), (12, 3), (13, 2)])
def test_the_batches_of_all_ranks_together_are_those_of_one(batch_size, size):
    alone = [
        [index for batch in step for index in batch[2]]
        for step in steps_of(training_data(batch_size=batch_size, micro_batch=64), 4)
    ]
    ranks = [
        steps_of(training_data(batch_size=batch_size, micro_batch=4, rank=rank, size=size), 4)
        for rank in range(size)
    ]
    for step in range(4):
        pieces = sorted(
            (piece for rank in ranks for piece in rank[step]), key=lambda piece: piece[1]
        )
        assert [index for piece in pieces for index in piece[2]] == alone[step]


def test_a_piece_is_the_same_on_one_and_on_two_ranks():
    """Eight samples in pieces of 4: images and offset too, because collate is seeded by (step, offset)."""
    alone = steps_of(training_data(), 3)
    ranks = [steps_of(training_data(rank=rank, size=2), 3) for rank in range(2)]
    assert [[ranks[0][step][0], ranks[1][step][0]] for step in range(3)] == alone


class SeededCollateTask(ToyTask):
    def collate(self, samples, step, offset):
        batch = super().collate(samples, step, offset)
        batch["labels"] = torch.randint(0, 10**6, (len(samples),)) + np.random.randint(10**6)
        return batch


def test_collate_draws_the_same_at_the_same_step_and_offset():
    task = SeededCollateTask(ToyConfig())

    def labels(start_step, workers):
        data = TrainingData(
            task,
            ToyImages(21, split="train"),
            changed(workers=workers),
            World(0, 0, 1, CPU),
            start_step,
        )
        try:
            return [batch["labels"].tolist() for batch in data.fetch(never)]
        finally:
            data.close()

    assert labels(4, 0) == labels(4, 2) != labels(5, 0)
    first, second = labels(4, 0)
    assert first != second


def test_fetching_without_workers_makes_nothing_ahead():
    """Else samples made in this process would draw from the generators that the forward is using."""
    made = []

    class Noting(ToyImages):
        def __getitem__(self, index):
            made.append(index)
            return super().__getitem__(index)

    data = training_data(Noting(21, split="train"))
    data.fetch(never)
    time.sleep(0.05)
    assert len(made) == 8
    data.close()


# samples that cannot be read --------------------


def test_an_unreadable_sample_travels_as_a_data_error_with_name_and_reason():
    samples = SeededDataset(ToyImages(21, split="train", unreadable={4}), EpochSampler(21, 8, 3))
    place = list(samples.order.permutation(0)).index(4)
    _, error, skipped = samples[Key(0, 0, 0, place)]
    assert error == DataError("train/4.png", "broken on purpose") and skipped == ()


@settings(max_examples=30, deadline=None)
@given(
    unreadable=st.sets(st.integers(0, 11), max_size=11),
    position=st.integers(0, 11),
    epoch=st.integers(0, 3),
)
def test_the_next_readable_position_takes_the_place_and_the_skipped_are_listed(
    unreadable, position, epoch
):
    order = EpochSampler(12, 4, 0)
    samples = SeededDataset(
        ToyImages(12, split="train", augment=True, unreadable=unreadable),
        order,
        skip_unreadable=True,
    )
    _, sample, skipped = samples[Key(0, 0, epoch, position)]
    ahead = [int(order.permutation(epoch)[(position + step) % 12]) for step in range(12)]
    readable = next(index for index in ahead if index not in unreadable)
    assert int(sample["sample_id"]) == readable
    assert list(skipped) == [f"train/{index}.png" for index in ahead[: ahead.index(readable)]]
    # and it is the very sample that stands at its own place
    own = samples[Key(0, 0, epoch, (position + len(skipped)) % 12)][1]
    assert torch.equal(own["pixel_values"], sample["pixel_values"])


def test_a_data_set_without_a_readable_sample_is_an_error_and_not_an_endless_search():
    samples = SeededDataset(
        ToyImages(5, split="train", unreadable=set(range(5))),
        EpochSampler(5, 4, 0),
        skip_unreadable=True,
    )
    assert isinstance(samples[Key(0, 0, 0, 2)][1], DataError)


@pytest.mark.parametrize("workers", [0, 2])
def test_training_data_stops_at_an_unreadable_sample_and_keeps_what_it_was(workers):
    data = training_data(ToyImages(21, split="train", unreadable={4}), workers=workers)
    step = next(step for step in range(9) if 4 in data.order.sample_ids(step))
    for _ in range(step):
        assert data.fetch(never) is not None
    assert data.fetch(never) is None
    assert data.error == DataError("train/4.png", "broken on purpose")
    data.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_skipped_samples_are_listed_by_training_data(workers, monkeypatch):
    monkeypatch.setattr(loader, "MOST_SKIPPED", 0.1)
    data = training_data(
        ToyImages(21, split="train", unreadable={4, 9}), workers=workers, skip_unreadable=True
    )
    ids = [
        index
        for _ in range(6)
        for batch in data.fetch(never)
        for index in batch["sample_ids"].tolist()
    ]
    data.close()
    assert len(ids) == 48 and not {4, 9} & set(ids)
    assert set(data.skipped) == {"train/4.png", "train/9.png"} and data.error is None


@pytest.mark.parametrize(("broken", "allowed"), [(1, True), (2, False), (3, False)])
def test_more_than_one_in_a_hundred_broken_samples_end_the_data(broken, allowed):
    """Of 150: one may be left out, as often as it comes."""
    dataset = ToyImages(150, split="train", unreadable=set(range(broken)))
    data = training_data(dataset, skip_unreadable=True, batch_size=50, micro_batch=50)
    fetched = [data.fetch(never) for _ in range(9 if allowed else 3)]  # three epochs, or one
    data.close()
    assert (fetched[-1] is not None) == allowed
    if not allowed:
        assert data.error.code == "too_many_unreadable" and data.error.name == data.skipped[-1]
        assert f"{broken} of 150 samples cannot be read" in data.error.why


class Deadly(ToyImages):
    """The process that makes sample 4 is killed, as by a system that is short of memory."""

    def __getitem__(self, index):
        if index == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def test_a_killed_loader_process_is_told_with_the_sample_that_it_was_making():
    data = training_data(Deadly(21, split="train"), workers=2)
    while data.fetch(never) is not None:
        pass
    data.close()
    assert data.error.name == "train/4.png" and data.error.code == "lost_worker"
    assert "killed by signal 9" in str(data.error.as_user_error())


class LosesItsWorker:
    """A loader whose connection breaks while the process at its other end is still being killed."""

    num_workers = 1

    def __init__(self):
        self.dataset = SeededDataset(ToyImages(5, split="train"), EpochSampler(5, 4, 0), workers=1)
        self.dataset._making[0] = 4
        self._workers = [multiprocessing.get_context("fork").Process(target=self.die_soon)]

    def __iter__(self):
        self._workers[0].start()
        return self

    def __next__(self):
        raise EOFError

    @staticmethod
    def die_soon():
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_loader_process_whose_connection_breaks_before_it_has_ended_is_told_as_killed():
    loses_its_worker = prefetch.Prefetcher(LosesItsWorker(), ahead=1)
    [(error, _)] = loses_its_worker.fetch(2, never)  # and the second is not waited for
    loses_its_worker.close()
    assert error.name == "train/4.png" and error.code == "lost_worker"


class Broken(ToyImages):
    def __getitem__(self, index):
        raise KeyError("a defect in the dataset")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_defect_of_the_dataset_is_raised_in_the_main_thread(workers):
    data = training_data(Broken(21, split="train"), workers=workers, skip_unreadable=True)
    with pytest.raises(KeyError, match="a defect in the dataset"):
        data.fetch(never)
    data.close()


def test_a_subset_keeps_the_names_of_its_samples():
    subset = Subset(ToyImages(21, split="train"), np.array([3, 7]))
    assert [subset.name(index) for index in range(2)] == ["train/3.png", "train/7.png"]
    assert subset.fingerprint() != ToyImages(21, split="train").fingerprint()


# stopping --------------------


class Held(ToyImages):
    """Samples that are not there before `gate` opens; with workers, only time opens it."""

    def __init__(self, seconds):
        super().__init__(21, split="train")
        self.gate, self.seconds = threading.Event(), seconds

    def __reduce__(self):
        return Held, (self.seconds,)

    def __getitem__(self, index):
        self.gate.wait(self.seconds)
        return super().__getitem__(index)


@pytest.mark.parametrize(("workers", "seconds"), [(0, 60), (1, 10)])
def test_a_stop_is_seen_at_once_while_a_sample_is_slow(workers, seconds):
    dataset, before = Held(seconds), set(threading.enumerate())
    data = training_data(dataset, workers=workers)
    began = time.monotonic()
    assert data.fetch(lambda: True) is None
    assert time.monotonic() - began < 3  # in 0.2 s where nothing else runs
    assert data.error is None
    data.close()
    assert time.monotonic() - began < 6, "close does not wait for the sample"
    # a thread of this process that goes on making samples would draw from the next test's
    # generators
    dataset.gate.set()
    for thread in set(threading.enumerate()) - before:
        if thread.name == "fetcher" and workers == 0:
            thread.join(timeout=5)


@pytest.mark.parametrize("workers", [0, 1])
def test_who_waits_long_for_data_is_told_what_is_in_work(workers, monkeypatch, caplog):
    monkeypatch.setattr(prefetch, "SLOW_SECONDS", 0.3)
    began, dataset = time.monotonic(), Held(1.2)
    data = training_data(dataset, workers=workers, micro_batch=8)
    assert data.fetch(lambda: time.monotonic() - began > 1.0) is None
    dataset.gate.set()
    data.close()
    told = [
        record.getMessage()
        for record in caplog.records
        if "waiting for data" in record.getMessage()
    ]
    assert len(told) == 2, "once, and again when the wait has doubled"
    assert all(
        (data.dataset.name(data.order.sample_ids(0)[0]) if workers else "in this process") in line
        for line in told
    )


@pytest.mark.parametrize(
    "kind",
    [
        "in mid-run",
        "at the end",
        "after a defect",
        "after an unreadable sample",
        "while a sample is slow",
    ],
)
def test_the_workers_are_gone_after_close(kind):
    """They ignore SIGTERM: one that is left keeps the interpreter from ending."""
    before = set(multiprocessing.active_children())
    train_set = {
        "after a defect": Broken(21, split="train"),
        "after an unreadable sample": ToyImages(21, split="train", unreadable={4}),
        "while a sample is slow": Held(30),
    }.get(kind, ToyImages(21, split="train"))
    data = training_data(train_set, workers=2, steps=6)
    with contextlib.suppress(KeyError):
        for _ in range(6 if kind != "in mid-run" else 1):
            data.fetch(lambda: kind == "while a sample is slow")
    began = time.monotonic()
    data.close()
    assert set(multiprocessing.active_children()) - before == set()
    assert time.monotonic() - began < 6


def test_close_takes_no_lock_that_a_killed_loader_process_may_have_held():
    data = training_data(workers=1)
    data.fetch(never)
    # as by a process that asks whether it is to end, in the moment of its end
    data._fetcher._iterator._workers_done_event._cond.acquire()
    closing = threading.Thread(target=data.close, daemon=True)
    closing.start()
    closing.join(timeout=20)
    assert not closing.is_alive()


def test_the_fetching_thread_is_gone_after_close():
    before = set(threading.enumerate())
    data = training_data()
    data.fetch(never)
    data.close()
    assert set(threading.enumerate()) - before == set()


# evaluation --------------------


@pytest.mark.parametrize(("number", "workers"), [(1, 0), (12, 0), (23, 0), (23, 2)])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_covers_each_sample_once_on_any_number_of_ranks(number, world_size, workers):
    dataset = ToyImages(number, split="val")
    alone = [
        batch["sample_ids"].tolist()
        for batch, _ in evaluation_loader(TASK, dataset, batch_size=4, workers=0)
    ]
    ids = []
    for rank in range(world_size):
        loader = evaluation_loader(
            TASK, dataset, batch_size=4, workers=workers, rank=rank, world_size=world_size
        )
        batches = [batch["sample_ids"].tolist() for batch, _ in loader]
        assert (
            batches == alone[rank::world_size]
        )  # batch j is a fixed cut and goes whole to rank j mod W
        assert len(loader) == len(batches)
        ids += [index for batch in batches for index in batch]
    assert sorted(ids) == list(range(number))


def test_an_evaluation_sample_is_the_same_on_any_number_of_ranks():
    """A task may draw in evaluation (segmentation's points): seeded by sample, so that scores do not depend on ranks."""
    dataset = ToyImages(23, split="val", augment=True)
    whole, pieces = {}, {}
    for world_size, found in ((1, whole), (3, pieces)):
        for rank in range(world_size):
            for batch, _ in evaluation_loader(
                TASK, dataset, batch_size=4, workers=0, rank=rank, world_size=world_size
            ):
                found |= {
                    int(i): image.numpy().tobytes()
                    for i, image in zip(batch["sample_ids"], batch["pixel_values"], strict=True)
                }
    assert whole == pieces


def test_an_unreadable_image_in_evaluation_is_a_data_error():
    loader = evaluation_loader(
        TASK, ToyImages(9, split="val", unreadable={5}), batch_size=4, workers=0
    )
    assert [isinstance(batch, DataError) for batch, _ in loader].count(True) == 1


def test_the_main_generators_are_not_touched_by_making_a_loader():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    data = training_data(workers=1)
    data.fetch(never)
    data.close()
    assert torch.equal(torch.get_rng_state(), before)
