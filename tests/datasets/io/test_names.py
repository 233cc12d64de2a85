"""File names that are written otherwise than the file is called, in every reader of pairs."""

import json
import unicodedata
from functools import partial

import numpy as np
import pytest
from detection_files import small_coco, write_coco
from PIL import Image

from visionloop.datasets.classification.image_folder import scan
from visionloop.datasets.detection.index import read_coco
from visionloop.datasets.detection.yolo import read_yolo
from visionloop.datasets.io.layout import DataLayoutError
from visionloop.datasets.io.names import FileFinder
from visionloop.datasets.segmentation.layout import find_segmentation_split
from visionloop.datasets.super_resolution.layout import find_super_resolution_split
from visionloop.tasks.saved_predictions import AMBIGUOUS, UNMATCHED, match_images

COMPOSED, DECOMPOSED = (partial(unicodedata.normalize, form) for form in ("NFC", "NFD"))
NAME = "café"


def image(path, side=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((side, side, 3), dtype=np.uint8)).save(path)


@pytest.mark.parametrize(
    ("on_disk", "written"),
    [
        ("a/b.jpg", "a/b.jpg"),
        ("a/b.jpg", "a\\b.jpg"),
        ("a/b.jpg", ".\\a\\b.jpg"),
        ("a/b.jpg", "./a//b.jpg"),
        ("a\\b.jpg", "a\\b.jpg"),
        ("a/b.jpg", "A/B.JPG"),
        ("a b/é ü.jpg", "a%20b/%C3%A9%20%C3%BC.jpg"),
        ("a%20b.jpg", "a%20b.jpg"),
        (DECOMPOSED("é/ü.jpg"), COMPOSED("é/ü.jpg")),
        (COMPOSED("é/ü.jpg"), DECOMPOSED("É\\ü.jpg")),
    ],
)
def test_a_file_is_found_by_every_spelling_of_its_path(tmp_path, on_disk, written):
    path = tmp_path / on_disk
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    found = FileFinder(tmp_path).find(written)
    assert found is not None and (tmp_path / found).samefile(path)


def test_an_equal_name_comes_first_and_several_similar_ones_are_none(tmp_path):
    for name in ("A.jpg", "a.jpg", "b.jpg", "c"):
        (tmp_path / name).touch()
    finder = FileFinder(tmp_path)
    assert finder.find("a.jpg") == "a.jpg" and finder.find("A.jpg") == "A.jpg"
    assert finder.find("a.JPG") is None
    assert finder.find("d.jpg") is None and finder.find("d/b.jpg") is None
    assert finder.find("c/b.jpg") is None and finder.find("x\0") is None
    assert FileFinder(tmp_path / "c").find("%2e%2e/a.jpg") is None


@pytest.mark.parametrize("need_images", [True, False])
def test_backslashes_in_a_coco_json_are_separators(tmp_path, need_images):
    content = small_coco()
    json_file = write_coco(tmp_path, content, images="images")
    for row in content["images"]:
        row["file_name"] = f"images\\{row['file_name']}"
    json_file.write_text(json.dumps(content))
    index = read_coco(json_file, tmp_path, need_images=need_images)
    assert [index.name(i) for i in range(3)] == ["images/a.png", "images/b.png", "images/c.png"]


def test_a_url_in_a_coco_json_is_called_one(tmp_path):
    content = small_coco()
    json_file = write_coco(tmp_path, content)
    content["images"][0]["file_name"] = "https://host/a.png"
    json_file.write_text(json.dumps(content))
    with pytest.raises(DataLayoutError, match=r"'https://host/a\.png' is a URL; download"):
        read_coco(json_file, tmp_path / "train")


@pytest.mark.parametrize("name", ["C:\\data\\a.png", "\\\\server\\a.png", "d:a.png", "..\\a.png"])
def test_a_path_of_windows_that_is_not_below_the_images_is_named(tmp_path, name):
    content = small_coco()
    json_file = write_coco(tmp_path, content)
    content["images"][0]["file_name"] = name
    json_file.write_text(json.dumps(content))
    with pytest.raises(DataLayoutError, match=r"image 7: file_name .* (absolute|leads out)"):
        read_coco(json_file, tmp_path / "train")


