"""Conversion of COCO outlines to masks: every pixel has the class of its annotation."""

import json
from contextlib import suppress

import numpy as np
import pytest
from conversion_files import (
    HEIGHT,
    WIDTH,
    box,
    classes,
    coco,
    files_below,
    grid,
    image,
    mask,
    objects_of,
    write,
)
from pycocotools import mask as coco_mask

from visionloop.bin.converters.outlines import InvalidOutline, area, encode_runs
from visionloop.datasets.segments.layout import inspect_segments_split


def test_polygons_and_both_kinds_of_run_lengths_give_the_same_pixels(convert, tmp_path):
    region = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    region[1:4, 2:5] = 1
    compressed = coco_mask.encode(np.asfortranarray(region))["counts"].decode()
    plain = [2 * HEIGHT + 1, 3, 3, 3, 3, 3, 2 + 3 * HEIGHT]
    expected = grid("00000000", "00222000", "00222000", "00222000", "00000000", "00000000")
    polygons = ([box(2, 1, 5, 4)], [box(2, 1, 5, 3), box(2, 2, 5, 4)])
    for kind in (
        *polygons,
        {"size": [6, 8], "counts": compressed},
        {"size": [6, 8], "counts": plain},
    ):
        coco(tmp_path / "coco", [(6, kind)])
        status, out, err = convert("masks", tmp_path / "coco", tmp_path / "out")
        assert (status, err) == (0, "") and "train: 1 images, 1 regions; 3 classes" in out
        assert (
            classes(tmp_path / "out") == ["background", "dog", "cat"]
            and mask(tmp_path / "out", "train/a.png") == expected
        )
    assert files_below(tmp_path / "out") == [
        "classes.json",
        "convert.json",
        "images/train/a.jpg",
        "masks/train/a.png",
    ]


def test_the_smaller_area_lies_on_top_and_crowds_below_everything(convert, tmp_path):
    small, large = (3, [box(2, 2, 4, 4)]), (6, [box(1, 1, 6, 5)])
    crowd = {
        "category_id": 3,
        "iscrowd": 1,
        "segmentation": {"size": [6, 8], "counts": [2 * HEIGHT, 2 * HEIGHT, 4 * HEIGHT]},
    }
    for order in ([small, large, crowd], [crowd, large, small]):
        coco(tmp_path / "coco", order)
        assert convert("masks", tmp_path / "coco", tmp_path / "out")[0] == 0
        assert mask(tmp_path / "out", "train/a.png") == grid(
            "00xx0000", "02222200", "02112200", "02112200", "02222200", "00xx0000"
        )


def test_one_polygon_without_its_own_brackets_is_an_outline(convert, tmp_path):
    for name, outline in (("flat", box(1, 1, 3, 3)), ("nested", [box(1, 1, 3, 3)])):
        coco(tmp_path / name, [(6, outline)])
        assert convert("masks", tmp_path / name, tmp_path / f"{name} masks")[0] == 0
    flat, nested = (mask(tmp_path / f"{name} masks", "train/a.png") for name in ("flat", "nested"))
    assert flat == nested and any(map(any, flat))


def test_a_split_without_images_is_noted(convert, tmp_path):
    coco(tmp_path / "coco", [(6, [box(0, 0, 8, 3)])])
    (path,) = (tmp_path / "coco").rglob("*.json")
    empty = json.loads(path.read_text()) | {"images": [], "annotations": []}
    write(path.with_name(path.name.replace("train", "val")), json.dumps(empty))
    status, _, err = convert("masks", tmp_path / "coco", tmp_path / "out")
    assert (status, err.count("\n")) == (0, 1) and "section 'images' is empty" in err


@pytest.mark.parametrize("section", ["images", "categories"])
def test_annotations_are_not_lost_with_an_empty_section(convert, tmp_path, section):
    coco(tmp_path / "coco", [(6, [box(0, 0, 8, 3)])])
    for path in (tmp_path / "coco").rglob("*.json"):
        content = json.loads(path.read_text())
        write(path, json.dumps(content | {section: []}))
        status, out, err = convert("masks", tmp_path / "coco", tmp_path / "out")
        assert (status, out) == (2, "") and f"{path}: section {section!r} is empty" in err


