"""PSNR and SSIM: brute force, scikit-image, and published scores of bicubic on Set5."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from visionloop.datasets.io.images import read_image
from visionloop.datasets.io.matlab_resize import matlab_resize
from visionloop.metrics import image_quality
from visionloop.metrics.image_quality import psnr, ssim, to_luma

SET5 = Path(__file__).parents[2].parent / "shared" / "data" / "t91-set5" / "val"
NAMES = ("baby", "bird", "butterfly", "head", "woman")
needs_set5 = pytest.mark.skipif(not SET5.is_dir(), reason="Set5 is not here")


def pair(seed, *shape, strength=25):
    """A smooth image and a noisy copy, uint8."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    smooth = 128 + 90 * np.sin(rows / 5 + generator.random()) * np.cos(columns / 7)
    smooth = smooth[..., None] + generator.normal(0, 20, shape[2:]) if len(shape) == 3 else smooth
    noisy = smooth + generator.normal(0, strength, shape)
    return tuple(image.round().clip(0, 255).astype(np.uint8) for image in (noisy, smooth))


def luma(image):
    """Y of [H, W, 3] in numpy, by the formula."""
    red, green, blue = np.moveaxis(image.astype(np.float64), 2, 0)
    return 16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255


def reference_ssim(a, b):
    return structural_similarity(
        a, b, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )


def inner(image, border):
    return image[border : image.shape[0] - border, border : image.shape[1] - border]


def brute_psnr(a, b):
    squares = [
        (x - y) ** 2 for x, y in zip(a.flatten().tolist(), b.flatten().tolist(), strict=True)
    ]
    if not any(squares):  # one pixel may well be equal in both
        return math.inf
    return 20 * math.log10(255) - 10 * math.log10(sum(squares) / len(squares))


def test_float64_is_fast_on_a_cpu_and_on_data_center_gpus_alone(monkeypatch):
    capabilities = {0: (9, 0), 1: (8, 0), 2: (8, 6), 3: (12, 0)}
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda device: capabilities[device.index]
    )
    devices = ["cpu", "mps", *(f"cuda:{index}" for index in capabilities)]
    fast = [name for name in devices if image_quality.has_fast_float64(torch.device(name))]
    assert fast == ["cpu", "cuda:0", "cuda:1"]


def test_luma_of_white_and_black_is_235_and_16_and_not_rounded_between():
    colors = torch.tensor([[[255] * 3, [0] * 3, [255, 0, 0], [1, 2, 3]]], dtype=torch.uint8)
    expected = [235, 16, 81.481, 16 + (65.481 + 2 * 128.553 + 3 * 24.966) / 255]
    assert to_luma(colors).flatten().tolist() == pytest.approx(expected, abs=1e-12)


@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    seed=st.integers(0, 1000),
    border=st.integers(0, 5),
)
@example(height=1, width=1, seed=226, border=1)
@settings(max_examples=50)
def test_psnr_is_that_of_brute_force(height, width, seed, border):
    a, b = pair(seed, height + 2 * border, width + 2 * border, 3)
    assert psnr(a, b, border=border) == pytest.approx(
        brute_psnr(luma(inner(a, border)), luma(inner(b, border))), abs=1e-9
    )
    wide = [inner(image, border).astype(float) for image in (a, b)]
    assert psnr(a, b, border=border, channel="rgb") == pytest.approx(brute_psnr(*wide), abs=1e-9)
    assert psnr(a[..., 0], b[..., 0], border=border) == pytest.approx(
        brute_psnr(*(one[..., 0] for one in wide)), abs=1e-9
    )


def test_psnr_of_constant_differences():
    black = np.zeros((20, 30), dtype=np.uint8)
    assert psnr(black, black + 255) == 0 and psnr(black, black + 1) == pytest.approx(
        20 * math.log10(255), abs=1e-12
    )
    assert (
        psnr(black, black) == math.inf
        and psnr(black[..., None].repeat(3, 2), black[..., None].repeat(3, 2), channel="rgb")
        == math.inf
    )


