"""Bootstrap intervals of scores."""

import numpy as np
import pytest
import toy_task
from hypothesis import given, settings
from hypothesis import strategies as st

from visionloop.engine.evaluation.bootstrap import score_intervals


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
