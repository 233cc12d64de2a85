"""Checks of a detection data folder: every problem at once, each with its file and entry."""

import json
import shutil

import numpy as np
import pytest
from detection_files import small_coco, write_coco
from PIL import Image

from visionloop.engine.errors import UserError
from visionloop.tasks.detection.checks import check_detection_data, describe_sides
from visionloop.tasks.detection.data import training_splits


def scene(split, number=12):
    """A COCO json of `number` images 64 x 48, each with a cat and a dog."""
    boxes = [
        {"category_id": 2, "bbox": [4, 4, 20, 20]},
        {"category_id": 3, "bbox": [30, 10, 30, 36]},
    ]
    return {
        "images": [
            {"id": i, "file_name": f"{split}{i}.png", "width": 64, "height": 48}
            for i in range(number)
        ],
        "categories": [{"id": 2, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": [
            {"id": 10 * i + k, "image_id": i, **box}
            for i in range(number)
            for k, box in enumerate(boxes)
        ],
    }


def write_split(folder, split, content=None):
    """The split's json, and images of which no two are the same."""
    content = content or scene(split)
    (folder / split).mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(len(split))
    for image in content["images"]:
        pixels = generator.integers(0, 256, (image["height"], image["width"], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / split / image["file_name"])
    (folder / f"{split}.json").write_text(json.dumps(content))


@pytest.fixture
def data(tmp_path):
    """A folder with train and val in which nothing is wrong."""
    for split in ("train", "val"):
        write_split(tmp_path / "data", split)
    return tmp_path / "data"


def change(data, split, edit):
    """Let `edit` change the content of a json in place."""
    content = json.loads((data / f"{split}.json").read_text())
    edit(content)
    (data / f"{split}.json").write_text(json.dumps(content))


def check(data, val_split=0.0, image_size=256):
    return check_detection_data(str(data), val_split, image_size)


def test_a_sound_folder_has_nothing_but_its_numbers(data):
    report = check(data)
    assert report["errors"] == report["warnings"] == [] and report["classes"] == {
        "cat": 12,
        "dog": 12,
    }
    assert report["lines"] == [
        "12 images, 0 of them without boxes; 24 boxes in train, 2.0 per image, 2 at most, "
        "0 of crowds",
        "boxes in their images: 50 % smaller than 32 px, 50 % 32 to 96, 0 % larger",
        "boxes at 256 px: 0 % smaller than 8 px, 0 % 8 to 16, 0 % 16 to 32, 50 % 32 to 96, "
        "50 % larger",
    ]


def test_an_image_without_boxes_is_legal(data):
    change(data, "train", lambda content: content["annotations"].__delitem__(slice(0, 2)))
    report = check(data)
    assert (
        report["errors"] == report["warnings"] == []
        and "12 images, 1 of them without boxes" in report["lines"][0]
    )


BROKEN = {
    "annotation 10: image_id 99 is no image's id": lambda content: content["annotations"][2].update(
        image_id=99
    ),
    "annotation 11: category_id 7 is no category's id": lambda content: content["annotations"][
        3
    ].update(category_id=7),
    "annotation 20: bbox is [1, 2, 3], not four finite numbers": lambda content: content[
        "annotations"
    ][4].update(bbox=[1, 2, 3]),
    "annotation 21: iscrowd is 2, neither 0 nor 1": lambda content: content["annotations"][
        5
    ].update(iscrowd=2),
    "annotation 30: area is -1, not a number of at least 0": lambda content: content["annotations"][
        6
    ].update(area=-1),
    "image 5: height is -1 and width 64": lambda content: content["images"][5].update(height=-1),
}


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(
    ("expected", "edit"), BROKEN.items(), ids=[text.split(":")[1].split()[0] for text in BROKEN]
)
def test_a_broken_entry_is_one_line_with_its_file_and_id(expected, edit, split, data):
    change(data, split, edit)
    (row,) = check(data)["errors"]
    assert row["path"] == str(data / f"{split}.json") and row["why"].startswith(expected)


def test_all_kinds_in_all_splits_are_reported_at_once(data):
    for edit in BROKEN.values():
        change(data, "train", edit)
        change(data, "val", edit)
    whys = [(row["path"], row["why"]) for row in check(data)["errors"]]
    for split in ("train", "val"):
        path = str(data / f"{split}.json")
        assert all(
            any(place == path and why.startswith(expected) for place, why in whys)
            for expected in BROKEN
        )
    assert len(whys) == 2 * len(BROKEN)


def test_every_unreadable_image_is_named(data):
    broken = {data / "train" / "train3.png": b"", data / "val" / "val0.png": b"no image"}
    for path, content in broken.items():
        path.write_bytes(content)
    assert {row["path"] for row in check(data)["errors"]} == {str(path) for path in broken}


def test_missing_images_are_one_line(data):
    for i in range(3):
        (data / "train" / f"train{i}.png").unlink()
    (row,) = check(data)["errors"]
    assert row["path"] == str(data / "train.json") and row["why"].startswith(
        "3 of 12 images are not in "
    )


def test_an_image_of_another_size_is_named_with_both(data):
    path = data / "train" / "train4.png"
    Image.new("RGB", (70, 48)).save(path)
    (row,) = check(data)["errors"]
    assert row == {
        "path": str(path),
        "why": "is 48 x 70 (height x width), the annotations say 48 x 64",
    }


def as_corners(content):
    for row in content["annotations"]:
        x, y, width, height = row["bbox"]
        row["bbox"] = [x, y, x + width, y + height]


def test_corners_instead_of_sizes_are_called_by_name(data):
    content = scene("train")
    for row in content["annotations"]:
        row["bbox"] = [20, 20, 30, 20]
    write_split(data, "train", content)
    change(data, "train", as_corners)
    (row,) = check(data)["errors"]
    assert (
        row["path"] == str(data / "train.json")
        and "bbox looks like [x1, y1, x2, y2], expected is [x, y, width, height]" in row["why"]
    )


def test_the_same_image_in_two_splits_is_recognized_by_its_content(data):
    shutil.copy(data / "train" / "train2.png", data / "val" / "val7.png")
    (row,) = check(data)["warnings"]
    assert row["path"] == str(data / "val" / "val7.png")
    assert "val is not independent of train" in row["why"] and "train2.png" in row["why"]


def test_splits_that_share_a_folder_may_list_the_same_file(data):
    content = scene("train", 14)
    content["images"] = content["images"][11:]
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] >= 11]
    for i in (12, 13):
        shutil.copy(data / "val" / f"val{i - 12}.png", data / "train" / f"train{i}.png")
    (data / "val.json").write_text(json.dumps(content))
    shutil.rmtree(data / "val")
    (data / "train").rename(data / "images")
    (row,) = check(data)["warnings"]
    assert row == {
        "path": str(data / "images" / "train11.png"),
        "why": "is in train too: val is not independent of train",
    }


