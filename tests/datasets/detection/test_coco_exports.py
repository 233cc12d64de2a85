"""COCO jsons as CVAT, Labelbox, pandas and Roboflow write them."""

import json

import numpy as np
import pytest
from detection_files import small_coco, write_coco

from visionloop.datasets.detection.index import inspect_coco, read_coco
from visionloop.datasets.detection.problems import nothing_to_train
from visionloop.datasets.io.layout import DataLayoutError


@pytest.fixture
def read(tmp_path):
    """content -> (index, [(kind, why)]) of a json with its images."""

    def inspect(content, classes=None):
        json_file = write_coco(tmp_path, small_coco())
        json_file.write_text(json.dumps(content))
        index, problems = inspect_coco(json_file, tmp_path / "train", classes)
        return index, [(kind, why) for kind, _, why in problems]

    return inspect


def same(index, other):
    return index.fingerprint() == other.fingerprint()


@pytest.mark.parametrize("absent", [None, float("nan")])
def test_an_optional_value_that_is_null_or_nan_is_as_if_absent(read, absent):
    content = small_coco()
    for annotation in content["annotations"]:
        annotation.pop("iscrowd", None)
        annotation.pop("area", None)
    for image in content["images"]:
        del image["width"], image["height"]
    expected, _ = read(content)
    for annotation in content["annotations"]:
        annotation |= {"iscrowd": absent, "area": absent, "score": absent}
    for image in content["images"]:
        image |= {"width": absent, "height": absent}
    index, problems = read(content)
    assert same(index, expected) and problems == []


def test_a_size_of_zero_is_unknown(read):
    content = small_coco()
    content["images"][0] |= {"width": 0, "height": 0}
    content["images"][1]["width"] = 0
    index, problems = read(content)
    assert index.sizes_hw.tolist() == [[0, 0], [0, 0], [16, 16]]
    assert [kind for kind, _ in problems] == ["note"]


def test_whole_numbers_may_be_written_with_a_point(read):
    expected, _ = read(small_coco())
    content = json.loads(json.dumps(small_coco()), parse_int=float)
    index, problems = read(content)
    assert same(index, expected) and index.image_ids.dtype == np.int64
    assert index.category_ids == (2, 9) and [kind for kind, _ in problems] == ["note"]


def test_a_category_id_that_is_no_whole_number_is_named(read):
    content = small_coco()
    content["categories"][0]["id"] = 9.5
    assert ("error", "category at position 0: id is 9.5, neither a whole number nor text") in read(
        content
    )[1]


@pytest.mark.parametrize(
    "root",
    [
        {"id": 0, "name": "dog", "supercategory": "none"},
        {"id": 0, "name": "animals", "supercategory": "none"},
        {"id": 99, "name": "animals"},
    ],
)
def test_a_root_category_without_annotations_is_no_class_and_is_named(read, root):
    content = small_coco()
    for category in content["categories"]:
        category["supercategory"] = "animals"
    content["categories"].insert(0, root)
    index, problems = read(content)
    assert index.classes == ("cat", "dog") and index.category_ids == (2, 9)
    unused = f"1 categories without annotations are no classes: {root['name']!r} (id {root['id']})"
    assert ("note", unused) in problems
    assert not [why for kind, why in read(content, ("cat", "dog"))[1] if kind == "error"]


def test_an_annotated_root_is_a_class(read):
    content = small_coco()
    content["categories"][1]["supercategory"] = "dog"
    index, _ = read(content)
    assert index.classes == ("cat", "dog") and len(index.boxes) == 4


def test_two_annotated_categories_of_one_name_are_an_error(read):
    content = small_coco()
    content["categories"][1]["name"] = "dog\n"
    why = "categories 9 and 2: both have the name 'dog'; rename one, or join them"
    assert read(content) == (None, [("error", why)])


@pytest.mark.parametrize("name", ["dog\n", "\tdog", "dog\r\n", " dog "])
def test_white_space_around_the_name_of_a_class_is_removed(read, name):
    content = small_coco()
    content["categories"][0]["name"] = name
    index, _ = read(content)
    assert index.classes == ("cat", "dog")
    content["categories"][0]["name"] = "big\ndog"
    assert read(content)[0].classes == ("cat", "big dog")


def test_the_share_of_crowds_is_a_note_and_nothing_but_crowds_is_refused(read, tmp_path):
    content = small_coco()
    index, problems = read(content)
    ((kind, why),) = problems
    assert kind == "note" and why.startswith("1 of 4 boxes are crowds (iscrowd 1): never trained")
    assert "CVAT" in why and "set iscrowd to 0" in why
    assert read_coco(tmp_path / "train.json", tmp_path / "train").notes == (why,)
    assert nothing_to_train(index) is None
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 1
    assert "all 4 boxes are crowds" in nothing_to_train(read(content)[0])
    content["annotations"] = []
    assert "no boxes at all" in nothing_to_train(read(content)[0])


def test_few_crowds_as_in_coco_are_no_note(read):
    content = small_coco()
    row = content["annotations"][1]
    content["annotations"] += [row | {"id": 10 + k, "bbox": [k, 1, 2, 2]} for k in range(20)]
    assert read(content)[1] == []


def test_classes_without_boxes_are_a_note_of_training(read, tmp_path):
    content = small_coco()
    content["categories"].append({"id": 1, "name": "bird"})
    assert ("note", "no boxes of 1 of 3 classes: bird") in read(content)[1]


def test_an_absolute_path_is_an_error(read, tmp_path):
    content = small_coco()
    content["images"][0]["file_name"] = "/data/a.png"
    read(content)
    with pytest.raises(DataLayoutError, match="is absolute"):
        read_coco(tmp_path / "train.json", tmp_path / "train")


@pytest.mark.parametrize("absent", [None, []])
def test_a_missing_box_is_put_around_its_polygons(read, absent):
    content = small_coco()
    expected, _ = read(content)
    for annotation in content["annotations"]:
        x, y, width, height = annotation["bbox"]
        right, bottom = x + width, y + height
        annotation["segmentation"] = [[x, y, right, y, right, y + 1], [x, bottom, x, y, right, y]]
        annotation["bbox"] = absent
    index, _ = read(content)
    assert index.boxes.tolist() == expected.boxes.tolist()


@pytest.mark.parametrize("outline", [None, [], [[1, 2]], [["a"] * 6], {"size": [2, 2]}, [1, 2, 3]])
def test_a_missing_box_without_polygons_is_an_error(read, outline):
    content = small_coco()
    content["annotations"][0] |= {"bbox": None, "segmentation": outline}
    why = "annotation 1: bbox is missing, not four finite numbers"
    assert ("error", why) in read(content)[1]
