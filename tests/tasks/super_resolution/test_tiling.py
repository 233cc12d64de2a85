"""Tiles: coverage, exactness, the eight D4 transforms, and the prediction of a batch."""

import logging
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Swin2SRConfig

from visionloop.tasks.super_resolution import evaluate, heads
from visionloop.tasks.super_resolution.evaluate import predict
from visionloop.tasks.super_resolution.loss import SuperResolutionCriterion
from visionloop.tasks.super_resolution.model import new_model
from visionloop.tasks.super_resolution.tiling import (
    MAX_HALO,
    NUM_D4_TRANSFORMS,
    choose_tiling,
    d4_inverse,
    d4_transform,
    is_exact,
    plan_tiles,
    round_up,
    self_ensemble,
    spans,
    to_bytes,
    upscale,
)

# upsampler, scale, window, reach
HEADS = [
    ("pixelshuffledirect", 2, 8, 23), ("pixelshuffledirect", 3, 4, 13), ("pixelshuffle", 2, 8, 25),
    ("pixelshuffle", 4, 8, 25), ("nearest+conv", 4, 8, 25), ("pixelshuffle_aux", 4, 8, 27),
    ("", 1, 7, 21),
]  # fmt: skip


def network(upsampler="pixelshuffledirect", scale=2, window=8):
    """A Swin2SR of 2 + 2 blocks and random weights."""
    torch.manual_seed(0)
    fields = dict(
        embed_dim=12,
        depths=[2, 2],
        num_heads=[2, 2],
        window_size=window,
        mlp_ratio=2.0,
        image_size=3 * window,
        img_range=1.0,
    )
    return new_model(Swin2SRConfig(upscale=scale, upsampler=upsampler, **fields)).eval()


@pytest.fixture
def in_float64(monkeypatch):
    """Heads in float64 too: rounding is then far below the effect of a missing pixel."""
    monkeypatch.setattr(heads, "conv_in_fp32", lambda convolution, features: convolution(features))


def pixels_of(height, width, seed=0):
    return torch.randint(
        0, 256, (3, height, width), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )


def model_like(reach, window=8, scale=2):
    """Return the attributes of a network that choose the tiling."""
    return SimpleNamespace(reach=reach, window=window, scale=scale)


@settings(max_examples=200)
@given(st.sampled_from([4, 7, 8]), st.integers(1, 80), st.integers(1, 12), st.integers(0, 6))
def test_tiles_cover_a_side_once_between_windows_and_see_a_halo_everywhere(
    window, length, tile, halo
):
    length, tile, halo = (window * number for number in (length, tile, halo))
    plan = spans(length, tile, halo, window)
    assert [one.keep_start for one in plan] + [length] == [0] + [one.keep_stop for one in plan]
    assert len({one.stop - one.start for one in plan}) == 1 and all(
        0 <= one.start < one.stop <= length for one in plan
    )
    assert not any(number % window for one in plan for number in one)
    for one in plan:
        assert one.keep_start < one.keep_stop
        assert one.start == one.keep_start == 0 or one.keep_start - one.start >= halo
        assert one.stop == one.keep_stop == length or one.stop - one.keep_stop >= halo
        assert len(plan) == 1 or one.stop - one.start <= tile + 2 * halo


def test_a_plan_has_a_tile_for_each_pair_of_rows_and_columns():
    plan = plan_tiles(96, 64, tile=16, halo=8, window=8)
    assert len(plan) == 5 * 3 and len(set(plan)) == 15
    covered = torch.zeros(96, 64, dtype=torch.int64)
    for rows, columns in plan:
        covered[rows.keep_start : rows.keep_stop, columns.keep_start : columns.keep_stop] += 1
    assert (covered == 1).all()
    assert len(plan_tiles(96, 64, tile=0, halo=0, window=8)) == 1


@pytest.mark.parametrize(("upsampler", "scale", "window", "reach"), HEADS)
def test_tiles_with_a_halo_of_the_reach_give_the_whole_image(
    in_float64, upsampler, scale, window, reach
):
    module = network(upsampler, scale, window).double()
    assert module.reach == reach
    rows = (
        9 * window + 3 if upsampler in ("", "pixelshuffledirect") else 2 * window - 3
    )  # the large heads in one row of tiles: seconds
    pixels = pixels_of(rows, 11 * window - 2).double() / 255
    with torch.no_grad():
        whole = module(pixels[None])["sr"][0]
    assert torch.equal(upscale(module, pixels, tile=0), whole)
    halo = round_up(reach, window)
    tiled = upscale(module, pixels, tile=2 * window, halo=reach)
    assert tiled.shape == whole.shape and (tiled - whole).abs().max() < 1e-12
    assert (upscale(module, pixels, tile=2 * window, halo=halo - window) - whole).abs().max() > 1e-8
    assert (
        is_exact(module, halo)
        and is_exact(module, halo - window + 1)
        and not is_exact(module, halo - window)
    )


def test_whole_and_tiled_bytes_are_equal_however_tiles_are_batched():
    module, pixels = network(), pixels_of(133, 150)
    whole = upscale(module, pixels)
    for tile, batch_size in ((32, 1), (32, 4), (48, None)):
        tiled = upscale(module, pixels, tile=tile, batch_size=batch_size)
        assert (tiled - whole).abs().max() < 2e-6
        as_bytes = upscale(module, pixels, tile=tile, batch_size=batch_size, as_bytes=True)
        assert as_bytes.dtype == torch.uint8 and torch.equal(as_bytes, to_bytes(tiled))
    assert torch.equal(upscale(module, pixels, ensemble=1, as_bytes=True), to_bytes(whole))


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (8, 8), (17, 9)])
def test_a_image_of_any_size_comes_out_scale_times_as_large(size):
    result = upscale(network(), pixels_of(*size), tile=8, halo=8, as_bytes=True)
    assert result.shape == (3, 2 * size[0], 2 * size[1])


