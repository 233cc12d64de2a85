"""The order of samples is a function of (seed, epoch); ranks and micro-batches only divide it."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from visionloop.engine.data.sampler import EpochSampler, epoch_permutation, split_batch
from visionloop.engine.seeding import hashed, seed_host, seed_noise

SEEDS = st.integers(0, 2**40)


@given(num_samples=st.integers(1, 200), seed=SEEDS, epoch=st.integers(0, 2**31))
def test_an_epoch_is_a_permutation_of_seed_and_epoch_alone(num_samples, seed, epoch):
    first = epoch_permutation(num_samples, seed, epoch)
    torch.rand(3), np.random.rand(), random.random()  # what else was drawn does not matter
    assert sorted(first) == list(range(num_samples))
    assert np.array_equal(first, epoch_permutation(num_samples, seed, epoch))


def test_adjacent_seeds_and_epochs_have_other_orders():
    orders = {tuple(epoch_permutation(50, seed, epoch)) for seed in range(6) for epoch in range(6)}
    assert len(orders) == 36


def test_seed_and_epoch_are_not_interchangeable():
    assert not np.array_equal(epoch_permutation(50, 1, 2), epoch_permutation(50, 2, 1))
    assert hashed(1, 2) != hashed(2, 1) and hashed(0, 1) != hashed(1)


def test_the_order_is_the_same_on_every_machine():
    """A run that moves to another machine, or to the next release, must see the same samples."""
    assert epoch_permutation(10, 0, 0).tolist() == [4, 5, 3, 1, 7, 9, 2, 6, 0, 8]
    assert hashed(1, 2, 3) == 0xB4FB5A8DE61ABA77


@given(num_samples=st.integers(1, 60), batch_size=st.integers(1, 90), seed=SEEDS)
def test_every_sample_comes_once_an_epoch_at_any_batch_size(num_samples, batch_size, seed):
    sampler = EpochSampler(num_samples, batch_size, seed)
    epochs = 3
    steps = -(-epochs * num_samples // batch_size)
    ids = [index for step in range(steps) for index in sampler.sample_ids(step)]
    for epoch in range(epochs):
        assert sorted(ids[epoch * num_samples : (epoch + 1) * num_samples]) == list(
            range(num_samples)
        )


@given(
    num_samples=st.integers(1, 60),
    batch_size=st.integers(1, 90),
    start=st.integers(0, 10**7),
    seed=SEEDS,
)
def test_a_step_has_the_same_samples_wherever_the_run_starts(num_samples, batch_size, start, seed):
    straight = EpochSampler(num_samples, batch_size, seed)
    for step in range(max(0, start - 2), start):
        straight.sample_ids(step)
    assert straight.sample_ids(start) == EpochSampler(num_samples, batch_size, seed).sample_ids(
        start
    )


@given(num_samples=st.integers(1, 60), batch_size=st.integers(1, 90), step=st.integers(0, 10**6))
def test_epoch_of_is_the_epoch_of_the_first_sample(num_samples, batch_size, step):
    sampler = EpochSampler(num_samples, batch_size, 0)
    assert sampler.epoch_of(step) == sampler.batch(step)[0][0]


def test_a_batch_larger_than_the_data_takes_whole_epochs():
    sampler = EpochSampler(3, 8, 0)
    assert [epoch for epoch, _ in sampler.batch(0)] == [0, 0, 0, 1, 1, 1, 2, 2]
    assert sorted(sampler.sample_ids(0)[:3]) == sorted(sampler.sample_ids(0)[3:6]) == [0, 1, 2]


@given(batch_size=st.integers(1, 300), world_size=st.integers(1, 9), micro_batch=st.integers(1, 40))
def test_micro_batches_cover_the_batch_and_differ_by_one_at_most(
    batch_size, world_size, micro_batch
):
    try:
        ranges = split_batch(batch_size, world_size, micro_batch)
    except ValueError:
        assert batch_size < world_size or (micro_batch == 1 and batch_size % world_size)
        return
    assert [place for start, stop in ranges for place in range(start, stop)] == list(
        range(batch_size)
    )
    sizes = {stop - start for start, stop in ranges}
    assert min(sizes) >= 1 and max(sizes) - min(sizes) <= 1
    assert max(sizes) <= micro_batch
    assert len(ranges) % world_size == 0, "every rank has as many micro-batches as the others"


@given(batch_size=st.integers(1, 300), world_size=st.integers(1, 9), micro_batch=st.integers(1, 40))
def test_micro_batches_are_as_few_as_their_size_allows(batch_size, world_size, micro_batch):
    try:
        ranges = split_batch(batch_size, world_size, micro_batch)
    except ValueError:
        return
    fewer = len(ranges) - world_size
    assert fewer == 0 or -(-batch_size // fewer) > micro_batch


@pytest.mark.parametrize("number", range(1, 9))
def test_equal_micro_batches_are_the_same_on_any_number_of_processes(number):
    """B a multiple of W x micro-batch: the condition for equal noise."""
    assert split_batch(8 * 3 * number, number, 3) == split_batch(8 * 3 * number, 1, 3)


@given(
    batch_size=st.integers(2, 100),
    world_size=st.integers(1, 5),
    micro_batch=st.integers(2, 20),
    step=st.integers(0, 50),
)
def test_the_micro_batches_of_all_ranks_together_are_the_batch(
    batch_size, world_size, micro_batch, step
):
    if batch_size < world_size:
        return
    sampler, ranges = (
        EpochSampler(37, batch_size, 5),
        split_batch(batch_size, world_size, micro_batch),
    )
    places = sampler.batch(step)
    of_ranks = [
        [place for start, stop in ranges[rank::world_size] for place in places[start:stop]]
        for rank in range(world_size)
    ]
    assert sorted(place for mine in of_ranks for place in mine) == sorted(places)
    assert all(mine for mine in of_ranks)


@given(
    num_samples=st.integers(1, 40),
    batch_size=st.integers(5, 30),
    starts=st.lists(
        st.tuples(st.integers(1, 5), st.integers(2, 9), st.integers(1, 6)), min_size=1, max_size=5
    ),
    seed=SEEDS,
)
def test_every_sample_comes_once_an_epoch_however_often_the_run_moves(
    num_samples, batch_size, starts, seed
):
    """Each start is (processes, micro-batch, steps until the next start); only the step is kept."""
    places_of_run, step = [], 0
    for world_size, micro_batch, steps in starts:
        sampler, ranges = (
            EpochSampler(num_samples, batch_size, seed),
            split_batch(batch_size, world_size, micro_batch),
        )
        for _ in range(steps):
            places = sampler.batch(step)
            for rank in range(world_size):
                places_of_run += [
                    place
                    for first, last in ranges[rank::world_size]
                    for place in places[first:last]
                ]
            step += 1
    # the place of a sample says its epoch: whole ones hold every sample once, the last one a part
    # of it
    assert sorted(places_of_run) == [
        divmod(place, num_samples) for place in range(step * batch_size)
    ]
    ids = {}
    for epoch, position in places_of_run:
        ids.setdefault(epoch, []).append(sampler.index(epoch, position))
    assert all(len(set(indices)) == len(indices) for indices in ids.values())
    assert all(
        sorted(ids[epoch]) == list(range(num_samples))
        for epoch in range(step * batch_size // num_samples)
    )


def test_fewer_samples_than_processes_is_an_error_that_names_the_flag():
    with pytest.raises(ValueError, match=r"^--batch-size: .*\(4\), got 3$"):
        split_batch(3, 4, 8)


def test_a_size_that_would_leave_an_empty_micro_batch_is_an_error():
    with pytest.raises(ValueError, match=r"^--micro-batch 1 .* 13 over 2 processes"):
        split_batch(13, 2, 1)
    assert len(split_batch(13, 1, 1)) == 13


def draw():
    return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()


def test_seeding_sets_all_three_host_generators():
    seed_host(1, 2, 3)
    first = draw()
    draw()
    seed_host(1, 2, 3)
    assert draw() == first
    seed_host(1, 2, 4)
    assert not any(a == b for a, b in zip(draw(), first, strict=True))


def test_noise_is_a_function_of_seed_step_and_offset():
    drawn = set()
    for seed in (0, 1):
        for step in (0, 1):
            for offset in (0, 8):
                seed_noise(seed, step, offset)
                drawn.add(torch.rand(1).item())
    assert len(drawn) == 8
    seed_noise(0, 1, 8)
    again = torch.rand(1).item()
    assert again in drawn
