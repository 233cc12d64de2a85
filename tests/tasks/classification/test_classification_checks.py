"""The checks of a data folder: every problem at once, by file."""

import shutil

import pytest

from visionloop.tasks.classification.checks import check_classification_data


def whys(rows):
    return {row["path"]: row["why"] for row in rows}


def test_a_sound_folder_has_nothing_but_its_histogram(data, write_images):
    write_images(data / "train", ("ant", "bee", "cat"), 12, seed=5)
    assert check_classification_data(str(data), 0.0) == {
        "errors": [],
        "warnings": [],
        "classes": {"ant": 12, "bee": 12, "cat": 12},
    }


def test_every_unreadable_file_is_named_and_not_the_first_alone(data):
    broken = {
        data / "train" / "ant" / "0.png": b"",
        data / "train" / "cat" / "3.png": b"no image",
        data / "val" / "bee" / "1.png": None,
    }
    for path, content in broken.items():
        path.write_bytes(content if content is not None else path.read_bytes()[:200])
    report = check_classification_data(str(data), 0.0)
    assert set(whys(report["errors"])) == {str(path) for path in broken}
    assert "empty" in whys(report["errors"])[str(data / "train" / "ant" / "0.png")]


def test_class_names_that_differ_between_splits_are_errors_with_a_guess(data):
    (data / "val" / "bee").rename(data / "val" / "Bee")
    report = check_classification_data(str(data), 0.0)
    assert (
        "there is bee: capitals and spaces count"
        in whys(report["errors"])[str(data / "val" / "Bee")]
    )
    assert "no images of class bee in val/" in whys(report["warnings"]).values()


def test_the_same_image_in_two_splits_is_found_by_its_content(data):
    copy = data / "val" / "cat" / "renamed.png"
    shutil.copy(data / "train" / "cat" / "2.png", copy)
    why = whys(check_classification_data(str(data), 0.0)["warnings"])[str(copy)]
    assert "val is not independent of train" in why and "2.png" in why


def test_the_same_image_under_two_classes_is_found(data):
    copy = data / "train" / "bee" / "copy.png"
    shutil.copy(data / "train" / "ant" / "2.png", copy)
    assert (
        "there of class ant"
        in whys(check_classification_data(str(data), 0.0)["warnings"])[str(copy)]
    )


def test_few_images_and_imbalance_are_warnings(data, write_images):
    write_images(data / "train", ("ant",), 90)
    warnings = whys(check_classification_data(str(data), 0.0)["warnings"])
    assert "a class needs at least 10" in warnings[str(data / "train" / "bee")]
    assert "90 images of ant, 8 of bee" in warnings[str(data / "train")]


LAYOUTS = {
    "missing": "no such folder",
    "no train": "expected train/",
    "loose": "lie directly in it",
    "no val": "--val-split 0.2",
}


@pytest.mark.parametrize(("shape", "expected"), LAYOUTS.items())
def test_a_wrong_layout_is_explained(shape, expected, data, tmp_path):
    if shape == "missing":
        data = tmp_path / "nowhere"
    elif shape == "no train":
        (data / "train").rename(data / "training")
    elif shape == "loose":
        for path in list((data / "train").glob("*/*.png")):
            path.rename(data / "train" / f"{path.parent.name}{path.name}")
        for folder in ("ant", "bee", "cat"):
            (data / "train" / folder).rmdir()
    else:
        shutil.rmtree(data / "val")
    assert any(
        expected in why
        for why in whys(check_classification_data(str(data), 0.0)["errors"]).values()
    )


def test_a_share_set_aside_needs_no_val_folder(data):
    shutil.rmtree(data / "val")
    assert check_classification_data(str(data), 0.2)["errors"] == []
