"""Loaders: a sample is a function of its place in the run, on any number of ranks and workers."""

import errno
import random
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_task import ToyConfig, ToyImages, ToyTask
from toy_training_data import (
    TASK,
    content_of,
    kill_workers_that_are_left,
    never_stop,
    training_data,
)

from visionloop.engine.data import loader
from visionloop.engine.data.loader import (
    DataError,
    SampleKey,
    SeededDataset,
    evaluation_loader,
)
from visionloop.engine.data.sampler import EpochSampler


@pytest.fixture(autouse=True)
def no_worker_is_left():
    with kill_workers_that_are_left():
        yield


def steps_of(data, number):
    try:
        return [[content_of(batch) for batch in data.fetch(never_stop)] for _ in range(number)]
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
    expected = sample_bytes(samples, SampleKey(0, 0, 1, position))
    for other in before:
        samples[SampleKey(0, 0, 0, other)]
    torch.rand(draws), np.random.rand(draws), [random.random() for _ in range(draws)]
    # nor does it matter which step and micro-batch it is for
    assert sample_bytes(samples, SampleKey(9, 4, 1, position)) == expected


def test_the_augmentation_of_a_sample_differs_from_epoch_to_epoch():
    order = EpochSampler(21, 8, 3)
    samples = SeededDataset(ToyImages(21, split="train", augment=True), order)
    places = [list(order.permutation(epoch)).index(5) for epoch in range(4)]
    assert (
        len(
            {
                sample_bytes(samples, SampleKey(0, 0, epoch, place))
                for epoch, place in enumerate(places)
            }
        )
        == 4
    )


