"""A validation split that depends on the paths alone, and how sure a score is."""

import numpy as np
import pytest
import toy_task
from hypothesis import given, settings
from hypothesis import strategies as st

from visionloop.engine.data.subsets import hash_split
from visionloop.engine.evaluation.bootstrap import score_intervals

NAMES = st.lists(
    st.text("ab0 ./é\udcff", min_size=1, max_size=8), min_size=1, max_size=80, unique=True
)


@given(names=NAMES, fraction=st.floats(0, 0.9), classes=st.integers(1, 5))
def test_the_two_sides_are_the_whole_and_share_nothing(names, fraction, classes):
    labels = [len(name) % classes for name in names]
    train, val = hash_split(names, labels, fraction)
    assert sorted([*train, *val]) == list(range(len(names)))
    assert np.all(np.diff(train) > 0) and np.all(np.diff(val) > 0)


@given(names=NAMES, fraction=st.floats(0.05, 0.9), shuffle=st.randoms(use_true_random=False))
def test_the_split_does_not_depend_on_the_order_of_the_files(names, fraction, shuffle):
    label_of = {name: len(name) % 3 for name in names}
    chosen = {
        names[index] for index in hash_split(names, [label_of[name] for name in names], fraction)[1]
    }
    shuffle.shuffle(names)
    assert {
        names[index] for index in hash_split(names, [label_of[name] for name in names], fraction)[1]
    } == chosen


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6), fraction=st.floats(0.01, 0.9))
def test_every_class_gives_its_share_and_keeps_one_image_on_each_side(sizes, fraction):
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    names = [f"{label}/{place}.png" for place, label in enumerate(labels)]
    _, val = hash_split(names, labels, fraction)
    for label, size in enumerate(sizes):
        number = sum(labels[index] == label for index in val)
        assert abs(number - fraction * size) <= 1
        assert size < 2 or 1 <= number <= size - 1


def test_the_split_is_the_same_on_every_machine():
    names = [f"class_{label}/{place:03d}.jpg" for label in "ab" for place in range(6)]
    _, val = hash_split(names, [name[6] for name in names], 0.34)
    assert [names[index] for index in val] == [
        "class_a/002.jpg",
        "class_a/003.jpg",
        "class_b/000.jpg",
        "class_b/001.jpg",
    ]


def test_without_labels_there_is_one_stratum():
    train, val = hash_split([f"{place}.png" for place in range(100)], None, 0.2)
    assert (len(train), len(val)) == (80, 20)


def test_a_share_of_zero_sets_nothing_aside():
    assert len(hash_split(["a", "b"], [0, 0], 0.0)[1]) == 0


def test_a_image_that_comes_later_moves_only_few_others():
    """The hash decides, not the place in the list: a folder that grows keeps nearly all of its split."""
    names = [f"{place}.png" for place in range(200)]
    before = {names[index] for index in hash_split(names, None, 0.2)[1]}
    names = ["0000.png", *names]
    after = {names[index] for index in hash_split(names, None, 0.2)[1]}
    assert len(before ^ after) <= 2


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


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    """200 datasets of 60 images from a coin with p = 0.7: 95 % of the intervals hold 0.7, give or take 4 deviations."""
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
