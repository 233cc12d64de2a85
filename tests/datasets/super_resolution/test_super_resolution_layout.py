"""Matching of low and high-resolution images, and the required content of a folder."""

import shutil

import pytest
from super_resolution_files import some_image, write_image, write_super_resolution_data

from visionloop.datasets.io.layout import DataLayoutError
from visionloop.datasets.super_resolution.layout import (
    find_super_resolution_split,
    lr_without_hr,
    require_super_resolution_split,
    unused_lr_folders,
)
from visionloop.datasets.super_resolution.lr_folders import LrFolder

IMAGE = some_image("any", 16, 16)


@pytest.fixture
def data(tmp_path):
    return write_super_resolution_data(tmp_path / "data", images=3, given=[2])


def names(index):
    return [index.name(i) for i in range(len(index))]


def small_names(index):
    return [index.lr_name(i) for i in range(len(index))]


def test_pairs_are_found_at_any_depth_in_order(data):
    write_image(data / "train/HR/more/b.webp", IMAGE)
    write_image(data / "train/LR_x2/more/b.bmp", IMAGE)
    write_image(data / "train/HR/.hidden/c.png", IMAGE)
    (data / "train/HR/notes.txt").write_text("no image")
    index = require_super_resolution_split(data, "train", 2)
    assert names(index) == ["more/b.webp", "t00.png", "t01.png", "t02.png"] and index.scale == 2
    assert small_names(index) == ["more/b.bmp", "t00x2.png", "t01x2.png", "t02x2.png"]
    assert index.path(1) == str(data / "train/HR/t00.png") and index.lr_path(1) == str(
        data / "train/LR_x2/t00x2.png"
    )


@pytest.mark.parametrize("stem", ["a", "ax2", "aX2", "a_x2", "a-x2"])
def test_the_stem_of_a_small_image_may_end_in_the_scale(tmp_path, stem):
    write_image(tmp_path / "train/HR/a.png", IMAGE)
    write_image(tmp_path / f"train/LR_x2/{stem}.png", IMAGE)
    assert small_names(require_super_resolution_split(tmp_path, "train", 2)) == [f"{stem}.png"]


def test_a_large_image_that_is_itself_called_so_keeps_its_own(tmp_path):
    for name in ("HR/a", "HR/ax2", "LR_x2/ax2"):
        write_image(tmp_path / f"train/{name}.png", IMAGE)
    with pytest.raises(
        DataLayoutError, match=r"no small image for a\.png, expected .*LR_x2/a\.png"
    ):
        require_super_resolution_split(tmp_path, "train", 2)
    write_image(tmp_path / "train/LR_x2/a.png", IMAGE)
    assert small_names(require_super_resolution_split(tmp_path, "train", 2)) == ["a.png", "ax2.png"]


def test_the_folder_of_the_images_suggests_the_one_above(data):
    for wrong in (data / "train", data / "train" / "HR"):
        with pytest.raises(DataLayoutError, match=rf"; did you mean {data}\?$"):
            require_super_resolution_split(wrong, "train", 2)


def test_without_small_images_of_the_scale_they_are_to_be_made(data):
    for scale in (1, 3, 4, 8):
        index = require_super_resolution_split(data, "train", scale)
        assert (
            len(index) == 3
            and index.lr_folder is None
            and index.lr_paths == b""
            and lr_without_hr(index) == []
        )
    assert unused_lr_folders(require_super_resolution_split(data, "train", 3)) == [
        LrFolder("LR_x2", 2)
    ]
    assert unused_lr_folders(require_super_resolution_split(data, "train", 2)) == []


@pytest.mark.parametrize("word", ["val", "valid", "validation"])
def test_a_validation_split_may_be_called_three_ways(data, word):
    (data / "val").rename(data / word)
    assert len(find_super_resolution_split(data, "val", 2)) == 3


def test_a_split_that_is_not_there_is_none_or_an_error_that_says_what_is(data):
    assert find_super_resolution_split(data, "test", 2) is None
    with pytest.raises(DataLayoutError, match=r"expected test/HR/x\.png, found train, val$"):
        require_super_resolution_split(data, "test", 2)
    with pytest.raises(DataLayoutError, match="no such folder"):
        find_super_resolution_split(data / "nothing", "train", 2)