def test_a_sample_does_not_depend_on_its_neighbors():
    """Other batch and micro-batch sizes: the same sample at the same place of the sequence."""
    samples = {}
    for batch_size, micro_batch in ((8, 4), (12, 12), (6, 1)):
        batches = []
        data = training_data(batch_size=batch_size, micro_batch=micro_batch, steps=24 // batch_size)
        for _ in range(24 // batch_size):
            batches += data.fetch(never_stop)
        data.close()
        images = [image.numpy().tobytes() for batch in batches for image in batch["pixel_values"]]
        ids = [index for batch in batches for index in batch["sample_ids"].tolist()]
        samples[batch_size] = list(zip(ids, images, strict=True))
    assert samples[8] == samples[12] == samples[6]


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
    assert [data.fetch(never_stop)[0].step for _ in range(2)] == [0, 1]
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
        micro_batches = sorted(
            (batch for rank in ranks for batch in rank[step]), key=lambda batch: batch[1]
        )
        assert [index for batch in micro_batches for index in batch[2]] == alone[step]


def test_a_micro_batch_is_the_same_on_one_and_on_two_ranks():
    """Eight samples in micro-batches of 4: images and offset too, as collate is seeded by both."""
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
        images = ToyImages(21, split="train")
        data = training_data(images, task=task, workers=workers, start_step=start_step)
        try:
            return [batch["labels"].tolist() for batch in data.fetch(never_stop)]
        finally:
            data.close()

    assert labels(4, 0) == labels(4, 2) != labels(5, 0)
    first, second = labels(4, 0)
    assert first != second


def test_fetching_without_workers_prepares_nothing_ahead():
    """Else samples made in this process would draw from the generators of the forward."""
    made = []

    class ImagesWithLog(ToyImages):
        def __getitem__(self, index):
            made.append(index)
            return super().__getitem__(index)

    data = training_data(ImagesWithLog(21, split="train"))
    data.fetch(never_stop)
    time.sleep(0.05)
    assert len(made) == 8
    data.close()


# samples that cannot be read --------------------


def test_an_unreadable_sample_travels_as_a_data_error_with_name_and_reason():
    samples = SeededDataset(ToyImages(21, split="train", unreadable={4}), EpochSampler(21, 8, 3))
    place = list(samples.sampler.permutation(0)).index(4)
    _, error, skipped = samples[SampleKey(0, 0, 0, place)]
    assert error == DataError("train/4.png", "broken on purpose") and skipped == ()


def test_the_error_of_a_sample_of_several_files_names_the_one_that_is_broken():
    class WithMasks(ToyImages):
        def __getitem__(self, index):
            error = OSError("mask broken")
            error.path = f"masks/{index}.png"
            raise error

    samples = SeededDataset(WithMasks(3, split="train"), EpochSampler(3, 1, 0))
    _, error, _ = samples[SampleKey(0, 0, 0, 0)]
    index = samples.sampler.permutation(0)[0]
    assert error == DataError(f"masks/{index}.png", "mask broken")


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
    _, sample, skipped = samples[SampleKey(0, 0, epoch, position)]
    ahead = [int(order.permutation(epoch)[(position + step) % 12]) for step in range(12)]
    readable = next(index for index in ahead if index not in unreadable)
    assert int(sample["sample_id"]) == readable
    assert list(skipped) == [f"train/{index}.png" for index in ahead[: ahead.index(readable)]]
    # and it is the very sample that stands at its own place
    own = samples[SampleKey(0, 0, epoch, (position + len(skipped)) % 12)][1]
    assert torch.equal(own["pixel_values"], sample["pixel_values"])


def test_a_sample_that_there_is_no_memory_for_is_never_left_out():
    class FullMemory(ToyImages):
        def __getitem__(self, index):
            raise OSError(errno.ENOMEM, "Cannot allocate memory")

    samples = SeededDataset(
        FullMemory(5, split="train"), EpochSampler(5, 4, 0), skip_unreadable=True
    )
    _, error, skipped = samples[SampleKey(0, 0, 0, 2)]
    assert error.code == "no_memory" and error.as_user_error().hint is None
    assert skipped == ()


def test_a_dataset_without_a_readable_sample_is_an_error_and_not_an_endless_search():
    samples = SeededDataset(
        ToyImages(5, split="train", unreadable=set(range(5))),
        EpochSampler(5, 4, 0),
        skip_unreadable=True,
    )
    assert isinstance(samples[SampleKey(0, 0, 0, 2)][1], DataError)


@pytest.mark.parametrize("workers", [0, 2])
def test_training_data_stops_at_an_unreadable_sample_and_keeps_its_error(workers):
    data = training_data(ToyImages(21, split="train", unreadable={4}), workers=workers)
    step = next(step for step in range(9) if 4 in data.sampler.sample_ids(step))
    for _ in range(step):
        assert data.fetch(never_stop) is not None
    assert data.fetch(never_stop) is None
    assert data.error == DataError("train/4.png", "broken on purpose")
    data.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_skipped_samples_are_listed_by_training_data(workers, monkeypatch):
    monkeypatch.setattr(loader, "MAX_SKIPPED_SHARE", 0.1)
    data = training_data(
        ToyImages(21, split="train", unreadable={4, 9}), workers=workers, skip_unreadable=True
    )
    ids = [
        index
        for _ in range(6)
        for batch in data.fetch(never_stop)
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
    fetched = [data.fetch(never_stop) for _ in range(9 if allowed else 3)]  # three epochs, or one
    data.close()
    assert (fetched[-1] is not None) == allowed
    if not allowed:
        assert data.error.code == "too_many_unreadable" and data.error.name == data.skipped[-1]
        assert f"{broken} of 150 samples cannot be read" in data.error.why


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
    """A task may draw randomly in evaluation (segmentation's points): seeded by sample."""
    dataset = ToyImages(23, split="val", augment=True)
    on_one_rank, on_three = {}, {}
    for world_size, images in ((1, on_one_rank), (3, on_three)):
        for rank in range(world_size):
            for batch, _ in evaluation_loader(
                TASK, dataset, batch_size=4, workers=0, rank=rank, world_size=world_size
            ):
                images |= {
                    int(i): image.numpy().tobytes()
                    for i, image in zip(batch["sample_ids"], batch["pixel_values"], strict=True)
                }
    assert on_one_rank == on_three


def test_an_unreadable_image_in_evaluation_is_a_data_error():
    loader = evaluation_loader(
        TASK, ToyImages(9, split="val", unreadable={5}), batch_size=4, workers=0
    )
    assert [isinstance(batch, DataError) for batch, _ in loader].count(True) == 1


def test_the_main_generators_are_not_touched_by_making_a_loader():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    data = training_data(workers=1)
    data.fetch(never_stop)
    data.close()
    assert torch.equal(torch.get_rng_state(), before)
