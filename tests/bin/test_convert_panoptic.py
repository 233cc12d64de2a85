"""Conversion to COCO panoptic: every pixel belongs to one segment or to none."""

import json
from pathlib import Path

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
    segment_ids,
    segments_of,
    write,
)
from PIL import Image

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
NUCLEI, GOLD = SHARED / "nuclei", SHARED / "metrics-gold" / "panoptic"
CATEGORIES = [
    {"id": 4, "name": "dog", "isthing": 1, "color": [1, 2, 3]},
    {"id": 9, "name": "grass", "isthing": 0, "color": [4, 5, 6]},
]
LINES = ["11220033", "10222233", *["00000000"] * 4]
INFOS = [(1, 4, 0), (2, 9, 0), (3, 4, 1)]


def grid_of(folder, name="a.jpg"):
    return drawing(segments_of(folder))[name]


def edit(path, change):
    """Apply `change` to the only annotation of a panoptic json."""
    content = json.loads(path.read_text())
    change(content["annotations"][0])
    write(path, content)


def test_the_smaller_area_lies_on_top_and_crowds_below_everything(convert, tmp_path):
    small, large = (3, [box(2, 2, 4, 4)]), (6, [box(1, 1, 6, 5)])
    crowd = {"category_id": 3, "iscrowd": 1, "segmentation": [box(2, 0, 4, 6)]}
    for order in ([small, large, crowd], [crowd, large, small]):
        coco(tmp_path / "coco", order)
        assert convert("panoptic", tmp_path / "coco", tmp_path / "out")[0] == 0
        names, grid = grid_of(tmp_path / "out")
        assert names == ["dog*", "cat", "dog"]
        assert grid == ["00110000", "02222200", "02332200", "02332200", "02222200", "00110000"]
    assert files_below(tmp_path / "out") == [
        *("convert.json", "panoptic_train.json", "panoptic_train/a.png", "train/a.jpg")
    ]


def test_an_object_under_others_is_left_out_and_listed(convert, tmp_path):
    covering = [(3, [box(0, 0, 4, 4)]), (6, [box(0, 0, 4, 2)]), (6, [box(0, 2, 4, 4)])]
    path = coco(tmp_path / "coco", covering)
    assert convert("panoptic", tmp_path / "coco", tmp_path / "out")[0] == 0
    assert grid_of(tmp_path / "out")[0] == ["cat", "cat"]
    notes = json.loads((tmp_path / "out/convert.json").read_text())["notes"]
    assert notes["is covered by others, left out"] == [f"{path}: annotation 1 on a.jpg"]


def test_of_labelme_the_later_shape_lies_on_top(convert, tmp_path):
    shapes = [("a", "rectangle", [[0, 0], [2, 2]]), ("b", "rectangle", [[0, 0], [4, 4]])]
    for order, names in ((shapes, ["b"]), (shapes[::-1], ["b", "a"])):
        labelme(tmp_path / "me", "a", order)
        assert convert("panoptic", tmp_path / "me", tmp_path / "out")[0] == 0
        assert grid_of(tmp_path / "out")[0] == names


def test_pixels_without_annotation_are_void_or_one_class_of_stuff(convert, tmp_path):
    shapes = [
        ("a", "rectangle", [[0, 0], [2, 2]]),
        ("__ignore__", "rectangle", [[1, 0], [4, 2]]),
    ]
    labelme(tmp_path / "me", "a", shapes)
    status, _, err = convert("panoptic", tmp_path / "me", tmp_path / "out")
    assert status == 0 and "no class is stuff" in err
    assert grid_of(tmp_path / "out") == (["a"], ["10000000"] * 2 + ["00000000"] * 4)
    status, _, err = convert(
        "panoptic", tmp_path / "me", tmp_path / "out", "--background", "ground"
    )
    assert (status, err) == (0, "")
    names, grid = grid_of(tmp_path / "out")
    assert names == ["a", "ground"] and grid == ["10002222"] * 2 + ["22222222"] * 4
    content = json.loads((tmp_path / "out/panoptic_train.json").read_text())
    assert [(row["id"], row["name"], row["isthing"]) for row in content["categories"]] == [
        (1, "a", 1),
        (2, "ground", 0),
    ]
    assert len({tuple(row["color"]) for row in content["categories"]}) == 2


def test_all_regions_of_stuff_are_one_segment_and_join_the_background(convert, tmp_path):
    rows = [(3, [box(0, 0, 2, 2)]), (3, [box(4, 0, 6, 2)]), (6, [box(0, 4, 2, 6)])]
    rows += [(6, [box(6, 4, 8, 6)])]
    coco(tmp_path / "coco", rows)
    assert convert("panoptic", tmp_path / "coco", tmp_path / "out", "--things", "cat")[0] == 0
    names, grid = grid_of(tmp_path / "out")
    assert names == ["dog", "cat", "cat"] and grid[0] == "11001100" and grid[5] == "22000033"
    options = ("--things", "cat", "--background", "dog")
    assert convert("panoptic", tmp_path / "coco", tmp_path / "out", *options)[0] == 0
    assert grid_of(tmp_path / "out")[1][0] == "11111111"
    status, _, err = convert("panoptic", tmp_path / "coco", tmp_path / "out", "--background", "dog")
    assert status == 2 and "--background: 'dog' is a class of things" in err