@given(height=st.integers(11, 90), width=st.integers(11, 90), seed=st.integers(0, 1000))
@settings(max_examples=40)
def test_ssim_is_that_of_scikit_image_at_any_size(height, width, seed):
    a, b = pair(seed, height, width, 3)
    assert ssim(a, b) == pytest.approx(reference_ssim(luma(a), luma(b)), abs=1e-10)
    assert ssim(a[..., 1], b[..., 1]) == pytest.approx(
        reference_ssim(*(one[..., 1].astype(float) for one in (a, b))), abs=1e-10
    )
    channels = [reference_ssim(a[..., c].astype(float), b[..., c].astype(float)) for c in range(3)]
    assert ssim(a, b, channel="rgb") == pytest.approx(sum(channels) / 3, abs=1e-10)


@pytest.mark.parametrize("size_hw", [(11, 11), (11, 600), (74, 266), (75, 267), (203, 531)])
def test_ssim_has_no_seams_between_tiles(size_hw):
    a, b = pair(0, *size_hw, 3)
    assert ssim(a, b) == pytest.approx(reference_ssim(luma(a), luma(b)), abs=1e-12)


def test_tiles_of_another_size_give_the_same_score(monkeypatch):
    a, b = pair(1, 97, 130, 3)
    expected = [
        measure(a, b, channel=channel) for measure in (psnr, ssim) for channel in ("y", "rgb")
    ]
    monkeypatch.setattr(image_quality, "CPU_TILE_HW", (7, 19))
    again = [measure(a, b, channel=channel) for measure in (psnr, ssim) for channel in ("y", "rgb")]
    assert again == pytest.approx(expected, abs=1e-12)


def test_ssim_of_equal_images_is_one_and_of_a_negative_below_zero():
    for image in pair(2, 40, 50, 3):
        assert ssim(image, image) == pytest.approx(1, abs=1e-12)
    textured = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)
    assert ssim(textured, 255 - textured) < 0


def test_the_border_is_cut_off_first():
    a, b = pair(3, 40, 50, 3)
    for measure in (psnr, ssim):
        for channel in ("y", "rgb"):
            cut = measure(inner(a, 4), inner(b, 4), channel=channel)
            assert (
                measure(a, b, border=4, channel=channel)
                == pytest.approx(cut, abs=1e-12)
                != measure(a, b, channel=channel)
            )


def test_torch_and_numpy_in_any_memory_order_give_one_score():
    a, b = pair(4, 33, 47, 3)
    on_wire = [
        torch.from_numpy(one).permute(2, 0, 1).contiguous().permute(1, 2, 0) for one in (a, b)
    ]
    frozen, mirrored = a.copy(), np.ascontiguousarray(b[:, ::-1])[:, ::-1]
    frozen.flags.writeable = False
    for measure in (psnr, ssim):
        for channel in ("y", "rgb"):
            expected = measure(a, b, border=2, channel=channel)
            assert measure(*map(torch.from_numpy, (a, b)), border=2, channel=channel) == expected
            assert measure(*on_wire, border=2, channel=channel) == expected
            assert measure(frozen, torch.from_numpy(b), border=2, channel=channel) == expected
            assert measure(np.asfortranarray(a), mirrored, border=2, channel=channel) == expected


def test_the_order_of_the_two_images_is_no_matter():
    a, b = pair(5, 30, 30, 3)
    for measure in (psnr, ssim):
        assert measure(a, b) == pytest.approx(measure(b, a), abs=1e-14)


GRAY, COLOR = np.zeros((20, 30), np.uint8), np.zeros((20, 30, 3), np.uint8)


