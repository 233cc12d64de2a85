"""Small real things for the detection tests."""

import pytest
import torch

from visionloop.tasks.detection.export import save_folder
from visionloop.tasks.detection.model import new_config, new_model


@pytest.fixture
def tiny_module():
    """tiny_module(classes, **fields of the config): a tiny D-FINE of random weights."""

    def make(classes=("ant", "bee", "cat"), **fields):
        torch.manual_seed(0)
        config = new_config("tiny")
        for name, value in fields.items():
            setattr(config, name, value)
        return new_model(config, list(classes))

    return make


@pytest.fixture
def save_tiny(tmp_path, tiny_module):
    """save_tiny(classes, name=.., **fields) -> a Hugging Face folder of random weights."""

    def save(classes=("ant", "bee", "cat"), *, name="model", size=128, **fields):
        module = tiny_module(classes, **fields)
        folder = tmp_path / name
        save_folder(module, module.state_dict(), folder, size)
        return folder

    return save
