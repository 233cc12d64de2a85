"""The converters, as a user runs them: boxes survive, mistakes are told by file and element, foreign folders are left alone."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from visionloop.bin.convert import main
from visionloop.datasets.detection.index import read_coco
from visionloop.datasets.detection.layout import find_detection_split

SCRIPT = Path(__file__).resolve().parents[2] / "bin" / "convert.py"
BCCD = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "bccd"


@pytest.fixture
def convert(monkeypatch, capsys):
    """Arguments -> (exit status, stdout, stderr) of the console script."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["visionloop-convert", *map(str, arguments)])
        try:
            main()
            status = 0
        except SystemExit as exit:
            status = exit.code
        return status, *capsys.readouterr()

    return call


def image(path, height=60, width=80):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 90, dtype=np.uint8)).save(path)


def voc_object(kind, corners, difficult=0, extra=""):
    box = "".join(
        f"<{tag}>{value}</{tag}>"
        for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    return f"<object><name>{kind}</name><difficult>{difficult}</difficult><bndbox>{box}</bndbox>{extra}</object>"


def voc_image(root, stem, objects, size_hw=(60, 80), said_hw=None):
    """One image with its xml. objects: rows of arguments of voc_object."""
    image(root / "JPEGImages" / f"{stem}.jpg", *size_hw)
    height, width = said_hw or size_hw
    content = (
        f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        + "".join(voc_object(*row) for row in objects)
    )
    write(
        root / "Annotations" / f"{stem}.xml",
        f"<annotation><filename>{stem}.jpg</filename>{content}</annotation>",
    )


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def voc(tmp_path):
    """A small VOC folder: two training images, one of validation, one of test."""
    root = tmp_path / "VOC2007"
    voc_image(root, "a", [("dog", (1, 1, 80, 60)), ("cat", (11, 21, 20, 40), 1)])
    voc_image(root, "b", [])
    voc_image(root, "c", [("dog", (5.5, 6, 9, 10))], size_hw=(40, 30))
    voc_image(root, "d", [("bird", (2, 3, 2, 3))])
    for split, stems in {
        "train": "a\nb\n",
        "val": "c\n",
        "test": "d",
        "trainval": "a\nb\nc\n",
    }.items():
        write(root / "ImageSets" / "Main" / f"{split}.txt", stems)
    return root


def rows_of(index, i):
    """[(class name, box, crowd)] of image i."""
    boxes, labels, crowd, _ = index.boxes_of(i)
    return [
        (index.classes[label], *box, bool(each))
        for box, label, each in zip(boxes.tolist(), labels, crowd, strict=True)
    ]


def read(folder, split, classes=None):
    index = find_detection_split(folder, split, classes)
    assert [Path(index.path(i)).is_file() for i in range(len(index))] == [True] * len(index)
    return index


def names(index):
    return [index.name(i) for i in range(len(index))]


def problem_lines(err):
    return [line for line in err.splitlines() if line.startswith("error: ")]


def test_voc_boxes_are_counted_from_zero_and_hold_their_last_pixel(voc, convert, tmp_path):
    status, out, err = convert("voc", voc, tmp_path / "coco")
    assert status == 0 and err == "" and "train: 2 images, 2 boxes" in out and "3 classes" in out
    train, val, test = (read(tmp_path / "coco", split) for split in ("train", "val", "test"))
    assert train.classes == val.classes == test.classes == (
        "bird",
        "cat",
        "dog",
    ) and train.category_ids == (1, 2, 3)
    assert names(train) == ["a.jpg", "b.jpg"] and train.sizes_hw.tolist() == [[60, 80], [60, 80]]
    assert (
        rows_of(train, 0) == [("dog", 0, 0, 80, 60, False), ("cat", 10, 20, 10, 20, False)]
        and rows_of(train, 1) == []
    )
    assert rows_of(val, 0) == [("dog", 4.5, 5, 4.5, 5, False)] and val.sizes_hw.tolist() == [
        [40, 30]
    ]
    assert rows_of(test, 0) == [("bird", 1, 2, 1, 1, False)]  # a single pixel
    assert train.areas.tolist() == [4800, 200]


def test_the_devkit_above_one_data_set_will_do_and_above_two_will_not(voc, convert, tmp_path):
    kit = tmp_path / "VOCdevkit"
    kit.mkdir()
    voc.rename(kit / "VOC2007")
    assert (
        convert("voc", kit, tmp_path / "one")[0] == 0
        and convert("voc", kit.parent, tmp_path / "above")[0] == 0
    )
    shutil.copytree(kit / "VOC2007", kit / "VOC2012")
    status, _, err = convert("voc", kit, tmp_path / "two")
    assert status == 2 and "VOC2007, VOC2012" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("difficult", "expected"),
    [("keep", [False, False]), ("crowd", [False, True]), ("drop", [False])],
)
def test_difficult_objects_go_where_they_are_told(voc, convert, tmp_path, difficult, expected):
    status, _, err = convert("voc", voc, tmp_path / "coco", "--difficult", difficult)
    assert status == 0 and ("object 2 (cat): difficult, left out" in err) == (difficult == "drop")
    assert read(tmp_path / "coco", "train").crowd.tolist() == expected