def test_panoptic_data_survives_a_conversion_to_itself(convert, tmp_path):
    path = panoptic(tmp_path / "pan", LINES, INFOS, CATEGORIES)
    assert convert("panoptic", path, tmp_path / "out")[0] == 0
    names, grid = grid_of(tmp_path / "out")
    assert names == ["dog", "grass", "dog*"] and grid == LINES
    content = json.loads((tmp_path / "out/panoptic_train.json").read_text())
    assert content["categories"] == CATEGORIES


def test_more_segments_than_a_byte_counts_are_told_apart(convert, tmp_path):
    shapes = [("x", "rectangle", [[k, 0], [k + 1, 2]]) for k in range(300)]
    path = labelme(tmp_path / "me", "a", shapes, imageWidth=300, imageHeight=3)
    image(path.with_suffix(".jpg"), 3, 300)
    assert convert("panoptic", tmp_path / "me", tmp_path / "out")[0] == 0
    ids = segment_ids(tmp_path / "out/panoptic_train/a.png")
    assert ids[0].tolist() == list(range(1, 301)) and not ids[2].any()


def test_objects_that_do_not_overlap_survive_the_way_there_and_back(convert, tmp_path):
    rng = np.random.default_rng(5)
    cells = rng.permutation(24)[:15]  # of a grid of 4 x 6 cells of 5 pixels
    corners = [(5 * (cell % 6), 5 * (cell // 6)) for cell in cells.tolist()]
    sides = rng.integers(1, 6, (15, 2)).tolist()
    shapes = [
        ("ab"[k % 2], "rectangle", [[x, y], [x + width, y + height]])
        for k, ((x, y), (width, height)) in enumerate(zip(corners, sides, strict=True))
    ]
    path = labelme(tmp_path / "me", "a", shapes, imageWidth=30, imageHeight=20)
    image(path.with_suffix(".jpg"), 20, 30)
    assert convert("instances", tmp_path / "me", tmp_path / "first")[0] == 0
    background = ("--background", "ground")
    assert convert("panoptic", tmp_path / "first", tmp_path / "pan", *background)[0] == 0
    assert convert("instances", tmp_path / "pan", tmp_path / "again")[0] == 0

    def content(folder):
        rows = objects_of(folder)["a.jpg"]
        return sorted((name, crowd, pixels.tolist()) for name, crowd, pixels in rows)

    assert content(tmp_path / "again") == content(tmp_path / "first")
    assert len(content(tmp_path / "again")) == 15


def test_nuclei_are_the_same_in_both_formats(convert, tmp_path):
    if not NUCLEI.is_dir():
        pytest.skip("no nuclei beside the repository")
    options = ("--background", "background", "--images", "link")
    assert convert("panoptic", NUCLEI / "instances_val.json", tmp_path / "pan", *options)[0] == 0
    source = NUCLEI / "panoptic_val.json"
    assert convert("instances", source, tmp_path / "inst", "--images", "link")[0] == 0
    segments, objects = segments_of(tmp_path / "pan"), objects_of(tmp_path / "inst")
    assert sum(map(len, objects.values())) == 859 and objects.keys() == segments.keys()
    for name, rows in objects.items():
        truth = segment_ids(NUCLEI / "panoptic_val" / name)
        sizes = sorted(np.unique(truth, return_counts=True)[1].tolist())
        assert sorted(pixels.sum() for _, _, pixels in segments[name]) == sizes
        things = [pixels for kind, _, pixels in segments[name] if kind == "nucleus"]
        masks = sorted(pixels.tobytes() for _, _, pixels in rows)
        assert masks == sorted(pixels.tobytes() for pixels in things)


def test_things_become_objects_as_panopticapi_does_it(convert, tmp_path):
    """One annotation for each thing of segments_info, with its crowd flag, area and box."""
    if not GOLD.is_dir():
        pytest.skip("no metrics-gold beside the repository")
    content = json.loads((GOLD / "panoptic_examples.json").read_text())
    source = tmp_path / "gold"
    for entry in content["images"]:
        image(source / "images" / entry["file_name"], entry["height"], entry["width"])
    write(source / "panoptic_examples.json", content)
    (source / "panoptic_examples").symlink_to(GOLD / "panoptic_examples")
    assert convert("instances", source, tmp_path / "out")[0] == 0
    objects = objects_of(tmp_path / "out")
    category = {row["id"]: row for row in content["categories"]}
    crowds = 0
    for entry, annotation in zip(content["images"], content["annotations"], strict=True):
        assert annotation["image_id"] == entry["id"]
        ids = segment_ids(GOLD / "panoptic_examples" / annotation["file_name"])
        things = [
            row for row in annotation["segments_info"] if category[row["category_id"]]["isthing"]
        ]
        written = objects[entry["file_name"]]
        assert len(written) == len(things) > 5
        for (name, crowd, pixels), row in zip(written, things, strict=True):
            assert name == category[row["category_id"]]["name"] and crowd == row["iscrowd"]
            assert (pixels == (ids == row["id"])).all()
            assert pixels.sum() == row["area"]
            crowds += crowd
    assert crowds == 3


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda row: row["segments_info"].pop(), "a.png: holds the ids 3000, which are not in"),
        (lambda row: row["segments_info"][0].update(category_id=5), "category_id 5 is no category"),
        (lambda row: row["segments_info"][0].update(id=2000), "the id is there twice"),
        (lambda row: row["segments_info"][0].update(id="x"), "id is 'x', expected 1 to 16777215"),
        (lambda row: row["segments_info"][0].update(iscrowd=2), "iscrowd is 2, neither 0 nor 1"),
        (lambda row: row.update(segments_info=None), "segments_info is missing, expected a list"),
        (lambda row: row.update(file_name="b.png"), "its PNG b.png is not in panoptic_train/"),
        (lambda row: row.update(file_name=3), "file_name is 3, in its annotation; expected that"),
        (lambda row: row.update(file_name="/a.png"), "file_name '/a.png' is absolute, expected is"),
        (lambda row: row.update(image_id=8), "image_id 8 is no image's id"),
    ],
)
def test_broken_panoptic_data_is_reported(convert, tmp_path, change, why):
    path = panoptic(tmp_path / "pan", LINES, INFOS, CATEGORIES)
    edit(path, change)
    status, out, err = convert("instances", tmp_path / "pan", tmp_path / "out")
    assert (status, out) == (2, "") and why in err and str(tmp_path / "pan") in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["x", 2000, None])
