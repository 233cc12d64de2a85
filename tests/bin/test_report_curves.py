"""Curves of a report: reduced without losing means, extremes or gaps."""

import random

import numpy as np
import pytest

from visionloop.bin.reports.curves import MAX_POINTS, summarize, thin


@pytest.mark.parametrize("points", [0, 1, MAX_POINTS, MAX_POINTS + 1, 100_000])
def test_a_long_curve_has_its_mean_and_its_extremes(points):
    values = noise(points)
    numbers = [value for value in values if value is not None]
    curve = summarize(np.arange(points), np.array(values, dtype=float))
    assert (
        len({len(row) for row in curve.values() if row is not None}) == 1
        and len(curve["steps"]) <= MAX_POINTS
    )
    if points <= MAX_POINTS:
        assert (
            curve["steps"] == list(range(points))
            and curve["low"] is None
            and curve["values"].count(None) == values.count(None)
        )
        assert [value for value in curve["values"] if value is not None] == pytest.approx(
            numbers, rel=1e-5
        )
        return
    means = [value for value in curve["values"] if value is not None]
    assert sum(means) / len(means) == pytest.approx(sum(numbers) / len(numbers), abs=0.02)
    lows, highs = ([value for value in curve[key] if value is not None] for key in ("low", "high"))
    assert (min(lows), max(highs)) == pytest.approx((min(numbers), max(numbers)), rel=1e-5)
    assert all(low <= mean <= high for low, mean, high in zip(lows, means, highs, strict=True))


def noise(points):
    chance = random.Random(points)
    return [None if chance.random() < 0.001 else chance.gauss(0, 1) for _ in range(points)]


@pytest.mark.parametrize("points", [0, 1, MAX_POINTS, MAX_POINTS + 1, 100_000])
def test_thinning_keeps_ends_extremes_and_gaps(points):
    values = noise(points)
    indices = thin(values)
    assert (
        indices == sorted(set(indices)) and len(indices) == min(points, len(indices)) <= MAX_POINTS
    )
    if points <= MAX_POINTS:
        assert indices == list(range(points))
        return
    numbers = [value for value in values if value is not None]
    selected = [values[i] for i in indices]
    assert {0, points - 1} <= set(indices) and {min(numbers), max(numbers)} <= set(selected)
    assert (None in selected) == (None in values)
