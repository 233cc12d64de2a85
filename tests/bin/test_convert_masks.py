"""The conversion to masks, as a user runs it: every pixel gets the class that the annotations say, mistakes are told by file and place."""

import json
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from visionloop.bin.convert import main
from visionloop.bin.converters.outlines import BrokenOutline, area, encode_runs
from visionloop.bin.converters.voc_masks import BORDER, VOC_CLASSES, voc_colours
from visionloop.datasets.segmentation.class_file import read_class_file
from visionloop.datasets.segmentation.dataset import read_pair
from visionloop.datasets.segmentation.layout import require_segmentation_split
from visionloop.datasets.segmentation.masks import read_mask

CAMVID = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "camvid-mini"
HEIGHT, WIDTH = 6, 8


@pytest.fixture
def convert(monkeypatch, capsys):
    """Arguments -> (exit status, stdout, stderr) of the console script's `masks`."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["visionloop-convert", "masks", *map(str, arguments)])
        try:
            main()
            status = 0
        except SystemExit as exit:
            status = exit.code
        return status, *capsys.readouterr()

    return call


def image(path, height=HEIGHT, width=WIDTH):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 90, dtype=np.uint8)).save(path)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def box(left, top, right, bottom):
    """The polygon around the pixels left..right - 1 and top..bottom - 1."""
    return [left, top, right, top, right, bottom, left, bottom]


def grid(*lines):
    """A mask as text: a digit for an id, x for ignored."""
    return [[255 if value == "x" else int(value) for value in line] for line in lines]


def mask(folder, name):
    """(ids as the file holds them); training reads the same."""
    path = Path(folder) / "masks" / name
    with Image.open(path) as image:
        assert image.mode == "L"
        ids = np.asarray(image)
    assert (read_mask(path, read_class_file(Path(folder) / "classes.json")).numpy() == ids).all()
    return ids.tolist()


def classes(folder):
    return json.loads((Path(folder) / "classes.json").read_text())["classes"]


def names(folder):
    return sorted(
        path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if not path.is_dir()
    )


# COCO


def coco(root, annotations, split="train", images=("a.jpg",), categories=("dog", "cat")):
    """One json. annotations: (category id, segmentation) or dicts; category ids are 3, 6, ..."""
    for name in images:
        image(root / split / name)
    rows = []
    for number, row in enumerate(annotations, 1):
        row = row if isinstance(row, dict) else {"category_id": row[0], "segmentation": row[1]}
        rows.append({"id": number, "image_id": 1, "iscrowd": 0} | row)
    content = {
        "images": [
            {"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH}
            for number, name in enumerate(images, 1)
        ],
        "annotations": rows,
        "categories": [
            {"id": 3 * number, "name": name} for number, name in enumerate(categories, 1)
        ],
    }
    return write(root / f"{split}.json", content)


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
        status, out, err = convert(tmp_path / "coco", tmp_path / "out")
        assert (status, err) == (0, "") and "train: 1 images, 1 regions; 3 classes" in out
        assert (
            classes(tmp_path / "out") == ["background", "dog", "cat"]
            and mask(tmp_path / "out", "train/a.png") == expected
        )
    assert names(tmp_path / "out") == [
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
        assert convert(tmp_path / "coco", tmp_path / "out")[0] == 0
        assert mask(tmp_path / "out", "train/a.png") == grid(
            "00xx0000", "02222200", "02112200", "02112200", "02222200", "00xx0000"
        )


def test_what_nothing_covers_is_a_class_of_any_name_or_ignored(convert, tmp_path):
    coco(tmp_path / "coco", [(6, [box(0, 0, 8, 3)])])
    lines = ["22222222"] * 3 + ["00000000"] * 3
    convert(tmp_path / "coco", tmp_path / "out", "--background", "floor")
    assert classes(tmp_path / "out") == ["floor", "dog", "cat"] and mask(
        tmp_path / "out", "train/a.png"
    ) == grid(*lines)
    convert(tmp_path / "coco", tmp_path / "out", "--background", "ignore")
    assert classes(tmp_path / "out") == ["dog", "cat"]
    assert mask(tmp_path / "out", "train/a.png") == grid(*["11111111"] * 3, *["xxxxxxxx"] * 3)
    coco(tmp_path / "coco", [(6, [box(0, 0, 8, 3)]), (3, [box(0, 0, 8, 1)])])
    convert(
        tmp_path / "coco", tmp_path / "out", "--background", "cat"
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
    status, out, _ = convert(tmp_path / "coco", tmp_path / "out")
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
    assert convert(tmp_path / "export", tmp_path / "out", "--from", "coco")[0] == 0
    assert names(tmp_path / "out" / "images") == ["train/a.jpg"]


@pytest.mark.parametrize(
    ("segmentation", "why"),
    [
        ([], "segmentation is []: no outline"),
        (None, "segmentation is missing: no outline"),
        (box(1, 1, 3, 3), "a list of numbers, expected a list of polygons"),
        ([[1, 1, 2, 2, 3, 3, 4]], "7 coordinates, expected x and y"),
        ([[1, 1, 2, "2", 3, 3]], "a coordinate is '2'"),
        ([[1, 1, 2, float("nan"), 3, 3]], "a coordinate is nan"),
        ([[1, 1, 2, 1e9, 3, 3]], "far outside the image of 8 x 6"),
        ({"size": [8, 6], "counts": [48]}, "size is [8, 6], but the image's is [6, 8]"),
        ({"size": [6, 8], "counts": [40]}, "do not add up to the 6 x 8 pixels"),
        ({"size": [6, 8], "counts": [60, -12]}, "do not add up"),
        ({"size": [6, 8], "counts": [48.0]}, "neither whole numbers nor text"),
        ({"size": [6, 8], "counts": "!!"}, "not text as COCO compresses it"),
        ({"size": [6, 8], "counts": "01"}, "do not add up"),
        ({"size": [6, 8]}, "counts is missing"),
    ],
)
def test_a_broken_outline_is_told_by_file_and_annotation_in_one_line(
    convert, tmp_path, segmentation, why
):
    path = coco(tmp_path / "coco", [(3, [box(0, 0, 8, 6)]), (6, segmentation)])
    status, out, err = convert(tmp_path / "coco", tmp_path / "out")
    assert (
        status == 2
        and out == ""
        and err.count("\n") == 1
        and err.startswith(f"error: {path}: annotation 2 on a.jpg: ")
        and why in err
    )
    assert [entry.name for entry in tmp_path.iterdir()] == ["coco"]


def test_a_image_with_anything_broken_is_left_out_whole(convert, tmp_path):
    right = {"category_id": 3, "segmentation": [box(0, 0, 2, 2)]}
    rows = [
        right | {"segmentation": []},
        right | {"category_id": 9},
        {"image_id": 2, "category_id": 3},
    ]
    rows += [right | {"image_id": 3}, right | {"image_id": 7}]
    coco(tmp_path / "coco", rows, images=("a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"))
    image(tmp_path / "coco/train/d.jpg", 7, 8)
    (tmp_path / "coco/train/e.jpg").write_text("no image")
    status, _, err = convert(tmp_path / "coco", tmp_path / "out")
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
    assert convert(tmp_path / "coco", tmp_path / "out", "--skip-broken")[0] == 0
    assert names(tmp_path / "out/images") == ["train/c.jpg"] and names(tmp_path / "out/masks") == [
        "train/c.png"
    ]
    assert len(json.loads((tmp_path / "out/convert.json").read_text())["left_out"]) == 6


def test_polygons_without_area_are_noted_and_nothing_else_is_lost(convert, tmp_path):
    coco(tmp_path / "coco", [(3, [[1, 1, 4, 4]]), (6, [[1, 1, 2, 2], box(0, 0, 1, 1)])])
    status, _, err = convert(tmp_path / "coco", tmp_path / "out")
    assert (
        status == 0
        and err.startswith("note: ")
        and "annotation 1 on a.jpg: covers no pixel, left out" in err
        and err.count("\n") == 1
    )
    assert mask(tmp_path / "out", "train/a.png") == grid("20000000", *["00000000"] * 5)


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


def test_damaged_run_lengths_never_get_as_far_as_the_rasteriser():
    generator = np.random.default_rng(1)
    for _ in range(300):
        text = bytes(generator.integers(40, 120, generator.integers(1, 12)).tolist()).decode()
        with suppress(BrokenOutline):
            assert area(encode_runs({"size": [9, 11], "counts": text}, [9, 11])) <= 99


# VOC


@pytest.fixture
def voc(tmp_path):
    """A VOC folder: two images of train as palette files, one of val as RGB."""
    root = tmp_path / "VOC2012"
    palette = np.array(voc_colours(256), dtype=np.uint8)
    for stem, split in {"a": "train", "b": "train", "c": "val"}.items():
        image(root / "JPEGImages" / f"{stem}.jpg")
        ids = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        ids[1:4, 2:5], ids[1:4, 5] = 12, 255
        (root / "SegmentationClass").mkdir(exist_ok=True)
        pil_image = Image.fromarray(palette[ids]) if split == "val" else Image.fromarray(ids)
        if split == "train":
            pil_image.putpalette(palette.tobytes())
        pil_image.save(root / "SegmentationClass" / f"{stem}.png")
    write(root / "ImageSets/Segmentation/train.txt", "a\nb\n")
    write(root / "ImageSets/Segmentation/val.txt", "c\n")
    return root


def coloured(path, *lines):
    """An RGB mask. lines: a digit for each pixel, of VOC's colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(
        np.array(voc_colours(10), dtype=np.uint8)[
            [[int(value) for value in line] for line in lines]
        ]
    ).save(path)


