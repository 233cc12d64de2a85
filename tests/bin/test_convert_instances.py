"""Conversion to COCO instances: every object keeps its own pixels."""

import base64
import io
import json

import numpy as np
import pytest
from conversion_files import (
    HEIGHT,
    WIDTH,
    box,
    coco,
    drawing,
    files_below,
    image,
    labelme,
    objects_of,
    panoptic,
    read_split,
    rows_of,
    write,
)
from PIL import Image

EMPTY_LINES = ["00000000"] * HEIGHT


def annotations(folder, split="train"):
    return json.loads((folder / f"{split}.json").read_text())["annotations"]


def summary(folder):
    return json.loads((folder / "convert.json").read_text())


def lines(*rows):
    """The first rows of a drawing; the others are empty."""
    return [*rows, *EMPTY_LINES[len(rows) :]]


def test_a_folder_of_labelme_needs_no_option_but_the_share_of_validation(convert, tmp_path):
    shapes = [
        ("cell", "polygon", [[0, 0], [2, 0], [2, 2], [0, 2]]),
        ("cell", "rectangle", [[3, 1], [6, 3]]),
    ]
    for stem in "abcdefghij":
        labelme(tmp_path / "labelled", stem, shapes)
    status, out, err = convert(
        "instances", tmp_path / "labelled", tmp_path / "cells", "--val-split", "0.2"
    )
    assert (status, err) == (0, "") and out.splitlines() == [
        out.splitlines()[0],
        f"check: visionloop-instance-segmentation check --data {tmp_path / 'cells'}",
    ]
    assert out.splitlines()[0].endswith("; 1 classes")
    splits = [objects_of(tmp_path / "cells", split) for split in ("train", "val")]
    assert sum(map(len, splits)) == 10 and 1 <= len(splits[1]) <= 4
    expected = ["cell", "cell"], lines("11000000", "11022200", "00022200")
    assert all(each == expected for split in splits for each in drawing(split).values())
    assert files_below(tmp_path / "cells" / "val") == sorted(splits[1])


def test_detection_reads_the_boxes_of_converted_objects(convert, tmp_path):
    labelme(tmp_path / "me", "a", [("x", "rectangle", [[1, 2], [5, 4]])])
    assert convert("instances", tmp_path / "me", tmp_path / "out")[0] == 0
    assert rows_of(read_split(tmp_path / "out", "train"), 0) == [("x", 1, 2, 4, 2, False)]


def test_polygons_remain_polygons_and_everything_else_is_run_lengths(convert, tmp_path):
    runs = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT, 3, HEIGHT * (WIDTH - 1) - 3]}
    outlines = [(3, [box(0, 0, 2, 2), box(4, 0, 6, 2)]), (6, runs)]
    coco(tmp_path / "coco", outlines)
    assert convert("instances", tmp_path / "coco", tmp_path / "out")[0] == 0
    by_area = sorted(annotations(tmp_path / "out"), key=lambda row: -row["area"])
    assert by_area[0]["segmentation"] == outlines[0][1] and by_area[0]["category_id"] == 3
    assert by_area[1]["segmentation"]["size"] == [HEIGHT, WIDTH]
    assert isinstance(by_area[1]["segmentation"]["counts"], str)
    assert objects_of(tmp_path / "out")["a.jpg"][1][2][:3, 1].all()


def test_overlapping_objects_keep_all_their_pixels_and_crowds_stay_crowds(convert, tmp_path):
    crowd = {"category_id": 6, "iscrowd": 1, "segmentation": [box(0, 0, 8, 1)]}
    coco(tmp_path / "coco", [(3, [box(1, 0, 6, 5)]), crowd, (3, [box(2, 1, 4, 3)])])
    status, _, err = convert("instances", tmp_path / "coco", tmp_path / "out")
    note = "annotation 2 on a.jpg: a crowd (iscrowd 1), which is never trained on; CVAT writes"
    assert status == 0 and note in err
    objects = objects_of(tmp_path / "out")["a.jpg"]
    assert [(name, crowd, pixels.sum()) for name, crowd, pixels in objects] == [
        ("cat", True, 8),
        ("dog", False, 25),
        ("dog", False, 4),
    ]
    assert isinstance(annotations(tmp_path / "out")[0]["segmentation"], dict)


