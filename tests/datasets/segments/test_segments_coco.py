"""COCO jsons of instances and of panoptic segments, and every error of a file in one line."""

import json
import pickle

import numpy as np
import pytest
from segments_files import (
    annotation,
    encode,
    rectangle,
    small_instances,
    small_panoptic,
    write_instances,
    write_panoptic,
)

from visionloop.datasets.io.layout import DataLayoutError
from visionloop.datasets.segments.layout import inspect_segments_split, require_segments_split


def problems_of(data, kind):
    _, problems = inspect_segments_split(data, "train", kind)
    assert all("\n" not in why for _, _, why in problems)
    return [(level, why) for level, _, why in problems]


@pytest.fixture
def check_instances(tmp_path):
    """content -> [(level, why)] of a json of instances, without the note of the crowd."""

    def check(content):
        write_instances(tmp_path)
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "train.json").write_text(text)
        return [each for each in problems_of(tmp_path, "instance") if "are crowds" not in each[1]]

    return check


@pytest.fixture
def check_panoptic(tmp_path):
    """content -> [(level, why)] of a panoptic json, without the note of the crowd."""

    def check(content):
        write_panoptic(tmp_path)
        (tmp_path / "panoptic_train.json").write_text(json.dumps(content))
        return [each for each in problems_of(tmp_path, "panoptic") if "are crowds" not in each[1]]

    return check


def test_the_index_of_instances_holds_what_the_json_says(tmp_path):
    write_instances(tmp_path)
    index = require_segments_split(tmp_path, "train", "instance")
    assert (index.classes, index.is_thing) == (("cat", "dog"), (True, True))
    assert index.category_ids == (2, 9) and index.image_ids.tolist() == [7, 3, 5]
    assert index.sizes_hw.tolist() == [[30, 40], [24, 20], [16, 16]]
    assert index.offsets.tolist() == [0, 3, 5, 5]
    assert index.labels.tolist() == [0, 1, 1, 1, 0]
    assert index.crowd.tolist() == [False, False, True, False, False]
    assert index.areas.tolist() == [0, 145, 100, 48, 0]
    assert index.path(1) == str(tmp_path / "train" / "b.png")


def test_the_index_of_panoptic_segments_holds_what_the_json_says(tmp_path):
    write_panoptic(tmp_path)
    index = require_segments_split(tmp_path, "train", "panoptic")
    assert (index.classes, index.is_thing) == (("dog", "grass"), (True, False))
    assert index.offsets.tolist() == [0, 4, 5]
    assert index.ids.tolist() == [300, 70_000, 16_000_000, 5, 7]
    assert index.labels.tolist() == [0, 1, 0, 0, 1]
    assert index.crowd.tolist() == [False, False, True, False, False]
    assert index.masks.path(0) == str(tmp_path / "panoptic_train" / "a.png")
    assert index.path(0) == str(tmp_path / "train" / "a.png")


def test_an_instance_task_takes_the_things_of_panoptic_data(tmp_path):
    write_panoptic(tmp_path)
    index = require_segments_split(tmp_path, "train", "instance")
    assert (index.classes, index.is_thing) == (("dog",), (True,))
    assert index.ids.tolist() == [300, 16_000_000, 5] and index.offsets.tolist() == [0, 3, 3]
    assert index.stuff_ids.tolist() == [70_000, 7] and index.stuff_offsets.tolist() == [0, 1, 2]


def test_labels_of_another_split_go_by_name(tmp_path):
    write_panoptic(tmp_path, split="val")
    index = require_segments_split(tmp_path, "val", "panoptic", ("grass", "cow", "dog"))
    assert index.classes == ("grass", "cow", "dog") and index.category_ids == (8, None, 4)
    assert index.labels.tolist() == [2, 0, 2, 2, 0] and index.is_thing == (False, True, True)
    with pytest.raises(DataLayoutError, match="'dog': not one of the 1 known classes"):
        require_segments_split(tmp_path, "val", "panoptic", ("grass",))


def test_without_isthing_all_categories_are_things_and_a_panoptic_task_says_so(tmp_path):
    content, maps = small_panoptic()
    for category in content["categories"]:
        del category["isthing"]
    write_panoptic(tmp_path, content, maps)
    for kind in ("instance", "panoptic"):
        index = require_segments_split(tmp_path, "train", kind)
        assert index.classes == ("dog", "grass") and index.is_thing == (True, True)
        assert any('"isthing": 0 makes a class stuff' in why for why in index.notes) == (
            kind == "panoptic"
        )