def test_the_colours_are_those_of_the_devkit():
    colours = voc_colours(256)
    assert (
        colours[:4] == [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)]
        and colours[20] == (0, 64, 128)
        and colours[255] == BORDER
    )
    assert len(set(colours)) == 256 and len(VOC_CLASSES) == 21


def test_palette_and_rgb_masks_mean_the_same_classes(voc, convert, tmp_path):
    status, out, err = convert(voc.parent, tmp_path / "out", "--images", "link")
    assert (status, err) == (
        0,
        "",
    ) and "train: 2 images, 2 regions; val: 1 images, 1 regions; 21 classes" in out
    assert classes(tmp_path / "out") == list(VOC_CLASSES) and VOC_CLASSES[12] == "dog"
    ids = mask(tmp_path / "out", "train/a.png")
    assert ids == mask(tmp_path / "out", "val/c.png")
    assert ids[1] == [0, 0, 12, 12, 12, 255, 0, 0] and ids[4] == [0] * 8
    colours = json.loads((tmp_path / "out/classes.json").read_text())["colors"]
    assert colours["dog"] == [64, 0, 128] and list(colours) == list(VOC_CLASSES)
    assert (tmp_path / "out/images/train/a.jpg").is_symlink()


def test_the_background_of_voc_can_be_renamed_or_ignored(voc, convert, tmp_path):
    convert(voc, tmp_path / "out", "--background", "nothing")
    assert classes(tmp_path / "out")[:2] == ["nothing", "aeroplane"] and mask(
        tmp_path / "out", "val/c.png"
    )[1][:3] == [0, 0, 12]
    convert(voc, tmp_path / "out", "--background", "ignore")
    assert classes(tmp_path / "out")[:1] == ["aeroplane"]
    assert mask(tmp_path / "out", "val/c.png")[1] == [255, 255, 11, 11, 11, 255, 255, 255]


