"""Differences of models on the same images: paired draws, seeds, many comparisons."""

import numpy as np
import pytest
import toy_task
from hypothesis import given, settings
from hypothesis import strategies as st

from visionloop.engine.evaluation.paired_bootstrap import (
    difference_of,
    draw_scores,
    draw_seeds,
    holm,
    mean_scores,
)

ROWS = st.lists(st.tuples(st.integers(0, 1), st.floats(0, 10)), min_size=1, max_size=40)


def metric_of(rows):
    metric = toy_task.ToyMetric()
    metric.rows = np.array(
        [[place, correct, loss] for place, (correct, loss) in enumerate(rows)], dtype=float
    )
    return metric


def differing(model, baseline, key="accuracy", **options):
    """Return the difference of two metrics."""
    scores = [metric.compute()[key] for metric in (model, baseline)]
    options = {"draws": 300} | options
    drawn = draw_scores([model.compute, baseline.compute], len(model), **options)
    return difference_of(tuple(scores), (drawn[0][key], drawn[1][key]))


def test_every_model_is_scored_on_the_same_images_in_each_draw():
    """Brute force over the draws of the generator."""
    first = metric_of([(place % 3 > 0, place / 10) for place in range(12)])
    second = metric_of([(place % 2 > 0, place / 7) for place in range(12)])
    generator = np.random.Generator(np.random.PCG64(3))
    expected = []
    for _ in range(50):
        picks = generator.integers(0, 12, 12)
        correct = [metric.rows[picks, 1].mean() for metric in (first, second)]
        expected.append(correct[0] - correct[1])
    found = differing(first, second, draws=50, seed=3)
    assert found.value == pytest.approx(8 / 12 - 6 / 12)
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(expected, [2.5, 97.5])))
    assert found.p_value == min(1, 2 * (1 + sum(value <= 0 for value in expected)) / 51)


@settings(max_examples=25, deadline=None)
@given(rows=ROWS)
def test_a_model_does_not_differ_from_itself(rows):
    for key in ("accuracy", "val_loss"):
        found = differing(metric_of(rows), metric_of(rows), key, draws=20)
        assert (found.value, found.low, found.high, found.detectable) == (0, 0, 0, 0)
        assert not found.is_shown and found.p_value == 1


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_a_model_that_is_right_on_more_of_the_same_images_is_found(seed):
    generator = np.random.default_rng(seed)
    hard = generator.random(200) < 0.4
    worse = metric_of([(not each, 1.0) for each in hard])
    better = metric_of([(not each or place % 3 == 0, 1.0) for place, each in enumerate(hard)])
    found = differing(better, worse)
    assert found.is_shown and 0 < found.low < found.value < found.high and found.p_value < 0.05
    turned = differing(worse, better)
    opposite = -found.high, -found.low, found.p_value
    assert (turned.low, turned.high, turned.p_value) == pytest.approx(opposite, rel=1e-9, abs=0)


def test_a_difference_of_the_detectable_size_is_shown_in_about_80_percent_of_the_datasets():
    generator, sizes, shown = np.random.default_rng(0), [], []
    for _ in range(150):
        # a model is right with 0.6 and the other one with 0.75, independently
        model, baseline = (generator.random(90) < share for share in (0.75, 0.6))
        found = differing(
            metric_of([(each, 0.0) for each in model]),
            metric_of([(each, 0.0) for each in baseline]),
            draws=80,
        )
        sizes.append(found.detectable)
        shown.append(found.is_shown)
    power = np.mean(shown)  # for a true difference of 0.15
    # half of them would be shown at 0.7 of the detectable size, 80 % at that size
    assert 0.15 < np.mean(sizes) < 0.25 and 0.45 < power < 0.75


def test_seeds_widen_the_interval_by_the_variance_of_their_mean():
    """n seeds with scores far apart on images that are all alike: s ** 2 / n is left."""
    for count in (3, 5, 10):
        values = np.linspace(0.2, 0.8, count)
        runs = [{"accuracy": np.full(20_000, value)} for value in values]
        drawn = draw_seeds(runs, seed=1)["accuracy"]
        assert drawn.mean() == pytest.approx(0.5, abs=0.01)
        assert drawn.var() == pytest.approx(values.var(ddof=1) / count, rel=0.05)


def test_one_or_two_seeds_are_averaged_and_not_drawn():
    runs = [{"accuracy": np.array([0.2, 0.4])}, {"accuracy": np.array([0.4, 0.8])}]
    assert draw_seeds(runs[:1], seed=0)["accuracy"].tolist() == [0.2, 0.4]
    assert draw_seeds(runs, seed=0)["accuracy"].tolist() == pytest.approx([0.3, 0.6])


def test_a_score_that_one_run_lacks_is_no_score_of_the_setting():
    runs = [{"a": np.ones(2), "b": np.ones(2)}, {"a": np.ones(2)}]
    assert list(draw_seeds(runs, seed=0)) == ["a"]
    assert mean_scores([{"a": 1.0, "b": 1.0}, {"a": 2.0}]) == {"a": 1.5}


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_as_the_step_down_test_does(p_values):
    """Compare p with 0.05 / m, 0.05 / (m - 1) and so on, and stop at the first that is larger."""
    rejected, order = set(), np.argsort(p_values, kind="stable").tolist()
    for rank, position in enumerate(order):
        if p_values[position] * (len(p_values) - rank) > 0.05:
            break
        rejected.add(position)
    adjusted = holm(p_values)
    assert {place for place, value in enumerate(adjusted) if value <= 0.05} == rejected
    assert all(value >= p for value, p in zip(adjusted, p_values, strict=True))
