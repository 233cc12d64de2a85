"""Scores of super-resolution: means over images, equal bits, images too small or equal."""

import math
import random

import numpy as np
import pytest
import torch
from host_syncs import CountReads
from hypothesis import given, settings
from hypothesis import strategies as st

from visionloop.metrics.image_quality import psnr, ssim
from visionloop.metrics.lpips import SHAPES, Lpips
from visionloop.metrics.super_resolution import HIGHEST_PSNR, SuperResolutionMetric

BORDER = 2


def random_images(count, seed, *, smallest=16, largest=24, with_loss=True):
    """[{"image", "hr", "bicubic": uint8 [3, H, W], "loss"}]; HR and bicubic are up to 2 larger."""
    generator = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        height, width = generator.integers(smallest, largest, 2)
        hr = generator.integers(
            0, 256, (3, height + generator.integers(0, 3), width + generator.integers(0, 3))
        )
        near, far = ((hr + generator.normal(0, noise, hr.shape)).clip(0, 255) for noise in (9, 25))
        as_bytes = [
            torch.tensor(np.asarray(one), dtype=torch.uint8)
            for one in (near[:, :height, :width], hr, far)
        ]
        loss = float(generator.random()) if with_loss else None
        images.append(dict(zip(("image", "hr", "bicubic"), as_bytes, strict=True)) | {"loss": loss})
    return images


def measured(images, sample_ids=None, *, border=BORDER, batch_size=3, lpips=None):
    metric = SuperResolutionMetric(border, lpips)
    sample_ids = list(range(len(images))) if sample_ids is None else list(sample_ids)
    for start in range(0, len(images), batch_size):
        here = images[start : start + batch_size]
        predictions = {"images": [one["image"] for one in here]}
        if here[0]["loss"] is not None:
            predictions["losses"] = torch.tensor([one["loss"] for one in here])
        batch = {name: [one[name] for one in here] for name in ("hr", "bicubic")}
        metric.update(
            predictions,
            batch | {"sample_ids": torch.tensor(sample_ids[start : start + batch_size])},
        )
    return metric


def by_hand(one, border=BORDER):
    """The scores of one image, cut by hand."""
    height, width = one["image"].shape[1:]
    ours, hr, plain = (
        one[name][:, :height, :width].permute(1, 2, 0).numpy()
        for name in ("image", "hr", "bicubic")
    )
    scores = {"val_loss": one["loss"]}
    for name, measure in (("psnr", psnr), ("ssim", ssim)):
        scores[name] = measure(ours, hr, border=border)
        scores[f"{name}_rgb"] = measure(ours, hr, border=border, channel="rgb")
        scores[f"bicubic_{name}"] = measure(plain, hr, border=border)
    return scores


def mean(rows, name):
    return sum(row[name] for row in rows) / len(rows)


def random_lpips():
    generator = torch.Generator().manual_seed(0)
    return Lpips(
        {
            key: torch.rand(shape, generator=generator) - (0.5 if "features" in key else 0)
            for key, shape in SHAPES.items()
        }
    )


@given(count=st.integers(1, 7), seed=st.integers(0, 1000), border=st.sampled_from([0, 2]))
@settings(max_examples=25)
def test_scores_are_means_of_those_of_the_single_images(count, seed, border):
    images = random_images(count, seed)
    metric, rows = measured(images, border=border), [by_hand(one, border) for one in images]
    keys = ("psnr", "ssim", "psnr_rgb", "ssim_rgb", "val_loss")
    assert metric.compute() == pytest.approx({name: mean(rows, name) for name in keys}, rel=1e-6)
    expected = {
        "bicubic PSNR": mean(rows, "bicubic_psnr"),
        "bicubic SSIM": mean(rows, "bicubic_ssim"),
    }
    assert metric.bicubic_scores() == pytest.approx(expected, abs=1e-12)
    table = metric.per_image()
    assert table["sample_ids"].tolist() == list(range(count)) and set(table) == {
        "sample_ids",
        *rows[0],
    }
    assert all(
        table[name].tolist() == pytest.approx([row[name] for row in rows], rel=1e-6)
        for name in rows[0]
    )


def test_the_host_reads_all_scores_of_a_batch_at_once():
    reads = []
    for count in (1, 5):
        with CountReads() as counter:
            measured(random_images(count, 0), batch_size=count)
        reads.append(counter.reads)
    assert reads[0] == reads[1]


@given(
    count=st.integers(1, 9),
    seed=st.integers(0, 1000),
    owners=st.lists(st.integers(0, 3), min_size=9, max_size=9),
)
@settings(max_examples=20)
def test_any_sharding_gives_the_bits_of_the_whole(count, seed, owners):
    images = random_images(count, seed)
    sample_ids = np.random.default_rng(seed).permutation(100)[:count]
    whole = measured(images, sample_ids)
    states = []
    for owner in range(4):
        rows = [row for row in range(count) if owners[row] == owner]
        states.append(
            measured([images[row] for row in rows], sample_ids[rows], batch_size=2).state()
        )
    random.Random(seed).shuffle(states)
    merged = SuperResolutionMetric(BORDER)
    merged.merge(states)
    assert repr(merged.compute()) == repr(whole.compute()) and repr(
        merged.bicubic_scores()
    ) == repr(whole.bicubic_scores())
    assert all(
        np.array_equal(values, whole.state()[column], equal_nan=True)
        for column, values in merged.state().items()
    )
    assert len(merged) == len(whole) == count


