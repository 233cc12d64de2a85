"""preprocessor_config.json, written and read."""

import json

import pytest
import torch
from transformers import AutoImageProcessor, ViTConfig

from visionloop.engine.errors import UserError
from visionloop.tasks.segmentation.export import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    read_processor,
    write_processor,
)


def test_transformers_cuts_the_windows_of_the_folder(save_tiny):
    processor = AutoImageProcessor.from_pretrained(save_tiny())
    inputs = processor(torch.zeros(3, 40, 70, dtype=torch.uint8), return_tensors="pt")
    assert inputs["pixel_values"].shape == (2, 3, 32, 32)  # 32 x 56: two windows
    black = -torch.tensor(IMAGENET_MEAN) / torch.tensor(IMAGENET_STD)
    assert torch.allclose(inputs["pixel_values"][0, :, 0, 0], black, atol=1e-5)


def test_a_written_processor_is_read_back(save_tiny):
    folder = save_tiny()
    assert read_processor(folder) == (32, IMAGENET_MEAN, IMAGENET_STD)
    write_processor(folder, 32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert read_processor(folder) == (32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    (folder / "preprocessor_config.json").unlink()
    assert read_processor(folder) == (32, IMAGENET_MEAN, IMAGENET_STD)


def test_a_plain_vit_brings_its_own_mean_and_our_size(tmp_path):
    ViTConfig().save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(
        json.dumps(
            {"image_processor_type": "ViTImageProcessor", "size": {"height": 224, "width": 224}}
        )
    )
    assert read_processor(tmp_path) == (512, (0.5,) * 3, (0.5,) * 3)
    path.write_text(
        json.dumps(
            {
                "image_processor_type": "BitImageProcessor",
                "image_mean": [0.1] * 3,
                "image_std": [0.2] * 3,
            }
        )
    )
    assert read_processor(tmp_path) == (512, (0.1,) * 3, (0.2,) * 3)
    path.write_text(json.dumps({"do_normalize": False}))
    assert read_processor(tmp_path) == (512, (0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize(
    "content",
    [
        {"do_rescale": False},
        {"rescale_factor": 1 / 127.5},
        {"image_mean": [0.5]},
        {"image_std": [0, 1, 1]},
        [],
    ],
)
def test_processors_that_we_cannot_follow_are_refused(content, save_tiny):
    folder = save_tiny()
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="not an image processor that this task can follow"):
        read_processor(folder)
