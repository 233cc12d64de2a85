"""Fixtures of the classification tests: image folders and models of a few thousand weights."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageClassification, ViTConfig

from visionloop.tasks.classification.processor import EvalTransform
from visionloop.tasks.huggingface.loading import quiet_transformers


@pytest.fixture
def write_images():
    """write_images(folder, classes, per_class, size_wh) -> folder of PNGs, noise around a color."""

    def write(folder, classes, per_class=4, size_wh=(40, 36), seed=0):
        generator = np.random.default_rng(seed)
        for k, name in enumerate(classes):
            (folder / name).mkdir(parents=True, exist_ok=True)
            color = np.array([(53 * k + 40) % 256, (97 * k + 90) % 256, (151 * k + 10) % 256])
            for i in range(per_class):
                pixels = np.clip(
                    color + generator.normal(0, 20, (size_wh[1], size_wh[0], 3)), 0, 255
                ).astype(np.uint8)
                Image.fromarray(pixels).save(folder / name / f"{i}.png")
        return folder

    return write


@pytest.fixture
def data(tmp_path, write_images):
    """A data folder with train and val, three classes."""
    for seed, (split, per_class) in enumerate((("train", 8), ("val", 4))):
        write_images(tmp_path / "data" / split, ("ant", "bee", "cat"), per_class, seed=seed)
    return tmp_path / "data"


@pytest.fixture
def tiny_config():
    """A ViT of 0.02 million weights for 32 px."""
    return ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
    )


@pytest.fixture
def save_model(tmp_path):
    """save_model(config, classes) -> folder of random weights with names and transform."""

    def save(config, classes=("ant", "bee", "cat"), *, name="model", dtype=torch.float32, size=32):
        config.id2label, config.label2id = (
            dict(enumerate(classes)),
            {name: i for i, name in enumerate(classes)},
        )
        torch.manual_seed(0)
        module = AutoModelForImageClassification.from_config(config).to(dtype)
        # away from transformers' start, where heads and biases are so small that mistakes hide
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        with quiet_transformers():
            module.save_pretrained(tmp_path / name)
        EvalTransform().at_size(size).write(tmp_path / name)
        return tmp_path / name

    return save
