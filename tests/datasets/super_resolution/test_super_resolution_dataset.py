"""Pairs and their samples: the same bytes with and without the cache, crops always aligned."""

import random
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from super_resolution_files import some_image, write_image, write_super_resolution_data

from visionloop.datasets.io.images import UnreadableImage
from visionloop.datasets.io.matlab_resize import matlab_resize
from visionloop.datasets.super_resolution.dataset import (
    DecodedPairs,
    SuperResolutionDataset,
    open_pairs,
)
from visionloop.datasets.super_resolution.degradations import GaussianNoise, Jpeg
from visionloop.datasets.super_resolution.downscale import (
    MismatchedPair,
    decode,
    pair_mismatch,
    shrink,
)
from visionloop.datasets.super_resolution.layout import (
    SuperResolutionIndex,
    require_super_resolution_split,
)
from visionloop.datasets.super_resolution.transforms import (
    SuperResolutionEvalPreset,
    SuperResolutionTrainPreset,
)

SCALES = [1, 2, 3, 4, 8]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def data(tmp_path):
    """Sides that no scale divides; small images of x2 and x3."""
    return write_super_resolution_data(
        tmp_path / "data", images=3, size_hw=(101, 131), given=[2, 3]
    )


def both_pairs(data, scale, split="train"):
    index = require_super_resolution_split(data, split, scale)
    return open_pairs(index, "disk"), open_pairs(index, "none")


def seeded(dataset, i, seed):
    random.seed(seed)
    torch.manual_seed(seed)
    return dataset[i]


def same_pair(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("scale", SCALES)
def test_with_and_without_cache_every_pair_is_the_same(data, scale):
    stored, decoded = both_pairs(data, scale)
    for i in range(3):
        small, large = stored.whole(i)
        assert (
            same_pair((small, large), decoded.whole(i))
            and stored.lr_size(i) == decoded.lr_size(i) == small.shape[:2]
        )
        assert large.shape == (scale * small.shape[0], scale * small.shape[1], 3)
        assert np.array_equal(
            large, decode(stored.index.path(i))[: large.shape[0], : large.shape[1]]
        )


@pytest.mark.parametrize("scale", SCALES)
def test_a_crop_made_for_itself_is_the_crop_of_the_whole(data, scale):
    """Bit for bit at every position, so at the borders too, with the cache and without."""
    for folder in data.glob("*/LR_*"):
        shutil.rmtree(folder)
    stored, decoded = both_pairs(data, scale)
    small, large = stored.whole(1)
    side = 5
    for top in range(small.shape[0] - side + 1):
        left = (7 * top) % (small.shape[1] - side + 1)
        expected = small[top : top + side, left : left + side]
        around = large[scale * top : scale * (top + side), scale * left : scale * (left + side)]
        assert same_pair(decoded.crop(1, top, left, side), (expected, around))
        assert same_pair(stored.crop(1, top, left, side), (expected, around))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([2, 3, 4, 8]), st.data())