def test_merging_replaces_what_was_there():
    metric = measured(random_images(4, 0))
    before = metric.compute()
    metric.merge([metric.state()])
    assert len(metric) == 4 and metric.compute() == before


@given(count=st.integers(1, 6), seed=st.integers(0, 100), data=st.data())
@settings(max_examples=20)
def test_picked_images_score_as_if_they_were_all(count, seed, data):
    images = random_images(count, seed)
    sample_ids = np.random.default_rng(seed).permutation(100)[:count]
    picks = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=12))
    in_order = [images[row] for row in np.argsort(sample_ids)]
    rows = [by_hand(in_order[pick]) for pick in picks]
    scores = measured(images, sample_ids).compute(np.array(picks))
    assert scores == pytest.approx({name: mean(rows, name) for name in scores}, rel=1e-6)


def test_an_equal_image_counts_as_100_db_and_shows_as_infinite():
    one, equal = random_images(2, 1)
    equal["image"] = equal["hr"].clone()
    equal["bicubic"] = equal["hr"].clone()
    metric = measured([one, equal])
    assert metric.per_image()["psnr"][1] == math.inf == metric.per_image()["bicubic_psnr"][1]
    assert metric.compute()["psnr"] == pytest.approx((by_hand(one)["psnr"] + HIGHEST_PSNR) / 2)
    assert metric.compute([1])["psnr_rgb"] == HIGHEST_PSNR and math.isfinite(
        metric.bicubic_scores()["bicubic PSNR"]
    )


def test_an_almost_equal_image_scores_no_more_than_an_equal_one():
    hr = torch.full((3, 500, 500), 90, dtype=torch.uint8)
    almost = hr.clone()
    almost[2, 100, 100] += 1
    row = {"hr": hr, "bicubic": hr, "loss": None}
    metric = measured([row | {"image": almost}, row | {"image": hr}])
    assert (
        HIGHEST_PSNR < metric.per_image()["psnr"][0] < math.inf
        and metric.compute([0])["psnr"] == metric.compute([1])["psnr"]
    )


def test_an_image_too_small_for_ssim_is_left_out_of_its_mean_alone():
    one, small = random_images(2, 2)
    small = {
        name: value if name == "loss" else value[:, :, :14] for name, value in small.items()
    }  # 10 without the border
    metric = measured([one, small])
    table = metric.per_image()
    assert [
        math.isnan(table[name][1]) for name in ("ssim", "ssim_rgb", "bicubic_ssim", "psnr")
    ] == [True, True, True, False]
    scores = metric.compute()
    assert scores["ssim"] == by_hand(one)["ssim"] and scores["psnr"] == pytest.approx(
        table["psnr"].mean()
    )
    assert (
        math.isnan(metric.compute([1])["ssim"])
        and metric.compute([1, 0, 1])["ssim"] == scores["ssim"]
    )


def test_an_image_that_is_all_border_has_no_score_and_stops_nothing():
    strip = dict.fromkeys(("image", "hr", "bicubic"), torch.zeros(3, 4, 9, dtype=torch.uint8))
    images = [*random_images(1, 3), strip | {"loss": 1.0}]
    metric = measured(images)
    assert (
        math.isnan(metric.per_image()["psnr"][1])
        and metric.compute()["psnr"] == by_hand(images[0])["psnr"]
    )


def test_lpips_is_there_when_its_network_is():
    lpips = random_lpips()
    images = random_images(3, 4, smallest=31, largest=40) + random_images(
        1, 5
    )  # the last is too small for it
    metric = measured(images, lpips=lpips)
    expected = []
    for one in images[:3]:
        height, width = one["image"].shape[1:]
        expected.append(lpips(one["image"][None], one["hr"][None, :, :height, :width]).item())
    assert metric.per_image()["lpips"][:3].tolist() == expected and math.isnan(
        metric.per_image()["lpips"][3]
    )
    assert metric.compute()["lpips"] == pytest.approx(np.mean(expected)) and min(expected) > 0
    assert "lpips" not in measured(images).compute() and "lpips" not in measured(images).per_image()


def test_the_loss_is_left_out_where_an_image_has_none():
    with_loss, without = random_images(1, 0), random_images(2, 1, with_loss=False)
    assert "val_loss" in measured(with_loss).compute()
    mixed = measured([*with_loss, *without], batch_size=1)
    assert "val_loss" not in mixed.compute() and "val_loss" not in mixed.per_image()


def test_a_loss_that_is_no_number_shows():
    images = [
        one | {"loss": loss} for one, loss in zip(random_images(2, 0), (1.0, math.nan), strict=True)
    ]
    assert (
        math.isnan(measured(images).compute()["val_loss"])
        and measured(images).compute([0, 0])["val_loss"] == 1
    )


def test_without_images_every_score_is_nan():
    metric = SuperResolutionMetric(4)
    assert len(metric) == 0 and set(metric.compute()) == {"psnr", "ssim", "psnr_rgb", "ssim_rgb"}
    assert all(
        math.isnan(score)
        for score in (*metric.compute().values(), *metric.bicubic_scores().values())
    )
    assert {len(values) for values in metric.state().values()} == {0}


@pytest.mark.parametrize("name", ["hr", "bicubic"])
def test_a_target_smaller_than_the_prediction_is_refused(name):
    one = random_images(1, 6)[0]
    one[name] = one[name][:, :10]
    with pytest.raises(
        ValueError,
        match=r"hr and bicubic: expected \(3, \d+, \d+\) or larger, got .*\(3, 10, \d+\)",
    ):
        measured([one])