def test_a_category_that_train_does_not_know_is_an_error(data):
    change(data, "val", lambda content: content["categories"].append({"id": 4, "name": "Dog"}))
    (row,) = check(data)["errors"]
    assert row["path"] == str(data / "val.json") and row["why"].startswith(
        "category 'Dog': not one of the 2 known classes (cat, dog)"
    )


def test_a_category_that_val_does_not_list_is_a_warning(data):
    def forget_dogs(content):
        content["categories"].pop()
        content["annotations"] = [row for row in content["annotations"] if row["category_id"] == 2]

    change(data, "val", forget_dogs)
    report = check(data)
    whys = [row["why"] for row in report["warnings"]]
    assert (
        not report["errors"]
        and "does not list 1 categories of train: dog" in whys
        and "no boxes of 1 of 2 classes: dog" in whys
    )


def test_ids_with_gaps_and_ids_that_differ_are_reported_and_legal(data):
    def renumber(content):
        content["categories"][1]["id"] = 90
        for row in content["annotations"]:
            row["category_id"] = 90 if row["category_id"] == 3 else 2

    change(data, "train", renumber)
    report = check(data)
    assert not report["errors"] and not report["warnings"]
    assert "category ids run from 2 to 90 without 87 of them; labels are 0 to 1" in report["lines"]
    assert (
        "category ids of val differ from those of train; the classes are matched by name"
        in report["lines"]
    )