def test_no_kind_of_image_makes_a_crop_differ(seed, scale, draw):
    """Extreme values, where clipping and rounding between the passes matter most."""
    height, width = draw.draw(st.integers(scale * 6, 150)), draw.draw(st.integers(scale * 6, 150))
    large = np.random.default_rng(seed).choice(
        np.array([0, 1, 127, 128, 254, 255], dtype=np.uint8), (height, width, 3)
    )
    large = large[: height // scale * scale, : width // scale * scale]
    small = shrink(large, scale)
    side = draw.draw(st.integers(1, min(small.shape[:2])))
    top, left = (draw.draw(st.integers(0, limit - side)) for limit in small.shape[:2])
    nothing = np.zeros(0, dtype=np.int64)
    pairs = DecodedPairs(SuperResolutionIndex("", b"", nothing, nothing, scale, nothing))
    assert np.array_equal(
        pairs._downscaled_crop(large, top, left, side), small[top : top + side, left : left + side]
    )


def test_small_images_are_those_of_the_folder_where_there_is_one(data):
    for name in ("t00x2", "t01x2", "t02x2"):
        write_image(
            data / f"train/LR_x2/{name}.png",
            some_image(name, *decode(data / f"train/LR_x2/{name}.png").shape[:2]),
        )
    stored, decoded = both_pairs(data, 2)
    for pairs in (stored, decoded):
        assert np.array_equal(pairs.whole(0)[0], decode(data / "train/LR_x2/t00x2.png"))
        assert np.array_equal(
            pairs.crop(0, 3, 4, 9)[0], decode(data / "train/LR_x2/t00x2.png")[3:12, 4:13]
        )


def test_small_images_are_made_by_matlabs_rule(data):
    for scale in (4, 8):
        small, large = both_pairs(data, scale)[0].whole(0)
        once = np.floor(matlab_resize(large, 1 / scale, rounding="float") + 0.5).clip(0, 255)
        assert np.array_equal(small, once if scale == 8 else matlab_resize(large, 1 / scale))


def train(pairs, patch, scale, **more):
    return SuperResolutionDataset(
        pairs, SuperResolutionTrainPreset(patch=patch, scale=scale, **more)
    )


@pytest.mark.parametrize("degradation", [None, GaussianNoise(15, 50), Jpeg(10, 40)])
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_a_training_sample_is_a_function_of_its_seed_with_and_without_cache(
    data, scale, degradation
):
    stored, decoded = (
        train(pairs, 10, scale, degradation=degradation) for pairs in both_pairs(data, scale)
    )
    samples = [seeded(dataset, 1, seed) for seed in (0, 1) for dataset in (stored, decoded, stored)]
    for sample in samples:
        assert {key: tuple(value.shape) for key, value in sample.items()} == {
            "pixel_values": (3, 10, 10),
            "hr": (3, 10 * scale, 10 * scale),
        }
        assert all(
            value.dtype == torch.uint8 and value.is_contiguous() for value in sample.values()
        )
    for key in ("pixel_values", "hr"):
        assert all(torch.equal(samples[0][key], other[key]) for other in samples[1:3])
        assert not torch.equal(samples[0][key], samples[3][key])


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_small_and_large_show_the_same_place_for_every_symmetry(tmp_path, scale):
    """The large image holds its coordinates in small pixels: red counts rows, green columns."""
    y, x = np.mgrid[: 40 * scale, : 50 * scale] // scale
    write_image(tmp_path / "train/HR/a.png", np.stack([y, x, 0 * y], axis=-1).astype(np.uint8))
    write_image(
        tmp_path / f"train/LR_x{scale}/a.png",
        np.stack([y, x, 0 * y], axis=-1)[::scale, ::scale].astype(np.uint8),
    )
    for dataset in (train(pairs, 8, scale) for pairs in both_pairs(tmp_path, scale)):
        corners, ways = set(), set()
        for seed in range(300):
            sample = seeded(dataset, 0, seed)
            small = sample["pixel_values"].long()
            assert torch.equal(
                sample["hr"],
                sample["pixel_values"].repeat_interleave(scale, 1).repeat_interleave(scale, 2),
            )
            rows, columns = small[0], small[1]
            corners.add((int(rows.min()), int(columns.min())))
            ways.add(
                tuple(
                    int(axis[place] - axis[0, 0])
                    for axis in (rows, columns)
                    for place in ((1, 0), (0, 1))
                )
            )
        assert len(ways) == 8
        tops, lefts = zip(*corners, strict=True)
        assert (min(tops), max(tops), min(lefts), max(lefts)) == (0, 32, 0, 42)


def test_an_evaluation_sample_holds_the_whole_pair_and_its_bicubic(data):
    for scale in (2, 4):
        for pairs in both_pairs(data, scale, "val"):
            sample = SuperResolutionDataset(pairs, SuperResolutionEvalPreset(scale=scale))[2]
            small, large = pairs.whole(2)
            assert np.array_equal(sample["pixel_values"].permute(1, 2, 0).numpy(), small)
            assert np.array_equal(sample["hr"].permute(1, 2, 0).numpy(), large)
            assert np.array_equal(
                sample["bicubic"].permute(1, 2, 0).numpy(), matlab_resize(small, scale)
            )


@pytest.mark.parametrize(
    "degradation", [GaussianNoise(25, 25), GaussianNoise(15, 50), Jpeg(10, 40)]
)
@pytest.mark.parametrize("scale", [1, 4])
def test_evaluation_repeats_whatever_the_seeds_are(data, scale, degradation):
    preset = SuperResolutionEvalPreset(scale=scale, degradation=degradation)
    datasets = [SuperResolutionDataset(pairs, preset) for pairs in both_pairs(data, scale, "val")]
    first, *others = [
        seeded(dataset, 1, seed)
        for seed in (0, 1)
        for dataset in (*datasets, datasets[0].subset([2, 1]))
    ]
    clean = datasets[0].pairs.whole(1)[0]
    assert not np.array_equal(first["pixel_values"].permute(1, 2, 0).numpy(), clean)
    assert all(torch.equal(first[key], other[key]) for other in others for key in first)
    small = first["pixel_values"]
    enlarged = (
        small
        if scale == 1
        else torch.from_numpy(matlab_resize(small.permute(1, 2, 0).numpy(), scale)).permute(2, 0, 1)
    )
    assert torch.equal(first["bicubic"], enlarged)


def test_no_two_images_are_given_the_same_noise(data):
    dataset = SuperResolutionDataset(
        both_pairs(data, 1, "val")[0],
        SuperResolutionEvalPreset(scale=1, degradation=GaussianNoise(9, 9)),
    )
    one, other = (dataset[i]["pixel_values"].int() - dataset[i]["hr"].int() for i in (0, 1))
    height = min(one.shape[1], other.shape[1])
    assert not torch.equal(one[:, :height], other[:, :height])


def test_the_hr_of_restoration_is_the_clean_image(data):
    for pairs in both_pairs(data, 1):
        sample = seeded(train(pairs, 32, 1, degradation=GaussianNoise(50, 50), augment=False), 0, 3)
        difference = sample["pixel_values"].float() - sample["hr"].float()
        assert 30 < difference.std() < 60
        clean = decode(data / "train/HR/t00.png")
        windows = np.lib.stride_tricks.sliding_window_view(clean, (32, 32), axis=(0, 1))
        assert (windows == sample["hr"].numpy()).all(axis=(2, 3, 4)).sum() == 1


def test_sizes_that_do_not_go_together_name_both_files(data):
    write_image(data / "train/LR_x2/t01x2.png", some_image("wrong", 25, 32))
    why = (
        r"LR_x2/t01x2\.png: is 25 x 32 \(height x width\), for .*HR/t01\.png of 102 x 131 "
        r"it should be 51 x 65: it looks like x4, not x2$"
    )
    for pairs in both_pairs(data, 2):
        for preset in (
            SuperResolutionTrainPreset(patch=8, scale=2),
            SuperResolutionEvalPreset(scale=2),
        ):
            with pytest.raises(MismatchedPair, match=why) as caught:
                SuperResolutionDataset(pairs, preset)[1]
            assert caught.value.path.endswith("t01x2.png")


@pytest.mark.parametrize(
    ("small", "large", "scale", "fits"),
    [
        ((10, 20), (20, 40), 2, True),
        ((10, 20), (21, 41), 2, True),
        ((10, 20), (22, 40), 2, False),
        ((10, 20), (19, 40), 2, False),
        ((10, 20), (32, 62), 3, True),
        ((10, 20), (33, 60), 3, False),
        ((20, 10), (20, 40), 2, False),
    ],
)
def test_a_large_image_may_be_less_than_the_scale_larger(small, large, scale, fits):
    why = pair_mismatch(small, large, scale, "x.png")
    assert (why is None) == fits


def test_the_wrong_scale_is_recognized():
    assert pair_mismatch((10, 20), (40, 80), 2, "x.png").endswith(
        "it should be 20 x 40: it looks like x4, not x2"
    )
    assert pair_mismatch((20, 40), (40, 80), 4, "x.png").endswith(
        "it should be 10 x 20: it looks like x2, not x4"
    )
    assert pair_mismatch((10, 21), (40, 80), 2, "x.png").endswith("it should be 20 x 40")


def test_a_crop_that_does_not_fit_is_the_images_fault_and_named(data):
    write_image(data / "train/HR/t01.png", some_image("small", 40, 131))
    for pairs in both_pairs(data, 4):
        dataset = train(pairs, 12, 4)
        with pytest.raises(
            UnreadableImage,
            match=r"t01\.png: is 40 x 128 .*, a crop takes 48 x 48; choose a smaller --patch-size",
        ):
            dataset[1]
        assert seeded(dataset, 0, 0)["hr"].shape == (3, 48, 48)
        with pytest.raises(
            UnreadableImage, match="a crop takes 72 x 72"
        ):  # JPEG wants a block more
            train(pairs, 10, 4, degradation=Jpeg(30, 30))[1]


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_what_cannot_be_read_is_named_when_its_turn_comes(data, scale):
    (data / "train/HR/t01.png").write_bytes(b"")
    for pairs in both_pairs(data, scale):
        dataset = train(pairs, 8, scale)
        with pytest.raises(
            UnreadableImage, match=r"HR/t01\.png: (empty file|not an image of a known format)$"
        ):
            dataset[1]
        assert len(dataset[0]) == 2


def test_an_image_smaller_than_the_scale_is_named(data):
    write_image(data / "val/HR/v01.png", some_image("tiny", 3, 50))
    for pairs in both_pairs(data, 4, "val"):
        with pytest.raises(
            UnreadableImage, match=r"v01\.png: is 3 x 50 \(height x width\), too small for x4"
        ):
            SuperResolutionDataset(pairs, SuperResolutionEvalPreset(scale=4))[1]


def test_gray_palette_alpha_and_16_bit_images_become_rgb(tmp_path):
    colors = Image.fromarray(some_image("modes", 32, 40))
    kinds = {
        "gray": colors.convert("L"),
        "palette": colors.convert("P"),
        "alpha": colors.convert("RGBA"),
    }
    kinds["deep"] = Image.fromarray(np.asarray(colors.convert("L")).astype(np.uint16) * 257)
    for name, image in kinds.items():
        write_image(tmp_path / f"train/HR/{name}.png", image)
    stored, decoded = both_pairs(tmp_path, 2)
    for i in range(4):
        small, large = stored.whole(i)
        assert small.shape == (16, 20, 3) and same_pair((small, large), decoded.whole(i))
        expected = kinds[stored.index.name(i)[:-4]]
        expected = colors.convert("L") if stored.index.name(i) == "deep.png" else expected
        assert np.array_equal(large, np.asarray(expected.convert("RGB")))


def test_a_dataset_has_names_and_subsets(data):
    for scale in (1, 2, 4):
        for pairs in both_pairs(data, scale, "val"):
            dataset = SuperResolutionDataset(pairs, SuperResolutionEvalPreset(scale=scale))
            part = dataset.subset([2, 0])
            assert (
                len(dataset) == 3
                and len(part) == 2
                and part.name(0) == dataset.name(2) == str(data / "val/HR/v02.png")
            )
            assert all(
                torch.equal(part[0][key], dataset[2][key])
                for key in ("pixel_values", "hr", "bicubic")
            )
            assert part.fingerprint() != dataset.fingerprint() == pairs.index.fingerprint()


def test_the_published_pairs_of_set5_fit_together(real_data):
    for scale in (2, 3, 4):
        index = require_super_resolution_split(real_data("t91-set5"), "val", scale)
        for i in range(len(index)):
            small, large = DecodedPairs(index).whole(i)
            assert np.array_equal(shrink(large, scale), small)