@pytest.mark.parametrize(
    ("on_disk", "written"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)], ids=["NFC", "NFD"]
)
class TestUnicodeForms:
    """One name in two normal forms is one name."""

    def test_of_images_in_a_coco_json(self, tmp_path, on_disk, written):
        content = small_coco()
        for row in content["images"]:
            row["file_name"] = on_disk(f"{NAME}/{row['file_name']}")
        json_file = write_coco(tmp_path, content)
        for row in content["images"]:
            row["file_name"] = written(row["file_name"])
        json_file.write_text(json.dumps(content))
        index = read_coco(json_file, tmp_path / "train")
        assert index.name(0) == on_disk(f"{NAME}/a.png")

    def test_of_yolo_labels_and_folders(self, tmp_path, on_disk, written):
        image(tmp_path / "images" / on_disk(NAME) / on_disk(f"{NAME}.jpg"))
        text = tmp_path / "labels" / written(NAME) / written(f"{NAME}.txt")
        text.parent.mkdir(parents=True)
        text.write_text("0 0.5 0.5 0.5 0.5\n")
        (tmp_path / "data.yaml").write_text(
            f"names: [cat]\ntrain: images\\{written(NAME)}\n", encoding="utf-8"
        )
        assert read_yolo(tmp_path / "data.yaml", "train").boxes.tolist() == [[2, 2, 4, 4]]

    def test_of_images_in_a_yolo_list(self, tmp_path, on_disk, written):
        image(tmp_path / "images" / on_disk(f"{NAME}.jpg"))
        (tmp_path / "labels").mkdir()
        (tmp_path / "labels" / written(f"{NAME}.txt")).write_text("0 0.5 0.5 0.5 0.5\n")
        (tmp_path / "data.yaml").write_text("names: [cat]\ntrain: list.txt\n")
        listed = f"images\\{written(NAME)}.jpg\r\n"
        (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf" + listed.encode())
        index = read_yolo(tmp_path / "data.yaml", "train")
        assert index.name(0) == on_disk(f"{NAME}.jpg") and len(index.boxes) == 1

    def test_of_masks(self, tmp_path, on_disk, written):
        image(tmp_path / "images" / "train" / on_disk(f"{NAME}.jpg"))
        image(tmp_path / "masks" / "train" / written(f"{NAME}.png"))
        (tmp_path / "classes.json").write_text('["sky"]')
        index = find_segmentation_split(tmp_path, "train")
        assert index.mask_path(0).endswith(written(f"{NAME}.png"))

    def test_of_low_resolution_images(self, tmp_path, on_disk, written):
        image(tmp_path / "train" / "HR" / on_disk(f"{NAME}.png"), 8)
        image(tmp_path / "train" / "LR_x2" / written(f"{NAME}x2.png"), 4)
        index = find_super_resolution_split(tmp_path, "train", 2)
        assert index.lr_name(0) == written(f"{NAME}x2.png")

    def test_of_class_folders(self, tmp_path, on_disk, written):
        image(tmp_path / "train" / on_disk(NAME) / "a.jpg")
        image(tmp_path / "val" / written(NAME) / "b.jpg")
        classes = scan(tmp_path / "train").classes
        assert classes == (COMPOSED(NAME),)
        assert scan(tmp_path / "val", classes).labels.tolist() == [0]

    def test_of_saved_predictions(self, tmp_path, on_disk, written):
        names = [f"x/{on_disk(NAME)}.jpg", "y/b.jpg"]
        files = [f"{written(NAME)}.jpg", f"data\\x\\{written(NAME)}.jpg", "c.jpg"]
        assert match_images(files, names).tolist() == [0, 0, UNMATCHED]
        assert match_images(["b.jpg"], [*names, "z/b.jpg"]).tolist() == [AMBIGUOUS]


def test_two_class_folders_of_one_name_are_refused(tmp_path):
    for form in (COMPOSED, DECOMPOSED):
        image(tmp_path / form(NAME) / "a.jpg")
    with pytest.raises(DataLayoutError, match="two folders have the name 'café'"):
        scan(tmp_path)
