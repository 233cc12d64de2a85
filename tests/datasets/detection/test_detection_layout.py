"""The file that describes a detection split, and the folder of its images."""

import json
import shutil

import pytest
from detection_files import small_coco, write_coco, write_images

from visionloop.datasets.detection.annotation_files import find_annotations
from visionloop.datasets.detection.layout import (
    find_detection_split,
    inspect_detection_split,
    require_detection_split,
)
from visionloop.datasets.io.layout import DataLayoutError

YAML = "names: [cat, dog]\ntrain: images/train\nval: images/val\ntest: images/test\n"


def write_yolo(folder, split):
    write_images(folder / "images" / split, small_coco())
    (folder / "labels" / split).mkdir(parents=True)
    (folder / "labels" / split / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n1 0.5 0.5 0.25 0.5\n")
    (folder / "data.yaml").write_text(YAML)


LAYOUTS = [
    ("train", "train.json", "train"),
    ("train", "train.json", "images/train"),
    ("train", "train.json", "images"),
    ("train", "train.json", ""),
    ("val", "val.json", "val"),
    ("val", "valid.json", "valid"),
    ("val", "validation.json", "validation"),
    ("val", "val.json", "valid"),
    ("test", "test.json", "test"),
    ("train", "train/_annotations.coco.json", "train"),
    ("val", "valid/_annotations.coco.json", "valid"),
    ("train", "train/labels.json", "train"),
    ("train", "train/labels.json", "train/images"),
    ("train", "annotations/instances_train2017.json", "train2017"),
    ("train", "annotations/instances_train2017.json", "images/train2017"),
    ("train", "annotations/instances_train2017.json", "images"),
    ("val", "annotations/instances_val2017.json", "val2017"),
    ("val", "annotations/instances_valid.json", "valid"),
    ("train", "annotations/instances_train.json", "train"),
    ("train", "annotations/train.json", "images/train"),
    # a single json, as CVAT, Label Studio, FiftyOne and others call it
    ("train", "annotations/instances_default.json", "images/default"),
    ("train", "result.json", "images"),
    ("train", "labels.json", "data"),
    ("train", "annotation.json", ""),
    ("train", "images/annotation.json", "images"),
    ("train", "annotations/instances_default.json", "frames/2024"),
    # subsets of CVAT
    ("train", "annotations/instances_Train.json", "images/Train"),
    ("val", "annotations/instances_Validation.json", "images/Validation"),
    ("test", "Annotations/instances_Test.json", "images/Test"),
    ("val", "Valid/_annotations.coco.json", "Valid"),
]


@pytest.mark.parametrize(("split", "json_name", "images"), LAYOUTS)
def test_json_and_images_are_found_where_tools_put_them(tmp_path, split, json_name, images):
    write_coco(tmp_path, json_name=json_name, images=images)
    index = find_detection_split(tmp_path, split)
    assert index.source == str(tmp_path / json_name) and index.folder == str(tmp_path / images)
    assert len(index) == 3 and len(index.boxes) == 4
    assert all(
        find_detection_split(tmp_path, other) is None
        for other in {"train", "val", "test"} - {split}
    )


@pytest.mark.parametrize("prefix", ["train", "images/train"])
def test_file_names_may_be_relative_to_the_data_folder(tmp_path, prefix):
    content = small_coco()
    for image in content["images"]:
        image["file_name"] = f"{prefix}/{image['file_name']}"
    write_coco(tmp_path, content, images="")
    assert find_detection_split(tmp_path, "train").folder == str(tmp_path)


def test_yolo_is_found_and_a_test_folder_that_is_only_named_is_none(tmp_path):
    for split in ("train", "val"):
        write_yolo(tmp_path, split)
        index = find_detection_split(tmp_path, split, classes=("dog", "cat"))
        assert (
            index.source == str(tmp_path / "data.yaml")
            and len(index) == 3
            and index.labels.tolist() == [1, 0]
        )
    assert find_detection_split(tmp_path, "test") is None
    write_yolo(tmp_path, "test")
    assert len(find_detection_split(tmp_path, "test")) == 3


def test_the_labels_of_validation_are_those_of_training(tmp_path):
    write_coco(tmp_path)
    content = small_coco()
    content["categories"] = [{"id": 9, "name": "cat"}, {"id": 2, "name": "dog"}]
    write_coco(tmp_path, content, json_name="val.json", images="val")
    train = find_detection_split(tmp_path, "train")
    assert find_detection_split(tmp_path, "val", train.classes).classes == train.classes


@pytest.mark.parametrize(
    "second",
    [
        "train/_annotations.coco.json",
        "annotations/instances_train.json",
        "annotations/train.json",
        "train/other.json",
    ],
)
def test_two_files_for_one_split_are_an_error_that_names_both(tmp_path, second):
    write_coco(tmp_path)
    write_coco(tmp_path, json_name=second)
    with pytest.raises(
        DataLayoutError,
        match=rf"holds both train\.json and {second} for the split 'train'; keep one",
    ):
        find_detection_split(tmp_path, "train")


def test_two_names_for_validation_and_two_formats_are_errors(tmp_path):
    write_coco(tmp_path, json_name="val.json", images="val")
    write_coco(tmp_path, json_name="valid.json", images="val")
    with pytest.raises(DataLayoutError, match=r"both val\.json and valid\.json"):
        find_detection_split(tmp_path, "val")
    write_coco(tmp_path)
    write_yolo(tmp_path, "train")
    with pytest.raises(DataLayoutError, match=r"both train\.json and data\.yaml"):
        find_detection_split(tmp_path, "train")


def test_a_folder_of_many_jsons_is_reported_in_one_line(tmp_path):
    for number in range(9):
        write_coco(tmp_path, json_name=f"train/{number}.json")
    with pytest.raises(DataLayoutError, match=r"both train/0\.json and train/1\.json and 7 more"):
        find_detection_split(tmp_path, "train")


def test_the_export_of_roboflow_goes_before_other_jsons_beside_it(tmp_path):
    write_coco(tmp_path, json_name="train/_annotations.coco.json")
    (tmp_path / "train" / "other.json").write_text("{}")
    assert find_annotations(tmp_path, "train") == tmp_path / "train" / "_annotations.coco.json"


def test_a_missing_training_split_says_what_was_expected_and_what_is_there(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / ".git").mkdir()
    with pytest.raises(
        DataLayoutError,
        match=r"expected train\.json with images in .* or a single COCO json; found images$",
    ):
        require_detection_split(tmp_path, "train")
    write_coco(tmp_path)
    assert len(require_detection_split(tmp_path, "train")) == 3
    with pytest.raises(DataLayoutError, match=rf"found nothing; did you mean {tmp_path}\?$"):
        require_detection_split(tmp_path / "images", "train")


def test_a_missing_data_folder_is_reported(tmp_path):
    with pytest.raises(DataLayoutError, match="no such folder"):
        find_detection_split(tmp_path / "gone", "train")
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataLayoutError, match="not a folder"):
        find_detection_split(tmp_path / "file", "train")