def test_classes_with_few_boxes_are_one_warning(data):
    def forget_some_dogs(content):
        content["annotations"] = [
            row for row in content["annotations"] if row["id"] not in (1, 11, 21)
        ]

    change(data, "train", forget_some_dogs)
    (row,) = check(data)["warnings"]
    assert row["why"] == "few boxes: 9 of dog; a class should have at least 10"


def test_no_box_at_all_is_an_error(data):
    change(data, "train", lambda content: content.update(annotations=[]))
    report = check(data)
    assert [row["why"] for row in report["errors"]] == [
        "no boxes at all; there is nothing to detect"
    ]
    assert report["classes"] == {"cat": 0, "dog": 0}


def test_boxes_too_small_for_the_network_are_a_warning_with_a_way_out(data):
    (row,) = check(data, image_size=16)["warnings"]
    assert row["path"] == str(data / "train.json")
    assert (
        row["why"].startswith("50 % of the boxes are smaller than 8 x 8 px at 16 px")
        and "consider --image-size 32" in row["why"]
    )

    def shrink(content):
        for annotation in content["annotations"]:
            annotation["bbox"] = [4, 4, 2, 3]

    change(data, "train", shrink)
    assert "cut the images into smaller ones" in next(
        row["why"] for row in check(data, image_size=64)["warnings"]
    )


def test_sizes_missing_in_the_json_are_read_from_the_images(data):
    for split in ("train", "val"):
        change(data, split, lambda content: [image.pop("width") for image in content["images"]])
    assert "50 % 32 to 96, 50 % larger" in check(data)["lines"][-1]


LAYOUTS = {
    "missing": "no such folder",
    "no train": "expected train.json",
    "no val": "--val-split 0.2",
    "two": "keep one",
}


@pytest.mark.parametrize(("shape", "expected"), LAYOUTS.items())
def test_a_wrong_layout_of_boxes_is_explained(shape, expected, data, tmp_path):
    if shape == "missing":
        data = tmp_path / "nowhere"
    elif shape == "no train":
        (data / "train.json").rename(data / "training.json")
    elif shape == "no val":
        (data / "val.json").unlink()
    else:
        shutil.copy(data / "train.json", data / "train" / "_annotations.coco.json")
    assert any(expected in row["why"] for row in check(data)["errors"])


def test_a_share_set_aside_needs_no_val_json(data):
    (data / "val.json").unlink()
    assert check(data, val_split=0.2)["errors"] == []


def test_no_data_is_a_mistake_of_the_command_line():
    with pytest.raises(UserError, match="--data: expected a folder"):
        check_detection_data(None, 0.0, 256)


def test_what_check_calls_an_error_stops_training_too(tmp_path):
    """In the same words, at the first one."""
    content = small_coco()
    content["annotations"][1]["category_id"] = 77
    for split in ("train", "val"):
        write_coco(tmp_path, content, f"{split}.json", split)
    first = check(tmp_path)["errors"][0]
    with pytest.raises(UserError) as raised:
        training_splits(str(tmp_path), 0.0)
    assert str(raised.value) == f"{first['path']}: {first['why']}"


def test_shares_of_sides_add_up():
    assert (
        describe_sides(np.array([1.0, 8.0, 20.0, 500.0]), (8, 32))
        == "25 % smaller than 8 px, 50 % 8 to 32, 25 % larger"
    )


def test_a_link_to_an_image_that_is_gone_is_an_error(data):
    path = data / "train" / "train3.png"
    path.unlink()
    path.symlink_to(data / "gone.png")
    (row,) = check(data)["errors"]
    assert row["path"] == str(path) and "No such file" in row["why"]
