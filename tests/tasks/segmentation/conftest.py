"""Small EoMT models for the segmentation tests."""

import pytest
import torch

from visionloop.tasks.segmentation.export import IMAGENET_MEAN, IMAGENET_STD, save_folder
from visionloop.tasks.segmentation.model import new_config, new_model


@pytest.fixture
def tiny_module():
    """Return make(classes, **fields of the config): an EoMT smaller than `tiny`, random weights."""

    def make(classes=("sky", "road", "tree"), **fields):
        torch.manual_seed(0)
        config = new_config("tiny")
        small = {
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": 32,
            "num_queries": 8,
        }
        for name, value in (small | fields).items():
            setattr(config, name, value)
        return new_model(config, list(classes))

    return make


@pytest.fixture
def save_tiny(tmp_path, tiny_module):
    """Return save(classes, name=.., **fields) -> a Hugging Face folder of random weights."""

    def save(classes=("sky", "road", "tree"), *, name="model", whole_images=False, **fields):
        module = tiny_module(classes, **fields)
        folder = tmp_path / name
        save_folder(
            module,
            module.state_dict(),
            folder,
            module.config.image_size,
            IMAGENET_MEAN,
            IMAGENET_STD,
            whole_images=whole_images,
        )
        return folder

    return save