def test_pixels_without_annotation_are_a_class_of_any_name_or_ignored(convert, tmp_path):
    coco(tmp_path / "coco", [(6, [box(0, 0, 8, 3)])])
    lines = ["22222222"] * 3 + ["00000000"] * 3
    convert("masks", tmp_path / "coco", tmp_path / "out", "--background", "floor")
    assert classes(tmp_path / "out") == ["floor", "dog", "cat"] and mask(
        tmp_path / "out", "train/a.png"
    ) == grid(*lines)
    convert("masks", tmp_path / "coco", tmp_path / "out", "--background", "ignore")
    assert classes(tmp_path / "out") == ["dog", "cat"]
    assert mask(tmp_path / "out", "train/a.png") == grid(*["11111111"] * 3, *["xxxxxxxx"] * 3)
    coco(tmp_path / "coco", [(6, [box(0, 0, 8, 3)]), (3, [box(0, 0, 8, 1)])])
    convert(
        "masks", tmp_path / "coco", tmp_path / "out", "--background", "cat"
    )  # a class that there is already
    assert classes(tmp_path / "out") == ["cat", "dog"]
    assert mask(tmp_path / "out", "train/a.png") == grid("11111111", *["00000000"] * 5)


def test_images_without_annotations_are_background_and_splits_share_their_ids(convert, tmp_path):
    coco(tmp_path / "coco", [(6, [box(0, 0, 8, 6)])], images=("a.jpg", "deep/b.jpg"))
    coco(
        tmp_path / "coco",
        [(3, [box(0, 0, 8, 6)])],
        split="val",
        images=("c.png",),
        categories=("cat",),
    )
    status, out, _ = convert("masks", tmp_path / "coco", tmp_path / "out")
    assert status == 0 and "train: 2 images, 1 regions; val: 1 images, 1 regions" in out
    assert mask(tmp_path / "out", "train/deep/b.png") == grid(*["00000000"] * 6)
    assert (
        mask(tmp_path / "out", "train/a.png")
        == mask(tmp_path / "out", "val/c.png")
        == grid(*["22222222"] * 6)
    )


def test_the_only_json_of_an_export_is_train(convert, tmp_path):
    path = coco(tmp_path / "export" / "images", [(3, [box(0, 0, 8, 6)])], split="default")
    write(tmp_path / "export" / "annotations" / "instances_default.json", path.read_text())
    path.unlink()
    assert convert("masks", tmp_path / "export", tmp_path / "out", "--from", "coco")[0] == 0
    assert files_below(tmp_path / "out" / "images") == ["train/a.jpg"]


@pytest.mark.parametrize(
    ("segmentation", "why"),
    [
        ("x", "segmentation is 'x', expected polygons"),
        ([[1, 1, 3, 1, 3, 3], None], "segmentation holds missing, expected polygons"),
        ([[[1, 1, 3, 1, 3, 3]]], "has a polygon with [1, 1, 3, 1, 3, 3], expected polygons"),
        ([[1, 1, 2, "2", 3, 3]], "has a polygon with '2', expected polygons"),
        ([[1, 1, 2, float("nan"), 3, 3]], "has a polygon with nan, expected are pixels"),
        ([[1, 1, 2, 1e9, 3, 3]], "has a polygon with 1e+09, expected are pixels"),
        ({"size": [8, 6], "counts": [48]}, "size is [8, 6], but the image's is [6, 8]"),
        ({"size": [6, 8], "counts": [40]}, "do not add up to the 6 x 8 pixels"),
        ({"size": [6, 8], "counts": [60, -12]}, "do not add up"),
        ({"size": [6, 8], "counts": [48.0]}, "neither whole numbers nor text"),
        ({"size": [6, 8], "counts": "!!"}, "not text as COCO compresses it"),
        ({"size": [6, 8], "counts": "01"}, "do not add up"),
        ({"size": [6, 8]}, "counts is missing"),
    ],
)
def test_an_invalid_outline_is_reported_by_file_and_annotation_in_one_line(
    convert, tmp_path, segmentation, why
):
    path = coco(tmp_path / "coco", [(3, [box(0, 0, 8, 6)]), (6, segmentation)])
    status, out, err = convert("masks", tmp_path / "coco", tmp_path / "out")
    assert (
        status == 2
        and out == ""
        and err.count("\n") == 1
        and err.startswith(f"error: {path}: annotation 2 on a.jpg: ")
        and why in err
    )
    assert [entry.name for entry in tmp_path.iterdir()] == ["coco"]


