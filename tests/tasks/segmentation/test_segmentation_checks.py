"""Checks of a data folder with masks: every problem at once, each with its file."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from segmentation_files import write_pair, write_segmentation_data

from visionloop.engine.errors import UserError
from visionloop.tasks.segmentation.semantic.checks import check_segmentation_data, percent

SHAPE = (20, 24)


@pytest.fixture
def data(tmp_path):
    """Return a folder with train and val and no problem."""
    return write_segmentation_data(tmp_path / "data")


def check(data, val_split=0.0, image_size=16):
    return check_segmentation_data(str(data), val_split, image_size)


def whys(report, kind="errors"):
    return [(row["path"].rsplit("/", 1)[1], row["why"]) for row in report[kind]]


def rewrite(data, **content):
    (data / "classes.json").write_text(json.dumps(content))


def test_a_valid_folder_has_counts_and_no_problem(data):
    report = check(data)
    assert report["errors"] == report["warnings"] == []
    assert report["classes"] == {"sky": 12 * 6 * 24, "road": 12 * 6 * 24, "car": 12 * 6 * 24}
    assert report["lines"] == [
        "12 images in train, 3.0 classes per image, 3 at most",
        "pixels in train: sky 33 %, road 33 %, car 33 %; 10 % of all are ignored",
    ]
    json.dumps(report)


@pytest.mark.parametrize(
    ("share", "text"), [(1.0, "100 %"), (0.9996, "100 %"), (0.335, "34 %"), (0.0252, "2.5 %")]
)
def test_a_share_has_two_digits_and_no_exponent(share, text):
    assert percent(share) == text


def test_every_unreadable_or_wrong_file_is_named(data):
    (data / "images" / "train" / "train00.png").write_bytes(b"")
    (data / "masks" / "train" / "train01.png").write_bytes(b"no mask")
    write_pair(data, "train", "train02", np.full(SHAPE, 9, dtype=np.uint8))
    write_pair(data, "val", "val03", np.array([[3, 7] * 12] * 20, dtype=np.uint8))
    Image.new("L", (24, 21)).save(data / "masks" / "val" / "val04.png")
    Image.new("L", (20, 24)).save(data / "masks" / "val" / "val05.png")
    values = f"{data}/classes.json defines 0 to 2 and 255 (ignored)"
    assert dict(whys(check(data))) == {
        "train00.png": "empty file",
        "train01.png": "no PNG, TIFF or BMP file; other formats do not keep class ids",
        "train02.png": f"holds the value 9 in 480 pixels, {values}",
        "val03.png": f"holds 2 values (3, 7) in 480 pixels, {values}",
        "val04.png": "is 21 x 24 (height x width), its image 20 x 24",
        "val05.png": "is 24 x 20 (height x width), its image 20 x 24: "
        "width and height are exchanged",
    }


def test_missing_masks_of_all_splits_are_reported_at_once(data):
    (data / "masks" / "train" / "train05.png").unlink()
    (data / "masks" / "val" / "val07.png").unlink()
    errors = whys(check(data))
    assert (
        [path for path, _ in errors] == ["train", "val"]
        and "train05.png" in errors[0][1]
        and "val07.png" in errors[1][1]
    )


def test_a_wrong_class_file_is_one_error(data):
    rewrite(data, classes=["sky"], shades={})
    ((path, why),) = whys(check(data))
    assert path == "classes.json" and why.startswith("unknown key 'shades'")


def test_a_folder_of_another_kind_says_what_was_expected(tmp_path):
    (row,) = check(tmp_path)["errors"]
    assert row["path"] == str(tmp_path) and row["why"].startswith(
        "expected images/train/x.jpg with masks/train/x.png"
    )
    (row,) = check(tmp_path / "nothing")["errors"]
    assert row["why"] == "no such folder"
    with pytest.raises(UserError, match="--data"):
        check_segmentation_data(None, 0.0, 16)


def test_a_missing_validation_split_is_an_error_unless_one_is_made(data):
    shutil.rmtree(data / "images" / "val")
    assert (
        "--val-split 0.2" in check(data)["errors"][0]["why"]
        and check(data, val_split=0.2)["errors"] == []
    )


def test_classes_that_never_occur_are_named(data):
    rewrite(data, classes=["sky", "road", "car", "ship", "plane"])
    assert ("classes.json", "2 of 5 classes are never in train: ship, plane") in whys(
        check(data), "warnings"
    )


def test_values_that_count_from_one_are_suspected(data):
    for split in ("train", "val"):
        for path in (data / "masks" / split).iterdir():
            ids = np.array(Image.open(path))
            Image.fromarray(np.where(ids == 255, 0, ids + 1).astype(np.uint8)).save(path)
    errors = check(data)["errors"]
    assert len(errors) == 24 and all('"ids": "shift"' in row["why"] for row in errors)
    rewrite(data, classes=["sky", "road", "car"], ids="shift")
    assert check(data)["errors"] == [] and check(data)["classes"]["sky"] == 12 * 6 * 24
    rewrite(data, classes=["sky", "road", "car", "tree"], ignore_index=None)
    for path in (data / "masks" / "train").iterdir():
        ids = np.array(Image.open(path))
        Image.fromarray(np.maximum(ids, 1)).save(path)
    why = '1 of 4 classes are never in train: sky; if the files count from 1, set "ids": "shift"'
    assert ("classes.json", why) in whys(check(data), "warnings")


def test_classes_that_splits_do_not_share_are_reported(data):
    for number in range(12):
        write_pair(data, "train", f"train{number:02}", np.full(SHAPE, number % 2, dtype=np.uint8))
        write_pair(data, "val", f"val{number:02}", np.full(SHAPE, 2 - number % 2, dtype=np.uint8))
    warnings = whys(check(data), "warnings")
    assert ("val", "val has classes that train does not have: car") in warnings
    assert ("val", "val has no pixel of sky; they get no score") in warnings
    assert ("train", "few images: 6 with sky, 6 with road; a class needs at least 10") in warnings


def test_masks_without_a_valid_pixel_are_a_warning(data):
    write_pair(data, "train", "train03", np.full(SHAPE, 255, dtype=np.uint8))
    report = check(data)
    assert report["errors"] == [] and whys(report, "warnings") == [
        ("train", "1 masks have ignored pixels alone: train03.png")
    ]


def test_data_without_any_valid_pixel_is_an_error(data):
    for number in range(12):
        write_pair(data, "train", f"train{number:02}", np.full(SHAPE, 255, dtype=np.uint8))
    assert whys(check(data)) == [
        ("train", "no mask of train has a pixel of any class; nothing can be learned or scored")
    ]


def test_mostly_ignored_pixels_are_suspicious(data):
    rewrite(data, classes=["sky"], ids={"0": 0})
    why = f"70 % of the pixels are ignored; are the values in {data}/classes.json right?"
    assert whys(check(data), "warnings") == [("train", why), ("val", why)]


def test_duplicates_and_masks_without_an_image_are_reported(data):
    shutil.copy(data / "images" / "train" / "train01.png", data / "images" / "val" / "val02.png")
    (data / "images" / "train" / "train05.png").unlink()
    warnings = whys(check(data), "warnings")
    assert ("train", "1 masks without an image: train05.png") in warnings
    assert any(
        path == "val02.png" and why.endswith("val is not independent of train")
        for path, why in warnings
    )


def test_images_that_exif_rotates_in_place_are_reported(data):
    exif = Image.Exif()
    exif[0x0112] = 3
    generator = np.random.default_rng(0)
    Image.fromarray(generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(
        data / "images" / "val" / "val02.png", exif=exif
    )
    ((path, why),) = whys(check(data), "warnings")
    assert path == "val" and why.startswith(
        "1 images are rotated by EXIF and keep their size: val02.png; sizes cannot tell whether"
    )


def test_classes_that_vanish_at_the_image_size_are_reported(data):
    ids = np.zeros((200, 240), dtype=np.uint8)
    ids[:100], ids[150, 100] = 1, 2
    for number in range(12):
        write_pair(data, "train", f"train{number:02}", ids)
    report = check(data)
    assert (
        "classes that vanish when whole images are resized to 16 px: car from 100 % of the images"
        " with them"
    ) in report["lines"]
    why = (
        "mostly too small to be visible at 16 px: car; consider a larger --image-size, or smaller"
        " images"
    )
    assert ("train", why) in whys(report, "warnings")
    assert not any("vanish" in line for line in check(data, image_size=240)["lines"])


def test_a_gray_palette_in_another_order_than_the_values_is_warned_of(data):
    for number, path in enumerate(sorted((data / "masks" / "train").iterdir())[:3]):
        mask = Image.open(path)
        mask = Image.fromarray(np.where(np.array(mask) > 2, 0, np.array(mask))).convert("P")
        order = (2, 0, 1) if number < 2 else (0, 1, 2)
        mask.putpalette([gray for gray in order for _ in range(3)])
        mask.save(path)
    ((name, why),) = whys(check(data), "warnings")
    assert name.endswith("00.png") and why.startswith("2 of 12 masks, this one first: ")
    assert "0 is gray 2, 1 is gray 0, 2 is gray 1" in why and '"palette": "values"' in why
    rewrite(data, classes=["sky", "road", "car"], palette="values")
    assert check(data)["warnings"] == []
