"""Sources of objects and stuff beside COCO and labelme, and how a source is recognised."""

import json

import numpy as np
import pytest
from conversion_files import (
    HEIGHT,
    WIDTH,
    box,
    coco,
    drawing,
    image,
    labelme,
    objects_of,
    panoptic,
    segments_of,
    write,
)
from PIL import Image

from visionloop.bin.converters.segments.number_maps import write_numbers
from visionloop.bin.converters.voc_masks import voc_colors
from visionloop.datasets.segmentation.masks import UnreadableMask
from visionloop.datasets.segments.id_maps import read_ids


@pytest.fixture
def yolo(tmp_path):
    """A YOLO folder with outlines of three objects on an image, and an image without any."""
    root = tmp_path / "yolo"
    write(root / "data.yaml", "names: [dog, cat]\ntrain: images/train\nval: images/val\n")
    outlines = ["0 0 0 0.5 0 0.5 0.5 0 0.5", "1 0 0 .25 0 .25 .5 0 .5", "1 1 1 .75 1 .75 .5 1 .5"]
    write(root / "labels/train/a.txt", "\n".join(outlines) + "\n")
    write(root / "labels/train/b.txt", "")
    write(root / "labels/val/c.txt", "0 0 0 1 0 1 1\n1 0 0 1 0 1 1 0 1 0 0.5\n")
    for name in ("train/a.jpg", "train/b.jpg", "val/c.jpg"):
        image(root / "images" / name)
    return root


def test_outlines_of_yolo_are_objects_and_the_smaller_is_on_top(yolo, convert, tmp_path):
    status, out, err = convert("instances", yolo, tmp_path / "out")
    assert (status, err) == (0, "") and "train: 2 images, 3 objects; val: 1 images, 2" in out
    objects = objects_of(tmp_path / "out")
    assert objects["b.jpg"] == []
    assert drawing(objects)["a.jpg"] == (
        ["dog", "cat", "cat"],
        [*["22110000"] * 3, *["00000033"] * 3],
    )
    assert objects["a.jpg"][0][2].sum() == 12  # also below the cat
    content = json.loads((tmp_path / "out/train.json").read_text())
    assert content["annotations"][0]["segmentation"] == [[0, 0, 4, 0, 4, 3, 0, 3]]
    assert convert("panoptic", yolo, tmp_path / "out")[0] == 0
    assert [row[2].sum() for row in segments_of(tmp_path / "out")["a.jpg"]] == [6, 6, 6]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("0 0.5 0.5 1 1", "a box (class cx cy w h), expected an outline"),
        ("2 0 0 1 0 1 1", "class 2, expected 0 to 1"),
        ("0 0 0 80 0 60 60", "80 is no share of the image (0 to 1)"),
        ("0 0 0 1 0 1 1 1", "8 numbers, expected are 5 (class cx cy w h) or an outline"),
        ("0 0 0 1 0 1 x", "'x' is no number"),
    ],
)
def test_a_line_that_is_no_outline_is_named(yolo, convert, tmp_path, line, why):
    path = write(yolo / "labels/train/b.txt", f"0 0 0 1 0 1 1\n{line}\n")
    status, _, err = convert("instances", yolo, tmp_path / "out")
    assert status == 2 and err.startswith(f"error: {path}:2: {why}") and err.count("\n") == 1
    assert convert("instances", yolo, tmp_path / "out", "--skip-broken")[0] == 0
    assert list(objects_of(tmp_path / "out")) == ["a.jpg"]


def test_an_outline_drawn_over_the_edge_is_clipped_with_a_note(yolo, convert, tmp_path):
    write(yolo / "labels/train/b.txt", "0 -0.03 0 0.5 -0.04 0.5 1.04 0 1.02\n")
    status, _, err = convert("instances", yolo, tmp_path / "out")
    assert status == 0 and err.count("\n") == 1
    assert "train: 1 outlines that reach up to 5 % out of the image are clipped" in err
    content = json.loads((tmp_path / "out/train.json").read_text())
    assert content["annotations"][-1]["segmentation"] == [[0, 0, 4, 0, 4, 6, 0, 6]]
    write(yolo / "labels/train/b.txt", "0 -0.06 0 0.5 0 0.5 1 0 1\n")
    status, _, err = convert("instances", yolo, tmp_path / "out")
    assert status == 2 and "-0.06 is no share of the image" in err


def test_keypoints_of_yolo_are_no_outlines(yolo, convert, tmp_path):
    with open(yolo / "data.yaml", "a") as file:
        file.write("kpt_shape: [2, 2]\n")
    status, _, err = convert("instances", yolo, tmp_path / "out")
    assert status == 2 and "its lines are keypoints, expected outlines" in err