@pytest.mark.parametrize("kind", ["instance", "panoptic"])
def test_jsons_without_problems_have_none(check_instances, check_panoptic, kind):
    assert check_instances(small_instances()) == []
    assert check_panoptic(small_panoptic()[0]) == []


def of(section, position, **changes):
    """A change of one entry of a json; None removes the key."""

    def change(content):
        entry = content[section][position]
        entry.update(changes)
        for key in [key for key, value in changes.items() if value is None]:
            del entry[key]

    return change


BAD_RLE = {"size": [30, 40], "counts": "abc!"}
OUTLINE_ERRORS = [
    ("x", "segmentation is 'x', expected polygons [[x1, y1, x2, y2, ...]] or {size, counts}"),
    ([["a"] * 6], "segmentation has a polygon with 'a', expected polygons"),
    ([[[1, 2]] * 6], "segmentation has a polygon with [1, 2], expected polygons"),
    ([{"a": 1}], "segmentation holds {'a': 1}, expected polygons"),
    ([[0, 0, 9, 0, 1e300, 9]], "has a polygon with 1e+300, expected are pixels"),
    ([[0, 0, 9, 0, 10**400, 9]], "segmentation has a polygon with 1000"),
    ([[0, 0, 9, 0, float("nan"), 9]], "has a polygon with nan, expected are pixels"),
    (
        encode(np.eye(24, dtype=bool)),
        "has the size 24 x 24 (height x width), its image 30 x 40",
    ),
    (BAD_RLE, "segmentation has counts that are no run-length encoding of COCO"),
    (BAD_RLE | {"counts": ""}, "has counts that are no run-length encoding of COCO"),
    (BAD_RLE | {"counts": "\xe4"}, "has the counts '\xe4', expected text of COCO's compressed"),
    (
        BAD_RLE | {"counts": "1"},
        "counts of 1 pixels in all, its size 30 x 40 (height x width) has 1200",
    ),
    (
        BAD_RLE | {"counts": [5, 7]},
        "counts of 12 pixels in all, its size 30 x 40 (height x width) has 1200",
    ),
    (BAD_RLE | {"counts": [5, -7]}, "has counts with -7, expected run lengths of at least 0"),
    (BAD_RLE | {"counts": []}, "has counts with missing, expected run lengths of at least 0"),
    (BAD_RLE | {"counts": 5}, "has the counts 5, expected text of COCO's compressed encoding"),
    ({"counts": "x"}, "segmentation has the size missing, expected [height, width]"),
    (
        {"size": [2**20, 2**20], "counts": [2**40]},
        "segmentation has the size [1048576, 1048576], expected [height, width] of at most",
    ),
]
INSTANCE_ERRORS = [
    *(
        (of("annotations", 1, segmentation=outline), f"annotation 2: {why}")
        if why.startswith("segmentation")
        else (of("annotations", 1, segmentation=outline), why)
        for outline, why in OUTLINE_ERRORS
    ),
    (of("annotations", 1, category_id=77), "annotation 2: category_id 77 is no category's id"),
    (of("annotations", 1, image_id=77), "annotation 2: image_id 77 is no image's id"),
    (of("annotations", 1, iscrowd=3), "annotation 2: iscrowd is 3, neither 0 nor 1"),
    (of("annotations", 1, area=-2), "annotation 2: area is -2, not a number of at least 0"),
    (of("images", 0, file_name="z.png"), "1 of 3 images are not in"),
    (of("categories", 0, isthing=2), "category 9: isthing is 2, expected 1 for a thing or 0"),
    (of("categories", 0, isthing=1), "category 2: isthing is missing, expected 1 for a thing"),
    (lambda content: content.pop("annotations"), "no section 'annotations'"),
    (
        lambda content: [each.pop("segmentation") for each in content["annotations"]],
        "none of 5 annotations has a usable outline (segmentation); expected polygons",
    ),
]


