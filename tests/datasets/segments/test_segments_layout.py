"""The layouts that hold a split of segments, and the error for a folder with none of them."""

import json
import shutil

import numpy as np
import pytest
from detection_files import small_coco, write_coco
from segments_files import (
    small_instances,
    small_panoptic,
    write_class_masks,
    write_images,
    write_instances,
    write_panoptic,
)

from visionloop.datasets.detection.layout import require_detection_split
from visionloop.datasets.io.layout import DataLayoutError
from visionloop.datasets.segments.layout import find_segments_split, require_segments_split


@pytest.mark.parametrize(
    ("json_name", "images"),
    [
        ("train.json", "train"),
        ("train.json", "images/train"),
        ("instances_train.json", "train"),
        ("annotations/instances_train2017.json", "train2017"),
        ("annotations/train.json", "images"),
        ("train/_annotations.coco.json", "train"),
        ("annotations/instances_default.json", "images/default"),
        ("result.json", ""),
    ],
)
def test_instances_are_found_where_tools_write_them(tmp_path, json_name, images):
    write_instances(tmp_path, json_name=json_name, images=images)
    index = require_segments_split(tmp_path, "train", "instance")
    assert index.source == str(tmp_path / json_name)
    assert index.path(0) == str(tmp_path / images / "a.png") and len(index.labels) == 5
    assert find_segments_split(tmp_path, "val", "instance") is None


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("base", ["", "annotations"])
@pytest.mark.parametrize("year", ["", "2017"])
def test_panoptic_data_are_found_where_coco_has_them(tmp_path, split, base, year):
    write_panoptic(tmp_path, split=split + year, base=base)
    index = require_segments_split(tmp_path, split, "panoptic")
    assert index.path(0) == str(tmp_path / f"{split}{year}" / "a.png")
    assert index.masks.folder == str(tmp_path / base / f"panoptic_{split}{year}")


def test_png_folders_may_be_beside_the_images_while_the_json_is_below_annotations(tmp_path):
    write_panoptic(tmp_path, base="annotations")
    shutil.move(tmp_path / "annotations" / "panoptic_train", tmp_path / "panoptic_train")
    index = require_segments_split(tmp_path, "train", "panoptic")
    assert index.masks.folder == str(tmp_path / "panoptic_train")


def test_each_task_takes_its_own_json_where_both_are_there(tmp_path):
    content, maps = small_panoptic()
    write_panoptic(tmp_path, content, maps)
    instances = small_instances()
    instances["images"], instances["annotations"] = content["images"], []
    (tmp_path / "instances_train.json").write_text(json.dumps(instances))
    for kind in ("instance", "panoptic"):
        index = require_segments_split(tmp_path, "train", kind)
        name = {"instance": "instances_train.json", "panoptic": "panoptic_train.json"}[kind]
        assert index.source == str(tmp_path / name)
        assert index.folder == str(tmp_path / "train")


def test_panoptic_files_do_not_disturb_detection(tmp_path):
    write_panoptic(tmp_path, split="val")
    write_coco(tmp_path, small_coco())
    assert len(require_detection_split(tmp_path, "train").boxes) == 4


def test_a_panoptic_task_does_not_take_instances_and_says_what_to_do(tmp_path):
    write_instances(tmp_path, json_name="instances_train.json")
    with pytest.raises(DataLayoutError) as caught:
        require_segments_split(tmp_path, "train", "panoptic")
    assert caught.value.why == (
        "expected panoptic_train.json with PNGs in panoptic_train/ and images in train/, or "
        "images/train/x.jpg with masks/train/x.png, instances/train/x.png and classes.json; "
        "found instances_train.json, train; for the outlines that are there run "
        "bin/convert.py panoptic first"
    )


def test_a_folder_without_a_split_says_what_was_expected_and_what_is_there(tmp_path):
    write_images(tmp_path / "pictures", small_instances())
    with pytest.raises(DataLayoutError) as caught:
        require_segments_split(tmp_path, "train", "instance")
    assert caught.value.why == (
        "expected train.json or instances_train.json with outlines and images in train/, "
        "panoptic_train.json, or images/train/x.jpg with masks/train/x.png, "
        "instances/train/x.png and classes.json; found pictures"
    )


def test_a_folder_above_the_data_is_told_which_one_is_meant(tmp_path):
    write_panoptic(tmp_path / "coco")
    with pytest.raises(DataLayoutError, match=f"; did you mean {tmp_path}/coco"):
        require_segments_split(tmp_path, "train", "panoptic")


def test_two_jsons_of_a_split_are_refused(tmp_path):
    write_instances(tmp_path, json_name="instances_train.json")
    write_instances(tmp_path, json_name="train.json")
    with pytest.raises(DataLayoutError, match=r"holds both instances_train\.json and train\.json"):
        require_segments_split(tmp_path, "train", "instance")


def test_a_missing_folder_of_pngs_is_named(tmp_path):
    write_panoptic(tmp_path)
    shutil.rmtree(tmp_path / "panoptic_train")
    with pytest.raises(DataLayoutError, match=f"2 of 2 masks are not in {tmp_path}/panoptic_train"):
        require_segments_split(tmp_path, "train", "panoptic")


def test_masks_of_classes_and_objects_come_before_a_json_that_names_no_split(tmp_path):
    ids = np.zeros((8, 9), dtype=np.uint8)
    write_class_masks(tmp_path, ids, ids)
    write_instances(tmp_path, json_name="annotations/instances_default.json", images="other")
    index = require_segments_split(tmp_path, "train", "instance")
    assert index.source == str(tmp_path / "classes.json")


def test_files_of_other_tools_are_named_with_the_command_that_reads_them(tmp_path):
    write_images(tmp_path / "train", small_instances())
    for name in ("a", "b"):
        text = json.dumps({"version": "5.5.0", "shapes": [], "imagePath": f"{name}.png"})
        (tmp_path / "train" / f"{name}.json").write_text(text)
    for kind, command in (("instance", "instances"), ("panoptic", "panoptic")):
        with pytest.raises(DataLayoutError, match=f"LabelMe run bin/convert.py {command} first"):
            require_segments_split(tmp_path, "train", kind)
    yolo = tmp_path / "yolo"
    yolo.mkdir()
    (yolo / "data.yaml").write_text("names: [cat]\ntrain: images/train\n")
    with pytest.raises(DataLayoutError, match=r"of YOLO run bin/convert\.py instances first"):
        require_segments_split(yolo, "train", "instance")
    # a whole dataset: its images/train/ must not be taken for images with masks
    write_images(yolo / "images" / "train", small_instances())
    (yolo / "labels" / "train").mkdir(parents=True)
    for kind, command in (("instance", "instances"), ("panoptic", "panoptic")):
        with pytest.raises(DataLayoutError, match=f"of YOLO run bin/convert.py {command} first"):
            require_segments_split(yolo, "train", kind)
    (yolo / "data.yaml").unlink()
    with pytest.raises(DataLayoutError, match=r"of YOLO run bin/convert\.py instances first"):
        require_segments_split(yolo, "train", "instance")


def test_a_folder_above_class_and_object_masks_is_told_which_one_is_meant(tmp_path):
    ids = np.zeros((8, 9), dtype=np.uint8)
    write_class_masks(tmp_path / "mine", ids, ids)
    with pytest.raises(DataLayoutError, match=f"; did you mean {tmp_path}/mine"):
        require_segments_split(tmp_path, "train", "panoptic")
