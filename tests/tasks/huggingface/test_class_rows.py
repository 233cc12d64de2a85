"""Matching the classes of a trained head by name."""

from visionloop.tasks.huggingface.loading import match_classes


def test_classes_match_but_for_capitals_and_spaces():
    assert match_classes(["traffic light", "dog"], ["Dog", "cat", "traffic-light"]) == {0: 1, 2: 0}


def test_a_head_without_names_matches_nothing():
    assert match_classes(None, ["dog"]) == {}
