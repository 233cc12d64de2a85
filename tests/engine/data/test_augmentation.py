"""The check that a user's augmentation is a function of its sample and its generator."""

import pytest

from visionloop.datasets.augmentation.function import UserFunction
from visionloop.datasets.classification.image_folder import ImageFolderDataset, scan
from visionloop.datasets.classification.transforms import ClassificationTrainPreset
from visionloop.datasets.synthetic.writers import write_classification
from visionloop.engine.data.augmentation import verify_augmentation
from visionloop.engine.data.subsets import Subset
from visionloop.engine.errors import UserError

PURE = "brighter = float(torch.rand((), generator=generator))"
IMPURE = {
    "the system's entropy": "brighter = os.urandom(1)[0] / 255",
    "the time": "brighter = time.perf_counter() % 1",
    "a generator of its own": "brighter = float(RNG.random())",
    "a counter": "CALLS.append(1); brighter = len(CALLS) % 5 / 5",
    "what was drawn when the file was loaded": "brighter = AT_IMPORT",
}
FILE = """
import os, time
import numpy as np
import torch
RNG, CALLS, AT_IMPORT = np.random.default_rng(), [], np.random.default_rng().random()
def augment(sample, generator):
    {body}
    sample["image"] = (sample["image"] * (0.2 + 0.8 * brighter)).to(torch.uint8)
    return sample
"""


@pytest.fixture
def dataset(tmp_path):
    """Return dataset(body), twelve images with a function of this body."""
    write_classification(tmp_path / "data", 0, images={"train": 12, "val": 4}, sides=(24, 32))

    def make(body):
        (tmp_path / "own.py").write_text(FILE.format(body=body))
        return ImageFolderDataset(
            scan(tmp_path / "data/train"),
            ClassificationTrainPreset(size=16),
            user_function=UserFunction(f"{tmp_path / 'own.py'}:augment"),
        )

    return make


@pytest.mark.parametrize("why", IMPURE)
def test_a_function_of_anything_else_is_refused(dataset, why):
    with pytest.raises(UserError) as caught:
        verify_augmentation(dataset(IMPURE[why]), None, seed=0, workers=0)
    text = str(caught.value)
    assert "two calls for" in text and "gave another image; draw random numbers" in text
    assert (caught.value.field, caught.value.code) == ("augment", "bad_augment")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_function_of_its_generator_is_accepted(dataset, tmp_path, workers):
    samples = Subset(dataset(PURE), [5, 1, 3])
    line = verify_augmentation(samples, tmp_path, seed=0, workers=workers)
    assert line == f"augmentation: {tmp_path / 'own.py'}:augment, called twice for 3 samples, " + (
        f"kept in {tmp_path / 'augment.py'}"
    )


def test_a_function_that_differs_in_a_worker_is_found_there(dataset):
    body = "brighter = float(torch.utils.data.get_worker_info() is None)"
    assert verify_augmentation(dataset(body), None, seed=0, workers=0)
    with pytest.raises(UserError, match="gave another image"):
        verify_augmentation(dataset(body), None, seed=0, workers=1)


def test_an_error_of_the_function_has_its_traceback(dataset):
    with pytest.raises(UserError) as caught:
        verify_augmentation(dataset("brighter = 1 / 0"), None, seed=0, workers=0)
    assert "ZeroDivisionError: division by zero" in str(caught.value)
    assert "line 7, in augment" in caught.value.details
