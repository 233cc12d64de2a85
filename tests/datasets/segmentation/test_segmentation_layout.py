"""Matching of images and masks, and the required content of a folder."""

import json

import numpy as np
import pytest
from segmentation_files import write_pair, write_segmentation_data

from visionloop.datasets.io.layout import DataLayoutError
from visionloop.datasets.segmentation.layout import (
    find_segmentation_split,
    masks_without_image,
    require_segmentation_split,
)

IDS = np.zeros((4, 6), dtype=np.uint8)


@pytest.fixture
def data(tmp_path):
    return write_segmentation_data(tmp_path / "data", images=3)


def test_images_and_masks_are_paired_by_path_in_order(data):
    write_pair(data, "train", "b/x", IDS, suffix=".JPG")
    write_pair(data, "train", "a/x", IDS, suffix=".webp")
    write_pair(data, "train", ".hidden/x", IDS)
    (data / "images" / "train" / "notes.txt").write_text("no image")
    index = require_segmentation_split(data, "train")
    names = ["a/x.webp", "b/x.JPG", "train00.png", "train01.png", "train02.png"]
    assert (
        [index.name(i) for i in range(len(index))] == names
        and index.classes == ("sky", "road", "car")
        and index.colors is None
    )
    assert [index.path(i) for i in range(5)] == [
        str(data / "images" / "train" / name) for name in names
    ]
    masks = [str(data / "masks" / "train" / name).rsplit(".", 1)[0] + ".png" for name in names]
    assert [index.mask_path(i) for i in range(5)] == masks


@pytest.mark.parametrize("word", ["val", "valid", "validation"])
def test_a_validation_split_may_be_called_three_ways(data, word):
    (data / "images" / "val").rename(data / "images" / word)
    assert len(find_segmentation_split(data, "val")) == 3


def test_two_words_for_the_same_split_are_an_error(data):
    (data / "images" / "valid").mkdir()
    with pytest.raises(DataLayoutError, match="holds both val/ and valid/"):
        find_segmentation_split(data, "val")


def test_a_split_that_is_not_there_is_none_or_an_error_that_says_what_is(data):
    assert find_segmentation_split(data, "test") is None
    expected = (
        r"expected images/test/x.jpg with masks/test/x.png and classes.json; "
        r"found in images/ train, val"
    )
    with pytest.raises(DataLayoutError, match=expected):
        require_segmentation_split(data, "test")


def test_a_folder_without_images_says_what_was_expected(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(DataLayoutError, match=r"expected images/train/x.jpg .*; found train$"):
        require_segmentation_split(tmp_path, "train")
    with pytest.raises(DataLayoutError, match="no such folder"):
        find_segmentation_split(tmp_path / "nothing", "train")
    (tmp_path / "images" / "train").mkdir(parents=True)
    (tmp_path / "masks" / "train").mkdir(parents=True)
    (tmp_path / "classes.json").write_text('["a"]')
    with pytest.raises(
        DataLayoutError, match=r"train: no images in it, it holds nothing; supported are \.jpg"
    ):
        require_segmentation_split(tmp_path, "train")


def test_images_without_masks_are_counted_and_the_first_is_named(data):
    (data / "masks" / "train" / "train01.png").unlink()
    with pytest.raises(
        DataLayoutError,
        match=r"no mask for the image train01\.png, expected .*masks/train/train01\.png; it holds",
    ):
        require_segmentation_split(data, "train")
    (data / "masks" / "train" / "train02.png").unlink()
    with pytest.raises(
        DataLayoutError, match=r"2 of 3 images have no mask; the first is train01\.png"
    ):
        require_segmentation_split(data, "train")


def test_missing_folders_and_files_are_named(data):
    (data / "masks" / "val").rename(data / "masks" / "else")
    with pytest.raises(DataLayoutError, match="masks/val: no such folder; expected a mask"):
        find_segmentation_split(data, "val")
    (data / "classes.json").unlink()
    with pytest.raises(
        DataLayoutError,
        match=r"classes\.json: No such file or directory; expected \{\"classes\": \[",
    ):
        find_segmentation_split(data, "train")


def test_the_folder_of_the_images_suggests_the_one_above(data):
    with pytest.raises(DataLayoutError, match=rf"; did you mean {data}\?$"):
        require_segmentation_split(data / "images", "train")


def test_files_that_differ_in_their_suffix_alone_are_an_error(data):
    write_pair(data, "train", "train00", IDS, suffix=".jpg")
    with pytest.raises(
        DataLayoutError,
        match=r"images/train: train00\.jpg and train00\.png have one mask; keep one",
    ):
        require_segmentation_split(data, "train")


def test_masks_without_an_image_are_found_and_do_no_harm(data):
    (data / "images" / "train" / "train01.png").unlink()
    index = require_segmentation_split(data, "train")
    assert len(index) == 2 and masks_without_image(index) == [
        str(data / "masks" / "train" / "train01.png")
    ]


def test_classes_of_a_trained_model_are_matched_by_name(data):
    assert require_segmentation_split(
        data, "train", ("car", "road", "tree", "sky")
    ).class_file.table[:3].tolist() == [3, 1, 0]
    with pytest.raises(
        DataLayoutError, match=r"classes\.json: class 'car' is not one of the 2 known classes"
    ):
        require_segmentation_split(data, "train", ("road", "sky"))


def test_a_subset_holds_its_rows_in_their_order(data):
    index = require_segmentation_split(data, "train")
    part = index.subset([2, 0])
    assert [part.name(i) for i in range(len(part))] == ["train02.png", "train00.png"]
    assert part.mask_path(0) == index.mask_path(2) and part.classes == index.classes


def test_the_fingerprint_is_of_the_data_not_of_its_place(data, tmp_path):
    def fingerprint():
        return require_segmentation_split(data, "train").fingerprint()

    first = fingerprint()
    data = data.rename(tmp_path / "elsewhere")
    assert (
        fingerprint()
        == first
        == require_segmentation_split(data, "train").subset([0, 1, 2]).fingerprint()
    )
    assert require_segmentation_split(data, "train").subset([1, 0, 2]).fingerprint() != first
    (data / "classes.json").write_text(
        json.dumps({"classes": ["sky", "road", "car"], "ignore_index": 200})
    )
    changed = fingerprint()
    write_pair(data, "train", "train01", np.zeros((40, 50), dtype=np.uint8))
    assert len({first, changed, fingerprint()}) == 3


def test_real_data_is_found(real_data):
    index = require_segmentation_split(real_data("camvid-mini"), "val")
    assert len(index) == 24 and len(index.classes) == 11 and index.classes[3] == "road"
