"""Augmentation of images with masks: one geometry for both, padded black and ignored."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torchvision.transforms.v2 import functional as F

from visionloop.datasets.segmentation.transforms import (
    Placement,
    SegmentationEvalPreset,
    SegmentationTrainPreset,
    fitting_placement,
    nearest,
    random_placement,
)

STILL = {"color": 0, "flip": 0}
ODD_SIZES = [(1, 1), (1, 7), (7, 1), (5, 3), (2, 333), (333, 2), (97, 96), (95, 97), (61, 240)]


@pytest.fixture
def ramp():
    """An image with red = column, green = row, [3, 180, 240], and the column as class id."""
    y, x = np.mgrid[:180, :240].astype(np.uint8)
    return torch.from_numpy(np.stack([x, y, np.full_like(x, 90)])), torch.from_numpy(x)


def noise(height, width, classes=5):
    generator = torch.Generator().manual_seed(height * 1000 + width)
    image = torch.randint(
        0, 256, (height, width, 3), generator=generator, dtype=torch.uint8
    ).permute(2, 0, 1)
    return image, torch.randint(0, classes, (height, width), generator=generator, dtype=torch.uint8)


def corner(placed):
    """(height, width) of what is not ignored, which lies in the upper left corner."""
    rows, columns = (placed != 255).any(1), (placed != 255).any(0)
    height, width = int(rows.sum()), int(columns.sum())
    assert (placed[:height, :width] != 255).all()
    return height, width


@pytest.mark.parametrize("size", [32, 96, 500])
def test_image_and_mask_stay_aligned(ramp, size):
    """The red of a pixel is the column of its center, its id the column that contains the center.

    They are up to half a pixel apart, without a bias.
    """
    random.seed(0)
    offsets = []
    for _ in range(60):
        pixels, ids = SegmentationTrainPreset(size=size, color=0)(*ramp)
        height, width = corner(ids)
        # at a crop's own border the resize has less to average
        offset = (pixels[0].double() - ids.double())[1 : height - 1, 2 : width - 2]
        assert offset.abs().max() <= 1
        offsets.append(offset.mean().item())
    assert abs(np.mean(offsets)) < 0.06  # torchvision's NEAREST: 3.3 at 32 px


@given(st.integers(1, 400), st.integers(1, 400))
def test_nearest_is_that_of_the_centers(side, count):
    expected = functional.interpolate(
        torch.arange(side).float().view(1, 1, 1, side), size=(1, count), mode="nearest-exact"
    ).flatten()
    # where a center lies on the border of two pixels, floats may fall to either side
    centers = (np.arange(count) + 0.5) * side / count
    clear = np.abs(centers - np.round(centers)) > 1e-3
    assert (nearest(0, side, count)[clear] == expected.numpy()[clear]).all()
    assert (nearest(7, 7 + side, count) == 7 + nearest(0, side, count)).all()


def test_cropping_first_is_the_recipes_order_up_to_half_a_pixel(ramp):
    """Against: resize the whole, pad, crop, with the same chance."""
    image, ids = ramp
    for number in range(60):
        random.seed(number)
        pixels, placed = SegmentationTrainPreset(size=96, **STILL)(image, ids)
        random.seed(number)
        random.random()
        factor = 96 / 240 * random.uniform(0.5, 2.0)
        height, width = round(180 * factor), round(240 * factor)
        whole = F.resize_image(image, [height, width], antialias=True)
        top, left = random.randint(0, max(0, height - 96)), random.randint(0, max(0, width - 96))
        expected = torch.zeros(3, 96, 96, dtype=torch.uint8)
        part = whole[:, top : top + 96, left : left + 96]
        expected[:, : part.shape[1], : part.shape[2]] = part
        assert corner(placed) == tuple(part.shape[1:])
        inner = slice(2, part.shape[1] - 2), slice(2, part.shape[2] - 2)
        assert ((pixels.int() - expected.int()).abs()[(slice(None), *inner)] <= 2).all()
        assert ((expected[0].int() - placed.int()).abs()[inner] <= 2).all()


def test_beyond_the_image_it_is_black_and_ignored():
    random.seed(1)
    image, ids = (
        torch.full((3, 40, 60), 200, dtype=torch.uint8),
        torch.ones(40, 60, dtype=torch.uint8),
    )
    heights = []
    for _ in range(100):
        pixels, placed = SegmentationTrainPreset(size=48, color=1)(image, ids)
        height, width = corner(placed)
        heights.append(height)
        assert (
            (pixels[:, height:] == 0).all()
            and (pixels[:, :, width:] == 0).all()
            and (pixels[:, :height, :width] > 0).all()
        )
    assert (
        min(heights) in range(16, 20) and max(heights) == 48
    )  # half of what fits to twice that, cropped


def test_a_mirror_swaps_left_and_right_of_both():
    image, ids = noise(20, 30)
    placement = Placement(2, 18, 5, 25, 16, 20)
    mirrored = Placement(2, 18, 5, 25, 16, 20, mirrored=True)
    assert torch.equal(
        mirrored.pixels(image, 24)[:, :, :20], placement.pixels(image, 24)[:, :, :20].flip(-1)
    )
    assert (
        mirrored.ids(ids.numpy(), 24)[:, :20] == placement.ids(ids.numpy(), 24)[:, 19::-1]
    ).all()
    assert torch.equal(
        placement.pixels(image, 24)[:, :16, :20], image[:, 2:18, 5:25]
    )  # the same size: untouched
    random.seed(0)
    assert (
        160 < sum(random_placement(20, 30, 16, (0.5, 2.0), 0.5).mirrored for _ in range(400)) < 240
    )


@pytest.mark.parametrize("size", [8, 96])
@pytest.mark.parametrize(("height", "width"), ODD_SIZES)
def test_images_of_odd_sizes_work(height, width, size):
    random.seed(0)
    image, ids = noise(height, width)
    for _ in range(10):
        pixels, placed = SegmentationTrainPreset(size=size)(image, ids)
        assert (
            pixels.shape == (3, size, size)
            and placed.shape == (size, size)
            and pixels.dtype == placed.dtype == torch.uint8
        )
        assert (
            pixels.is_contiguous()
            and placed.is_contiguous()
            and set(placed.unique().tolist()) <= {0, 1, 2, 3, 4, 255}
        )
    sample = SegmentationEvalPreset(size=size)(image, ids)
    assert min(sample["pixel_values"].shape[1:]) == size and sample["fitted"].shape == (
        3,
        size,
        size,
    )
    assert sample["fitted_ids"].shape == (size, size) and (sample["fitted_ids"] != 255).any()
    expected = F.resize_image(image.float(), list(sample["pixel_values"].shape[1:]), antialias=True)
    assert (sample["pixel_values"].float() - expected).abs().max() <= 1.5


@settings(max_examples=200)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(8, 600), st.integers(0, 10**6))
def test_a_placement_lies_in_the_image_and_in_the_result(height, width, size, seed):
    random.seed(seed)
    for placement in (
        random_placement(height, width, size, (0.1, 4.0), 0.5),
        fitting_placement(height, width, size),
    ):
        assert (
            0 <= placement.top < placement.bottom <= height
            and 0 <= placement.left < placement.right <= width
        )
        assert 1 <= placement.height <= size and 1 <= placement.width <= size
        rows = nearest(placement.top, placement.bottom, placement.height)
        assert (
            placement.top <= rows[0] and rows[-1] < placement.bottom and (np.diff(rows) >= 0).all()
        )


def test_an_image_without_a_valid_pixel_stays_so():
    image, _ = noise(30, 40)
    pixels, ids = SegmentationTrainPreset(size=16)(
        image, torch.full((30, 40), 255, dtype=torch.uint8)
    )
    assert pixels.shape == (3, 16, 16) and (ids == 255).all()


def test_a_crop_of_ignored_pixels_alone_is_drawn_again():
    image, _ = noise(60, 60)
    ids = torch.full((60, 60), 255, dtype=torch.uint8)
    ids[:18, :18] = 3
    empty = {}
    for tries in (0, 10):
        random.seed(0)
        preset = SegmentationTrainPreset(size=24, scale=(2.0, 2.0), tries=tries)
        empty[tries] = sum(bool((preset(image, ids)[1] == 255).all()) for _ in range(200))
    assert empty[0] > 100 and empty[10] < 10


def test_an_image_of_one_class_keeps_it():
    image, _ = noise(30, 40)
    _, ids = SegmentationTrainPreset(size=16, scale=(1.5, 2.0))(
        image, torch.full((30, 40), 7, dtype=torch.uint8)
    )
    assert (ids == 7).all()


def test_colors_change_without_swapping_channels_and_leave_the_mask_alone():
    random.seed(0)
    image = torch.zeros(3, 20, 20, dtype=torch.uint8)
    image[0], image[1:] = 220, 60
    ids = noise(20, 20)[1]
    results = [
        SegmentationTrainPreset(size=20, color=1, scale=(1, 1), flip=0)(image, ids)
        for _ in range(50)
    ]
    assert all(
        (pixels[0] >= pixels[1:].amax(0)).all() and torch.equal(placed, ids)
        for pixels, placed in results
    )
    assert len({tuple(pixels[:, 0, 0].tolist()) for pixels, _ in results}) > 40
    assert torch.equal(
        SegmentationTrainPreset(size=20, scale=(1, 1), **STILL)(image, ids)[0], image
    )


def test_the_same_seed_gives_the_same_sample():
    preset, (image, ids) = SegmentationTrainPreset(size=32), noise(50, 70)

    def sample(seed):
        random.seed(seed)
        return preset(image, ids)

    first, again, other = sample(3), sample(3), sample(4)
    assert (
        torch.equal(first[0], again[0])
        and torch.equal(first[1], again[1])
        and not torch.equal(first[0], other[0])
    )


def test_neither_the_image_nor_the_mask_is_changed():
    random.seed(0)
    image, ids = noise(40, 40)
    copies = image.clone(), ids.clone()
    for preset in (
        SegmentationTrainPreset(size=40, color=1, scale=(1, 1)),
        SegmentationEvalPreset(size=40),
    ):
        preset(image, ids)
    assert torch.equal(image, copies[0]) and torch.equal(ids, copies[1])


@pytest.mark.parametrize(
    ("height", "width", "resized", "fitted"),
    [(180, 240, (96, 128), (72, 96)), (240, 180, (128, 96), (96, 72))],
)
def test_evaluation_sees_the_whole_image_in_two_sizes(height, width, resized, fitted):
    image, ids = noise(height, width)
    ids[0, 0] = 255
    sample = SegmentationEvalPreset(size=96)(image, ids)
    assert sample["pixel_values"].shape == (3, *resized) and sample["size"].tolist() == [
        height,
        width,
    ]
    assert sample["size"].dtype == torch.int64 and sample["ids"] is ids
    inside = sample["fitted_ids"][: fitted[0], : fitted[1]]
    expected = functional.interpolate(ids[None, None].float(), fitted, mode="nearest-exact")[0, 0]
    assert torch.equal(inside.float(), expected)
    assert (sample["fitted_ids"][fitted[0] :] == 255).all() and (
        sample["fitted_ids"][:, fitted[1] :] == 255
    ).all()
    assert (sample["fitted"][:, fitted[0] :] == 0).all() and (
        sample["fitted"][:, :, fitted[1] :] == 0
    ).all()
    assert torch.equal(
        sample["fitted"][:, : fitted[0], : fitted[1]],
        F.resize_image(image, list(fitted), antialias=True),
    )
    assert set(SegmentationEvalPreset(size=96)(image)) == {"pixel_values", "size"}