def test_everything_wrong_with_a_split_is_listed(tmp_path):
    assert inspect_detection_split(tmp_path, "train") is None
    content = small_coco()
    content["annotations"][0]["image_id"] = 99
    content["annotations"][1]["iscrowd"] = 7
    json_file = write_coco(tmp_path, content)
    index, problems = inspect_detection_split(tmp_path, "train")
    errors = [(kind, path) for kind, path, _ in problems if kind == "error"]
    assert errors == [("error", str(json_file))] * 2 and len(index.boxes) == 2
    with pytest.raises(DataLayoutError, match="image_id 99 is no image's id"):
        find_detection_split(tmp_path, "train")


def test_annotations_alone_can_be_read(tmp_path):
    write_coco(tmp_path)
    shutil.rmtree(tmp_path / "train")
    with pytest.raises(DataLayoutError, match="3 of 3 images are not in"):
        find_detection_split(tmp_path, "train")
    assert len(find_detection_split(tmp_path, "train", need_images=False)) == 3


def test_real_splits_are_found(real_data):
    data = real_data("bccd")
    for split, images, boxes in (("train", 205, 2804), ("val", 87, 1137), ("test", 72, 945)):
        index = require_detection_split(data, split)
        assert (len(index), len(index.boxes)) == (images, boxes)
        assert len(index) == len(json.loads((data / f"{split}.json").read_text())["images"])


