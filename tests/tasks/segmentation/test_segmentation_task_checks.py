"""The engine's invariants on the real task."""

from dataclasses import replace

import pytest
from segmentation_files import write_segmentation_data
from small_segmentation import SmallTask, make_half_empty_task, make_noisy_task, make_quiet_task

from visionloop.engine.testing.check_task import check_task, resume
from visionloop.engine.testing.short_runs import CONFIG, assert_same_step, first_step, on_ranks


@pytest.fixture(autouse=True)
def trial_data(tmp_path_factory, monkeypatch):
    folder = write_segmentation_data(tmp_path_factory.mktemp("data"), images=16)
    monkeypatch.setenv("SMALL_SEGMENTATION_DATA", str(folder))


@pytest.mark.slow
def test_segmentation_keeps_the_contract():
    assert len(check_task(make_quiet_task)) == 9


def test_a_rank_without_a_mask_neither_hangs_nor_drops_a_gradient():
    whole = first_step(make_half_empty_task, CONFIG)
    for step in on_ranks(2, first_step, make_half_empty_task, CONFIG, context="fork"):
        assert_same_step(whole, step, "a rank without a mask")


@pytest.mark.slow
def test_a_stop_after_any_step_changes_no_byte_during_mask_annealing(tmp_path):
    task = make_noisy_task()
    task.build_model()
    partly_masked = [
        any(0 < p < 1 for p in task.annealing.probabilities(step, 10)) for step in range(10)
    ]
    assert any(partly_masked)
    resume(make_noisy_task, tmp_path)


def make_ignoring_task():
    return SmallTask(replace(make_quiet_task().config, mask_ignore=True))


@pytest.mark.slow
def test_micro_batches_and_ranks_give_one_gradient_with_ignored_pixels_left_out():
    whole = first_step(make_ignoring_task, CONFIG)
    assert_same_step(
        whole, first_step(make_ignoring_task, replace(CONFIG, micro_batch=2)), "4 x 2 against 1 x 8"
    )
