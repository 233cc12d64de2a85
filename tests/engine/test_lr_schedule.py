"""Learning lrs are pure functions of the step."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.lr_schedule import due, lr_factor, parse_milestones, set_lr

SCHEDULES = ("cosine", "poly", "constant", "step")
RUNS = st.tuples(st.integers(1, 3000), st.integers(0, 400)).filter(lambda run: run[1] < run[0])


@given(run=RUNS, schedule=st.sampled_from(SCHEDULES))
def test_warm_up_rises_evenly_and_reaches_the_peak(run, schedule):
    steps, warmup_steps = run
    lrs = [
        lr_factor(step, steps, schedule=schedule, warmup_steps=warmup_steps)
        for step in range(warmup_steps + 1)
    ]
    assert lrs[:-1] == [(step + 1) / warmup_steps for step in range(warmup_steps)]
    assert lrs[0] > 0, "step 0 already moves"
    assert lrs[-1] == 1 and max(lrs) == 1


@given(run=RUNS, schedule=st.sampled_from(SCHEDULES), lr_min_ratio=st.floats(0, 1), data=st.data())
def test_a_rate_never_leaves_its_range_and_never_rises_after_warm_up(
    run, schedule, lr_min_ratio, data
):
    steps, warmup_steps = run
    step = data.draw(st.integers(warmup_steps, steps))

    def factor(step):
        return lr_factor(
            step,
            steps,
            schedule=schedule,
            warmup_steps=warmup_steps,
            lr_min_ratio=lr_min_ratio,
            milestones=(0.5, 0.8),
        )

    assert 0 <= factor(step) <= 1 + 1e-12
    assert factor(step + 1 if step < steps else step) <= factor(step) + 1e-12
    assert factor(step) == factor(step), "nothing but the step decides"


@given(run=RUNS, lr_min_ratio=st.floats(0, 1))
def test_cosine_ends_at_the_smallest_rate(run, lr_min_ratio):
    steps, warmup_steps = run

    def factor(step):
        return lr_factor(
            step, steps, schedule="cosine", warmup_steps=warmup_steps, lr_min_ratio=lr_min_ratio
        )

    assert factor(steps) == pytest.approx(lr_min_ratio, abs=1e-12)
    # the last step of the run is one before the end: within the last part of the curve
    length = steps - warmup_steps
    assert factor(steps - 1) - lr_min_ratio <= (1 - lr_min_ratio) * 2.5 / length**2 + 1e-12


def test_cosine_is_half_way_in_the_middle():
    assert lr_factor(
        60, 110, schedule="cosine", warmup_steps=10, lr_min_ratio=0.2
    ) == pytest.approx(0.6)


@given(run=RUNS, start=st.integers(0, 300), schedule=st.sampled_from(SCHEDULES))
def test_a_group_rests_until_its_start_and_warms_up_from_there(run, start, schedule):
    steps, warmup_steps = run
    peak = start + warmup_steps
    lrs = [
        lr_factor(step, start + steps, schedule=schedule, warmup_steps=warmup_steps, start=start)
        for step in range(peak + 1)
    ]
    assert lrs[:start] == [0.0] * start
    assert (
        lrs[start:-1] == [(step + 1) / warmup_steps for step in range(warmup_steps)]
        and lrs[-1] == 1
    )


@given(
    run=RUNS,
    start=st.integers(0, 300),
    schedule=st.sampled_from(("cosine", "poly", "constant")),
    data=st.data(),
)
def test_after_its_start_a_group_has_the_curve_of_the_rest_of_the_run(run, start, schedule, data):
    steps, warmup_steps = run
    step = data.draw(st.integers(0, steps))
    late = lr_factor(
        start + step, start + steps, schedule=schedule, warmup_steps=warmup_steps, start=start
    )
    assert late == lr_factor(step, steps, schedule=schedule, warmup_steps=warmup_steps)


@pytest.mark.parametrize("steps", [1, 5, 20])
def test_a_start_beyond_the_run_never_moves(steps):
    assert {
        lr_factor(step, steps, schedule="poly", warmup_steps=3, start=20) for step in range(steps)
    } == {0.0}


def test_poly_follows_its_power_and_ends_near_zero():
    for power in (0.5, 0.9, 2.0):
        assert lr_factor(25, 100, schedule="poly", warmup_steps=0, power=power) == pytest.approx(
            0.75**power
        )
        assert lr_factor(999, 1000, schedule="poly", warmup_steps=50, power=power) == pytest.approx(
            (1 / 950) ** power
        )
        assert lr_factor(1000, 1000, schedule="poly", warmup_steps=50, power=power) == 0


def test_step_halves_at_each_milestone():
    lrs = [
        lr_factor(step, 10, schedule="step", warmup_steps=0, milestones=(0.5, 0.8, 0.9))
        for step in range(10)
    ]
    assert lrs == [1] * 5 + [0.5] * 3 + [0.25] + [0.125]


def test_constant_stays():
    assert {lr_factor(step, 50, schedule="constant", warmup_steps=5) for step in range(5, 51)} == {
        1.0
    }


def test_a_warm_up_as_long_as_the_run_never_passes_the_peak():
    lrs = [lr_factor(step, 4, schedule="cosine", warmup_steps=4) for step in range(4)]
    assert lrs == [0.25, 0.5, 0.75, 1.0]


@given(step=st.integers(0, 500), every=st.integers(0, 60), last=st.integers(1, 500))
def test_due_is_every_so_many_steps_and_at_the_end(step, every, last):
    assert due(step, every, last) == (step == last or (every > 0 and step % every == 0))


def test_due_every_zero_is_at_the_end_only():
    assert [step for step in range(11) if due(step, 0, 10)] == [10]
    assert [step for step in range(1, 11) if due(step, 4, 10)] == [4, 8, 10]


def optimizer_with(*groups):
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(1))], "weight_decay": 0.0, "start": 0, **group}
        for group in groups
    ]
    return torch.optim.AdamW(groups, lr=9.0, fused=True)


def test_each_group_has_its_own_scale_and_warm_up():
    optimizer = optimizer_with(
        {"name": "head", "lr_scale": 1.0, "warmup": None},
        {"name": "body", "lr_scale": 0.1, "warmup": 0},
    )
    config = TrainConfig(steps=100, lr=2.0, warmup_steps=10, schedule="constant")
    assert set_lr(optimizer, 4, config) == {"head": pytest.approx(1.0), "body": pytest.approx(0.2)}
    assert [group["lr"] for group in optimizer.param_groups] == [
        pytest.approx(1.0),
        pytest.approx(0.2),
    ]
    assert set_lr(optimizer, 50, config) == {"head": pytest.approx(2.0), "body": pytest.approx(0.2)}


def test_a_group_may_start_later_than_the_others():
    optimizer = optimizer_with(
        {"name": "head", "lr_scale": 1.0, "warmup": None},
        {"name": "body", "lr_scale": 0.1, "warmup": 20, "start": 10},
    )
    config = TrainConfig(steps=130, lr=2.0, warmup_steps=10, schedule="poly", schedule_power=1.0)
    assert set_lr(optimizer, 9, config) == {"head": pytest.approx(2.0), "body": 0.0}
    assert set_lr(optimizer, 14, config) == {
        "head": pytest.approx(2.0 * 116 / 120),
        "body": pytest.approx(0.2 / 4),
    }
    assert set_lr(optimizer, 80, config) == {
        "head": pytest.approx(2.0 * 50 / 120),
        "body": pytest.approx(0.2 / 2),
    }


def test_the_rate_of_a_step_does_not_depend_on_the_steps_before():
    config = TrainConfig(steps=100, lr=1e-3, warmup_steps=10)
    straight, resumed = (
        optimizer_with({"name": "all", "lr_scale": 1.0, "warmup": None}) for _ in range(2)
    )
    for step in range(71):
        lrs = set_lr(straight, step, config)
    assert set_lr(resumed, 70, config) == lrs


def test_cosine_ends_at_lr_min_whatever_the_peak():
    optimizer = optimizer_with({"name": "all", "lr_scale": 1.0, "warmup": None})
    for lr, lr_min in ((1e-3, 1e-6), (1e-2, 1e-4), (1e-5, 1e-5)):
        lrs = set_lr(optimizer, 100, TrainConfig(steps=100, lr=lr, lr_min=lr_min, warmup_steps=0))
        assert lrs["all"] == pytest.approx(lr_min)


def test_a_rate_of_zero_is_zero_all_through():
    optimizer = optimizer_with({"name": "all", "lr_scale": 1.0, "warmup": None})
    assert {
        set_lr(optimizer, step, TrainConfig(steps=10, lr=0.0, warmup_steps=2))["all"]
        for step in range(10)
    } == {0.0}


def test_milestones_are_shares_of_the_run():
    assert parse_milestones("0.5,0.8") == (0.5, 0.8)
    assert parse_milestones("") == ()


@pytest.mark.parametrize("text", ["0", "1", "1.5", "0.5,-0.1", "nan", "half", "0.5;0.8"])
def test_milestones_that_are_no_shares_are_refused_by_the_flags_name(text):
    with pytest.raises(ValueError, match="--schedule-milestones"):
        parse_milestones(text)