def test_a_single_json_of_another_kind_is_not_taken(tmp_path):
    (tmp_path / "convert.json").write_text('{"schema": 1, "images": "copy"}')
    assert find_detection_split(tmp_path, "train") is None
    write_coco(tmp_path, json_name="result.json", images="images")
    assert len(find_detection_split(tmp_path, "train")) == 3
    assert find_detection_split(tmp_path, "val") is None


def test_several_jsons_without_a_split_in_their_name_are_named(tmp_path):
    for name in ("a.json", "annotations/b.json"):
        write_coco(tmp_path, json_name=name, images="images")
    with pytest.raises(
        DataLayoutError,
        match=r"several COCO jsons \(a\.json, annotations/b\.json\); call them train\.json",
    ):
        find_detection_split(tmp_path, "train")


def test_a_json_without_a_split_in_its_name_is_no_training_split_beside_a_validation_split(
    tmp_path,
):
    write_coco(tmp_path, json_name="result.json", images="images")
    write_coco(tmp_path, json_name="val.json", images="val")
    assert find_detection_split(tmp_path, "train") is None


@pytest.mark.parametrize("name", ["data.yml", "dataset.yaml", "coco128.yaml"])
def test_a_yolo_description_may_have_any_name(tmp_path, name):
    write_yolo(tmp_path, "train")
    (tmp_path / "data.yaml").rename(tmp_path / name)
    (tmp_path / "settings.yaml").write_text("lr: 0.1\n")
    index = find_detection_split(tmp_path, "train")
    assert index.source == str(tmp_path / name) and len(index.boxes) == 2


def test_yolo_labels_without_a_description_say_how_to_write_one(tmp_path):
    write_yolo(tmp_path, "train")
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(DataLayoutError, match=r"names of classes\.txt into a data\.yaml"):
        require_detection_split(tmp_path, "train")


@pytest.mark.parametrize("name", ["a.xml", "train/a.xml", "annotations/a.xml"])
def test_annotations_of_voc_name_their_converter(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("<annotation/>")
    with pytest.raises(DataLayoutError, match=r"run bin/convert\.py voc first"):
        require_detection_split(tmp_path, "train")


def test_a_json_of_categories_alone_is_no_coco_json(tmp_path):
    write_yolo(tmp_path, "train")
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    notes = {"categories": [{"id": 0, "name": "cat"}], "info": {"contributor": "Label Studio"}}
    (tmp_path / "notes.json").write_text(json.dumps(notes))
    with pytest.raises(DataLayoutError, match=r"put the names of classes\.txt into a data\.yaml"):
        require_detection_split(tmp_path, "train")


@pytest.mark.parametrize("first", ["images", "annotations", "categories"])
def test_a_large_coco_json_is_known_whatever_section_comes_first(tmp_path, first):
    content = small_coco()
    content["categories"] += [{"id": i, "name": f"{i}" * 20} for i in range(100, 1500)]
    json_file = write_coco(tmp_path, content)
    order = sorted(content, key=lambda name: (name != first, name))
    json_file.unlink()
    (tmp_path / "x.json").write_text(json.dumps({name: content[name] for name in order}))
    assert find_annotations(tmp_path, "train") == tmp_path / "x.json"


@pytest.mark.parametrize(
    ("content", "hint"),
    [("<annotations><image/>", "CVAT's own xml is not read"), ("<annotation>", "convert.py voc")],
)
def test_xml_is_called_by_its_kind(tmp_path, content, hint):
    (tmp_path / "annotations.xml").write_text(content)
    with pytest.raises(DataLayoutError, match=hint):
        require_detection_split(tmp_path, "train")