def test_an_image_with_any_problem_is_left_out_as_a_whole(convert, tmp_path):
    right = {"category_id": 3, "segmentation": [box(0, 0, 2, 2)]}
    rows = [
        right | {"segmentation": "x"},
        right | {"category_id": 9},
        right | {"image_id": 2, "segmentation": "x"},
    ]
    rows += [right | {"image_id": 3}, right | {"image_id": 7}]
    coco(tmp_path / "coco", rows, images=("a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"))
    image(tmp_path / "coco/train/d.jpg", 7, 8)
    (tmp_path / "coco/train/e.jpg").write_text("no image")
    status, _, err = convert("masks", tmp_path / "coco", tmp_path / "out")
    assert (
        status == 2 and "6 problems, nothing was written" in err and not (tmp_path / "out").exists()
    )
    for part in (
        "category_id 9",
        "annotation 3 on b.jpg",
        "image_id 7 is no image's id",
        "e.jpg: not",
    ):
        assert part in err
    assert "d.jpg: annotated as 8 x 6, but the image is 8 x 7" in err
    assert convert("masks", tmp_path / "coco", tmp_path / "out", "--skip-broken")[0] == 0
    assert files_below(tmp_path / "out/images") == ["train/c.jpg"] and files_below(
        tmp_path / "out/masks"
    ) == ["train/c.png"]
    assert len(json.loads((tmp_path / "out/convert.json").read_text())["left_out"]) == 6


@pytest.mark.parametrize("kind", ["masks", "instances"])
def test_conversion_leaves_out_what_training_leaves_out_and_says_so_in_the_same_words(
    convert, tmp_path, kind
):
    whole = box(0, 0, 2, 2)
    outlines = [[[1, 1, 4, 4]], [[1, 1, 2, 2], whole], [[*whole, 5], whole], [[*whole, 5]]]
    rows = [(6, outline) for outline in [*outlines, [], None, float("nan")]]
    path = coco(tmp_path / "coco", rows)
    _, problems = inspect_segments_split(tmp_path / "coco", "train", "instance")
    expected = [
        "annotation 1 on a.jpg: no usable outline (segmentation), left out (5 times)",
        "annotation 1 on a.jpg: a polygon with fewer than three points or an odd number of values, "
        "left out (4 times)",
    ]
    assert [why for _, _, why in problems if "annotation" in why] == expected
    status, _, err = convert(kind, tmp_path / "coco", tmp_path / "out")
    assert status == 0
    assert sorted(err.splitlines()) == sorted(f"note: {path}: {why}" for why in expected)
    if kind == "masks":
        assert mask(tmp_path / "out", "train/a.png") == grid(*["22000000"] * 2, *["00000000"] * 4)
    else:
        assert [len(pixels) for pixels in objects_of(tmp_path / "out").values()] == [2]


@pytest.mark.parametrize("outline", [None, [], [[1, 1, 4, 4]]])
def test_a_json_without_any_outline_is_one_error_in_conversion_and_in_training(
    convert, tmp_path, outline
):
    path = coco(tmp_path / "coco", [(6, outline), (3, outline)])
    _, problems = inspect_segments_split(tmp_path / "coco", "train", "instance")
    (why,) = [why for level, _, why in problems if level == "error"]
    assert why.startswith("none of 2 annotations has a usable outline")
    for kind in ("masks", "instances"):
        status, _, err = convert(kind, tmp_path / "coco", tmp_path / "out", "--skip-broken")
        assert (status, err) == (2, f"error: {path}: {why}\n")