@pytest.mark.parametrize(
    ("prediction", "target", "options", "words"),
    [
        (GRAY, COLOR, {}, r"differ in shape: \(20, 30\) and \(20, 30, 3\)"),
        (GRAY, GRAY[:19], {}, r"differ in shape: \(20, 30\) and \(19, 30\)"),
        (GRAY.astype(float), GRAY, {}, "prediction: expected uint8 .* got float64"),
        (COLOR, torch.zeros(20, 30, 3), {}, "target: expected uint8 .* got torch.float32"),
        (GRAY.tolist(), GRAY, {}, "prediction: expected uint8 .* got list"),
        (
            COLOR.transpose(2, 0, 1),
            COLOR.transpose(2, 0, 1),
            {},
            r"expected \[H, W, 3\] or \[H, W\], got \(3, 20, 30\)",
        ),
        (COLOR[None], COLOR[None], {}, r"got \(1, 20, 30, 3\)"),
        (COLOR, COLOR, {"border": 10}, "border 10: leaves less than .* of 20 x 30"),
        (COLOR, COLOR, {"border": -1}, "border -1"),
        (COLOR, COLOR, {"channel": "cb"}, "channel: expected one of y, rgb, got 'cb'"),
        (GRAY, GRAY, {"channel": "rgb"}, r'channel="rgb": expected images \[H, W, 3\]'),
    ],
)
def test_what_cannot_be_compared_is_named(prediction, target, options, words):
    for measure in (psnr, ssim):
        with pytest.raises(ValueError, match=words):
            measure(prediction, target, **options)


def test_a_side_below_the_window_has_psnr_and_no_ssim():
    assert psnr(GRAY, GRAY + 1, border=5) > 0 and ssim(GRAY, GRAY + 1, border=4) > 0
    with pytest.raises(ValueError, match="border 5: leaves less than 11 x 11 of 20 x 30"):
        ssim(GRAY, GRAY, border=5)


def hr_of(name, scale):
    image = read_image(SET5 / "HR" / f"{name}.png").permute(1, 2, 0).numpy()
    return image[: image.shape[0] // scale * scale, : image.shape[1] // scale * scale]


def to_uint8(values):
    return np.floor(values.clip(0, 255) + 0.5).astype(np.uint8)


def old_papers(hr, lr, scale):
    """Y rounded to 8 bits, resized down and up without rounding, rounded."""
    target = to_uint8(luma(hr))
    small = matlab_resize(target, 1 / scale, "float")
    return to_uint8(matlab_resize(small, scale, "float")), target


def of_8_bits(hr, lr, scale):
    """RGB, from the published small images, with 8 bits after each pass."""
    return matlab_resize(lr, scale), hr


def rounded_once(hr, lr, scale):
    """RGB, each resize in float and its result rounded."""
    return to_uint8(
        matlab_resize(to_uint8(matlab_resize(hr, 1 / scale, "float")), scale, "float")
    ), hr


@needs_set5
@pytest.mark.parametrize(
    ("route", "scale", "expected"),
    [
        (old_papers, 2, (33.6614, 0.9299)),
        (old_papers, 3, (30.3922, 0.8682)),
        (old_papers, 4, (28.4207, 0.8104)),
        (of_8_bits, 2, (33.6734, 0.9303)),
        (of_8_bits, 3, (30.4033, 0.8689)),
        (of_8_bits, 4, (28.4290, 0.8111)),
        (rounded_once, 2, (33.6818, 0.9305)),
        (rounded_once, 3, (30.4047, 0.8690)),
        (rounded_once, 4, (28.4314, 0.8113)),
    ],
)
def test_bicubic_on_set5_has_the_published_scores(route, scale, expected):
    scores = []
    for name in NAMES:
        lr = read_image(SET5 / f"LR_x{scale}" / f"{name}.png").permute(1, 2, 0).numpy()
        enlarged, target = route(hr_of(name, scale), lr, scale)
        scores.append([measure(enlarged, target, border=scale) for measure in (psnr, ssim)])
    decibels, similarity = np.mean(scores, axis=0)
    assert decibels == pytest.approx(expected[0], abs=5e-4) and similarity == pytest.approx(
        expected[1], abs=5e-5
    )
    if route is old_papers:
        published = {2: ("33.66", "0.9299"), 3: ("30.39", "0.8682"), 4: ("28.42", "0.8104")}[scale]
        assert (f"{decibels:.2f}", f"{similarity:.4f}") == published


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_scores_on_cuda_are_those_of_the_cpu():
    a, b = (torch.from_numpy(one) for one in pair(6, 90, 300, 3))
    for measure in (psnr, ssim):
        for channel in ("y", "rgb"):
            on_gpu = measure(a.cuda(), b, border=3, channel=channel)
            assert on_gpu == pytest.approx(measure(a, b, border=3, channel=channel), abs=1e-10)
