"""The engine's invariants on the real task."""

import pytest
from small_detection import (
    make_half_empty_task,
    make_noisy_task,
    make_quiet_task,
    make_task_without_union,
)

from visionloop.datasets.synthetic.detection import write_detection
from visionloop.engine.testing.check_task import (
    check_task,
    empty_targets,
    grad_checkpointing,
    overfit,
    ranks,
    resume,
)
from visionloop.engine.testing.short_runs import CONFIG, assert_same_step, first_step, on_ranks


@pytest.fixture(autouse=True)
def small_data(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("data")
    write_detection(folder, 0, images={"train": 16, "val": 5})
    monkeypatch.setenv("SMALL_DETECTION_DATA", str(folder))


@pytest.mark.slow
def test_detection_keeps_the_contract():
    assert len(check_task(make_task_without_union)) == 9


@pytest.mark.slow
@pytest.mark.parametrize(
    "check", [ranks, grad_checkpointing, empty_targets, overfit], ids=lambda check: check.__name__
)
def test_all_terms_of_the_loss_keep_what_holds_for_them(check, tmp_path):
    check(make_quiet_task, tmp_path)


def test_a_rank_without_a_box_neither_hangs_nor_drops_a_gradient():
    whole = first_step(make_half_empty_task, CONFIG)
    for step in on_ranks(2, first_step, make_half_empty_task, CONFIG, context="fork"):
        assert_same_step(whole, step, "a rank without a box")


@pytest.mark.slow
def test_a_stop_after_any_step_changes_no_byte_with_all_noise_and_a_second_stage(
    tmp_path,
):
    resume(make_noisy_task, tmp_path)