def test_the_defaults_are_exact_where_the_reach_is_short_and_say_so_where_it_is_not():
    short, far = model_like(23), model_like(151)
    assert (
        not choose_tiling(far, 512, 512).tiled
        and choose_tiling(far, 512, 512).exact
        and "whole" in choose_tiling(far, 9, 9).describe()
    )
    tiling = choose_tiling(short, 1500, 2000)
    assert (tiling.tile, tiling.halo, tiling.exact) == (
        336,
        24,
        True,
    ) and "the same as the whole image" in tiling.describe()
    tiling = choose_tiling(far, 1500, 2000)
    assert (tiling.tile, tiling.halo, tiling.exact) == (256, MAX_HALO, False)
    assert "approximation" in tiling.describe() and "--halo 151 would be exact" in tiling.describe()
    asked = choose_tiling(far, 1500, 2000, halo=151)
    assert (asked.halo, asked.exact) == (152, True) and asked.tile >= 128
    assert not choose_tiling(far, 8000, 8000, tile=0).tiled
    assert choose_tiling(far, 200, 200, tile=60, halo=0).tile == 64  # up to the next window
    assert (
        choose_tiling(model_like(151, window=7), 900, 900).tile % 7
        == 0
        == choose_tiling(model_like(151, window=7), 900, 900).halo % 7
    )
    assert not choose_tiling(
        far, 90, 90, tile=64, halo=16
    ).tiled  # one tile with its halo sees it all
    at_x8 = choose_tiling(model_like(151, scale=8), 400, 400)
    assert (
        at_x8.tiled and at_x8.tile + 2 * at_x8.halo <= 256
    )  # the head at eight times the size is what costs there


def test_the_eight_d4_transforms_are_distinct_and_each_has_its_inverse():
    pixels = torch.arange(3 * 4 * 4).view(1, 3, 4, 4)
    transformed = [d4_transform(pixels, k) for k in range(NUM_D4_TRANSFORMS)]
    assert torch.equal(transformed[0], pixels)
    assert len({tuple(one.flatten().tolist()) for one in transformed}) == 8
    for k, one in enumerate(transformed):
        assert torch.equal(d4_inverse(one, k), pixels)
    oblong = torch.rand(2, 3, 5, 7)
    assert all(
        torch.equal(d4_inverse(d4_transform(oblong, k), k), oblong)
        for k in range(NUM_D4_TRANSFORMS)
    )


def test_an_ensemble_is_the_mean_over_d4_transforms_and_equivariant_to_them():
    module, pixels = network(), torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = self_ensemble(module, pixels, 1)
        assert torch.equal(plain, module(pixels)["sr"])
        mean = self_ensemble(module, pixels)
        assert (mean - plain).abs().max() > 1e-3
        outputs = torch.stack(
            [d4_inverse(module(d4_transform(pixels, k))["sr"], k) for k in range(8)]
        )
        assert (mean - outputs.mean(dim=0)).abs().max() < 1e-6
        for k in range(8):
            assert (
                self_ensemble(module, d4_transform(pixels, k)) - d4_transform(mean, k)
            ).abs().max() < 1e-5


def test_an_ensemble_over_tiles_is_the_one_of_the_whole_image(in_float64):
    module, pixels = network().double(), pixels_of(59, 75).double() / 255
    whole, tiled = upscale(module, pixels, ensemble=8), upscale(module, pixels, ensemble=8, tile=16)
    assert choose_tiling(module, 59, 75, tile=16).tiled and (tiled - whole).abs().max() < 1e-12


def test_predictions_are_bytes_with_the_pixel_loss_of_floats():
    module, sizes = network(), ((16, 24), (9, 13))
    batch = {
        "pixel_values": [pixels_of(*size) for size in sizes],
        "hr": [pixels_of(2 * h, 2 * w, seed=1) for h, w in sizes],
    }
    criterion = SuperResolutionCriterion("l1", frequency_weight=1.0, scale=2)
    predictions = predict(module, batch, criterion=criterion)
    for i, pixels in enumerate(batch["pixel_values"]):
        with torch.no_grad():
            sr = module(pixels[None].float() / 255)["sr"][0]
        assert torch.equal(predictions["images"][i], (sr.clamp(0, 1) * 255).round().to(torch.uint8))
        expected = (sr - batch["hr"][i].float() / 255).abs().mean()
        assert predictions["losses"][i].item() == pytest.approx(expected.item(), rel=1e-6)
    assert predictions["losses"].dtype == torch.float32 and predictions["losses"].shape == (2,)
    bare = predict(module, {"pixel_values": batch["pixel_values"]}, criterion=criterion)
    assert "losses" not in bare and "losses" not in predict(module, batch)
    for one, other in zip(bare["images"], predictions["images"], strict=True):
        assert torch.equal(one, other)


def test_an_approximation_is_reported_once(caplog):
    evaluate.warn_once.cache_clear()
    module, batch = network(), {"pixel_values": [pixels_of(64, 64)] * 2}
    with caplog.at_level(logging.WARNING):
        exact = predict(module, batch, tile=8)
        assert caplog.messages == [] and exact["tilings"][0].tiled and exact["tilings"][0].exact
        rough = predict(module, batch, tile=8, halo=8)
        predict(module, batch, tile=8, halo=8)
    assert not rough["tilings"][1].exact and caplog.messages == [rough["tilings"][0].describe()]