def test_a_split_without_large_images_says_what_was_expected(data):
    (data / "train/HR").rename(data / "train/high")
    with pytest.raises(
        DataLayoutError, match=r"train: expected HR/x\.png in it, found LR_x2, high$"
    ):
        find_super_resolution_split(data, "train", 2)
    (data / "train/HR").mkdir()
    with pytest.raises(
        DataLayoutError, match=r"train/HR: no images in it, it holds nothing; supported are \.jpg"
    ):
        find_super_resolution_split(data, "train", 2)


def test_missing_partners_are_counted_and_the_first_is_named(data):
    (data / "train/LR_x2/t01x2.png").unlink()
    with pytest.raises(
        DataLayoutError,
        match=r"LR_x2: no small image for t01\.png, expected .*LR_x2/t01\.png; it holds t00x2\.png",
    ):
        require_super_resolution_split(data, "train", 2)
    (data / "train/LR_x2/t02x2.png").unlink()
    with pytest.raises(
        DataLayoutError, match=r"2 of 3 images have no small one; the first is t01\.png"
    ):
        require_super_resolution_split(data, "train", 2)
    shutil.rmtree(data / "train/LR_x2")
    (data / "train/LR_x2").mkdir()
    with pytest.raises(
        DataLayoutError,
        match=r"3 of 3 .*; it holds no images\. Without the folder small images are made from HR/",
    ):
        require_super_resolution_split(data, "train", 2)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("HR/t00.jpg", r"HR: t00\.jpg and t00\.png would have one small image; keep one"),
        (
            "LR_x2/t00x2.jpg",
            r"LR_x2: t00x2\.jpg and t00x2\.png belong to one large image; keep one",
        ),
        ("LR_x2/t00.png", r"LR_x2: t00\.png and t00x2\.png belong to one large image; keep one"),
        (
            "LR_x2/t00_x2.png",
            r"LR_x2: t00_x2\.png and t00x2\.png belong to one large image; keep one",
        ),
    ],
)
def test_two_files_for_one_image_are_an_error(data, name, why):
    write_image(data / "train" / name, IMAGE)
    with pytest.raises(DataLayoutError, match=why):
        require_super_resolution_split(data, "train", 2)


def test_small_images_without_a_large_one_are_found_and_do_no_harm(data):
    (data / "train/HR/t01.png").unlink()
    index = require_super_resolution_split(data, "train", 2)
    assert small_names(index) == ["t00x2.png", "t02x2.png"]
    assert lr_without_hr(index) == [str(data / "train/LR_x2/t01x2.png")]


@pytest.mark.parametrize("scale", [1, 2])
def test_a_subset_keeps_pairs_in_their_order(data, scale):
    index = require_super_resolution_split(data, "train", scale)
    part = index.subset([2, 0])
    assert names(part) == ["t02.png", "t00.png"] and part.lr_folder == index.lr_folder
    if scale == 2:
        assert [part.lr_path(i) for i in (0, 1)] == [index.lr_path(i) for i in (2, 0)]


def test_the_fingerprint_is_of_the_data_and_the_scale_not_of_the_place(data, tmp_path):
    def fingerprint(scale=2):
        return require_super_resolution_split(data, "train", scale).fingerprint()

    first = fingerprint()
    data = data.rename(tmp_path / "elsewhere")
    assert (
        fingerprint()
        == first
        == require_super_resolution_split(data, "train", 2).subset([0, 1, 2]).fingerprint()
    )
    others = [fingerprint(scale) for scale in (1, 3, 4)]
    others.append(require_super_resolution_split(data, "train", 2).subset([1, 0, 2]).fingerprint())
    write_image(data / "train/LR_x2/t01x2.png", IMAGE)
    others.append(fingerprint())
    shutil.rmtree(data / "train/LR_x2")
    others.append(fingerprint())
    assert len({first, *others}) == 7


def test_real_data_is_found(real_data):
    index = require_super_resolution_split(real_data("t91-set5"), "val", 3)
    assert names(index) == ["baby.png", "bird.png", "butterfly.png", "head.png", "woman.png"]
    assert index.lr_path(0).endswith("val/LR_x3/baby.png")
