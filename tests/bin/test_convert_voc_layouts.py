"""Pascal VOC as labelImg, Roboflow and other tools lay it out."""

import unicodedata

import pytest
from conversion_files import image, names, read_split, rows_of, voc_object, write


def annotated(folder, stem, images=None, corners=(1, 1, 8, 6), declaration="", encoding="utf-8"):
    """An xml in `folder` and its image in `images`, by default beside it."""
    image((images or folder) / f"{stem}.jpg")
    path = write(folder / f"{stem}.xml", "")
    text = f"{declaration}<annotation>{voc_object('dog', corners)}</annotation>"
    path.write_bytes(text.encode(encoding))


def test_an_xml_beside_each_image_is_read_at_any_depth(convert, tmp_path):
    for stem in ("a", "deep/a", "deep/b"):
        annotated(tmp_path / "voc", stem)
    image(tmp_path / "voc" / "empty.jpg")
    status, _, err = convert("voc", tmp_path / "voc", tmp_path / "coco")
    assert status == 0 and err.count("\n") == 1
    assert "empty.jpg: image without annotations, left out" in err
    train = read_split(tmp_path / "coco", "train")
    assert names(train) == ["a.jpg", "deep/a.jpg", "deep/b.jpg"] and len(train.boxes) == 3


@pytest.mark.parametrize("inner", [("", ""), ("annotations", "images"), ("labels", "photos")])
def test_folders_of_roboflow_are_splits(convert, tmp_path, inner):
    for split, stem in (("train", "a"), ("train", "b"), ("valid", "c"), ("test", "d")):
        folder = tmp_path / "voc" / split
        annotated(folder / inner[0], stem, folder / inner[1])
    assert convert("voc", tmp_path / "voc", tmp_path / "coco")[0] == 0
    counts = [len(read_split(tmp_path / "coco", split)) for split in ("train", "val", "test")]
    assert counts == [2, 1, 1]
    status, _, err = convert("voc", tmp_path / "voc", tmp_path / "x", "--val-split", "0.5")
    assert status == 2 and "has a val folder already" in err


@pytest.mark.parametrize(
    "folders", [("annotations", "images"), ("Annotations", "Images"), ("xmls", "photos")]
)
def test_two_folders_of_any_name_are_paired(convert, tmp_path, folders):
    for stem in ("a", "b"):
        annotated(tmp_path / "voc" / folders[0], stem, tmp_path / "voc" / folders[1])
    assert convert("voc", tmp_path / "voc", tmp_path / "coco")[0] == 0
    assert len(read_split(tmp_path / "coco", "train").boxes) == 2


def test_names_in_two_unicode_forms_are_one(convert, tmp_path):
    stem = unicodedata.normalize("NFD", "café")
    annotated(tmp_path / "voc" / "Annotations", stem, tmp_path / "voc" / "JPEGImages")
    for path in (tmp_path / "voc" / "JPEGImages").iterdir():
        path.rename(path.with_name(unicodedata.normalize("NFC", path.name)))
    lists = tmp_path / "voc" / "ImageSets" / "Main" / "train.txt"
    write(lists, "").write_bytes("café\r\n".encode("utf-8-sig"))
    assert convert("voc", tmp_path / "voc", tmp_path / "coco")[0] == 0
    assert len(read_split(tmp_path / "coco", "train").boxes) == 1


def test_exchanged_corners_are_named_and_put_in_order(convert, tmp_path):
    annotated(tmp_path / "voc", "a", corners=(7, 2, 3, 5))
    annotated(tmp_path / "voc", "b", corners=(3, 2, 7, 5))
    status, _, err = convert("voc", tmp_path / "voc", tmp_path / "coco")
    assert status == 0 and "a.xml: object 1 (dog): corners are exchanged (min above max)" in err
    train = read_split(tmp_path / "coco", "train")
    assert rows_of(train, 0) == rows_of(train, 1) == [("dog", 2, 1, 5, 4, False)]


@pytest.mark.parametrize("encoding", ["gb2312", "gbk", "shift_jis", "iso-8859-1", "utf-16"])
def test_an_xml_is_read_in_the_encoding_that_it_declares(convert, tmp_path, encoding):
    declaration = f'<?xml version="1.0" encoding="{encoding}"?>'
    annotated(tmp_path / "voc", "a", declaration=declaration, encoding=encoding)
    assert convert("voc", tmp_path / "voc", tmp_path / "coco")[0] == 0
    assert len(read_split(tmp_path / "coco", "train").boxes) == 1


def test_an_unknown_encoding_is_one_line(convert, tmp_path):
    annotated(tmp_path / "voc", "a", declaration='<?xml version="1.0" encoding="klingon"?>')
    status, _, err = convert("voc", tmp_path / "voc", tmp_path / "coco")
    assert status == 2 and err.count("\n") == 1 and "klingon" in err


def test_a_folder_without_any_xml_says_what_was_expected(convert, tmp_path):
    image(tmp_path / "voc" / "a.jpg")
    status, _, err = convert("voc", tmp_path / "voc", tmp_path / "coco")
    assert status == 2 and "expected Annotations/*.xml and JPEGImages/, or an xml beside" in err
    assert "found a.jpg" in err and err.count("\n") == 1