@pytest.mark.parametrize("kind", ["masks", "instances"])
def test_a_repeated_name_of_a_class_is_an_error_of_its_own_file_alone(convert, tmp_path, kind):
    coco(tmp_path / "coco", [(6, [box(0, 0, 8, 3)])], split="val")
    path = coco(tmp_path / "coco", [(6, [box(0, 0, 8, 3)]), (3, [box(0, 0, 1, 1)])])
    content = json.loads(path.read_text())
    for category in content["categories"]:
        category["name"] = "cat"
    write(path, json.dumps(content))
    ids = " and ".join(str(category["id"]) for category in content["categories"])
    why = f"error: {path}: categories {ids}: both have the name 'cat'; rename one, or join them\n"
    for options in ((), ("--skip-broken",)):
        assert convert(kind, tmp_path / "coco", tmp_path / "out", *options) == (2, "", why)


@pytest.mark.parametrize("kind", ["masks", "instances"])
@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("name", ["{}.json", "annotations/instances_{}2017.json"])
def test_annotations_that_are_no_file_are_an_error_and_not_a_missing_split(
    convert, tmp_path, kind, split, name
):
    source = tmp_path / "coco"
    for each in ("train", "val"):
        path = coco(source, [(6, [box(0, 0, 8, 3)])], split=each)
        (source / name.format(each)).parent.mkdir(exist_ok=True)
        path.rename(source / name.format(each))
    path = source / name.format(split)
    path.unlink()
    path.symlink_to(tmp_path / "gone.json")
    why = f"error: {path}: is a link to {tmp_path / 'gone.json'}, which does not exist\n"
    assert convert(kind, source, tmp_path / "out") == (2, "", why)
    path.unlink()
    path.mkdir()
    why = f"error: {path}: is a folder, expected a json file of this name\n"
    assert convert(kind, source, tmp_path / "out") == (2, "", why)


def test_compressed_run_lengths_are_read_as_pycocotools_reads_them():
    generator = np.random.default_rng(0)
    for _ in range(100):
        size_hw = generator.integers(1, 70, 2).tolist()
        region = np.kron(generator.random((5, 5)) < generator.random(), np.ones((14, 14)))[
            : size_hw[0], : size_hw[1]
        ].astype(np.uint8)
        theirs = coco_mask.encode(np.asfortranarray(region))
        ours = encode_runs({"size": size_hw, "counts": theirs["counts"].decode()}, size_hw)
        assert (coco_mask.decode(ours) == region).all() and area(ours) == region.sum()


def test_damaged_run_lengths_never_reach_pycocotools():
    generator = np.random.default_rng(1)
    for _ in range(300):
        text = bytes(generator.integers(40, 120, generator.integers(1, 12)).tolist()).decode()
        with suppress(InvalidOutline):
            assert area(encode_runs({"size": [9, 11], "counts": text}, [9, 11])) <= 99


def test_crowds_are_counted_in_a_note_and_a_missing_flag_is_none(convert, tmp_path):
    rows = [(3, [box(0, 0, 2, 2)]), (3, [box(4, 0, 6, 2)]), (6, [box(0, 4, 2, 6)])]
    flags = [1, 1, None]
    annotations = [
        {"category_id": key, "segmentation": outline, "iscrowd": flag}
        for (key, outline), flag in zip(rows, flags, strict=True)
    ]
    coco(tmp_path / "coco", annotations)
    status, out, err = convert("masks", tmp_path / "coco", tmp_path / "out")
    assert status == 0 and "1 regions" in out
    assert "annotation 1 on a.jpg: a crowd (iscrowd 1), its pixels are ignored; CVAT" in err
    assert "(2 times)" in err


def test_a_root_category_without_annotations_becomes_no_class(convert, tmp_path):
    path = coco(tmp_path / "coco", [(3, [box(0, 0, 2, 2)])], categories=("dog",))
    content = json.loads(path.read_text())
    content["categories"].insert(0, {"id": 0, "name": "dog", "supercategory": "none"})
    path.write_text(json.dumps(content))
    status, _, err = convert("masks", tmp_path / "coco", tmp_path / "out")
    assert status == 0 and "1 categories without annotations are no classes: 'dog' (id 0)" in err
    assert classes(tmp_path / "out") == ["background", "dog"]