@pytest.fixture
def cityscapes(tmp_path):
    """A Cityscapes folder: two cars, a group of persons, road, an ignored label."""
    root = tmp_path / "cityscapes"
    values = np.full((HEIGHT, WIDTH), 7)
    values[0, :2], values[0, 2:4], values[0, 4:6] = 26001, 26000, 24
    values[5], values[4, :2], values[4, 2:4] = 4, 29003, 33012
    for split, city in (("train", "aachen"), ("val", "lindau")):
        stem = f"{city}/{city}_000000_000019"
        path = root / "gtFine" / split / f"{stem}_gtFine_instanceIds.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(values.astype(np.uint16)).save(path)
        write(path.with_name(path.name.replace("instanceIds.png", "polygons.json")), {"objects": 0})
        image(root / "leftImg8bit" / split / f"{stem}_leftImg8bit.png")
    return root


def test_cityscapes_has_objects_groups_stuff_and_void(cityscapes, convert, tmp_path):
    for source in (cityscapes, cityscapes / "gtFine"):
        assert convert("panoptic", source, tmp_path / "out")[0] == 0
    segments = segments_of(tmp_path / "out")
    name = "aachen/aachen_000000_000019_leftImg8bit.png"
    names, grid = drawing(segments)[name]
    assert names == ["road", "person*", "car", "car", "bicycle"]
    assert grid == ["44332211", *["11111111"] * 3, "00551111", "00000000"]
    content = json.loads((tmp_path / "out/panoptic_val.json").read_text())
    by_name = {row["name"]: row for row in content["categories"]}
    assert len(by_name) == 19 and sum(row["isthing"] for row in content["categories"]) == 8
    assert by_name["car"] == {"id": 26, "name": "car", "isthing": 1, "color": [0, 0, 142]}
    assert convert("instances", cityscapes, tmp_path / "out")[0] == 0
    assert [row[:2] for row in objects_of(tmp_path / "out")[name]] == [
        ("person", True),
        ("car", False),
        ("car", False),
        ("bicycle", False),
    ]


def test_broken_cityscapes_is_reported(cityscapes, convert, tmp_path):
    path = next((cityscapes / "gtFine/train").rglob("*.png"))
    Image.fromarray(np.full((HEIGHT, WIDTH), 40, dtype=np.uint16)).save(path)
    status, _, err = convert("panoptic", cityscapes, tmp_path / "out")
    assert status == 2 and f"{path}: holds the value 40" in err and err.count("\n") == 1
    next((cityscapes / "leftImg8bit/train").rglob("*.png")).unlink()
    status, _, err = convert("panoptic", cityscapes, tmp_path / "out")
    assert status == 2 and f"{path}: its image aachen/" in err and err.count("\n") == 1
    assert convert("panoptic", cityscapes, tmp_path / "out", "--skip-broken")[0] == 0
    status, _, err = convert("panoptic", cityscapes, tmp_path / "out", "--things", "road")
    assert status == 2 and "itself says which classes are things" in err


