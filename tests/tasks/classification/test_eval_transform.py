"""The eval transform: the same numbers as transformers' processors, read and written."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    BitImageProcessor,
    ConvNextImageProcessor,
    DeiTImageProcessor,
    ViTImageProcessor,
)

from visionloop.engine.errors import UserError
from visionloop.tasks.classification.processor import (
    EvalTransform,
    initial_transform,
    read_eval_transform,
)

PROCESSORS = {
    "vit": ViTImageProcessor(size={"height": 32, "width": 32}),
    "deit": DeiTImageProcessor(
        size={"height": 36, "width": 36}, crop_size={"height": 32, "width": 32}
    ),
    "dinov2": BitImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}),
    "convnext": ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.875),
    "convnext_384": ConvNextImageProcessor(size={"shortest_edge": 384}),
}


@pytest.fixture
def image():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 71, 3), dtype=np.uint8))


def apply(transform, image):
    """Return the input of the network, [3, S, S]."""
    pixels = transform(torch.from_numpy(np.array(image)).permute(2, 0, 1)).float() / 255
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (transform.mean, transform.std))
    return (pixels - mean) / std


@pytest.mark.parametrize("name", PROCESSORS)
def test_the_processor_of_a_checkpoint_is_reproduced(name, image, tmp_path):
    processor = PROCESSORS[name]
    processor.save_pretrained(tmp_path)
    transform = read_eval_transform(tmp_path)
    expected = processor(image, return_tensors="pt").pixel_values[0]
    assert torch.allclose(apply(transform, image), expected, atol=1e-6)


@pytest.mark.parametrize("name", PROCESSORS)
def test_what_we_write_is_what_we_do(name, image, tmp_path):
    PROCESSORS[name].save_pretrained(tmp_path)
    transform = read_eval_transform(tmp_path)
    (tmp_path / "own").mkdir()
    transform.write(tmp_path / "own")
    assert read_eval_transform(tmp_path / "own") == transform
    expected = AutoImageProcessor.from_pretrained(tmp_path / "own")(
        image, return_tensors="pt"
    ).pixel_values[0]
    assert torch.allclose(apply(transform, image), expected, atol=1e-6)


def test_files_of_older_transformers_are_read(tmp_path):
    # the layout of facebook/deit-base-patch16-224
    old = {
        "crop_size": 224,
        "do_center_crop": True,
        "do_normalize": True,
        "feature_extractor_type": "DeiTFeatureExtractor",
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 3,
        "size": 256,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(old))
    transform = read_eval_transform(tmp_path)
    assert (transform.size, transform.resize, transform.interpolation) == (
        224,
        (256, 256),
        "bicubic",
    )


def test_another_size_keeps_the_share_that_is_cropped():
    crop = EvalTransform(size=224, resize=256)
    assert crop.at_size(448).resize == 512
    assert crop.at_size(448).crop_pct == crop.crop_pct


def test_the_style_can_be_changed():
    squash = EvalTransform(size=224, resize=(224, 224))
    assert squash.with_style("crop", 0.875).resize == 256
    assert squash.with_style(None, None) == squash
    assert EvalTransform(size=224, resize=256).with_style("squash", 1.0).resize == (224, 224)
    assert initial_transform(None, 64, size=32) == EvalTransform(size=32, resize=(32, 32))


@pytest.mark.parametrize(
    "content",
    ["{", '{"size": {"shortest_edge": 224}}', '{"size": {"height": 8, "width": 8}, "resample": 0}'],
)
def test_an_unsupported_processor_is_named(content, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(
        UserError, match=r"preprocessor_config\.json: not a supported image processor"
    ):
        read_eval_transform(tmp_path)