def test_names_and_colours_come_from_cvats_file_or_one_that_is_given(voc, convert, tmp_path):
    for stem in "abc":
        coloured(voc / "SegmentationClass" / f"{stem}.png", *["00112211"] * HEIGHT)
    lines = [
        "# label:color_rgb:parts:actions",
        "tree:128,0,0::",
        "background:0,0,0::",
        "sky:0,128,0::",
    ]
    found = write(voc / "labelmap.txt", "\n".join(lines) + "\n")
    assert convert(voc, tmp_path / "out")[0] == 0
    assert classes(tmp_path / "out") == ["background", "tree", "sky"]
    assert mask(tmp_path / "out", "train/a.png")[0] == [0, 0, 1, 1, 2, 2, 1, 1]
    given = write(
        tmp_path / "mine.json",
        {
            "classes": ["x", "y", "z"],
            "colors": {"x": [0, 128, 0], "y": [0, 0, 0], "z": [128, 0, 0]},
        },
    )
    assert (
        convert(voc, tmp_path / "out", "--classes", given)[0] == 0
    )  # no class is called background: none is added
    assert classes(tmp_path / "out") == ["x", "y", "z"] and mask(tmp_path / "out", "train/a.png")[
        0
    ] == [1, 1, 2, 2, 0, 0, 2, 2]
    write(found, "tree:128,0\n")
    status, _, err = convert(voc, tmp_path / "out")
    assert status == 2 and "labelmap.txt: line 1: 'tree:128,0', expected name:red,green,blue" in err