@pytest.mark.parametrize(("change", "expected"), INSTANCE_ERRORS)
def test_each_error_of_an_instance_json_is_one_line(check_instances, change, expected):
    content = small_instances()
    change(content)
    errors = [why for level, why in check_instances(content) if level == "error"]
    assert len(errors) == 1 and expected in errors[0]


def test_text_that_is_no_json_is_one_line(check_instances):
    assert check_instances("{") == [
        (
            "error",
            "not json: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        )
    ]


@pytest.mark.parametrize("polygon", [[1, 2, 3, 4], [1, 2, 30, 4, 5, 20, 7], []])
def test_a_polygon_without_an_area_is_left_out_with_a_note(tmp_path, polygon):
    content = small_instances()
    content["annotations"][1]["segmentation"].append(polygon)
    content["annotations"].append(annotation(6, 5, 2, [polygon]))
    write_instances(tmp_path, content)
    index = require_segments_split(tmp_path, "train", "instance")
    write_instances(tmp_path / "clean")
    clean = require_segments_split(tmp_path / "clean", "train", "instance")
    assert [index.outlines.content(k) for k in range(5)] == [
        clean.outlines.content(k) for k in range(5)
    ]
    assert index.offsets.tolist() == clean.offsets.tolist()
    notes = [note for note in index.notes if "left out" in note]
    assert notes == [
        "annotation 6 on c.png: no usable outline (segmentation), left out",
        "annotation 2 on a.png: a polygon with fewer than three points or an odd number of values, "
        "left out (2 times)",
    ]


def test_an_annotation_without_an_outline_does_not_get_the_one_of_another(tmp_path):
    content = small_instances()
    first = content["annotations"][0]
    assert "counts" in first["segmentation"]
    content["annotations"].append({**first, "id": 6})
    del content["annotations"][-1]["segmentation"]
    write_instances(tmp_path, content)
    index = require_segments_split(tmp_path, "train", "instance")
    assert index.offsets.tolist() == [0, 3, 5, 5]
    assert "annotation 6 on b.png: no usable outline (segmentation), left out" in index.notes


@pytest.mark.parametrize("outline", [None, float("nan"), [], [[]], [[1, 2, 3, 4]]])
def test_objects_without_a_usable_outline_are_counted_by_image_and_the_first_is_named(
    check_instances, outline
):
    content = small_instances()
    content["annotations"] += [annotation(6, 5, 2, outline), annotation(7, 7, 9, outline)]
    expected = "annotation 7 on a.png: no usable outline (segmentation), left out (2 times)"
    assert check_instances(content)[0] == ("note", expected)


@pytest.mark.parametrize("corners", [1, 3, 4])
def test_a_polygon_of_pairs_is_named_and_not_taken_for_a_short_one(tmp_path, corners):
    content = small_instances()
    content["annotations"][1]["segmentation"] = [[[5, 5], [9, 5], [9, 9], [5, 9]][:corners]]
    write_instances(tmp_path, content)
    with pytest.raises(DataLayoutError, match=r"has a polygon with \[5, 5\], expected polygons"):
        require_segments_split(tmp_path, "train", "instance")


def test_a_size_with_points_is_that_of_whole_numbers(tmp_path):
    content = small_instances()
    write_instances(tmp_path / "whole", content)
    rles = [each["segmentation"] for each in content["annotations"]]
    for rle in (each for each in rles if isinstance(each, dict)):
        rle["size"] = [float(side) for side in rle["size"]]
    write_instances(tmp_path / "points", content)
    whole, points = (
        require_segments_split(tmp_path / name, "train", "instance") for name in ("whole", "points")
    )
    assert whole.fingerprint() == points.fingerprint()


def test_one_polygon_without_its_own_brackets_is_read(tmp_path):
    content = small_instances()
    content["annotations"][1]["segmentation"] = rectangle(2, 3, 10, 8)
    write_instances(tmp_path / "flat", content)
    write_instances(tmp_path / "nested")
    flat, nested = (
        require_segments_split(tmp_path / name, "train", "instance") for name in ("flat", "nested")
    )
    assert flat.fingerprint() == nested.fingerprint()


def twice(content):
    content["annotations"].append(content["annotations"][0])


PANOPTIC_ERRORS = [
    (of("annotations", 0, image_id=9), "annotation of image 9: image_id 9 is no image's id"),
    (of("annotations", 0, file_name=3), "annotation of image 1: file_name is 3, expected that"),
    (of("annotations", 0, file_name="z.png"), "1 of 2 masks are not in"),
    (of("annotations", 0, segments_info=None), "segments_info is missing, expected a list of obje"),
    (of("annotations", 0, segments_info=[3]), "segments_info is [3], expected a list of objects"),
    (twice, "annotation of image 1: there are two, expected one for each image"),
    (lambda content: content["annotations"].pop(), "image 2: no annotation names its PNG"),
    (of("categories", 0, isthing=None), "category 4: isthing is missing, expected 1 for a thing"),
]
SEGMENT_ERRORS = [
    ({"id": 0}, "a segment of image 1: id is 0, expected a whole number 1 to 16777215"),
    ({"id": "5"}, "a segment of image 1: id is '5', expected a whole number 1 to 16777215"),
    ({"id": 5}, "segment 5 of image 1: the id is there twice"),
    ({"category_id": 5}, "segment 300 of image 1: category_id 5 is no category's id"),
    ({"iscrowd": "no"}, "segment 300 of image 1: iscrowd is 'no', neither 0 nor 1"),
    ({"area": "big"}, "segment 300 of image 1: area is 'big', not a number of at least 0"),
]


@pytest.mark.parametrize(("change", "expected"), PANOPTIC_ERRORS)
def test_each_error_of_a_panoptic_json_is_one_line(check_panoptic, change, expected):
    content = small_panoptic()[0]
    change(content)
    errors = [why for level, why in check_panoptic(content) if level == "error"]
    assert len(errors) == 1 and expected in errors[0]


@pytest.mark.parametrize(("changes", "expected"), SEGMENT_ERRORS)
def test_each_error_of_a_segment_is_one_line(check_panoptic, changes, expected):
    content = small_panoptic()[0]
    content["annotations"][0]["segments_info"][0].update(changes)
    errors = [why for level, why in check_panoptic(content) if level == "error"]
    assert errors == [expected]


def test_an_instance_task_without_things_is_an_error(tmp_path):
    content, maps = small_panoptic()
    content["categories"][0]["isthing"] = 0
    write_panoptic(tmp_path, content, maps)
    with pytest.raises(DataLayoutError, match='no category has "isthing": 1'):
        require_segments_split(tmp_path, "train", "instance")


@pytest.mark.parametrize("kind", ["instance", "panoptic"])
def test_an_index_survives_pickling_and_a_subset_of_all_is_the_whole(tmp_path, kind):
    (write_instances if kind == "instance" else write_panoptic)(tmp_path)
    index = require_segments_split(tmp_path, "train", kind)
    whole = index.subset(range(len(index)))
    for copied in (pickle.loads(pickle.dumps(index)), whole, index.subset([1, 0]).subset([1, 0])):
        if len(copied) == len(index):
            assert copied.fingerprint() == index.fingerprint()
    assert index.subset([1]).fingerprint() != index.fingerprint()
    last = index.subset([1])
    rows = slice(*index.rows_of(1))
    assert last.labels.tolist() == index.labels[rows].tolist()
    assert last.ids.tolist() == index.ids[rows].tolist()


@pytest.mark.parametrize(
    "change",
    [
        of("annotations", 1, segmentation=[rectangle(2, 3, 10, 9)]),
        of("annotations", 0, segmentation=encode(np.eye(24, 20, dtype=bool))),
        of("annotations", 1, category_id=9),
        of("annotations", 1, iscrowd=1),
        of("annotations", 2, area=144.0),
        of("categories", 0, name="wolf"),
        of("images", 2, id=70),
    ],
)
def test_the_fingerprint_changes_with_an_annotation(tmp_path, change):
    content = small_instances()
    change(content)
    for entry in content["annotations"]:
        entry["image_id"] = (
            70 if content["images"][0]["id"] == 70 and entry["image_id"] == 7 else entry["image_id"]
        )
    write_instances(tmp_path / "changed", content)
    write_instances(tmp_path / "same")
    changed, same = (
        require_segments_split(tmp_path / name, "train", "instance") for name in ("changed", "same")
    )
    write_instances(tmp_path / "again")
    again = require_segments_split(tmp_path / "again", "train", "instance")
    assert same.fingerprint() == again.fingerprint() != changed.fingerprint()