@pytest.fixture
def voc(tmp_path):
    """A VOC folder: two dogs and a cat with a border, once as palette files, once as RGB."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    palette = np.array(voc_colors(256), dtype=np.uint8)
    classes = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    objects = classes.copy()
    classes[0, :4], classes[1, :3], classes[2] = 12, 8, 255
    objects[0, :2], objects[0, 2:4], objects[1, :3], objects[2] = 1, 2, 3, 255
    for stem, split in (("a", "train"), ("b", "val")):
        image(root / "JPEGImages" / f"{stem}.jpg")
        for folder, ids in (("SegmentationClass", classes), ("SegmentationObject", objects)):
            (root / folder).mkdir(exist_ok=True)
            pil_image = Image.fromarray(ids if split == "train" else palette[ids])
            if split == "train":
                pil_image.putpalette(palette.tobytes())
            pil_image.save(root / folder / f"{stem}.png")
        write(root / f"ImageSets/Segmentation/{split}.txt", f"{stem}\n")
    return root


def test_objects_of_voc_are_those_of_both_files(voc, convert, tmp_path):
    assert convert("panoptic", voc.parent, tmp_path / "out")[0] == 0
    train, val = (drawing(segments_of(tmp_path / "out", split)) for split in ("train", "val"))
    names, grid = train["a.jpg"]
    assert names == ["cat", "dog", "dog"] and val["b.jpg"][0] == names
    assert grid == ["22330000", "11100000", *["00000000"] * 4]
    assert sorted(val["b.jpg"][1][0]) == sorted(grid[0]) and val["b.jpg"][1][1:] == grid[1:]
    options = ("--background", "rest", "--things", "dog")
    assert convert("panoptic", voc, tmp_path / "out", *options)[0] == 0
    names, grid = drawing(segments_of(tmp_path / "out"))["a.jpg"]
    assert names == ["cat", "dog", "dog", "rest"]
    assert grid == ["22334444", "11144444", "00000000", *["44444444"] * 3]
    assert convert("instances", voc, tmp_path / "out")[0] == 0
    assert [row[0] for row in objects_of(tmp_path / "out")["a.jpg"]] == ["cat", "dog", "dog"]


def test_broken_voc_is_reported(voc, convert, tmp_path):
    path = voc / "SegmentationObject/a.png"
    Image.new("L", (WIDTH, HEIGHT - 1)).save(path)
    status, _, err = convert("instances", voc, tmp_path / "out")
    assert status == 2 and f"{path}: is 5 x 8 (height x width), its image 6 x 8" in err
    path.unlink()
    status, _, err = convert("instances", voc, tmp_path / "out")
    assert status == 2 and f"error: {path}: No such file" in err and err.count("error") == 1
    (voc / "SegmentationObject").rename(voc / "other")
    status, _, err = convert("instances", voc, tmp_path / "out", "--from", "voc")
    assert status == 2 and "SegmentationObject/ is missing" in err


def test_a_thing_without_a_number_is_a_crowd(voc, convert, tmp_path):
    Image.new("L", (WIDTH, HEIGHT)).save(voc / "SegmentationObject/a.png")
    assert convert("instances", voc, tmp_path / "out")[0] == 0
    assert [row[:2] for row in objects_of(tmp_path / "out")["a.jpg"]] == [
        ("cat", True),
        ("dog", True),
    ]


def test_a_folder_of_several_kinds_must_be_named(convert, tmp_path):
    root = tmp_path / "both"
    categories = [{"id": 1, "name": "dog", "isthing": 1}]
    panoptic(root, ["1" * WIDTH] * HEIGHT, [(1, 1, 0)], categories)
    path = coco(root, [(3, [box(0, 0, 2, 2)])])
    path.rename(root / "instances_train.json")
    status, _, err = convert("panoptic", root, tmp_path / "out")
    assert status == 2 and "of coco and coco-panoptic; choose one with --from" in err
    assert convert("panoptic", root, tmp_path / "out", "--from", "coco")[0] == 0
    assert [row[2].sum() for row in segments_of(tmp_path / "out")["a.jpg"]] == [4]
    assert convert("panoptic", root, tmp_path / "out", "--from", "coco-panoptic")[0] == 0
    assert [row[2].sum() for row in segments_of(tmp_path / "out")["a.jpg"]] == [48]


def test_the_json_itself_is_a_source(convert, tmp_path):
    path = coco(tmp_path / "coco", [(3, [box(0, 0, 2, 2)])])
    assert convert("instances", path, tmp_path / "out", "--images", "link")[0] == 0
    assert len(objects_of(tmp_path / "out")["a.jpg"]) == 1
    labelled = labelme(tmp_path / "me", "a", [("x", "rectangle", [[0, 0], [2, 2]])])
    status, _, err = convert("instances", labelled, tmp_path / "out")
    assert status == 2 and "not a folder, and no COCO json" in err


def test_masks_of_classes_and_objects_are_a_source(convert, tmp_path):
    root = tmp_path / "masks"
    ids = np.array([[0, 0, 1, 1, 1, 1, 1, 255]] * HEIGHT, dtype=np.uint8)
    objects = np.array([[0, 9, 300, 300, 0, 2, 2, 2]] * HEIGHT, dtype=np.uint16)
    image(root / "images/train/a.jpg")
    for folder, values in (("masks", ids), ("instances", objects)):
        (root / folder / "train").mkdir(parents=True)
        Image.fromarray(values).save(root / folder / "train/a.png")
    write(root / "classes.json", {"classes": ["road", "car"], "things": ["car"]})
    assert convert("panoptic", root, tmp_path / "out")[0] == 0
    names, grid = drawing(segments_of(tmp_path / "out"))["a.jpg"]
    assert (names, grid[0]) == (["road", "car*", "car", "car"], "11442330")
    write(root / "classes.json", ["road", "car"])
    assert convert("panoptic", root, tmp_path / "out", "--things", "car")[0] == 0
    assert drawing(segments_of(tmp_path / "out"))["a.jpg"] == (names, grid)
    assert convert("instances", root, tmp_path / "out")[0] == 0
    objects = objects_of(tmp_path / "out")["a.jpg"]
    assert [(name, crowd) for name, crowd, _ in objects] == [
        ("road", False),
        ("car", False),
        ("car", False),
    ]
    Image.new("L", (WIDTH, HEIGHT - 1)).save(root / "instances/train/a.png")
    status, _, err = convert("instances", root, tmp_path / "out")
    path = root / "instances/train/a.png"
    assert status == 2 and f"{path}: is 5 x 8 (height x width), its image 6 x 8" in err


def test_written_numbers_are_read_again(tmp_path):
    numbers = np.array([[0, 1, 255], [256, 65_536, 16_777_215]], dtype=np.int32)
    write_numbers(tmp_path / "a.png", numbers)
    assert (read_ids(tmp_path / "a.png") == numbers).all()


def test_palette_files_hold_positions_where_they_are_allowed(tmp_path):
    numbers = np.array([[0, 1, 2], [3, 2, 1]], dtype=np.uint8)
    with_palette = Image.fromarray(numbers)
    with_palette.putpalette([9, 9, 9] * 4)
    with_palette.save(tmp_path / "a.png", bits=2)
    assert read_ids(tmp_path / "a.png", allow_palette=True).tolist() == numbers.tolist()
    with pytest.raises(UnreadableMask, match="has palette pixels"):
        read_ids(tmp_path / "a.png")