def test_shapes_of_one_label_and_group_are_one_object(convert, tmp_path):
    rectangles = {"a": [[0, 0], [2, 1]], "b": [[4, 0], [6, 1]], "c": [[0, 2], [2, 3]]}
    groups = {"a": ("x", 1), "b": ("x", 1), "c": ("y", 1)}
    shapes = [
        {"label": label, "shape_type": "rectangle", "points": rectangles[key], "group_id": group}
        for key, (label, group) in groups.items()
    ]
    more = {"label": "x", "shape_type": "rectangle", "points": [[6, 4], [8, 6]], "group_id": None}
    labelme(tmp_path / "me", "a", [], shapes=[*shapes, more, {**more, "points": [[0, 5], [1, 6]]}])
    assert convert("instances", tmp_path / "me", tmp_path / "out")[0] == 0
    names, grid = drawing(objects_of(tmp_path / "out"))["a.jpg"]
    assert names == ["x", "y", "x", "x"]
    assert grid == [
        *("11001100", "00000000", "22000000"),
        *("00000000", "00000033", "40000033"),
    ]
    assert len(annotations(tmp_path / "out")[0]["segmentation"]) == 2


def test_a_group_with_a_mask_is_run_lengths_of_all_its_pixels(convert, tmp_path):
    file = io.BytesIO()
    Image.fromarray(np.array([[True, False, True]])).save(file, "PNG")
    bitmap = {"points": [[2, 1], [4, 1]], "mask": base64.b64encode(file.getvalue()).decode()}
    circle = {"points": [[4, 4], [4, 5]], "shape_type": "circle"}
    shared = {"label": "x", "group_id": 4}
    shapes = [shared | {"shape_type": "mask"} | bitmap, shared | circle]
    labelme(tmp_path / "me", "a", [], shapes=shapes)
    assert convert("instances", tmp_path / "me", tmp_path / "out")[0] == 0
    ((_, _, pixels),) = objects_of(tmp_path / "out")["a.jpg"]
    assert pixels[1].tolist() == [0, 0, 1, 0, 1, 0, 0, 0] and pixels[3:5, 3:5].all()
    assert isinstance(annotations(tmp_path / "out")[0]["segmentation"], dict)


def test_what_covers_no_pixel_or_is_ignored_is_listed(convert, tmp_path):
    shapes = [
        ("x", "rectangle", [[0, 0], [2, 2]]),
        ("x", "linestrip", [[0, 0], [2, 2], [4, 0]]),
        ("x", "rectangle", [[3, 3], [3, 5]]),
        ("__ignore__", "rectangle", [[4, 4], [6, 6]]),
        ("_background_", "rectangle", [[6, 0], [8, 2]]),
    ]
    path = labelme(tmp_path / "me", "a", shapes)
    status, out, err = convert("instances", tmp_path / "me", tmp_path / "out")
    assert status == 0 and "1 images, 1 objects; 1 classes" in out and err.count("note: ") == 3
    assert summary(tmp_path / "out")["notes"] == {
        "a linestrip covers no pixel, left out": [f"{path}: shape 2 (x)"],
        "covers no pixel, left out": [f"{path}: shape 3 (x)"],
        "is ignored, which instances cannot say; left out": [f"{path}: shape 4 (__ignore__)"],
    }


def test_only_things_become_objects(convert, tmp_path):
    categories = [
        {"id": 4, "name": "dog", "isthing": 1, "color": [1, 2, 3]},
        {"id": 9, "name": "grass", "isthing": 0, "color": [4, 5, 6]},
    ]
    infos = [(1, 4, 0), (2, 9, 0), (3, 4, 1)]
    panoptic(tmp_path / "pan", lines("11220033", "10222233"), infos, categories)
    status, out, err = convert("instances", tmp_path / "pan", tmp_path / "out")
    assert status == 0 and "2 objects; 1 classes" in out and "are left out: grass" in err
    names, grid = drawing(objects_of(tmp_path / "out"))["a.jpg"]
    assert (names, grid) == (["dog", "dog*"], lines("11000022", "10000022"))
    content = json.loads((tmp_path / "out/train.json").read_text())
    assert content["categories"] == [{"id": 4, "name": "dog"}]
    coco(tmp_path / "coco", [(3, [box(0, 0, 2, 2)]), (6, [box(0, 0, 8, 6)])])
    assert convert("instances", tmp_path / "coco", tmp_path / "out", "--things", " dog")[0] == 0
    assert [row[0] for row in objects_of(tmp_path / "out")["a.jpg"]] == ["dog"]


