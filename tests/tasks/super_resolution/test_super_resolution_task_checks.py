"""The engine's invariants on the real task."""

from dataclasses import replace

import pytest
from small_super_resolution import make_compressed_task, make_denoising_task, make_quiet_task
from super_resolution_files import write_super_resolution_data

from visionloop.engine.testing.check_task import (
    accumulation,
    check_task,
    ranks,
    resume,
    sharding,
)
from visionloop.engine.testing.short_runs import CONFIG, assert_same_step, first_step


@pytest.fixture(autouse=True)
def trial_data(tmp_path_factory, monkeypatch):
    folder = write_super_resolution_data(
        tmp_path_factory.mktemp("data"), images=16, size_hw=(36, 40)
    )
    monkeypatch.setenv("SMALL_SUPER_RESOLUTION_DATA", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.mark.slow
def test_super_resolution_keeps_the_contract():
    assert len(check_task(make_quiet_task)) == 9


@pytest.mark.slow
@pytest.mark.parametrize("make_task", [make_compressed_task, make_denoising_task])
def test_degradations_are_the_same_after_a_stop_and_on_any_number_of_ranks(make_task, tmp_path):
    for check in (resume, accumulation, ranks, sharding):
        check(make_task, tmp_path / check.__name__)


def test_recomputed_stages_give_every_bit_of_the_gradient():
    for make_task in (make_quiet_task, make_compressed_task):
        plain, recomputed = (
            first_step(make_task, CONFIG),
            first_step(make_task, replace(CONFIG, grad_checkpointing=True)),
        )
        assert_same_step(plain, recomputed, "recomputed", tolerance=0)