def test_an_unknown_colour_and_a_wrong_size_are_told_by_file(voc, convert, tmp_path):
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 7, dtype=np.uint8)).save(
        voc / "SegmentationClass/a.png"
    )
    coloured(voc / "SegmentationClass/b.png", "00", "11")
    (voc / "SegmentationClass/c.png").unlink()
    status, _, err = convert(voc, tmp_path / "out")
    assert (
        status == 2
        and err.count("error: ") == 4
        and "a.png: holds a colour that no class has, [7, 7, 7]" in err
    )
    assert (
        "b.png: is 2 x 2 (height x width), its image 6 x 8" in err and "c.png: No such file" in err
    )


def test_grey_masks_need_names(voc, convert, tmp_path):
    for stem in "abc":
        Image.fromarray(np.full((HEIGHT, WIDTH), 1, dtype=np.uint8)).save(
            voc / "SegmentationClass" / f"{stem}.png"
        )
    status, _, err = convert(voc, tmp_path / "out")
    assert (
        status == 2
        and "a.png: is grey, and nothing names the classes of its values; give --classes" in err
    )
    assert (
        convert(
            voc, tmp_path / "out", "--classes", write(tmp_path / "mine.json", ["road", "tree"])
        )[0]
        == 0
    )
    assert classes(tmp_path / "out") == ["road", "tree"] and mask(
        tmp_path / "out", "val/c.png"
    ) == grid(*["11111111"] * 6)


# labelme


def labelme(root, name, drawn, **more):
    """An image with its json. drawn: (label, kind, points)."""
    image((root / name).with_suffix(".jpg"))
    rows = [
        {"label": label, "shape_type": kind, "points": points, "group_id": None, "flags": {}}
        for label, kind, points in drawn
    ]
    content = {
        "version": "5.4.1",
        "flags": {},
        "shapes": rows,
        "imagePath": f"{Path(name).stem}.jpg",
        "imageData": None,
    }
    return write(
        (root / name).with_suffix(".json"),
        content | {"imageHeight": HEIGHT, "imageWidth": WIDTH} | more,
    )


def test_the_shapes_of_labelme_are_drawn_in_their_order(convert, tmp_path):
    shapes = [
        ("sky", "rectangle", [[8, 3.0], [0, 0.0]]),
        ("tree", "polygon", [[2, 1], [5, 1], [5, 4], [2, 4]]),
        ("__ignore__", "rectangle", [[4, 2], [6, 5]]),
        ("_background_", "rectangle", [[0, 0], [1, 1]]),
        ("mark", "point", [[3, 3]]),
    ]
    labelme(tmp_path / "me", "a", shapes)
    status, out, err = convert(tmp_path / "me", tmp_path / "out")
    assert (
        status == 0
        and "shape 5 (mark): a point covers no pixel" in err
        and "1 images, 2 regions" in out
    )
    assert classes(tmp_path / "out") == ["background", "mark", "sky", "tree"]
    assert mask(tmp_path / "out", "train/a.png") == grid(
        "02222222", "22333222", "2233xx22", "0033xx00", "0000xx00", "00000000"
    )
    labelme(tmp_path / "me", "a", shapes[1::-1])
    convert(tmp_path / "me", tmp_path / "out", "--background", "ignore")
    assert mask(tmp_path / "out", "train/a.png") == grid(
        *["00000000"] * 3, "xx111xxx", *["xxxxxxxx"] * 2
    )


def test_a_circle_goes_around_its_first_point_through_the_second(convert, tmp_path):
    labelme(tmp_path / "me", "a", [("ball", "circle", [[4, 3], [4, 5]])])
    convert(tmp_path / "me", tmp_path / "out")
    assert mask(tmp_path / "out", "train/a.png") == grid(
        "00000000", "00011000", "00111100", "00111100", "00011000", "00000000"
    )


