"""Splits of large and small images, and errors before the first step."""

import numpy as np
import pytest
from super_resolution_files import some_image, write_image, write_super_resolution_data

from visionloop.datasets.super_resolution.dataset import DecodedPairs, StoredPairs
from visionloop.engine.errors import UserError
from visionloop.tasks.super_resolution.data import index_split, open_images, training_splits


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write_super_resolution_data(tmp_path / "data", images=10, given=[2])


def names(index):
    return [index.name(i) for i in range(len(index))]


def test_the_validation_folder_is_taken_where_there_is_one(data):
    train, val = training_splits(str(data), 0.0, 2)
    assert train.name(0) == "t00.png" and val.lr_name(0) == "v00x2.png"
    with pytest.raises(
        UserError, match=r"--val-split: .* has a validation split; leave the option out"
    ):
        training_splits(str(data), 0.2, 2)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_a_share_is_set_aside_by_hash_and_the_same_each_time_and_scale(data, scale):
    (data / "val").rename(data / "later")
    with pytest.raises(
        UserError, match=r"no validation split \(val/HR/\); add one, or .*--val-split 0\.2"
    ):
        training_splits(str(data), 0.0, scale)
    train, val = training_splits(str(data), 0.2, scale)
    assert len(train) == 8 and len(val) == 2 and not set(names(train)) & set(names(val))
    assert names(val) == names(training_splits(str(data), 0.2, 2)[1])


def test_what_is_wrong_with_the_folder_is_for_the_user_to_fix(data):
    with pytest.raises(
        UserError, match=r"--data: expected a folder with train/HR/ and val/HR/"
    ) as caught:
        index_split(None, "train", 2)
    assert caught.value.field == "data"
    with pytest.raises(UserError, match="found train, val") as caught:
        index_split(str(data), "test", 2)
    assert caught.value.code == "bad_layout" and caught.value.file == str(data)
    (data / "val/LR_x2/v03x2.png").unlink()
    with pytest.raises(UserError, match=r"no small image for v03\.png"):
        training_splits(str(data), 0.0, 2)


def test_both_ways_of_reading_are_opened(data):
    index = index_split(str(data), "train", 2)
    stored, decoded = open_images(index, "disk", 16), open_images(index, "none", 16)
    assert isinstance(stored, StoredPairs) and isinstance(decoded, DecodedPairs)
    assert all(
        np.array_equal(one, other)
        for one, other in zip(stored.crop(3, 1, 2, 16), decoded.crop(3, 1, 2, 16), strict=True)
    )


@pytest.mark.parametrize("cache", ["disk", "none"])
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_images_without_room_for_a_crop_are_reported_before_the_first_step(data, cache, scale):
    write_image(data / "train/HR/t04.png", some_image("small", 20, 62))
    write_image(data / "train/LR_x2/t04x2.png", some_image("small", 10, 31))
    (data / "train/HR/t05.png").write_bytes(b"")  # not reported here: --skip-unreadable skips it
    index = index_split(str(data), "train", scale)
    assert open_images(index, cache, 20 // scale) and open_images(index, cache)
    why = rf"HR/t04\.png: is 20 x \d\d .*, a crop takes {20 + scale} x .*, or remove the image$"
    with pytest.raises(UserError, match=why) as caught:
        open_images(index, cache, 20 // scale + 1)
    assert caught.value.field == "patch_size" and caught.value.file.endswith("t04.png")
    with pytest.raises(UserError, match=r"\((9|10) of 10 images are too small\)$"):
        open_images(index, cache, 100)


def test_a_cache_that_cannot_be_written_is_reported_with_the_way_out(data, tmp_path):
    (tmp_path / "cache").write_text("a file")
    index = index_split(str(data), "train", 2)
    with pytest.raises(UserError, match=r"^--cache: .*cannot be written.*--cache none") as caught:
        open_images(index, "disk")
    assert caught.value.field == "cache"
    assert open_images(index, "none").whole(0)
