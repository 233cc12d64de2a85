"""Names of folders with low-resolution images: used where sizes fit, never passed over unsaid."""

import pytest
from super_resolution_files import some_image, write_image, write_super_resolution_data

from visionloop.datasets.io.layout import DataLayoutError
from visionloop.datasets.super_resolution.layout import (
    require_super_resolution_split,
    unused_lr_folders,
)
from visionloop.datasets.super_resolution.lr_folders import LrFolder, scale_of
from visionloop.tasks.super_resolution.checks import compare_lr_sources, describe_lr_source


@pytest.fixture
def data(tmp_path):
    return write_super_resolution_data(tmp_path / "data", images=3, given=[2])


def rename(data, name, split="train"):
    """Give another name to the folder of the low-resolution images."""
    target = data / split / name
    target.parent.mkdir(exist_ok=True)
    (data / split / "LR_x2").rename(target)


NAMES = ("LR", "lr", "lr_x2", "LRx2", "LR_X2", "LR2x", "X2", "LQ", "low_res", "LR_bicubic")
NAMES += ("LR_bicubic/X2", "LR/x2", "LRBI/x2", "LRblurx2", "LR-unknown-x2", "DIV2K_train_LR_x2")


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_by_any_usual_name_is_used_when_its_sizes_fit(data, name):
    rename(data, name)
    index = require_super_resolution_split(data, "train", 2)
    assert index.lr_folder == str(data / "train" / name)
    assert describe_lr_source(index) == [f"small images are read from {name}/"]


@pytest.mark.parametrize("name", ["LR", "lq", "LR_bicubic"])
def test_a_folder_whose_sizes_do_not_fit_is_an_error_that_names_it(data, name):
    rename(data, name)
    for path in (data / "train" / name).iterdir():
        path.rename(path.with_name(path.name.replace("x2", "")))
    with pytest.raises(DataLayoutError, match=rf"it looks like x2, not x4; .* {name}/ do not fit"):
        require_super_resolution_split(data, "train", 4)


@pytest.mark.parametrize("name", ["lr_x2", "LR_bicubic/X2", "X2", "LRx2"])
def test_a_folder_of_another_scale_is_named_as_not_used(data, name):
    rename(data, name)
    index = require_super_resolution_split(data, "train", 3)
    assert index.lr_folder is None and unused_lr_folders(index) == [LrFolder(name, 2)]
    assert f"{name} beside it is not used" in describe_lr_source(index)[0]


def test_two_folders_that_may_be_meant_are_an_error(data):
    rename(data, "lr_bicubic_x2")
    write_image(data / "train" / "lr_unknown_x2" / "t00.png", some_image("x", 25, 31))
    with pytest.raises(DataLayoutError, match=r"both lr_bicubic_x2/ and lr_unknown_x2/.* LR_x2"):
        require_super_resolution_split(data, "train", 2)


def test_our_own_name_comes_before_others_which_are_said_to_be_unused(data):
    write_image(data / "train" / "LR_bicubic" / "X2" / "t00.png", some_image("x", 25, 31))
    index = require_super_resolution_split(data, "train", 2)
    assert index.lr_folder == str(data / "train" / "LR_x2")
    assert describe_lr_source(index)[0].endswith("; LR_bicubic/X2 beside it is not used")


@pytest.mark.parametrize("scale", [1, 2])
def test_a_folder_whose_name_means_nothing_is_said_to_be_unused(data, scale):
    rename(data, "input")
    index = require_super_resolution_split(data, "train", scale)
    assert index.lr_folder is None
    assert describe_lr_source(index)[0].endswith("; input beside it is not used")


def test_a_restoration_says_that_degraded_images_of_the_data_are_not_read(data):
    rename(data, "LQ")
    index = require_super_resolution_split(data, "train", 1)
    assert "LQ beside it is not used" in describe_lr_source(index)[0]


def test_large_images_may_be_in_a_folder_in_small_letters(data):
    (data / "train" / "HR").rename(data / "train" / "hr")
    index = require_super_resolution_split(data, "train", 2)
    assert len(index) == 3 and index.lr_folder == str(data / "train" / "LR_x2")


def test_splits_with_small_images_of_different_sources_are_warned_of(data):
    train, val = (require_super_resolution_split(data, split, 2) for split in ("train", "val"))
    assert compare_lr_sources(train, val) is None
    (data / "val" / "LR_x2").rename(data / "val" / "other")
    made = require_super_resolution_split(data, "val", 2)
    assert "another task" in str(compare_lr_sources(train, made))


@pytest.mark.parametrize("name", ["HR", "GT", "masks", "color", "solar", "max2", "fox2", "HR_x2"])
def test_names_of_other_folders_have_no_scale(name):
    assert scale_of(name) is None
