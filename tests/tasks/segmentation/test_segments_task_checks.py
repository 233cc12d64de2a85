"""The engine's invariants on the real tasks of instance and panoptic segmentation."""

from dataclasses import replace

import pytest
from small_segments import (
    DATA,
    make_half_empty_instance_task,
    make_half_empty_panoptic_task,
    make_ignoring_instance_task,
    make_ignoring_panoptic_task,
    make_instance_task,
    make_noisy_panoptic_task,
    make_panoptic_task,
    write_scenes,
)

from visionloop.engine.testing.check_task import check_task, resume
from visionloop.engine.testing.short_runs import (
    CONFIG,
    assert_same_step,
    first_step,
    on_ranks,
    runs_differ,
    train_steps,
)

each_task = pytest.mark.parametrize(
    "make_task", [make_instance_task, make_panoptic_task], ids=["instance", "panoptic"]
)


@pytest.fixture(autouse=True, scope="module")
def scenes(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DATA, str(write_scenes(tmp_path_factory.mktemp("scenes"))))
        yield


@pytest.mark.slow
@each_task
def test_both_tasks_keep_the_contract(make_task):
    assert len(check_task(make_task)) == 9


@pytest.mark.parametrize(
    "make_task", [make_half_empty_instance_task, make_half_empty_panoptic_task]
)
def test_a_rank_without_a_segment_neither_hangs_nor_drops_a_gradient(make_task):
    whole = first_step(make_task, CONFIG)
    for step in on_ranks(2, first_step, make_task, CONFIG, context="fork"):
        assert_same_step(whole, step, "a rank without a segment")


@each_task
def test_three_ranks_give_the_step_of_one(make_task):
    config = replace(CONFIG, batch_size=6, micro_batch=6)
    whole = first_step(make_task, config)
    for step in on_ranks(3, first_step, make_task, replace(config, micro_batch=1), context="fork"):
        assert_same_step(whole, step, "3 x 2 x 1 against 1 x 6")


@pytest.mark.parametrize("make_task", [make_ignoring_instance_task, make_ignoring_panoptic_task])
def test_micro_batches_give_one_gradient_with_crowds_and_void_left_out(make_task):
    whole = first_step(make_task, CONFIG)
    split = first_step(make_task, replace(CONFIG, micro_batch=2))
    assert_same_step(whole, split, "4 x 2 against 1 x 8")


@pytest.mark.slow
def test_a_stop_after_any_step_changes_no_byte_during_mask_annealing(tmp_path):
    task = make_noisy_panoptic_task()
    task.build_model()
    probabilities = [task.annealing.probabilities(step, 10) for step in range(10)]
    assert any(0 < p < 1 for step in probabilities for p in step)
    resume(make_noisy_panoptic_task, tmp_path)


@each_task
def test_a_stop_changes_no_byte_with_loader_workers(make_task, tmp_path):
    config = replace(CONFIG, workers=2, micro_batch=4)
    train_steps(make_task(), tmp_path / "straight", config=replace(config, workers=0))
    train_steps(make_task(), tmp_path / "stopped", config=config, stop_after=3)
    train_steps(make_task(), tmp_path / "stopped", config=config)
    assert runs_differ(tmp_path / "straight", tmp_path / "stopped") is None
