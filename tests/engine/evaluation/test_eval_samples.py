"""The samples that an evaluation shows: which ones, their names, how large and how often."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionloop.engine.evaluation.samples import (
    fixed_samples,
    images_due,
    relative_name,
    thumbnail,
    worst_samples,
)
from visionloop.engine.metric import MetricSpec


@given(number=st.integers(1, 5000))
def test_fixed_samples_are_spread_evenly(number):
    chosen = fixed_samples(number)
    assert (
        len(set(chosen)) == min(8, number)
        and chosen[0] >= 0
        and chosen[-1] < number
        and chosen == sorted(chosen)
    )
    if number >= 8:
        gaps = np.diff([-chosen[0] - 1, *chosen, 2 * number - 1 - chosen[-1]])
        assert gaps.max() - gaps.min() <= 2


@pytest.mark.parametrize(
    ("higher_is_better", "expected"), [(False, [4, 1, 3, 0]), (True, [0, 3, 1, 4])]
)
def test_ties_go_by_index_and_nan_is_no_score(higher_is_better, expected):
    spec = MetricSpec("s", "s", "float", higher_is_better, "")
    scores = {4: math.inf, 3: 0.5, 1: 0.7, 0: 0.1, 2: math.nan}
    assert worst_samples(scores, spec) == expected
    assert worst_samples({5: 1.0, 2: 1.0, 9: 1.0}, spec, count=2) == [2, 5]
    assert worst_samples({}, spec) == []


def test_names_are_relative_to_the_data_folder():
    assert (
        relative_name("data", "data/val/a.png") == "val/a.png"
        and relative_name("data/", "data/val/a.png") == "val/a.png"
    )
    assert (
        relative_name("other", "data/val/a.png") == "data/val/a.png"
        and relative_name(None, "a.png") == "a.png"
    )


def test_large_images_are_made_small_and_small_ones_stay():
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3)).astype(np.uint8)
    assert np.array_equal(thumbnail(image), image)
    assert thumbnail(np.zeros((100, 2000, 3), dtype=np.uint8)).shape == (32, 640, 3)
    assert thumbnail(np.zeros((2000, 100, 3), dtype=np.uint8)).shape == (960, 48, 3)


@given(steps=st.integers(1, 3000), every=st.integers(0, 400), batch_size=st.integers(1, 64))
def test_images_are_drawn_a_dozen_times_at_most_and_at_both_ends(steps, every, batch_size):
    evaluations = [
        step for step in range(1, steps + 1) if step == steps or (every and step % every == 0)
    ]
    drawn = [step for step in evaluations if images_due(step, every, steps, batch_size)]
    assert drawn[0] == evaluations[0] and drawn[-1] == steps and len(drawn) <= 12
    assert len(drawn) <= 4 or 16 * (len(drawn) - 3) * 50 <= steps * batch_size
