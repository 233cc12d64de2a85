"""MATLAB's bicubic resizing: published files to the bit, and a plain loop as reference."""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visionloop.datasets.io.images import read_image
from visionloop.datasets.io.matlab_resize import matlab_resize, resized_hw

SETS = Path(__file__).parents[3].parent / "shared" / "data" / "t91-set5"
SET5 = ("baby", "bird", "butterfly", "head", "woman")
needs_sets = pytest.mark.skipif(not SETS.is_dir(), reason="T91 and Set5 are not here")


def read(*parts):
    return read_image(SETS.joinpath(*parts)).permute(1, 2, 0).numpy()


def cropped(image, scale):
    """Top left part with sides that `scale` divides."""
    return image[: image.shape[0] // scale * scale, : image.shape[1] // scale * scale]


def random_image(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def plain_pass(values, scale):
    """A list of numbers resized by the formulas, tap by tap."""

    def cubic(x):
        x = abs(x)
        if x <= 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0

    n, s, mirrored = len(values), min(float(scale), 1.0), values + values[::-1]
    resized = []
    for k in range(1, math.ceil(n * scale) + 1):
        center = float(Fraction(k) / scale + Fraction(1, 2) * (1 - 1 / scale))
        around = range(math.floor(center - 2 / s) - 1, math.ceil(center + 2 / s) + 2)
        weights = [cubic(s * (center - i)) for i in around]
        pixels = [mirrored[(i - 1) % (2 * n)] for i in around]
        resized.append(sum(w * p for w, p in zip(weights, pixels, strict=True)) / sum(weights))
    return resized


def plain_resize(image, scale):
    """float64 [H', W'] of [H, W]."""
    rows = np.array([plain_pass(column, scale) for column in image.T.tolist()]).T
    return np.array([plain_pass(row, scale) for row in rows.tolist()])


@needs_sets
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", SET5)
def test_the_published_low_resolution_files_of_set5_come_out_bit_for_bit(name, scale):
    made = matlab_resize(cropped(read("val", "HR", f"{name}.png"), scale), 1 / scale)
    published = read("val", f"LR_x{scale}", f"{name}.png")
    assert made.shape == published.shape and np.count_nonzero(made != published) == 0


@needs_sets
def test_one_rounding_or_the_other_order_gives_other_files():
    image, published = read("val", "HR", "bird.png"), read("val", "LR_x2", "bird.png")
    once = np.floor(matlab_resize(image, 0.5, "float").clip(0, 255) + 0.5)
    columns_first = matlab_resize(image.swapaxes(0, 1), 0.5).swapaxes(0, 1)
    for other in (once, columns_first):
        assert (
            np.any(other != published, axis=2).mean() > 0.05
            and np.abs(other - published.astype(float)).max() <= 2
        )


def test_the_rule_for_8_bits_worked_out_by_hand():
    # Halving two pixels a, b: the output lies between them, the mirror makes b a a b|a b b a of
    # them, and the eight taps (-3, -9, 29, 111, 111, 29, -9, -3) / 256 meet each pixel with the
    # same sum: their mean.
    image = np.array([[0, 2], [1, 1]], dtype=np.uint8)
    # down the columns first: 0.5 -> 1 and 1.5 -> 2; then along the row: 1.5 -> 2. With one rounding
    # at the end it would be 1.
    assert matlab_resize(image, 0.5).tolist() == [[2]]
    assert matlab_resize(image, 0.5, "float") == pytest.approx(np.array([[1.0]]), abs=1e-13)
    # the same image upside down: 1 and 1, then 1. So the other order would give 1 above.
    assert matlab_resize(image.T, 0.5).tolist() == [[1]]


def test_overshoot_is_clipped_after_each_pass():
    # beside a step from 0 to 255 the cubic goes below 0 and above 255, which 8 bits cannot hold
    step = np.repeat(np.array([0, 0, 0, 0, 255, 255, 255, 255], dtype=np.uint8)[:, None], 8, axis=1)
    loose = matlab_resize(step, 2, "float")
    assert loose.min() < -10 and loose.max() > 265
    tight = matlab_resize(step, 2)
    assert tight.dtype == np.uint8 and np.array_equal(tight, np.floor(loose.clip(0, 255) + 0.5))
    # both ways at once: the first pass clips, so that the second starts from 8 bits
    corner = np.minimum(step, step.T)
    once = np.floor(matlab_resize(corner, 2, "float").clip(0, 255) + 0.5)
    assert not np.array_equal(matlab_resize(corner, 2), once)


@given(
    height=st.integers(1, 13),
    width=st.integers(1, 13),
    seed=st.integers(0, 1000),
    scale=st.sampled_from(
        [Fraction(text) for text in ("1/2", "1/3", "1/4", "1/8", "2", "3", "5/3", "3/7")]
    ),
)
@settings(deadline=None, max_examples=60)
def test_any_size_is_that_of_the_plain_formulas(height, width, seed, scale):
    image = random_image(seed, height, width)
    expected = plain_resize(image.astype(float), scale)
    made = matlab_resize(image, float(scale), "float")
    assert made.shape == expected.shape == resized_hw(height, width, float(scale))
    assert made == pytest.approx(expected, abs=1e-10)


@given(n=st.integers(1, 20_000), divisor=st.integers(1, 64))
@settings(deadline=None)
def test_a_divisor_gives_exactly_its_share(n, divisor):
    assert resized_hw(n * divisor, n * divisor + 1, 1 / divisor) == (n, n + 1)
    assert resized_hw(n, n, divisor) == (n * divisor, n * divisor)


def test_a_scale_that_is_no_simple_ratio_stays_as_it_is():
    assert resized_hw(1000, 10, math.pi / 10) == (315, 4)
    assert matlab_resize(random_image(0, 100, 50), math.pi / 10).shape == (32, 16)


def test_channels_are_resized_each_by_itself():
    image = random_image(1, 21, 34, 3)
    for rounding in ("matlab_uint8", "float"):
        made = matlab_resize(image, 1 / 3, rounding)
        assert made.shape == (7, 12, 3) and made.flags.c_contiguous
        for channel in range(3):
            assert np.array_equal(
                made[..., channel], matlab_resize(image[..., channel], 1 / 3, rounding)
            )


def test_whole_numbers_and_their_floats_are_one_image():
    image = random_image(2, 18, 24, 3)
    assert np.array_equal(
        matlab_resize(image, 0.5, "float"),
        matlab_resize(image.astype(np.float64), 0.5, "float"),
    )


def test_scale_one_and_flat_images_change_nothing():
    image = random_image(3, 9, 14, 3)
    assert np.array_equal(matlab_resize(image, 1), image)
    flat = np.full((30, 17), 201, dtype=np.uint8)
    for scale in (1 / 2, 1 / 3, 1 / 4, 2, 3, 4):
        assert (matlab_resize(flat, scale) == 201).all()


def test_wide_images_are_worked_on_in_blocks_without_a_seam():
    image = random_image(4, 700, 3200)  # more values than one block
    left = matlab_resize(image[:, :1600], 0.5)
    assert np.array_equal(matlab_resize(image, 0.5)[:, :790], left[:, :790])


def test_images_in_any_memory_order_are_read():
    image = random_image(5, 24, 18, 3)
    flipped, frozen = np.ascontiguousarray(image[::-1, :, ::-1])[::-1, :, ::-1], image.copy()
    frozen.flags.writeable = False
    for other in (flipped, frozen, np.asfortranarray(image)):
        assert np.array_equal(matlab_resize(other, 0.5), matlab_resize(image, 0.5))


@pytest.mark.parametrize(
    ("image", "scale", "rounding", "words"),
    [
        (np.zeros((4, 4)), 0.5, "matlab_uint8", "takes uint8 images, got float64"),
        (
            np.zeros((4, 4), np.float32),
            0.5,
            "float",
            "expected uint8, or float64 in 0..255, got float32",
        ),
        (np.zeros((4, 4), np.uint16), 0.5, "matlab_uint8", "got uint16"),
        (
            np.zeros((4, 4), np.uint8),
            0.5,
            "half_up",
            "rounding: expected one of matlab_uint8, float, got 'half_up'",
        ),
        (np.zeros((4, 4), np.uint8), 0, "float", "scale: expected .* above 0, got 0"),
        (np.zeros((4, 4), np.uint8), math.nan, "float", "scale: .* got nan"),
        (np.zeros((4, 4), np.uint8), math.inf, "float", "scale: .* got inf"),
        (np.zeros((4,), np.uint8), 0.5, "float", r"got shape \(4,\)"),
        (np.zeros((0, 4), np.uint8), 0.5, "float", r"with pixels, got shape \(0, 4\)"),
        ([[1, 2]], 0.5, "float", "numpy array .* got list"),
    ],
)
def test_what_cannot_be_resized_is_named(image, scale, rounding, words):
    with pytest.raises(ValueError, match=words):
        matlab_resize(image, scale, rounding)
