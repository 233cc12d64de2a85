"""The converters on the command line: output folders, image folders by class and YOLO."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conversion_files import (
    few_cells,
    image,
    names,
    read_split,
    rows_of,
    small_voc,
    voc_image,
    write,
)

SCRIPT = Path(__file__).resolve().parents[2] / "bin" / "convert.py"


@pytest.fixture
def voc(tmp_path):
    return small_voc(tmp_path / "VOC2007")


def test_a_foreign_folder_is_left_alone_and_an_earlier_conversion_replaced(voc, convert, tmp_path):
    mine = write(tmp_path / "mine" / "thesis.txt", "years of work")
    status, _, err = convert("voc", voc, tmp_path / "mine")
    assert (
        status == 2
        and err.count("\n") == 1
        and mine.read_text() == "years of work"
        and len(list(mine.parent.iterdir())) == 1
    )
    assert convert("voc", voc, tmp_path / "coco")[0] == 0
    write(voc / "ImageSets/Main/train.txt", "b\n")
    assert convert("voc", voc, tmp_path / "coco")[0] == 0
    assert [path.name for path in (tmp_path / "coco/train").iterdir()] == ["b.jpg"]


def test_an_output_that_holds_the_source_is_refused(voc, convert, tmp_path):
    write(tmp_path / "convert.json", "{}")  # even if it looks like an earlier conversion
    for output in (tmp_path, voc, tmp_path / "x" / ".."):
        status, _, err = convert("voc", voc, output)
        assert status == 2 and "holds the source" in err
    assert (voc / "JPEGImages" / "a.jpg").is_file()


def test_an_output_inside_of_the_source_is_refused(voc, convert, tmp_path):
    (tmp_path / "link").symlink_to(voc)
    for output in (voc / "coco", voc / "deep" / "coco", tmp_path / "link" / "coco"):
        status, out, err = convert("voc", voc, output)
        assert (status, out) == (2, "") and "is inside the source" in err and err.count("\n") == 1
        assert not output.exists()


def test_the_next_command_is_printed_and_sets_validation_images_aside(voc, convert, tmp_path):
    _, out, _ = convert("voc", voc, tmp_path / "my boxes")
    command = f"check: visionloop-detection check --data '{tmp_path / 'my boxes'}'"
    assert out.splitlines()[-1] == command
    shutil.rmtree(voc / "ImageSets")  # all images are in train
    _, out, _ = convert("voc", voc, tmp_path / "my boxes")
    assert out.splitlines()[-1] == f"{command} --val-split 0.2"


def test_images_are_copied_linked_or_left_in_the_source(voc, convert, tmp_path):
    for how in ("copy", "link", "none"):
        assert convert("voc", voc, tmp_path / how, "--images", how)[0] == 0
        assert len(read_split(tmp_path / how, "train")) == 2
    assert (tmp_path / "copy/train/a.jpg").read_bytes() == (voc / "JPEGImages/a.jpg").read_bytes()
    assert (
        not (tmp_path / "copy/train/a.jpg").is_symlink()
        and (tmp_path / "link/train/a.jpg").is_symlink()
    )
    assert (tmp_path / "none/train").is_symlink() and os.path.samefile(
        tmp_path / "none/train", voc / "JPEGImages"
    )
    assert (
        convert("voc", voc, tmp_path / "none")[0] == 0
    )  # takes the links away, not what they lead to
    assert not (tmp_path / "none/train").is_symlink() and (voc / "JPEGImages/a.jpg").is_file()


@pytest.mark.parametrize("kind", ["voc", "yolo", "imagefolder"])
def test_a_source_of_another_kind_is_reported_in_one_line(convert, tmp_path, kind):
    write(tmp_path / "other" / "notes.txt", "x")
    for source in (tmp_path / "other", tmp_path / "absent", tmp_path / "other" / "notes.txt"):
        status, _, err = convert(kind, source, tmp_path / "coco")
        assert status == 2 and err.count("\n") == 1 and str(source) in err
    assert not (tmp_path / "coco").exists()


def test_images_without_a_single_box_are_an_error(convert, tmp_path):
    voc_image(tmp_path / "voc", "a", [])
    status, _, err = convert("voc", tmp_path / "voc", tmp_path / "coco")
    assert status == 2 and "1 images without a single box" in err


def test_a_folder_of_classes_becomes_one_box_per_image(convert, tmp_path):
    sizes = {
        "train/rose/1.png": (20, 30),
        "train/rose/deep/2.png": (31, 17),
        "train/aster/1.png": (8, 9),
        "valid/rose/3.png": (5, 6),
    }
    for name, size_hw in sizes.items():
        image(tmp_path / "flowers" / name, *size_hw)
    status, out, err = convert("imagefolder", tmp_path / "flowers", tmp_path / "coco")
    assert status == 0 and err == "" and "3 images, 3 boxes" in out
    train, val = (read_split(tmp_path / "coco", split) for split in ("train", "val"))
    assert train.classes == val.classes == ("aster", "rose")
    assert names(train) == ["aster/1.png", "rose/1.png", "rose/deep/2.png"]
    assert [rows_of(train, i) for i in range(3)] == [
        [("aster", 0, 0, 9, 8, False)],
        [("rose", 0, 0, 30, 20, False)],
        [("rose", 0, 0, 17, 31, False)],
    ]
    assert rows_of(val, 0) == [("rose", 0, 0, 6, 5, False)]


def test_an_unreadable_image_of_a_class_is_named(convert, tmp_path):
    image(tmp_path / "flowers/train/rose/1.png", 60, 80)
    write(tmp_path / "flowers/train/rose/2.png", "no image")
    status, _, err = convert("imagefolder", tmp_path / "flowers", tmp_path / "coco")
    assert status == 2 and "rose/2.png: not an image" in err and err.count("\n") == 1
    assert convert("imagefolder", tmp_path / "flowers", tmp_path / "coco", "--skip-broken")[0] == 0
    assert names(read_split(tmp_path / "coco", "train")) == ["rose/1.png"]


def yolo_folder(root, index):
    """The images and boxes of an index in the form of YOLO."""
    write(
        root / "data.yaml",
        f"train: images/train\nval: images/train\nnames: {json.dumps(index.classes)}\n",
    )
    for i in range(len(index)):
        (root / "images/train").mkdir(parents=True, exist_ok=True)
        shutil.copy(index.path(i), root / "images/train")
        (height, width), (boxes, labels, _, _) = index.sizes_hw[i], index.boxes_of(i)
        shares = np.concatenate([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]], axis=1) / (
            width,
            height,
            width,
            height,
        )
        lines = [
            " ".join([str(label), *(f"{value:.9f}" for value in row)])
            for label, row in zip(labels, shares, strict=True)
        ]
        write(root / "labels/train" / f"{Path(index.name(i)).stem}.txt", "\n".join(lines) + "\n")


def test_real_boxes_survive_the_way_through_yolo(convert, tmp_path):
    cells = few_cells()
    yolo_folder(tmp_path / "yolo", cells)
    status, _, err = convert("yolo", tmp_path / "yolo", tmp_path / "coco")
    assert status == 0 and err == ""
    back = read_split(tmp_path / "coco", "train")
    assert back.classes == cells.classes and back.sizes_hw.tolist() == cells.sizes_hw.tolist()
    assert [Path(name).name for name in names(back)] == names(
        cells
    ) and back.offsets.tolist() == cells.offsets.tolist()
    assert (
        np.abs(back.boxes - cells.boxes).max() < 1e-5
        and back.labels.tolist() == cells.labels.tolist()
    )


def test_the_json_of_a_yolo_folder_gives_the_index_that_training_reads(convert, tmp_path):
    yolo_folder(tmp_path / "yolo", few_cells())
    direct = read_split(tmp_path / "yolo", "train")
    assert convert("yolo", tmp_path / "yolo", tmp_path / "coco")[0] == 0
    for split in ("train", "val"):
        assert read_split(tmp_path / "coco", split).fingerprint() == direct.fingerprint()


def test_invalid_lines_of_yolo_are_reported_and_can_be_skipped(convert, tmp_path):
    for name in ("a", "b"):
        image(tmp_path / "yolo/images/train" / f"{name}.jpg", 60, 80)
    write(tmp_path / "yolo/data.yaml", "train: images/train\nnames: [dog]\n")
    write(tmp_path / "yolo/labels/train/a.txt", "0 0.5 0.5 0.5 0.5\n7 0.5 0.5 0.5 0.5\n")
    write(tmp_path / "yolo/labels/train/b.txt", "")
    status, _, err = convert("yolo", tmp_path / "yolo", tmp_path / "coco")
    assert (
        status == 2
        and err.count("\n") == 1
        and "a.txt: line 2: class 7" in err
        and not (tmp_path / "coco").exists()
    )
    assert convert("yolo", tmp_path / "yolo", tmp_path / "coco", "--skip-broken")[0] == 0
    index = read_split(tmp_path / "coco", "train")
    assert [rows_of(index, i) for i in range(2)] == [[("dog", 20, 15, 40, 30, False)], []]


def test_coco_json_is_not_taken_for_yolo(voc, convert, tmp_path):
    convert("voc", voc, tmp_path / "coco")
    status, _, err = convert("yolo", tmp_path / "coco", tmp_path / "again")
    assert status == 2 and "COCO json already" in err and err.count("\n") == 1


def test_the_script_runs_and_its_help_is_quick():
    result = subprocess.run(
        [sys.executable, "-X", "importtime", SCRIPT, "voc", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0 and "--difficult" in result.stdout and "OUTPUT" in result.stdout
    assert " torch\n" not in result.stderr
