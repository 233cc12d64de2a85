"""The checks of large and small images: every problem at once, each with its file."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from super_resolution_files import some_image, write_image, write_super_resolution_data

from visionloop.datasets.cache.store_files import cache_folder
from visionloop.engine.errors import UserError
from visionloop.tasks.super_resolution import checks
from visionloop.tasks.super_resolution.checks import check_super_resolution_data

REAL = Path(__file__).parents[3].parent / "shared" / "data" / "t91-set5"


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder with train and val in which nothing is wrong."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write_super_resolution_data(tmp_path / "data", images=20, size_hw=(70, 80), given=[2])


def check(data, val_split=0.0, scale=2, patch=16, cache="disk"):
    return check_super_resolution_data(str(data), val_split, scale, patch, cache)


def whys(report, kind="errors"):
    return [(row["path"].rsplit("/", 1)[1], row["why"]) for row in report[kind]]


def test_a_sound_folder_has_nothing_but_its_numbers_and_nothing_is_written(data):
    report = check(data)
    assert report["errors"] == report["warnings"] == [] and report["classes"] == {}
    assert report["lines"][:2] == [
        "20 images in train with 0.1 million pixels, 124 crops of 32 x 32 side by side",
        "small images are read from LR_x2/",
    ]
    assert report["lines"][2].startswith(f"decoded images take 0.00 GiB in {cache_folder()}, ")
    assert (
        report["lines"][2].endswith("--cache none writes nothing") and not cache_folder().exists()
    )
    json.dumps(report)
    assert check(data, cache="none")["lines"] == report["lines"][:2]


@pytest.mark.parametrize("scale", [1, 3, 4])
def test_other_scales_are_made_from_the_large_images(data, scale):
    report = check(data, scale=scale)
    assert report["errors"] == report["warnings"] == []
    line = (
        f"small images are made from HR/ with MATLAB's bicubic, x{scale};"
        " LR_x2 beside it is not used"
    )
    assert (line in report["lines"]) == (scale > 1) and len(report["lines"]) == 2 + (scale > 1)


def test_every_unreadable_wrong_or_small_file_is_named(data):
    (data / "train/HR/t00.png").write_bytes(b"")
    (data / "train/LR_x2/t01x2.png").write_bytes(b"no image")
    write_image(data / "train/LR_x2/t02x2.png", some_image("x4", 18, 20))
    write_image(data / "train/HR/t03.png", some_image("small", 31, 80))
    write_image(data / "train/LR_x2/t03x2.png", some_image("small", 15, 40))
    (data / "val/HR/v04.png").write_bytes((data / "val/HR/v04.png").read_bytes()[:900])
    write_image(data / "val/LR_x2/v05x2.png", some_image("turned", 40, 37))
    assert dict(whys(check(data))) == {
        "t00.png": "empty file",
        "t01x2.png": "not an image of a known format",
        "t02x2.png": f"is 18 x 20 (height x width), for {data}/train/HR/t02.png of 72 x 80"
        " it should be 36 x 40: it looks like x4, not x2",
        "t03.png": "is 30 x 80 (height x width), a crop takes 32 x 32;"
        " choose a smaller --patch-size",
        "v04.png": "truncated: the end of the file is missing",
        "v05x2.png": f"is 40 x 37 (height x width), for {data}/val/HR/v05.png of 75 x 80"
        " it should be 37 x 40",
    }


def test_missing_partners_of_all_splits_are_reported_at_once(data):
    (data / "train/LR_x2/t05x2.png").unlink()
    (data / "val/LR_x2/v07x2.png").unlink()
    errors = whys(check(data))
    assert (
        [path for path, _ in errors] == ["LR_x2", "LR_x2"]
        and "t05.png" in errors[0][1]
        and "v07.png" in errors[1][1]
    )


def test_a_folder_of_another_kind_says_what_was_expected(tmp_path):
    (row,) = check(tmp_path)["errors"]
    assert row["path"] == str(tmp_path) and row["why"] == "expected train/HR/x.png, found nothing"
    (row,) = check(tmp_path / "nothing")["errors"]
    assert row["why"] == "no such folder"
    with pytest.raises(UserError, match="--data"):
        check_super_resolution_data(None, 0.0, 2, 16, "none")


def test_a_missing_validation_split_is_an_error_unless_one_is_made(data):
    shutil.rmtree(data / "val")
    assert (
        "--val-split 0.2" in check(data)["errors"][0]["why"]
        and check(data, val_split=0.2)["errors"] == []
    )


def test_a_missing_partner_does_not_hide_a_missing_validation_split(data):
    shutil.rmtree(data / "val")
    (data / "train/LR_x2/t05x2.png").unlink()
    (_, pair), (path, why) = whys(check(data))
    assert "t05.png" in pair and path == "data" and "--val-split 0.2" in why


def test_jpeg_ground_truth_is_identified_by_content_not_by_name(data):
    image = Image.fromarray(some_image("compressed", 70, 80))
    image.save(data / "train/HR/t04.png", "JPEG", quality=95)
    image.save(data / "val/HR/v03.png", "JPEG", quality=90)
    warnings = whys(check(data, scale=4), "warnings")
    assert warnings == [
        ("HR", "1 of 20 images are JPEG, their compression artifacts are learned: t04.png"),
        (
            "HR",
            "1 of 20 images are JPEG, their compression artifacts are part of the ground truth:"
            " v03.png",
        ),
    ]


@pytest.mark.parametrize(
    "degrade",
    [
        lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.NEAREST),
        lambda image: Image.fromarray(
            np.roll(np.asarray(image.resize((image.width // 2, image.height // 2))), 1, axis=1)
        ),
    ],
    ids=["another kernel", "not aligned"],
)
def test_small_images_that_are_no_bicubic_of_their_large_ones_are_reported(data, degrade):
    for number in (3, 8):
        small = degrade(Image.open(data / f"train/HR/t{number:02}.png"))
        write_image(data / f"train/LR_x2/t{number:02}x2.png", small)
    ((path, why),) = whys(check(data), "warnings")
    assert path == "LR_x2" and why.startswith(
        "2 of 20 small images differ from the bicubic of their large images, "
    )
    assert "t03x2.png by " in why and "t08x2.png by " in why


def test_pillows_bicubic_is_close_enough(data):
    for path in (data / "train/HR").iterdir():
        image = Image.open(path)
        width, height = image.width // 2, image.height // 2
        small = image.resize(
            (width, height), Image.Resampling.BICUBIC, box=(0, 0, 2 * width, 2 * height)
        )
        write_image(data / f"train/LR_x2/{path.stem}x2.png", small)
    assert check(data)["warnings"] == []


def test_gray_with_color_is_reported(data):
    path = data / "train/LR_x2/t06x2.png"
    write_image(path, Image.open(path).convert("L"))
    assert whys(check(data), "warnings") == [
        ("LR_x2", "1 of 20 small images are gray, their large images are not: t06x2.png")
    ]
    path = data / "train/HR/t06.png"
    write_image(path, Image.open(path).convert("L"))
    assert check(data)["errors"] == [] and not any(
        "are gray" in why for _, why in whys(check(data), "warnings")
    )


def test_few_and_tiny_images_and_unmatched_files_are_reported(data):
    for number in range(12):
        (data / f"train/HR/t{number:02}.png").unlink()
    write_image(data / "val/HR/v02.png", some_image("tiny", 30, 80))
    write_image(
        data / "val/LR_x2/v02x2.png",
        Image.open(data / "val/HR/v02.png").resize((40, 15), Image.Resampling.BICUBIC),
    )
    warnings = whys(check(data), "warnings")
    assert (
        "HR",
        "8 images are few: a network soon overfits them; start with a hundred",
    ) in warnings
    assert (
        "HR",
        "1 images have a side below 64 pixels, so their scores say little: v02.png",
    ) in warnings
    (unmatched,) = [why for _, why in warnings if "without a large one" in why]
    assert unmatched.startswith("12 small images without a large one: t00x2.png, ")


def test_copies_over_splits_are_reported(data):
    shutil.copy(data / "train/HR/t07.png", data / "val/HR/v99.png")
    shutil.copy(data / "train/LR_x2/t07x2.png", data / "val/LR_x2/v99x2.png")
    ((path, why),) = whys(check(data), "warnings")
    assert (
        path == "v99.png"
        and why == f"the same image as {data}/train/HR/t07.png: val is not independent of train"
    )


def test_a_image_below_the_scale_is_an_error_in_any_split(data):
    write_image(data / "val/HR/v01.png", some_image("line", 3, 80))
    assert ("v01.png", "is 3 x 80, too small for x4") in whys(check(data, scale=4))


def test_a_full_disk_is_reported(data, monkeypatch):
    monkeypatch.setattr(checks, "free_bytes", lambda: 1000)
    ((path, why),) = whys(check(data), "warnings")
    assert path == "images" and "of decoded images do not fit; make room, set XDG_CACHE_HOME" in why


@pytest.mark.skipif(not REAL.is_dir(), reason="no T91 and Set5 beside the repository")
def test_real_data_is_sound():
    report = check(REAL, patch=24)
    assert report["errors"] == [] and whys(report, "warnings") == [
        ("t36.png", "2 files with the same content in train/: t65.png too")
    ]