def test_parts_of_an_object_are_no_objects(voc, convert, tmp_path):
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></part>"
    voc_image(voc, "a", [("person", (5, 5, 20, 20), 0, part)])
    convert("voc", voc, tmp_path / "coco")
    assert rows_of(read(tmp_path / "coco", "train"), 0) == [("person", 4, 4, 16, 16, False)]


def test_boxes_are_clipped_and_empty_ones_counted(voc, convert, tmp_path):
    voc_image(
        voc,
        "a",
        [
            ("dog", (0, -4, 200, 30)),
            ("dog", (9, 9, 8, 20)),
            ("cat", (90, 5, 95, 9)),
            ("cat", (1, 1, 9, 9)),
        ],
    )
    status, _, err = convert("voc", voc, tmp_path / "coco")
    assert status == 0 and rows_of(read(tmp_path / "coco", "train"), 0) == [
        ("dog", 0, 0, 80, 30, False),
        ("cat", 0, 0, 9, 9, False),
    ]
    notes = err.splitlines()
    assert len(notes) == 2 and all(note.startswith("note: ") for note in notes)
    assert (
        "a.xml: object 2 (dog): empty box, left out (2 such)" in err
        and "object 1 (dog): box reaches beyond" in err
    )


def test_without_lists_every_annotation_is_train_or_split_by_hash(voc, convert, tmp_path):
    shutil.rmtree(voc / "ImageSets")
    assert convert("voc", voc, tmp_path / "whole")[0] == 0
    assert (
        names(read(tmp_path / "whole", "train")) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
        and not (tmp_path / "whole/val.json").exists()
    )
    for name in ("split", "again"):
        assert convert("voc", voc, tmp_path / name, "--val-split", "0.5")[0] == 0
    train, val = (names(read(tmp_path / "split", split)) for split in ("train", "val"))
    assert len(val) == 2 and sorted(train + val) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert val == names(read(tmp_path / "again", "val"))


def test_a_val_list_and_a_val_split_contradict_each_other(voc, convert, tmp_path):
    status, _, err = convert("voc", voc, tmp_path / "coco", "--val-split", "0.5")
    assert status == 2 and "--val-split" in err and err.count("\n") == 1


def test_trainval_without_train_is_train_without_val(voc, convert, tmp_path):
    (voc / "ImageSets/Main/train.txt").unlink()
    convert("voc", voc, tmp_path / "coco")
    assert names(read(tmp_path / "coco", "train")) == ["a.jpg", "b.jpg"] and names(
        read(tmp_path / "coco", "val")
    ) == ["c.jpg"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<annotation><object></annotation>", "line 1, column"),
        ("", "no element found"),
        ("<html/>", "<html>: expected <annotation>"),
        ("<annotation><object><name> </name></object></annotation>", "object 1: <name> is missing"),
        (
            "<annotation><object><name>dog</name></object></annotation>",
            "object 1 (dog): <bndbox> is missing",
        ),
        (
            f"<annotation>{voc_object('dog', (1, 2, 3, 4))}{voc_object('cat', (1, 'nan', 3, 4))}</annotation>",
            "object 2 (cat): <bndbox>: <ymin> is 'nan'",
        ),
        ("<annotation><size><width>80</width></size></annotation>", "<size>: <height> is missing"),
        (
            "<annotation><size><width>60</width><height>80</height></size></annotation>",
            "is 60 x 80, but JPEGImages/a.jpg is 80 x 60",
        ),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "encoding"),
    ],
)
def test_a_broken_xml_is_told_by_file_and_element_in_one_line(
    voc, convert, tmp_path, text, expected
):
    path = write(voc / "Annotations" / "a.xml", text)
    status, out, err = convert("voc", voc, tmp_path / "coco")
    assert (
        status == 2
        and out == ""
        and err.startswith(f"error: {path}: ")
        and expected in err
        and err.count("\n") == 1
    )
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["VOC2007"]  # nothing half


def test_all_problems_are_told_at_once_and_can_be_left_out(voc, convert, tmp_path):
    write(voc / "Annotations" / "a.xml", "<annotation>")
    (voc / "JPEGImages" / "b.jpg").unlink()
    (voc / "JPEGImages" / "d.jpg").write_bytes(b"no image")
    with open(voc / "ImageSets/Main/val.txt", "a") as file:
        file.write("ghost\n")
    status, _, err = convert("voc", voc, tmp_path / "coco")
    lines = problem_lines(err)
    assert (
        status == 2
        and len(lines) == 5
        and "4 problems" in lines[-1]
        and "--skip-broken" in lines[-1]
    )
    assert (
        "a.xml" in err
        and "b.xml: no image" in err
        and "d.jpg" in err
        and "ghost.xml" in err
        and "listed for val" in err
    )
    status, out, err = convert("voc", voc, tmp_path / "coco", "--skip-broken")
    assert (
        status == 0
        and err.count("warning: left out") == 4
        and names(read(tmp_path / "coco", "val")) == ["c.jpg"]
    )
    assert (
        not (tmp_path / "coco/train.json").exists() and "train" not in out
    )  # a split of broken images alone
    assert len(json.loads((tmp_path / "coco/convert.json").read_text())["left_out"]) == 4