def test_images_without_objects_remain(convert, tmp_path):
    coco(tmp_path / "coco", [(3, [box(0, 0, 2, 2)])], images=("a.jpg", "deep/b.jpg"))
    coco(tmp_path / "coco", [(6, [box(0, 0, 2, 2)])], split="val", images=("c.jpg",))
    for how in ("copy", "link", "none"):
        assert convert("instances", tmp_path / "coco", tmp_path / how, "--images", how)[0] == 0
        assert {name: len(rows) for name, rows in objects_of(tmp_path / how).items()} == {
            "a.jpg": 1,
            "deep/b.jpg": 0,
        }
        assert len(objects_of(tmp_path / how, "val")["c.jpg"]) == 1
    assert (tmp_path / "none/train").is_symlink() and (tmp_path / "link/train/a.jpg").is_symlink()


def test_a_broken_image_is_one_line_or_left_out_and_listed(convert, tmp_path):
    labelme(tmp_path / "me", "a", [("x", "rectangle", [[0, 0], [2, 2]])])
    path = labelme(tmp_path / "me", "b", [("x", "polygon", [[0, 0], [2, 2]])])
    status, out, err = convert("instances", tmp_path / "me", tmp_path / "out")
    assert (status, out) == (2, "") and err.count("\n") == 1
    assert err.startswith(f"error: {path}: shape 1 (x): a polygon with 2 points")
    assert not (tmp_path / "out").exists()
    assert convert("instances", tmp_path / "me", tmp_path / "out", "--skip-broken")[0] == 0
    assert list(objects_of(tmp_path / "out")) == ["a.jpg"]
    assert summary(tmp_path / "out")["left_out"] == [
        [str(path), "shape 1 (x): a polygon with 2 points"]
    ]


@pytest.mark.parametrize(
    ("group", "why"), [([1], "group_id is [1]"), ({"a": 1}, "group_id is {'a': 1}")]
)
def test_a_group_that_is_no_number_is_reported(convert, tmp_path, group, why):
    shape = {"label": "x", "points": [[0, 0], [2, 0], [2, 2]], "group_id": group}
    labelme(tmp_path / "me", "a", [], shapes=[shape])
    status, _, err = convert("instances", tmp_path / "me", tmp_path / "out")
    assert status == 2 and why in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("things", "why"),
    [("bird", "'bird' is no class of"), ("dog,", "holds an empty name"), ("", "an empty name")],
)
def test_wrong_things_are_one_line(convert, tmp_path, things, why):
    coco(tmp_path / "coco", [(3, [box(0, 0, 2, 2)])])
    status, _, err = convert("instances", tmp_path / "coco", tmp_path / "out", "--things", things)
    assert status == 2 and "--things" in err and why in err and err.count("\n") == 1


def test_a_source_without_a_single_thing_is_an_error(convert, tmp_path):
    categories = [{"id": 1, "name": "grass", "isthing": 0}]
    panoptic(tmp_path / "pan", [*EMPTY_LINES[1:], "11111111"], [(1, 1, 0)], categories)
    status, _, err = convert("instances", tmp_path / "pan", tmp_path / "out")
    assert status == 2 and "1 images without a single object" in err
    status, _, err = convert("instances", tmp_path / "pan", tmp_path / "out", "--things", "grass")
    assert status == 2 and "itself says which classes are things" in err


def test_a_missing_image_is_reported_by_its_path(convert, tmp_path):
    coco(tmp_path / "coco", [(3, [box(0, 0, 2, 2)])], images=("a.jpg", "b.jpg"))
    (tmp_path / "coco/train/b.jpg").write_bytes(b"no image")
    status, _, err = convert("instances", tmp_path / "coco", tmp_path / "out")
    assert status == 2 and "b.jpg: not an image of a known format" in err and err.count("\n") == 1
    image(tmp_path / "coco/train/b.jpg", HEIGHT + 1)
    status, _, err = convert("instances", tmp_path / "coco", tmp_path / "out")
    assert status == 2 and "annotated as 8 x 6, but the image is 8 x 7" in err


def test_sources_of_no_known_kind_are_one_line(convert, tmp_path):
    write(tmp_path / "other" / "notes.json", {"x": 1})
    for command in ("instances", "panoptic"):
        for source in ("other", "absent", "other/notes.json"):
            kinds = ("coco", "coco-panoptic", "labelme", "yolo", "cityscapes", "voc")
            for choice in ((), *(("--from", kind) for kind in kinds)):
                status, _, err = convert(command, tmp_path / source, tmp_path / "out", *choice)
                assert status == 2 and err.count("\n") == 1, (source, choice, err)
                assert str(tmp_path / source) in err
    assert not (tmp_path / "out").exists()
