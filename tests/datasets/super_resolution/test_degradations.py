"""Noise and JPEG: as strong as they say, the same for the same seed."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from super_resolution_files import some_image

from visionloop.datasets.super_resolution.degradations import GaussianNoise, Jpeg, parse_range


def pixels(height=64, width=72):
    return torch.from_numpy(some_image("degraded", height, width)).permute(2, 0, 1).contiguous()


def gray(level=128, side=200):
    return torch.full((3, side, side), level, dtype=torch.uint8)


@pytest.mark.parametrize("sigma", [5, 15, 50])
def test_noise_has_the_deviation_asked_for(sigma):
    torch.manual_seed(0)
    noisy = GaussianNoise(sigma, sigma)(gray()).double()
    expected = sigma if sigma < 50 else 49.4  # the tails of 50 are clipped at 0 and 255
    assert abs(noisy.mean() - 128) < 0.6 and noisy.std().item() == pytest.approx(
        expected, rel=0.015
    )
    assert (
        abs(np.corrcoef(noisy[0].flatten(), noisy[1].flatten())[0, 1]) < 0.02
    )  # channels are independent


def test_a_range_is_drawn_evenly_for_each_image():
    torch.manual_seed(0)
    degrade = GaussianNoise(15, 50)
    sigmas = np.array([degrade(gray(side=40)).double().std().item() for _ in range(200)])
    assert (
        14 < sigmas.min() < 18
        and 46 < sigmas.max() < 53
        and sigmas.mean() == pytest.approx(32.5, abs=2)
    )
    assert abs((sigmas < 32.5).mean() - 0.5) < 0.12


def test_no_noise_changes_nothing_and_noise_does_not_change_its_input():
    image = pixels()
    before = image.clone()
    assert torch.equal(GaussianNoise(0, 0)(image), image)
    assert not torch.equal(GaussianNoise(25, 25)(image), image) and torch.equal(image, before)


@pytest.mark.parametrize("degradation", [GaussianNoise(15, 50), Jpeg(5, 95)])
def test_chance_comes_from_the_seeded_generator_alone(degradation):
    image = pixels()
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(degradation(image))
        generator = torch.Generator().manual_seed(seed)
        assert torch.equal(results[-1], degradation(image, generator))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])
    assert results[0].shape == image.shape and results[0].dtype == torch.uint8


def by_pillow(image, quality):
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(
        file, "JPEG", quality=quality, subsampling="4:2:0"
    )
    return torch.from_numpy(np.array(Image.open(io.BytesIO(file.getvalue())))).permute(2, 0, 1)


@pytest.mark.parametrize("quality", [10, 40, 90])
@pytest.mark.parametrize("size_hw", [(64, 72), (33, 50)])
def test_jpeg_is_that_of_pillow_with_colors_at_half_the_resolution(quality, size_hw):
    image = pixels(*size_hw)
    assert torch.equal(Jpeg(quality, quality)(image), by_pillow(image, quality))


def test_a_view_is_encoded_as_what_it_shows():
    image = pixels()[:, 3:40, 5:47]
    assert torch.equal(Jpeg(30, 30)(image), by_pillow(image, 30))


def test_a_lower_quality_is_further_from_the_image():
    image = pixels().float()
    distances = [
        (Jpeg(quality, quality)(pixels()).float() - image).abs().mean()
        for quality in (95, 50, 20, 5)
    ]
    assert distances == sorted(distances) and distances[0] < 0.4 * distances[-1]


def test_every_quality_of_a_range_is_drawn():
    image = pixels(16, 16)
    single = {Jpeg(quality, quality)(image).numpy().tobytes() for quality in (30, 31, 32)}
    assert len(single) == 3
    torch.manual_seed(0)
    assert {Jpeg(30, 32)(image).numpy().tobytes() for _ in range(40)} == single


def test_evaluation_stands_at_the_middle_of_the_range():
    assert GaussianNoise(15, 50).fixed() == GaussianNoise(32.5, 32.5) and GaussianNoise(
        25, 25
    ).fixed() == GaussianNoise(25, 25)
    assert Jpeg(10, 40).fixed() == Jpeg(25, 25) and Jpeg(30, 30).fixed() == Jpeg(30, 30)


def test_numbers_and_ranges_are_read():
    assert GaussianNoise.from_text("25") == GaussianNoise(25, 25) and GaussianNoise.from_text(
        " 2.5 - 50 "
    ) == GaussianNoise(2.5, 50)
    assert Jpeg.from_text("10-40") == Jpeg(10, 40) and isinstance(Jpeg.from_text("40").lowest, int)


@pytest.mark.parametrize("text", ["", "x", "-5", "50-15", "15-", "15-25-35", "300", "1e2", "nan"])
def test_anything_else_is_refused_with_what_was_expected(text):
    with pytest.raises(
        ValueError, match="expected a number or a range such as 15-50, within 0 to 255, got"
    ):
        GaussianNoise.from_text(text)


@pytest.mark.parametrize("text", ["0", "101", "12.5", "40-10"])
def test_a_quality_is_a_whole_number_of_1_to_100(text):
    with pytest.raises(
        ValueError, match="expected a whole number or a range such as 15-50, within 1 to 100, got"
    ):
        Jpeg.from_text(text)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 255), st.integers(0, 255))
def test_what_is_read_is_what_was_written(one, other):
    lowest, highest = sorted((one, other))
    assert parse_range(f"{lowest}-{highest}", 0, 255) == (lowest, highest) and parse_range(
        one, 0, 255
    ) == (one, one)