def test_folders_are_splits_and_classes_are_those_of_all(convert, tmp_path):
    labelme(
        tmp_path / "me",
        "train/deep/a",
        [("b", "rectangle", [[0, 0], [8, 6]])],
        imagePath="..\\..\\deep\\a.jpg",
    )
    labelme(tmp_path / "me", "valid/v", [("a", "rectangle", [[0, 0], [8, 6]])])
    image(tmp_path / "me/train/unlabelled.jpg")
    write(tmp_path / "me/train/package.json", {"name": "x"})
    status, _, err = convert(tmp_path / "me", tmp_path / "out")
    assert (
        status == 0
        and "unlabelled.jpg: image without annotations" in err
        and "package.json: no json of labelme" in err
    )
    assert names(tmp_path / "out/masks") == ["train/deep/a.png", "val/v.png"] and classes(
        tmp_path / "out"
    ) == ["background", "a", "b"]
    assert (
        mask(tmp_path / "out", "val/v.png")[0][0] == 1
        and mask(tmp_path / "out", "train/deep/a.png")[0][0] == 2
    )


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        (("x", "polygon", [[1, 1], [2, 2]]), "shape 2 (x): a polygon with 2 points"),
        (("x", "rectangle", [[1, 1]]), "shape 2 (x): a rectangle with 1 points"),
        (
            ("x", "mask", [[1, 1], [2, 2]]),
            "shape_type is 'mask'; read are polygon, rectangle and circle",
        ),
        (("x", "circle", [[1, 1], [2, None]]), "shape 2 (x): a coordinate is missing"),
        (("x", "polygon", "1 1 2 2"), "points is '1 1 2 2'"),
        (("", "polygon", [[1, 1], [2, 2], [3, 1]]), "shape 2: label is ''"),
    ],
)
def test_a_broken_shape_is_told_by_file_and_number_in_one_line(convert, tmp_path, shape, why):
    path = labelme(tmp_path / "me", "a", [("x", "rectangle", [[0, 0], [4, 4]]), shape])
    status, out, err = convert(tmp_path / "me", tmp_path / "out")
    assert (
        status == 2
        and out == ""
        and err.count("\n") == 1
        and err.startswith(f"error: {path}: ")
        and why in err
    )


def test_what_is_wrong_with_a_labelme_file_is_told_in_one_line(convert, tmp_path):
    labelme(tmp_path / "me", "ok", [("x", "rectangle", [[0, 0], [4, 4]])])
    for content, why in (
        ({"imageHeight": 9}, "annotated as 8 x 9, but the image is 8 x 6"),
        ({"shapes": {}}, "'shapes' is {}"),
        ({"imagePath": "b.jpg"}, "its image 'b.jpg' is not beside it"),
    ):
        path = labelme(tmp_path / "me", "a", [], **content)
        if "imagePath" in content:
            path.with_suffix(".jpg").unlink()
        status, _, err = convert(tmp_path / "me", tmp_path / "out")
        assert (
            status == 2
            and err.count("\n") == 1
            and err.startswith(f"error: {path}: ")
            and why in err
        )


# All kinds


def test_without_a_val_split_a_share_of_train_becomes_one(convert, tmp_path):
    for stem in "abcd":
        labelme(tmp_path / "me", stem, [("x", "rectangle", [[0, 0], [4, 4]])])
    for name in ("out", "again"):
        assert convert(tmp_path / "me", tmp_path / name, "--val-split", "0.5")[0] == 0
    found = names(tmp_path / "out/masks")
    assert [name[:4] for name in found] == ["trai", "trai", "val/", "val/"] and found == names(
        tmp_path / "again/masks"
    )
    coco(tmp_path / "coco", [(3, [box(0, 0, 2, 2)])])
    coco(tmp_path / "coco", [(3, [box(0, 0, 2, 2)])], split="val")
    status, _, err = convert(tmp_path / "coco", tmp_path / "more", "--val-split", "0.5")
    assert status == 2 and "has a val split already" in err and err.count("\n") == 1


def test_folders_of_images_are_linked_only_where_all_of_them_have_masks(convert, tmp_path):
    coco(tmp_path / "coco", [(3, [box(0, 0, 2, 2)])])
    assert convert(tmp_path / "coco", tmp_path / "out", "--images", "none")[0] == 0
    assert (tmp_path / "out/images/train").is_symlink() and (
        tmp_path / "out/images/train/a.jpg"
    ).is_file()
    image(tmp_path / "coco/train/other.jpg")
    status, _, err = convert(tmp_path / "coco", tmp_path / "out", "--images", "none")
    assert (
        status == 2
        and "1 images that are not of this split, like other.jpg; use --images link" in err
    )
    assert (tmp_path / "coco/train/a.jpg").is_file()