def test_a_wrong_id_is_not_reported_a_second_time_for_its_pixels(convert, tmp_path, key):
    path = panoptic(tmp_path / "pan", LINES, INFOS, CATEGORIES)
    edit(path, lambda row: row["segments_info"][0].update(id=key))
    status, _, err = convert("panoptic", tmp_path / "pan", tmp_path / "out")
    assert status == 2 and err.count("\n") == 1 and "segments_info" not in err


def test_a_segment_without_pixels_is_left_out_and_listed(convert, tmp_path):
    path = panoptic(tmp_path / "pan", LINES, [*INFOS, (7, 4, 0)], CATEGORIES)
    assert convert("instances", tmp_path / "pan", tmp_path / "out")[0] == 0
    notes = json.loads((tmp_path / "out/convert.json").read_text())["notes"]
    assert notes["has no pixel in its PNG, left out"] == [f"{path}: segment 7000 on a.jpg"]


def test_broken_pngs_and_folders_of_panoptic_data_are_one_line(convert, tmp_path):
    path = panoptic(tmp_path / "pan", LINES, INFOS, CATEGORIES)
    png = tmp_path / "pan/panoptic_train/a.png"
    whole = png.read_bytes()
    for content, why in ((b"", "empty file"), (b"text", "no PNG"), (whole[:60], "truncated")):
        png.write_bytes(content)
        status, _, err = convert("panoptic", path, tmp_path / "out")
        assert status == 2 and err.count("\n") == 1 and f"{png}: " in err and why in err
    Image.new("RGB", (WIDTH, HEIGHT + 1)).save(png)
    status, _, err = convert("panoptic", path, tmp_path / "out")
    assert status == 2 and f"{png}: is 7 x 8 (height x width), its image 6 x 8" in err
    png.unlink()
    png.parent.rmdir()
    status, _, err = convert("panoptic", path, tmp_path / "out")
    assert status == 2 and f"{png.parent}: no such folder; expected the PNGs of" in err
    png.parent.mkdir()
    png.write_bytes(whole)
    content = json.loads(path.read_text())
    content["categories"][1]["isthing"] = "no"
    write(path, content)
    status, _, err = convert("panoptic", path, tmp_path / "out")
    assert status == 2 and "category 9: isthing is 'no', expected 0 or 1" in err


def test_options_that_do_not_apply_are_refused(convert, tmp_path):
    panoptic(tmp_path / "pan", LINES, INFOS, CATEGORIES)
    for options, why in (
        (("--things", "dog"), "itself says which classes are things"),
        (("--background", " "), "--background: is empty"),
        (("--classes", "mine.json"), "is coco-panoptic, which has class names of its own"),
    ):
        status, _, err = convert("panoptic", tmp_path / "pan", tmp_path / "out", *options)
        assert status == 2 and why in err and err.count("\n") == 1


def test_two_images_that_would_share_a_png_are_refused(convert, tmp_path):
    coco(tmp_path / "coco", [(3, [box(0, 0, 2, 2)])], images=("a.jpg", "a.png"))
    status, _, err = convert("panoptic", tmp_path / "coco", tmp_path / "out")
    assert status == 2 and "a.png: a.jpg has the same name but for the suffix" in err
