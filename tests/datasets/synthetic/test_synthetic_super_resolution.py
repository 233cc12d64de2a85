"""Sample data of super-resolution: readable, with training and validation kept apart."""

import numpy as np
import pytest
from PIL import Image

from visionloop.datasets.io.images import read_size
from visionloop.datasets.super_resolution.dataset import DecodedPairs
from visionloop.datasets.super_resolution.downscale import shrink
from visionloop.datasets.super_resolution.layout import require_super_resolution_split
from visionloop.datasets.synthetic.super_resolution import REGIONS, SIDES, SPLITS, random_crop
from visionloop.datasets.synthetic.writers import WRITERS

REGION_LIST = [region for regions in REGIONS.values() for region in regions]


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    WRITERS["super_resolution"](folder, seed=0)
    return folder


@pytest.mark.parametrize(
    "region", REGION_LIST, ids=lambda region: f"{region.photograph}{region.box or ''}"
)
def test_every_photograph_is_in_the_installed_wheel_and_large_enough(region):
    assert min(region.load().size) >= SIDES[0] and region.load().mode == "RGB"


def test_our_reader_takes_it(written):
    train, val = (require_super_resolution_split(written, split, 2) for split in ("train", "val"))
    assert (len(train), len(val)) == (SPLITS["train"], SPLITS["val"]) == (40, 6)
    assert train.lr_folder is None and [val.lr_name(i) for i in range(2)] == [
        "0000x2.png",
        "0001x2.png",
    ]
    sizes_hw = [read_size(index.path(i)) for index in (train, val) for i in range(len(index))]
    assert (
        all(SIDES[0] <= side <= SIDES[1] for size_hw in sizes_hw for side in size_hw)
        and len(set(sizes_hw)) > 40
    )
    for i in range(len(val)):
        small, large = DecodedPairs(val).whole(i)
        assert np.array_equal(shrink(large, 2), small)


def test_training_and_validation_share_no_photograph_and_validation_no_pixel():
    photographs = {
        split: {region.photograph for region in regions} for split, regions in REGIONS.items()
    }
    assert not photographs["train"] & photographs["val"]
    assert len(REGIONS["val"]) == SPLITS["val"]
    for region in REGIONS["val"]:
        for other in REGIONS["val"]:
            if other is not region and other.photograph == region.photograph:
                assert region.box[2] <= other.box[0] or other.box[2] <= region.box[0]


def test_a_crop_is_a_part_of_its_region_and_half_of_them_are_mirrored():
    region = REGIONS["val"][0]
    whole = np.asarray(region.load())
    mirrored = []
    for seed in range(40):
        crop = np.asarray(random_crop(np.random.default_rng(seed), region))
        height, width = crop.shape[:2]
        places = [
            np.argwhere(
                (
                    np.lib.stride_tricks.sliding_window_view(whole, (1, 5, 3))[:, :, 0, 0] == corner
                ).all(axis=(-2, -1))
            )
            for corner in (crop[0, :5], crop[0, ::-1][:5])
        ]
        matches = [
            np.array_equal(whole[y : y + height, x : x + width], way)
            for spots, way in zip(places, (crop, crop[:, ::-1]), strict=True)
            for y, x in spots
        ]
        assert any(matches)
        mirrored.append(
            any(
                np.array_equal(whole[y : y + height, x : x + width], crop[:, ::-1])
                for y, x in places[1]
            )
        )
    assert 0.3 < np.mean(mirrored) < 0.7


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(written, tmp_path):
    for name, seed in (("same", 0), ("other", 1)):
        (tmp_path / name).mkdir()
        WRITERS["super_resolution"](tmp_path / name, seed)
    first, same, other = (
        contents(written),
        contents(tmp_path / "same"),
        contents(tmp_path / "other"),
    )
    assert (
        same == first
        and other.keys() == first.keys()
        and not set(other.values()) & set(first.values())
    )


def test_an_image_does_not_depend_on_how_many_there_are(written, tmp_path):
    WRITERS["super_resolution"](tmp_path, seed=0, images={"train": 5, "val": 2})
    assert contents(tmp_path).items() <= contents(written).items() and len(contents(tmp_path)) == 9


def test_no_two_images_are_the_same(written):
    images = list(contents(written).values())
    assert len(set(images)) == len(images) == 52


def test_there_is_detail_to_be_learned(written):
    """Halving removes more than a gray level or two in most images."""
    lost = []
    for path in sorted((written / "train/HR").iterdir()):
        with Image.open(path) as image:
            half = image.reduce(2).resize(image.size, Image.Resampling.BICUBIC)
            lost.append(np.abs(np.asarray(image, dtype=float) - np.asarray(half)).mean())
    assert np.median(lost) > 2
