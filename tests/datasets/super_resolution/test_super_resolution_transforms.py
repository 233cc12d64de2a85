"""The symmetries of the square, and crops that contain JPEG blocks at every offset."""

import random

import numpy as np
import pytest
import torch
from super_resolution_files import some_image

from visionloop.datasets.super_resolution.degradations import GaussianNoise, Jpeg
from visionloop.datasets.super_resolution.transforms import (
    NUM_SYMMETRIES,
    SuperResolutionEvalPreset,
    SuperResolutionTrainPreset,
    apply_symmetry,
    seed_of,
)


def as_bytes(pixels):
    return pixels.numpy().tobytes()


def test_the_eight_turns_are_distinct_and_all_there_are():
    image = some_image("turns", 12, 12)
    ours = {as_bytes(apply_symmetry(image, turn)) for turn in range(NUM_SYMMETRIES)}
    planes = image.transpose(2, 0, 1)
    all_ways = {
        np.rot90(way, k, axes=(1, 2)).tobytes()
        for way in (planes, planes[..., ::-1])
        for k in range(4)
    }
    assert len(ours) == 8 and ours == all_ways


def test_a_rotated_image_is_a_contiguous_copy():
    image = some_image("copy", 6, 9)
    image.flags.writeable = False  # as the cache gives it
    pixels = apply_symmetry(image, 0)
    assert (
        pixels.shape == (3, 6, 9)
        and pixels.is_contiguous()
        and np.array_equal(pixels.permute(1, 2, 0).numpy(), image)
    )
    pixels.zero_()
    assert image.any()
    assert apply_symmetry(image, 4).shape == (3, 9, 6)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_every_turn_is_drawn_and_the_same_for_both(scale):
    small = some_image("pair", 8, 8)
    large = small.repeat(scale, axis=0).repeat(scale, axis=1)
    random.seed(0)
    preset = SuperResolutionTrainPreset(patch=8, scale=scale)
    drawn = []
    for _ in range(400):
        sample = preset(small, large)
        assert torch.equal(
            sample["hr"],
            sample["pixel_values"].repeat_interleave(scale, 1).repeat_interleave(scale, 2),
        )
        drawn.append(as_bytes(sample["pixel_values"]))
    counts = [drawn.count(way) for way in set(drawn)]
    assert len(counts) == 8 and min(counts) > 25


def test_without_augmentation_images_stay_upright():
    small, large = some_image("upright", 8, 8), some_image("upright", 16, 16)
    sample = SuperResolutionTrainPreset(patch=8, scale=2, augment=False)(small, large)
    assert np.array_equal(sample["pixel_values"].permute(1, 2, 0).numpy(), small)
    assert np.array_equal(sample["hr"].permute(1, 2, 0).numpy(), large)


def test_only_jpeg_needs_a_margin():
    sides = [
        SuperResolutionTrainPreset(patch=16, scale=2, degradation=each).side
        for each in (None, GaussianNoise(5, 5), Jpeg(10, 10))
    ]
    assert sides == [16, 16, 24] and SuperResolutionEvalPreset(scale=2).side is None


@pytest.mark.parametrize("scale", [1, 4])
def test_jpeg_crops_lie_on_the_blocks_half_of_the_time_and_else_anywhere(scale):
    """The large image counts its rows and columns, so that it tells where the patch was cut."""
    side = 16 + 8
    y, x = np.mgrid[: scale * side, : scale * side]
    large = np.stack([y, x, 0 * y], axis=-1).astype(np.uint8)
    small = some_image("blocks", side, side)
    random.seed(0)
    preset = SuperResolutionTrainPreset(
        patch=16, scale=scale, degradation=Jpeg(10, 10), augment=False
    )
    encoded = Jpeg(10, 10)(apply_symmetry(small, 0))
    places = []
    for _ in range(600):
        sample = preset(small, large)
        top, left = int(sample["hr"][0, 0, 0]), int(sample["hr"][1, 0, 0])
        assert (
            sample["hr"].shape == (3, 16 * scale, 16 * scale) and top % scale == left % scale == 0
        )
        top, left = top // scale, left // scale
        assert torch.equal(sample["pixel_values"], encoded[:, top : top + 16, left : left + 16])
        places.append((top, left))
    assert len(set(places)) == 81 and 0.44 < np.mean([place == (0, 0) for place in places]) < 0.58


def test_prediction_needs_no_large_image_and_degrades_nothing():
    small = some_image("alone", 7, 9)
    sample = SuperResolutionEvalPreset(scale=4, degradation=GaussianNoise(50, 50))(small)
    assert set(sample) == {"pixel_values"} and np.array_equal(
        sample["pixel_values"].permute(1, 2, 0).numpy(), small
    )


def test_the_seed_is_of_the_name():
    assert (
        seed_of("a.png") == seed_of("a.png") != seed_of("b.png")
        and 0 <= seed_of("\udcff.png") < 2**64
    )
    for name in ("a.png", "b.png", "c.png"):
        torch.Generator().manual_seed(seed_of(name))
