"""Results kept in memory: read once where all of them fit, read anew where they do not."""

import pickle

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from visionloop.datasets.cache.in_memory import Kept

KIB = 2**10


def counting(sizes):
    """(function of i that gives a tensor of sizes[i] KiB and one byte, list of the i's asked for)."""
    asked = []

    def read(i):
        asked.append(i)
        return torch.full((sizes[i] * KIB,), i, dtype=torch.uint8), torch.zeros(1)

    return read, asked


def test_what_fits_is_read_once():
    read, asked = counting([3, 1, 2])
    kept = Kept(read, 3, 10 * KIB)
    for i in (0, 1, 0, 2, 1, 2, 0):
        assert kept(i)[0].unique().tolist() == [i]
    assert asked == [0, 1, 2]


@pytest.mark.parametrize(("budget", "number"), [(0, 3), (5 * KIB, 3), (10 * KIB, 300)])
def test_where_not_everything_fits_nothing_is_kept(budget, number):
    read, asked = counting([3, 3, 3])
    kept = Kept(read, number, budget)
    for i in (0, 1, 2, 0, 1, 2):
        assert kept(i)[0].unique().tolist() == [i]
    assert asked == [0, 1, 2, 0, 1, 2] and kept.results == {}


def test_it_is_given_up_as_soon_as_the_rest_will_not_fit():
    read, asked = counting([1, 9, 1])
    kept = Kept(read, 3, 12 * KIB)
    kept(0), kept(0), kept(1)
    assert asked == [0, 1] and kept.results == {}
    kept(0)
    assert asked == [0, 1, 0]


def test_an_error_is_not_kept():
    answers = [OSError("not there yet"), (torch.zeros(1),)]

    def read(i):
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    kept = Kept(read, 1, KIB)
    with pytest.raises(OSError, match="not there yet"):
        kept(0)
    assert kept(0) is kept(0) and answers == []


def kibibyte(_):
    return (torch.zeros(KIB, dtype=torch.uint8),)


class Sized(Dataset):
    """Each sample tells whether its process keeps it."""

    def __init__(self, budget):
        self.kept = Kept(kibibyte, 4, budget)

    def __len__(self):
        return 4

    def __getitem__(self, i):
        self.kept(i)
        return i in self.kept.results


@pytest.mark.parametrize(
    ("budget", "workers", "ranks", "keeps"),
    [(4, 0, 1, True), (4, 2, 1, False), (8, 2, 1, True), (8, 2, 2, False)],
)
def test_processes_of_a_machine_share_the_budget(budget, workers, ranks, keeps, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    loader = DataLoader(
        Sized(budget * KIB),
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
    )
    assert {bool(sample) for sample in loader} == {keeps}


def test_a_loader_process_is_sent_no_results():
    kept = Kept(kibibyte, 4, 4 * KIB)
    kept(0)
    assert len(pickle.dumps(kept)) < KIB
    assert pickle.loads(pickle.dumps(kept))(0)[0].numel() == KIB
