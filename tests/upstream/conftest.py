"""Fixtures of the tests that state what visionloop relies on in transformers.

A test that fails here after an upgrade says that a workaround of ours is needless or wrong with
the new release. Its docstring names the code to look at.
"""

from collections.abc import Iterator

import pytest
import torch
from transformers.utils import logging


@pytest.fixture(autouse=True)
def seeded_and_quiet() -> Iterator[None]:
    """Draw random numbers from a fixed seed, and silence the load reports of transformers."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    logging.set_verbosity(verbosity)
    logging.enable_progress_bar()


@pytest.fixture
def second_rank(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Pretend that a second rank holds twice as many targets.

    A sum over ranks is three times the local value. Returns the tensors that were summed so far.
    """
    summed: list[torch.Tensor] = []

    def all_reduce(tensor: torch.Tensor, *_: object, **__: object) -> None:
        summed.append(tensor)
        tensor.mul_(3)

    monkeypatch.setattr(torch.distributed, "is_available", lambda: True)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda *_: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    return summed
