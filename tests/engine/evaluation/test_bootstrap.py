"""Bootstrap intervals of scores."""

import numpy as np
import pytest
import toy_task
from hypothesis import given, settings
from hypothesis import strategies as st

from visionloop.engine.evaluation.bootstrap import paired_difference, score_intervals


def metric_of(rows):
    metric = toy_task.ToyMetric()
    metric.rows = np.array(
        [[place, correct, loss] for place, (correct, loss) in enumerate(rows)], dtype=float
    )
    return metric


ROWS = st.lists(st.tuples(st.integers(0, 1), st.floats(0, 10)), min_size=1, max_size=60)


@settings(max_examples=25, deadline=None)
@given(rows=ROWS)
def test_the_interval_contains_the_score(rows):
    metric = metric_of(rows)
    for key, (low, high) in score_intervals(metric).items():
        assert low - 1e-9 <= metric.compute()[key] <= high + 1e-9


def test_intervals_shrink_with_the_root_of_the_number_of_images():
    rows = [(place % 4 > 0, (place % 7) / 7) for place in range(28)]
    widths = []
    for times in (1, 4, 16):
        intervals = score_intervals(metric_of(rows * times))
        widths.append({key: high - low for key, (low, high) in intervals.items()})
    for key in widths[0]:
        assert widths[0][key] / widths[1][key] == pytest.approx(2, rel=0.25)
        assert widths[1][key] / widths[2][key] == pytest.approx(2, rel=0.25)


def test_the_same_images_and_seed_give_the_same_interval():
    metric = metric_of([(place % 3 > 0, place / 30) for place in range(30)])
    np.random.seed(1)
    first = score_intervals(metric)
    np.random.seed(2)
    assert score_intervals(metric) == first
    assert score_intervals(metric, seed=1) != first


def test_the_interval_holds_the_true_score_about_as_often_as_it_says():
    """200 datasets of 60 images, each right with p = 0.7: 95 % of the intervals hold 0.7.

    Give or take 4 standard deviations.
    """
    generator = np.random.default_rng(0)
    holds = 0
    for _ in range(200):
        correct = generator.random(60) < 0.7
        low, high = score_intervals(metric_of([(value, 0.0) for value in correct]), draws=100)[
            "accuracy"
        ]
        holds += low <= 0.7 <= high
    assert holds / 200 >= 0.88


def test_a_score_that_a_draw_lacks_is_left_out_of_that_draw():
    class SometimesNaN(toy_task.ToyMetric):
        def compute(self, picks=None):
            scores = super().compute(picks)
            return (
                scores | {"val_loss": float("nan")} if picks is not None and 0 in picks else scores
            )

    metric = SometimesNaN()
    metric.rows = metric_of([(1, place / 20) for place in range(20)]).rows
    low, high = score_intervals(metric)["val_loss"]
    assert np.isfinite([low, high]).all() and low < high


def test_the_paired_difference_is_that_of_the_same_draws_for_both():
    """Brute force over the draws of the generator."""
    first = metric_of([(place % 3 > 0, place / 10) for place in range(12)])
    second = metric_of([(place % 2 > 0, place / 7) for place in range(12)])
    generator = np.random.Generator(np.random.PCG64(3))
    expected = []
    for _ in range(50):
        picks = generator.integers(0, 12, 12)
        correct = [metric.rows[picks, 1].mean() for metric in (first, second)]
        expected.append(correct[0] - correct[1])
    found = paired_difference(first, second, "accuracy", draws=50, seed=3)
    assert found.scores == (first.compute()["accuracy"], second.compute()["accuracy"])
    assert found.difference == pytest.approx(8 / 12 - 6 / 12)
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(expected, [2.5, 97.5])))
    assert found.images == 12


@settings(max_examples=25, deadline=None)
@given(rows=ROWS, order=st.randoms())
def test_a_model_does_not_differ_from_itself_in_any_order_of_its_images(rows, order):
    positions = list(range(len(rows)))
    order.shuffle(positions)
    shuffled = metric_of([rows[positions.index(place)] for place in range(len(rows))])
    for key in ("accuracy", "val_loss"):
        found = paired_difference(metric_of(rows), shuffled, key, positions_b=positions, draws=20)
        assert (found.difference, found.low, found.high) == pytest.approx((0, 0, 0), abs=1e-9)


def test_the_paired_interval_is_narrower_than_that_of_each_score():
    """Two models that fail at the same hard images, and one of them at ten more."""
    first = metric_of([(place % 2, 1.0) for place in range(200)])
    second = metric_of([(place % 2 and place > 20, 1.0) for place in range(200)])
    found = paired_difference(first, second, "accuracy")
    low, high = score_intervals(first)["accuracy"]
    assert 0 < found.low < found.difference < found.high
    assert found.high - found.low < (high - low) / 2
    turned = paired_difference(second, first, "accuracy")
    assert (turned.low, turned.high) == (-found.high, -found.low)


def test_other_images_are_no_pairs():
    rows = [(1, 0.0)] * 4
    with pytest.raises(ValueError, match="expected the same images"):
        paired_difference(metric_of(rows), metric_of(rows[:3]), "accuracy")
    with pytest.raises(ValueError, match="expected the same images"):
        paired_difference(metric_of(rows), metric_of(rows), "accuracy", positions_b=[0, 1, 2, 2])
