"""Fixtures of the super-resolution tests: networks of a few thousand weights."""

import pytest
import torch

from visionloop.tasks.super_resolution.export import save_folder
from visionloop.tasks.super_resolution.model import new_config, new_model


@pytest.fixture
def tiny_network():
    """tiny_network(upsampler, scale, **config fields) -> Swin2SR smaller than `tiny`, random."""

    def make(upsampler="pixelshuffledirect", scale=2, *, seed=0, **fields):
        torch.manual_seed(seed)
        config = new_config("tiny")
        small = {
            "embed_dim": 24,
            "num_heads": [2, 2],
            "window_size": 4,
            "upsampler": upsampler,
            "upscale": scale,
        }
        for name, value in (small | fields).items():
            setattr(config, name, value)
        return new_model(config).train()

    return make


@pytest.fixture
def save_tiny(tmp_path, tiny_network):
    """save_tiny(upsampler, scale, name=.., **fields) -> a Hugging Face folder of random weights."""

    def save(upsampler="pixelshuffledirect", scale=2, *, name="model", **fields):
        module = tiny_network(upsampler, scale, **fields)
        save_folder(module, module.state_dict(), tmp_path / name)
        return tmp_path / name

    return save
