"""A validation split that depends on the paths alone, and subsets of a dataset."""

import numpy as np
import toy_task
from hypothesis import given
from hypothesis import strategies as st

from visionloop.engine.data.subsets import Subset, hash_split

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
    before = {
        names[index] for index in hash_split(names, [label_of[name] for name in names], fraction)[1]
    }
    shuffle.shuffle(names)
    assert {
        names[index] for index in hash_split(names, [label_of[name] for name in names], fraction)[1]
    } == before


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6), fraction=st.floats(0.01, 0.9))
def test_every_class_has_its_share_and_keeps_one_image_on_each_side(sizes, fraction):
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


def test_a_fraction_of_zero_sets_nothing_aside():
    assert len(hash_split(["a", "b"], [0, 0], 0.0)[1]) == 0


def test_an_image_that_is_added_moves_only_few_others():
    """The hash decides, not the place in the list: a growing folder keeps most of its split."""
    names = [f"{place}.png" for place in range(200)]
    before = {names[index] for index in hash_split(names, None, 0.2)[1]}
    names = ["0000.png", *names]
    after = {names[index] for index in hash_split(names, None, 0.2)[1]}
    assert len(before ^ after) <= 2


def test_a_subset_keeps_the_names_of_its_samples():
    subset = Subset(toy_task.ToyImages(21, split="train"), np.array([3, 7]))
    assert [subset.name(index) for index in range(2)] == ["train/3.png", "train/7.png"]
    assert subset.fingerprint() != toy_task.ToyImages(21, split="train").fingerprint()
