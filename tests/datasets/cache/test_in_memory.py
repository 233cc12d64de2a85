"""The in-memory cache: read once where all results fit, read again where they do not."""

import pickle

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from visionloop.datasets.cache.in_memory import InMemoryCache

KIB = 2**10


def counting(sizes):
    """Return (function of i to a tensor of sizes[i] KiB and one byte, list of its calls)."""
    calls = []

    def read(i):
        calls.append(i)
        return torch.full((sizes[i] * KIB,), i, dtype=torch.uint8), torch.zeros(1)

    return read, calls


def test_what_fits_is_read_once():
    read, calls = counting([3, 1, 2])
    cache = InMemoryCache(read, 3, 10 * KIB)
    for i in (0, 1, 0, 2, 1, 2, 0):
        assert cache(i)[0].unique().tolist() == [i]
    assert calls == [0, 1, 2]


@pytest.mark.parametrize(("budget", "size"), [(0, 3), (5 * KIB, 3), (10 * KIB, 300)])
def test_where_not_everything_fits_nothing_is_cached(budget, size):
    read, calls = counting([3, 3, 3])
    cache = InMemoryCache(read, size, budget)
    for i in (0, 1, 2, 0, 1, 2):
        assert cache(i)[0].unique().tolist() == [i]
    assert calls == [0, 1, 2, 0, 1, 2] and cache.results == {}


def test_it_is_given_up_as_soon_as_the_rest_will_not_fit():
    read, calls = counting([1, 9, 1])
    cache = InMemoryCache(read, 3, 12 * KIB)
    cache(0), cache(0), cache(1)
    assert calls == [0, 1] and cache.results == {}
    cache(0)
    assert calls == [0, 1, 0]


def test_an_error_is_not_cached():
    results = [OSError("not there yet"), (torch.zeros(1),)]

    def read(i):
        result = results.pop(0)
        if isinstance(result, OSError):
            raise result
        return result

    cache = InMemoryCache(read, 1, KIB)
    with pytest.raises(OSError, match="not there yet"):
        cache(0)
    assert cache(0) is cache(0) and results == []


def kibibyte(_):
    return (torch.zeros(KIB, dtype=torch.uint8),)


class Sized(Dataset):
    """Each sample is whether its process caches it."""

    def __init__(self, budget):
        self.cache = InMemoryCache(kibibyte, 4, budget)

    def __len__(self):
        return 4

    def __getitem__(self, i):
        self.cache(i)
        return i in self.cache.results


@pytest.mark.parametrize(
    ("budget", "workers", "ranks", "caches"),
    [(4, 0, 1, True), (4, 2, 1, False), (8, 2, 1, True), (8, 2, 2, False)],
)
def test_processes_of_a_machine_share_the_budget(budget, workers, ranks, caches, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    loader = DataLoader(
        Sized(budget * KIB),
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
    )
    assert {bool(sample) for sample in loader} == {caches}


def test_a_worker_is_sent_no_results():
    cache = InMemoryCache(kibibyte, 4, 4 * KIB)
    cache(0)
    assert len(pickle.dumps(cache)) < KIB
    assert pickle.loads(pickle.dumps(cache))(0)[0].numel() == KIB
