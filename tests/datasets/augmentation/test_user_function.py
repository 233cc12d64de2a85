"""Loading and calling a function of the user."""

import pickle
import random

import numpy as np
import pytest
import torch

from visionloop.datasets.augmentation.function import AugmentError, UserFunction

DRAWS = """
import random
import numpy as np
import torch

AT_IMPORT = np.random.rand()

def augment(sample, generator):
    return {"value": torch.tensor([
        float(torch.rand((), generator=generator)), float(torch.rand(())), np.random.rand(),
        random.random(), np.random.default_rng(generator.initial_seed()).random(), AT_IMPORT,
    ])}
"""
SAMPLE = {"value": torch.zeros(6)}


@pytest.fixture
def function(tmp_path):
    def make(text, name="augment"):
        (tmp_path / "own.py").write_text(text)
        return UserFunction(f"{tmp_path / 'own.py'}:{name}")

    return make


def called(function, seed):
    torch.default_generator.manual_seed(seed)
    return function(dict(SAMPLE), "a.jpg")["value"].tolist()


def test_every_generator_is_a_function_of_the_seed_of_the_sample(function):
    augment = function(DRAWS)
    first, second = called(augment, 1), called(augment, 2)
    random.seed(9)
    np.random.seed(9)
    augment.forget()
    assert called(augment, 1) == first
    assert all(a != b for a, b in zip(first[:-1], second[:-1], strict=True))
    assert called(pickle.loads(pickle.dumps(augment)), 2) == second


def test_our_own_draws_are_the_same_with_and_without_the_function(function):
    def seeded():
        torch.default_generator.manual_seed(3)
        np.random.seed(3)
        random.seed(3)

    seeded()
    expected = torch.rand(2).tolist(), np.random.rand(), random.random()
    seeded()
    function(DRAWS)(dict(SAMPLE), "a.jpg")
    assert (torch.rand(2).tolist(), np.random.rand(), random.random()) == expected


def test_a_file_that_changes_later_changes_nothing(function, tmp_path):
    augment = function(DRAWS)
    expected = called(augment, 1)
    (tmp_path / "own.py").write_text("raise ValueError")
    assert called(pickle.loads(pickle.dumps(augment)), 1) == expected


@pytest.mark.parametrize(
    ("text", "name", "why"),
    [
        ("def augment(sample, generator: pass", "augment", "line 1: "),
        ("import no_such_module", "augment", "ModuleNotFoundError: No module named"),
        ("x = 1", "augment", "the file has no augment; expected a function of"),
        ("augment = 1", "augment", "expected a function of (sample, generator)"),
        ("def augment(image): ...", "augment", "too many positional arguments; expected"),
        ("def augment(sample, generator): ...", "augment", "returned NoneType, expected a dict"),
        ("def augment(sample, generator): return {}", "augment", "the keys none, expected value"),
    ],
)
def test_a_file_without_such_a_function_is_named_in_one_line(function, text, name, why):
    augment = function(text, name)
    with pytest.raises(AugmentError) as caught:
        augment(dict(SAMPLE), "a.jpg")
    assert f"--augment {augment.spec}" in str(caught.value)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["own.py", "own:augment", "own.py:", "own.py:not-a-name"])
def test_the_option_names_a_file_and_a_function(spec):
    with pytest.raises(AugmentError, match=r"expected FILE\.py:NAME"):
        UserFunction(spec)


def test_a_missing_file_is_looked_for_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AugmentError, match=f"no such file below the current folder {tmp_path}"):
        UserFunction("own.py:augment")


def test_an_error_of_the_function_keeps_its_traceback_and_names_the_sample(function):
    augment = function("def augment(sample, generator):\n    return sample['images']\n")
    with pytest.raises(AugmentError) as caught:
        augment(dict(SAMPLE), "a.jpg")
    assert str(caught.value).startswith(f"a.jpg: --augment {augment.spec}: KeyError: 'images'")
    assert "line 2, in augment" in caught.value.details
    assert "datasets/augmentation" not in caught.value.details
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.path, copy.details) == ("a.jpg", caught.value.details)
