"""Conversion of Pascal VOC masks: colors become class ids."""

import json

import numpy as np
import pytest
from conversion_files import HEIGHT, WIDTH, classes, colored_mask, grid, image, mask, write
from PIL import Image

from visionloop.bin.converters.voc_masks import BORDER, VOC_CLASSES, voc_colors


@pytest.fixture
def voc(tmp_path):
    """A VOC folder: two images of train as palette files, one of val as RGB."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    palette = np.array(voc_colors(256), dtype=np.uint8)
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


def test_the_colors_are_those_of_the_devkit():
    colors = voc_colors(256)
    assert (
        colors[:4] == [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)]
        and colors[20] == (0, 64, 128)
        and colors[255] == BORDER
    )
    assert len(set(colors)) == 256 and len(VOC_CLASSES) == 21


def test_palette_and_rgb_masks_mean_the_same_classes(voc, convert, tmp_path):
    status, out, err = convert("masks", voc.parent, tmp_path / "out", "--images", "link")
    assert (status, err) == (
        0,
        "",
    ) and "train: 2 images, 2 regions; val: 1 images, 1 regions; 21 classes" in out
    assert classes(tmp_path / "out") == list(VOC_CLASSES) and VOC_CLASSES[12] == "dog"
    ids = mask(tmp_path / "out", "train/a.png")
    assert ids == mask(tmp_path / "out", "val/c.png")
    assert ids[1] == [0, 0, 12, 12, 12, 255, 0, 0] and ids[4] == [0] * 8
    colors = json.loads((tmp_path / "out/classes.json").read_text())["colors"]
    assert colors["dog"] == [64, 0, 128] and list(colors) == list(VOC_CLASSES)
    assert (tmp_path / "out/images/train/a.jpg").is_symlink()


def test_the_background_of_voc_can_be_renamed_or_ignored(voc, convert, tmp_path):
    convert("masks", voc, tmp_path / "out", "--background", "nothing")
    assert classes(tmp_path / "out")[:2] == ["nothing", "aeroplane"] and mask(
        tmp_path / "out", "val/c.png"
    )[1][:3] == [0, 0, 12]
    convert("masks", voc, tmp_path / "out", "--background", "ignore")
    assert classes(tmp_path / "out")[:1] == ["aeroplane"]
    assert mask(tmp_path / "out", "val/c.png")[1] == [255, 255, 11, 11, 11, 255, 255, 255]


def test_names_and_colors_are_those_of_cvats_file_or_of_classes(voc, convert, tmp_path):
    for stem in "abc":
        colored_mask(voc / "SegmentationClass" / f"{stem}.png", *["00112211"] * HEIGHT)
    lines = [
        "# label:color_rgb:parts:actions",
        "tree:128,0,0::",
        "background:0,0,0::",
        "sky:0,128,0::",
    ]
    color_map = write(voc / "labelmap.txt", "\n".join(lines) + "\n")
    assert convert("masks", voc, tmp_path / "out")[0] == 0
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
        convert("masks", voc, tmp_path / "out", "--classes", given)[0] == 0
    )  # no class is called background: none is added
    assert classes(tmp_path / "out") == ["x", "y", "z"] and mask(tmp_path / "out", "train/a.png")[
        0
    ] == [1, 1, 2, 2, 0, 0, 2, 2]
    write(color_map, "tree:128,0\n")
    status, _, err = convert("masks", voc, tmp_path / "out")
    assert status == 2 and "labelmap.txt: line 1: 'tree:128,0', expected name:red,green,blue" in err


def test_an_unknown_color_and_a_wrong_size_are_reported_by_file(voc, convert, tmp_path):
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 7, dtype=np.uint8)).save(
        voc / "SegmentationClass/a.png"
    )
    colored_mask(voc / "SegmentationClass/b.png", "00", "11")
    (voc / "SegmentationClass/c.png").unlink()
    status, _, err = convert("masks", voc, tmp_path / "out")
    assert (
        status == 2
        and err.count("error: ") == 4
        and "a.png: holds a color that no class has, [7, 7, 7]" in err
    )
    assert (
        "b.png: is 2 x 2 (height x width), its image 6 x 8" in err and "c.png: No such file" in err
    )


def test_gray_masks_need_class_names(voc, convert, tmp_path):
    for stem in "abc":
        Image.fromarray(np.full((HEIGHT, WIDTH), 1, dtype=np.uint8)).save(
            voc / "SegmentationClass" / f"{stem}.png"
        )
    status, _, err = convert("masks", voc, tmp_path / "out")
    assert (
        status == 2 and "a.png: is gray, and its values have no class names; give --classes" in err
    )
    assert (
        convert(
            "masks",
            voc,
            tmp_path / "out",
            "--classes",
            write(tmp_path / "mine.json", ["road", "tree"]),
        )[0]
        == 0
    )
    assert classes(tmp_path / "out") == ["road", "tree"] and mask(
        tmp_path / "out", "val/c.png"
    ) == grid(*["11111111"] * 6)