@pytest.mark.parametrize("how", ["copy", "link", "none"])
def test_training_finds_what_is_written(convert, tmp_path, how):
    coco(tmp_path / "coco", [(3, [box(0, 0, 2, 2)])], images=("a.jpg", "deep/b.jpg"))
    coco(tmp_path / "coco", [(6, [box(0, 0, 2, 2)])], split="val", images=("c.jpg",))
    assert convert(tmp_path / "coco", tmp_path / "out", "--images", how)[0] == 0
    for split, expected in (("train", ["a.jpg", "deep/b.jpg"]), ("val", ["c.jpg"])):
        index = require_segmentation_split(tmp_path / "out", split)
        assert (
            index.classes == ("background", "dog", "cat")
            and [index.name(i) for i in range(len(index))] == expected
        )
        assert all(read_pair(index, i)[1].shape == (HEIGHT, WIDTH) for i in range(len(index)))


def test_real_masks_survive_the_way_through_run_lengths(convert, tmp_path):
    if not CAMVID.is_dir():
        pytest.skip("no camvid-mini beside the repository")
    index = require_segmentation_split(CAMVID, "val").subset([0, 1, 2])
    images, annotations, truth = [], [], {}
    for i in range(len(index)):
        ids = read_mask(index.mask_path(i), read_class_file(CAMVID / "classes.json")).numpy()
        truth[index.name(i)] = ids
        images.append({"id": i, "file_name": index.name(i)})
        for label in sorted({*ids.ravel().tolist()} - {255}):
            counts = coco_mask.encode(np.asfortranarray(ids == label))["counts"].decode()
            row = {
                "image_id": i,
                "category_id": label,
                "segmentation": {"size": list(ids.shape), "counts": counts},
            }
            annotations.append(row | {"id": len(annotations)})
        image(tmp_path / "coco/train" / index.name(i), *ids.shape)
    categories = [{"id": label, "name": name} for label, name in enumerate(index.classes)]
    write(
        tmp_path / "coco/train.json",
        {"images": images, "annotations": annotations, "categories": categories},
    )
    assert convert(tmp_path / "coco", tmp_path / "out", "--background", "ignore")[0] == 0
    assert tuple(classes(tmp_path / "out")) == index.classes and len(annotations) > 15
    for name, ids in truth.items():
        assert mask(tmp_path / "out", Path("train", name).with_suffix(".png")) == ids.tolist()


def test_two_images_that_would_share_a_mask_are_refused(convert, tmp_path):
    coco(tmp_path / "coco", [(3, [box(0, 0, 2, 2)])], images=("a.jpg", "a.png"))
    status, _, err = convert(tmp_path / "coco", tmp_path / "out")
    assert status == 2 and "a.png: a.jpg has the same name but for the suffix" in err


def test_nothing_annotated_is_nothing_to_learn_from(convert, tmp_path):
    coco(tmp_path / "coco", [])
    status, _, err = convert(tmp_path / "coco", tmp_path / "out")
    assert (
        status == 2
        and "1 images, but not one annotated region" in err
        and not (tmp_path / "out").exists()
    )


def test_a_source_of_no_known_kind_is_told_in_one_line(convert, tmp_path):
    write(tmp_path / "other" / "notes.json", {"x": 1})
    for source in (tmp_path / "other", tmp_path / "absent", tmp_path / "other" / "notes.json"):
        for choice in ((), ("--from", "coco"), ("--from", "voc"), ("--from", "labelme")):
            status, _, err = convert(source, tmp_path / "out", *choice)
            assert status == 2 and err.count("\n") == 1 and str(source) in err, (
                source,
                choice,
                err,
            )
    assert not (tmp_path / "out").exists()


def test_options_that_mean_nothing_here_are_refused(convert, tmp_path):
    coco(tmp_path / "coco", [(3, [box(0, 0, 2, 2)])])
    status, _, err = convert(tmp_path / "coco", tmp_path / "out", "--classes", "mine.json")
    assert status == 2 and "--classes" in err and "is coco" in err and err.count("\n") == 1
    status, _, err = convert(tmp_path / "coco", tmp_path / "out", "--background", " ")
    assert status == 2 and "--background" in err and err.count("\n") == 1