def test_two_images_of_one_name_are_not_guessed_between(voc, convert, tmp_path):
    image(voc / "JPEGImages" / "a.png")
    status, _, err = convert("voc", voc, tmp_path / "coco")
    assert status == 2 and "a.jpg, a.png" in err and "a.xml" in err


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


def test_images_are_copied_linked_or_named_where_they_lie(voc, convert, tmp_path):
    for how in ("copy", "link", "none"):
        assert convert("voc", voc, tmp_path / how, "--images", how)[0] == 0
        assert len(read(tmp_path / how, "train")) == 2
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
def test_a_source_of_another_kind_is_told_in_one_line(convert, tmp_path, kind):
    write(tmp_path / "other" / "notes.txt", "x")
    for source in (tmp_path / "other", tmp_path / "absent", tmp_path / "other" / "notes.txt"):
        status, _, err = convert(kind, source, tmp_path / "coco")
        assert status == 2 and err.count("\n") == 1 and str(source) in err
    assert not (tmp_path / "coco").exists()


def test_images_without_a_single_box_are_nothing_to_learn_from(convert, tmp_path):
    voc_image(tmp_path / "voc", "a", [])
    status, _, err = convert("voc", tmp_path / "voc", tmp_path / "coco")
    assert status == 2 and "not one box" in err


def test_a_folder_of_classes_becomes_one_box_a_image(convert, tmp_path):
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
    train, val = (read(tmp_path / "coco", split) for split in ("train", "val"))
    assert train.classes == val.classes == ("aster", "rose")
    assert names(train) == ["aster/1.png", "rose/1.png", "rose/deep/2.png"]
    assert [rows_of(train, i) for i in range(3)] == [
        [("aster", 0, 0, 9, 8, False)],
        [("rose", 0, 0, 30, 20, False)],
        [("rose", 0, 0, 17, 31, False)],
    ]
    assert rows_of(val, 0) == [("rose", 0, 0, 6, 5, False)]


def test_an_unreadable_image_of_a_class_is_named(convert, tmp_path):
    image(tmp_path / "flowers/train/rose/1.png")
    write(tmp_path / "flowers/train/rose/2.png", "no image")
    status, _, err = convert("imagefolder", tmp_path / "flowers", tmp_path / "coco")
    assert status == 2 and "rose/2.png: not an image" in err and err.count("\n") == 1
    assert convert("imagefolder", tmp_path / "flowers", tmp_path / "coco", "--skip-broken")[0] == 0
    assert names(read(tmp_path / "coco", "train")) == ["rose/1.png"]


def few_cells(count=6):
    if not BCCD.is_dir():
        pytest.skip("no bccd beside the repository")
    index = read_coco(BCCD / "val.json", BCCD / "val")
    return index.subset(range(count))


def test_real_boxes_survive_the_way_through_voc(convert, tmp_path):
    cells, root = few_cells(), tmp_path / "voc"
    for i in range(len(cells)):
        corners = [(x + 1, y + 1, x + w, y + h) for _, x, y, w, h, _ in rows_of(cells, i)]
        kinds = [row[0] for row in rows_of(cells, i)]
        voc_image(
            root,
            Path(cells.name(i)).stem,
            list(zip(kinds, corners, strict=True)),
            cells.sizes_hw[i],
        )
        shutil.copy(cells.path(i), root / "JPEGImages")
    status, _, err = convert("voc", root, tmp_path / "coco")
    assert status == 0 and err == ""
    back = read(tmp_path / "coco", "train")
    assert len(back.boxes) > 40 and names(back) == names(cells)
    assert [rows_of(back, i) for i in range(len(back))] == [
        rows_of(cells, i) for i in range(len(cells))
    ]


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
    back = read(tmp_path / "coco", "train")
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
    direct = read(tmp_path / "yolo", "train")
    assert convert("yolo", tmp_path / "yolo", tmp_path / "coco")[0] == 0
    for split in ("train", "val"):
        assert read(tmp_path / "coco", split).fingerprint() == direct.fingerprint()


def test_broken_lines_of_yolo_are_named_and_can_be_left_out(convert, tmp_path):
    for name in ("a", "b"):
        image(tmp_path / "yolo/images/train" / f"{name}.jpg")
    write(tmp_path / "yolo/data.yaml", "train: images/train\nnames: [dog]\n")
    write(tmp_path / "yolo/labels/train/a.txt", "0 0.5 0.5 0.5 0.5\n7 0.5 0.5 0.5 0.5\n")
    status, _, err = convert("yolo", tmp_path / "yolo", tmp_path / "coco")
    assert (
        status == 2
        and err.count("\n") == 1
        and "a.txt: line 2: class 7" in err
        and not (tmp_path / "coco").exists()
    )
    assert convert("yolo", tmp_path / "yolo", tmp_path / "coco", "--skip-broken")[0] == 0
    index = read(tmp_path / "coco", "train")
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
