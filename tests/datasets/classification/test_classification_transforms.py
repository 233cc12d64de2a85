"""Augmentation and resizing of images: bytes in, bytes out, deterministic under a seed."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode, v2

from visionloop.datasets.classification.transforms import (
    CROP_RATIO,
    ClassificationEvalPreset,
    ClassificationTrainPreset,
    centered_box,
    erase_rectangle,
    random_box,
)

EVERYTHING = {"randaugment_ops": 2, "erase": 1.0}


@pytest.fixture
def image():
    """Smooth with some grain, as a photograph: uint8 [3, 75, 100]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((1, 3, 6, 8), generator=generator)
    grain = 0.05 * torch.randn((3, 75, 100), generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=(75, 100), mode="bicubic")[0] + grain
    return (fine.clamp(0, 1) * 255).to(torch.uint8)


def seed(number):
    torch.manual_seed(number)
    np.random.seed(number)
    random.seed(number)


@pytest.mark.parametrize(
    "settings",
    [{}, {"interpolation": "bicubic"}, {"randaugment_ops": 2}, {"erase": 1.0}, EVERYTHING],
)
def test_the_same_seed_gives_the_same_training_image(image, settings):
    preset = ClassificationTrainPreset(size=32, **settings)
    results = []
    for number in (1, 2, 1):
        seed(number)
        results.append(preset(image))
    assert all(result.shape == (3, 32, 32) and result.dtype == torch.uint8 for result in results)
    assert torch.equal(results[0], results[2]) and not torch.equal(results[0], results[1])


@pytest.mark.parametrize("settings", [{}, EVERYTHING])
def test_the_image_given_is_not_changed(image, settings):
    before = image.clone()
    for number in range(20):
        seed(number)
        ClassificationTrainPreset(size=100, crop_scale_min=1.0, **settings)(image)
    assert torch.equal(image, before)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_training_image_is_the_crop_resized_as_torchvision_does(image, interpolation):
    for number in range(5):
        seed(number)
        top, left, height, width = random_box(75, 100, (0.35, 1.0), CROP_RATIO)
        seed(number)
        ours = ClassificationTrainPreset(size=32, interpolation=interpolation, flip=0)(image)
        theirs = v2.functional.resized_crop(
            image,
            top,
            left,
            height,
            width,
            [32, 32],
            InterpolationMode(interpolation),
            antialias=True,
        )
        assert torch.equal(ours, theirs)


def test_a_flip_is_a_mirror_and_happens_as_often_as_asked(image):
    for probability, expected in ((0.0, 0), (1.0, 400), (0.5, 200)):
        mirrored = 0
        for number in range(400):
            seed(number)
            plain = ClassificationTrainPreset(size=16, flip=0)(image)
            seed(number)
            result = ClassificationTrainPreset(size=16, flip=probability)(image)
            assert torch.equal(result, plain) or torch.equal(result, plain.flip(-1))
            mirrored += torch.equal(result, plain.flip(-1))
        assert abs(mirrored - expected) <= (60 if probability == 0.5 else 0)


@given(height=st.integers(1, 400), width=st.integers(1, 400), number=st.integers(0, 2**20))
def test_a_random_box_lies_inside_and_has_its_size_and_ratio(height, width, number):
    random.seed(number)
    box = random_box(height, width, (0.35, 1.0), CROP_RATIO) or centered_box(
        height, width, CROP_RATIO
    )
    top, left, box_height, box_width = box
    assert 0 <= top <= top + box_height <= height and 0 <= left <= left + box_width <= width
    assert box_height > 0 and box_width > 0
    if min(height, width) >= 40 and max(height, width) <= 1.5 * min(height, width):
        assert 0.33 < box_height * box_width / (height * width) <= 1
        assert 0.97 * CROP_RATIO[0] < box_width / box_height < 1.03 * CROP_RATIO[1]


def test_the_random_boxes_are_spread_like_torchvisions():
    random.seed(0)
    torch.manual_seed(0)
    ours = np.array(
        [
            random_box(90, 110, (0.35, 1.0), CROP_RATIO) or centered_box(90, 110, CROP_RATIO)
            for _ in range(3000)
        ]
    )
    crop, image = (
        v2.RandomResizedCrop(8, scale=(0.35, 1.0), ratio=CROP_RATIO),
        torch.empty(3, 90, 110),
    )
    params = [crop.make_params([image]) for _ in range(3000)]
    theirs = np.array(
        [[drawn[key] for key in ("top", "left", "height", "width")] for drawn in params]
    )
    assert np.abs(ours.mean(0) - theirs.mean(0)).max() < 1.0  # pixels; the standard error is 0.4
    assert np.abs(ours.std(0) - theirs.std(0)).max() < 1.0


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (3, 5)])
def test_the_smallest_and_the_longest_images_pass(shape):
    image = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
    for number in range(10):
        seed(number)
        assert ClassificationTrainPreset(size=16, **EVERYTHING)(image).shape == (3, 16, 16)
    for resize in ((16, 16), 18):
        assert ClassificationEvalPreset(size=16, resize=resize)(image).shape == (3, 16, 16)


def test_erasing_overwrites_one_rectangle_of_a_valid_size():
    image = torch.full((3, 60, 60), 7, dtype=torch.uint8)
    for number in range(50):
        seed(number)
        rows, columns = torch.nonzero((erase_rectangle(image) != 7).any(0), as_tuple=True)
        area = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
        assert 0.015 * 3600 < area < 0.35 * 3600
        assert (
            len(rows) > 0.95 * area
        )  # all of it is noise, but for what happens to be 7 in all three channels


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(75, 100), (20, 30), (64, 64), (301, 40)])
def test_squash_is_what_the_vit_processor_of_transformers_does(resample, shape):
    from transformers import ViTImageProcessor

    image = torch.randint(
        0, 256, (3, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    number = {"bilinear": 2, "bicubic": 3}[resample]
    processor = ViTImageProcessor(
        size={"height": 64, "width": 64}, resample=number, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    theirs = processor(image, return_tensors="pt")["pixel_values"][0]
    ours = ClassificationEvalPreset(size=64, resize=(64, 64), interpolation=resample)(image)
    assert (ours.float().div(255).sub(0.5).div(0.5) - theirs).abs().max() < 1e-6


@pytest.mark.parametrize("shape", [(75, 100), (100, 75), (33, 198)])
def test_crop_resizes_the_shorter_side_and_cuts_the_center(shape):
    image = torch.randint(
        0, 256, (3, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    theirs = v2.Compose([v2.Resize(248, antialias=True), v2.CenterCrop(224)])(image)
    assert torch.equal(ClassificationEvalPreset(size=224, resize=248)(image), theirs)
