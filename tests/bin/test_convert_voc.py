"""Conversion of Pascal VOC boxes: boxes keep their pixels, errors name file and element."""

import json
import shutil
from pathlib import Path

import pytest
from conversion_files import (
    few_cells,
    image,
    names,
    read_split,
    rows_of,
    small_voc,
    voc_image,
    voc_object,
    write,
)


@pytest.fixture
def voc(tmp_path):
    return small_voc(tmp_path / "VOC2007")


def problem_lines(err):
    return [line for line in err.splitlines() if line.startswith("error: ")]


def test_voc_boxes_are_counted_from_zero_and_hold_their_last_pixel(voc, convert, tmp_path):
    status, out, err = convert("voc", voc, tmp_path / "coco")
    assert status == 0 and err == "" and "train: 2 images, 2 boxes" in out and "3 classes" in out
    train, val, test = (read_split(tmp_path / "coco", split) for split in ("train", "val", "test"))
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


def test_a_devkit_folder_with_one_dataset_is_read_and_one_with_two_is_refused(
    voc, convert, tmp_path
):
    kit = tmp_path / "downloads" / "VOCdevkit"
    kit.mkdir(parents=True)
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
def test_difficult_objects_are_kept_marked_as_crowd_or_dropped(
    voc, convert, tmp_path, difficult, expected
):
    status, _, err = convert("voc", voc, tmp_path / "coco", "--difficult", difficult)
    assert status == 0 and ("object 2 (cat): difficult, left out" in err) == (difficult == "drop")
    assert read_split(tmp_path / "coco", "train").crowd.tolist() == expected


def test_parts_of_an_object_are_no_objects(voc, convert, tmp_path):
    part = voc_object("head", (1, 1, 3, 3)).replace("object>", "part>")
    voc_image(voc, "a", [("person", (5, 5, 20, 20), 0, part)])
    convert("voc", voc, tmp_path / "coco")
    assert rows_of(read_split(tmp_path / "coco", "train"), 0) == [("person", 4, 4, 16, 16, False)]


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
    assert status == 0 and rows_of(read_split(tmp_path / "coco", "train"), 0) == [
        ("dog", 0, 0, 80, 30, False),
        ("cat", 0, 0, 9, 9, False),
    ]
    notes = err.splitlines()
    assert len(notes) == 2 and all(note.startswith("note: ") for note in notes)
    assert (
        "a.xml: object 2 (dog): empty box, left out (2 times)" in err
        and "object 1 (dog): box reaches beyond" in err
    )


def test_without_lists_every_annotation_is_train_or_split_by_hash(voc, convert, tmp_path):
    shutil.rmtree(voc / "ImageSets")
    assert convert("voc", voc, tmp_path / "whole")[0] == 0
    assert (
        names(read_split(tmp_path / "whole", "train")) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
        and not (tmp_path / "whole/val.json").exists()
    )
    for name in ("split", "again"):
        assert convert("voc", voc, tmp_path / name, "--val-split", "0.5")[0] == 0
    train, val = (names(read_split(tmp_path / "split", split)) for split in ("train", "val"))
    assert len(val) == 2 and sorted(train + val) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert val == names(read_split(tmp_path / "again", "val"))


def test_a_val_list_and_a_val_split_contradict_each_other(voc, convert, tmp_path):
    status, _, err = convert("voc", voc, tmp_path / "coco", "--val-split", "0.5")
    assert status == 2 and "--val-split" in err and err.count("\n") == 1


def test_trainval_without_train_is_train_without_val(voc, convert, tmp_path):
    (voc / "ImageSets/Main/train.txt").unlink()
    convert("voc", voc, tmp_path / "coco")
    assert names(read_split(tmp_path / "coco", "train")) == ["a.jpg", "b.jpg"] and names(
        read_split(tmp_path / "coco", "val")
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
            f"<annotation>{voc_object('dog', (1, 2, 3, 4))}"
            f"{voc_object('cat', (1, 'nan', 3, 4))}</annotation>",
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
def test_an_invalid_xml_is_reported_by_file_and_element_in_one_line(
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


def test_all_problems_are_reported_at_once_and_can_be_skipped(voc, convert, tmp_path):
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
        and names(read_split(tmp_path / "coco", "val")) == ["c.jpg"]
    )
    assert (
        not (tmp_path / "coco/train.json").exists() and "train" not in out
    )  # a split of broken images alone
    assert len(json.loads((tmp_path / "coco/convert.json").read_text())["left_out"]) == 4


def test_two_images_of_one_name_are_an_error(voc, convert, tmp_path):
    image(voc / "JPEGImages" / "a.png", 60, 80)
    status, _, err = convert("voc", voc, tmp_path / "coco")
    assert status == 2 and "a.jpg, a.png" in err and "a.xml" in err


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
    back = read_split(tmp_path / "coco", "train")
    assert len(back.boxes) > 40 and names(back) == names(cells)
    assert [rows_of(back, i) for i in range(len(back))] == [
        rows_of(cells, i) for i in range(len(cells))
    ]


def test_cvats_own_xml_is_named_with_what_to_do(convert, tmp_path):
    write(tmp_path / "me/annotations.xml", "<annotations><image name='a.jpg'/></annotations>")
    status, _, err = convert("voc", tmp_path / "me", tmp_path / "out")
    assert status == 2 and "export the task as COCO" in err


def test_a_name_in_two_unicode_forms_is_one_class(voc, convert, tmp_path):
    for name, written in (("a", "caf\u00e9"), ("b", "cafe\u0301\n")):
        voc_image(voc, name, [(written, (1, 1, 9, 9))])
    status, _, err = convert("voc", voc, tmp_path / "coco")
    assert status == 0, err
    assert "caf\u00e9" in read_split(tmp_path / "coco", "train").classes
    assert "cafe\u0301" not in read_split(tmp_path / "coco", "train").classes
