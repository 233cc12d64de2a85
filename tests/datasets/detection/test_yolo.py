"""YOLO folders read into the index of detection."""

import os

import numpy as np
import pytest
from PIL import Image

from visionloop.datasets.detection.yolo import inspect_yolo, read_yolo
from visionloop.datasets.detection.yolo_files import label_file
from visionloop.datasets.io.layout import DataLayoutError

YAML = "names: [cat, dog]\ntrain: images/train\nval: images/val\n"
IMAGES = {
    "images/train/a.png": (40, 20),
    "images/train/b.png": (10, 30),
    "images/train/sub/c.png": (8, 8),
    "images/val/d.png": (16, 12),
}
LABELS = {
    "labels/train/a.txt": "0 0.5 0.5 0.25 0.5\n1 0.25 0.25 0.5 0.5\n",
    "labels/train/sub/c.txt": "\n1 0.25 0.5 0.75 0.5 0.5 1.0\n",
    "labels/val/d.txt": "1 0.5 0.5 1 1",
}


@pytest.fixture
def yolo(tmp_path):
    """Writes a dataset, with other content for some of its files; the path of its data.yaml."""

    def write(files=None, images=IMAGES):
        for name, size in images.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((size[1], size[0], 3), dtype=np.uint8)).save(path)
        for name, text in ({"data.yaml": YAML} | LABELS | (files or {})).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path / "data.yaml"

    return write


def names(index):
    return [
        os.path.relpath(index.path(i), os.path.dirname(index.source)) for i in range(len(index))
    ]


def test_boxes_and_outlines_become_pixels(yolo):
    index = read_yolo(yolo(), "train")
    assert (
        index.classes == ("cat", "dog")
        and index.category_ids == (0, 1)
        and index.image_ids.tolist() == [1, 2, 3]
    )
    assert names(index) == ["images/train/a.png", "images/train/b.png", "images/train/sub/c.png"]
    assert index.sizes_hw.tolist() == [[20, 40], [30, 10], [8, 8]]
    boxes, labels, crowd, areas = index.boxes_of(0)
    assert boxes.tolist() == [[15, 5, 10, 10], [0, 0, 20, 10]] and labels.tolist() == [0, 1]
    assert crowd.tolist() == [False, False] and areas.tolist() == [100, 200]
    assert len(index.boxes_of(1)[0]) == 0
    assert index.boxes_of(2)[0].tolist() == [[2, 4, 4, 4]] and index.boxes_of(2)[1].tolist() == [1]


def test_images_rotated_by_exif_have_their_upright_size(yolo, tmp_path):
    yaml_file = yolo()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((20, 40, 3), dtype=np.uint8)).save(
        tmp_path / "images/val/d.jpg", exif=exif
    )
    (tmp_path / "images/val/d.png").unlink()
    index = read_yolo(yaml_file, "val")
    assert index.sizes_hw.tolist() == [[40, 20]] and index.boxes.tolist() == [[0, 0, 20, 40]]


@pytest.mark.parametrize(
    "text",
    [
        "names: {0: cat, 1: dog}\ntrain: images/train\n",
        "names: {1: dog, 0: cat}\nnc: 2\ntrain: images/train/\n",
        "names: [cat, dog]\nnc: '2'\ntrain: images/train/\n",
        "names: [cat, dog]\ntrain: ./images/train\n",
        "names: [cat, dog]\ntrain: ../images/train\n",
        "names: [cat, dog]\npath: .\ntrain: images/train\n",
        "names: [cat, dog]\npath: /nowhere/at/all\ntrain: images/train\n",
        "names: [cat, dog]\npath: images\ntrain: train\n",
        "names: [cat, dog]\ntrain: [images/train]\n",
        "names: [cat, dog]\ntrain: list.txt\n",
    ],
)
def test_the_usual_ways_to_name_a_folder_are_understood(yolo, text):
    listed = "./images/train/a.png\nimages/train/b.png\n\nimages/train/sub/c.png\n"
    index = read_yolo(yolo({"data.yaml": text, "list.txt": listed}), "train")
    assert names(index) == ["images/train/a.png", "images/train/b.png", "images/train/sub/c.png"]
    assert index.classes == ("cat", "dog") and len(index.boxes) == 3


def test_an_absolute_folder_and_several_folders_are_understood(yolo, tmp_path):
    index = read_yolo(
        yolo({"data.yaml": f"names: [cat, dog]\ntrain: [{tmp_path}/images/train, images/val]\n"}),
        "train",
    )
    assert len(index) == 4 and len(index.boxes) == 4 and index.folder == str(tmp_path / "images")


def test_roboflows_folders_are_understood(yolo):
    images = {"train/images/a.png": (10, 10), "valid/images/b.png": (20, 20)}
    files = {
        "data.yaml": "train: ../train/images\nval: ../valid/images\n"
        "test: ../test/images\nnc: 1\nnames: ['cell']\n",
        "train/labels/a.txt": "0 0.5 0.5 0.5 0.5",
        "valid/labels/b.txt": "0 0.5 0.5 0.5 0.5",
    }
    yaml_file = yolo(files, images)
    assert read_yolo(yaml_file, "train").boxes.tolist() == [[2.5, 2.5, 5, 5]]
    assert read_yolo(yaml_file, "val").boxes.tolist() == [[5, 5, 10, 10]]


def test_the_text_lies_in_the_last_labels_folder_or_beside_the_image():
    assert label_file("/d/images/train/images/x.y.jpg", "/d") == "/d/images/train/labels/x.y.txt"
    assert label_file("/d/images/images.jpg", "/d") == "/d/labels/images.txt"
    assert label_file("/d/train/x.jpg", "/d") == "/d/train/x.txt"
    assert label_file("/images/d/train/x.jpg", "/images/d") == "/images/d/train/x.txt"
    assert label_file("/e/images/x.jpg", "/d") == "/e/labels/x.txt"


def test_labels_of_another_split_go_by_name(yolo):
    index = read_yolo(yolo(), "val", classes=("dog", "cat"))
    assert (
        index.classes == ("dog", "cat")
        and index.category_ids == (1, 0)
        and index.labels.tolist() == [0]
    )
    with pytest.raises(DataLayoutError, match="category 'cat': not one of the 1 known classes"):
        read_yolo(yolo(), "val", classes=("dog",))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("0 0.5 0.5 0.25", "line 2: 4 numbers, expected are 5"),
        ("0 0.5 0.5 0.25 0.5 0.9", "line 2: 6 numbers, expected are 5"),
        ("0 0.5 0.5 0.25 x", "line 2: 'x' is no number"),
        ("0 0,5 0,5 0,2 0,5", "line 2: '0,5' is no number; numbers have a point and spaces"),
        ("2 0.5 0.5 0.25 0.5", "line 2: class 2, expected 0 to 1"),
        ("-1 0.5 0.5 0.25 0.5", "line 2: class -1, expected 0 to 1"),
        ("0.5 0.5 0.5 0.25 0.5", "line 2: class 0.5, expected 0 to 1"),
        ("nan 0.5 0.5 0.25 0.5", "line 2: class nan, expected 0 to 1"),
        ("0 120 80 40 60", "line 2: 120 is no share of the image"),
        ("0 0.5 nan 0.25 0.5", "line 2: nan is no share of the image"),
        ("0 0.5 0.5 -0.25 0.5", "line 2: -0.25 is no share of the image"),
    ],
)
def test_a_wrong_line_is_reported_by_file_and_number(yolo, tmp_path, line, why):
    with pytest.raises(DataLayoutError) as caught:
        read_yolo(yolo({"labels/train/a.txt": f"0 0.5 0.5 0.5 0.5\n{line}\n"}), "train")
    assert caught.value.path == str(
        tmp_path / "labels/train/a.txt"
    ) and caught.value.why.startswith(why)


def test_many_wrong_lines_are_one_error_with_their_number(yolo, tmp_path):
    yaml_file = yolo(
        {
            "labels/train/a.txt": "7 0 0 0 0\n0 x 0 0 0",
            "labels/train/b.txt": "0.0 0.5 0.5 0.5 0.5\n9 0 0 0 0\n",
        }
    )
    index, problems = inspect_yolo(yaml_file, "train")
    (only,) = [problem for problem in problems if problem[0] == "error"]
    others = f"{tmp_path}/labels/train/a.txt:2, {tmp_path}/labels/train/b.txt:2"
    assert only[1:] == (
        str(tmp_path / "labels/train/a.txt"),
        f"line 1: class 7, expected 0 to 1 (3 such, also {others})",
    )
    assert len(index.boxes) == 2


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("names: [cat, dog", "not yaml: "),
        ("- a\n- b\n", "holds .* expected names, train and val"),
        ("!!python/object/apply:os.getcwd []", "not yaml: "),
        ("train: images/train\n", "names is missing"),
        ("names: []\ntrain: images/train\n", "names is \\[\\]"),
        (
            "names: {1: cat, 2: dog}\ntrain: images/train\n",
            "names have the ids 1, 2, expected 0 to 1",
        ),
        ("names: [cat, cat]\ntrain: images/train\n", "two classes have the name 'cat'"),
        (
            "names: [yes, no]\ntrain: images/train\n",
            "the name of class 0 is True, expected text; put it in quotes",
        ),
        ("names: [cat, dog]\nnc: 3\ntrain: images/train\n", "nc is 3, but there are 2 names"),
        ("names: [cat, dog]\npath: 3\ntrain: images/train\n", "path is 3"),
        ("names: [cat, dog]\ntrain: 3\n", "train is 3, expected a folder"),
        (
            'names: [cat, dog]\ntrain: "images\\train"\n',
            "train is .* in double quotes a backslash is no separator; write / for it",
        ),
        ("names: [cat, dog]\ntrain: images/train\nval: x\nvalid: y\n", "holds both val and valid"),
        (
            "names: [cat, dog]\ntrain: images/tarin\n",
            "train: images/tarin leads to .*images/tarin, and nothing is there",
        ),
        ("names: [cat, dog]\ntrain: labels\n", "train: no images in .*labels"),
        ("names: [cat, dog]\nval: images/val\n", "names no folder for train"),
    ],
)
def test_a_wrong_description_is_reported_in_one_line(yolo, text, why):
    yaml_file = yolo({"data.yaml": text})
    with pytest.raises(DataLayoutError, match=why) as caught:
        read_yolo(yaml_file, "train")
    assert caught.value.path == str(yaml_file) and "\n" not in str(caught.value)


def test_a_description_that_is_not_there_is_reported(tmp_path):
    with pytest.raises(DataLayoutError, match=r"data\.yaml: No such file"):
        read_yolo(tmp_path / "data.yaml", "train")


def test_a_split_without_any_text_is_an_error(yolo, tmp_path):
    yaml_file = yolo()
    (tmp_path / "labels").rename(tmp_path / "annotations")
    with pytest.raises(
        DataLayoutError,
        match=r"none of 3 images has a text of boxes; expected .*labels/train/a\.txt",
    ):
        read_yolo(yaml_file, "train")


def test_an_unreadable_image_is_reported_and_the_others_are_read(yolo, tmp_path):
    yaml_file = yolo()
    (tmp_path / "images/train/a.png").write_bytes(b"")
    index, problems = inspect_yolo(yaml_file, "train")
    assert len(index) == 2
    (kind, path, why) = problems[0]
    assert (kind, path) == ("error", str(tmp_path / "images/train/a.png")) and why.startswith(
        "image a.png: "
    )
    for name in ("images/train/b.png", "images/train/sub/c.png"):
        (tmp_path / name).write_bytes(b"")
    assert inspect_yolo(yaml_file, "train")[0] is None


def test_odd_boxes_are_warnings(yolo):
    lines = "0 0.5 0.5 0.25 0.5\n0 0.5 0.5 0.25 0.5\n0 0.5 0.5 0 0.5\n0 0.1 0.5 0.9 0.5"
    texts = {"labels/train/a.txt": lines, "labels/train/b.txt": ""}
    index, problems = inspect_yolo(yolo(texts), "train")
    assert [kind for kind, _, _ in problems] == ["warning"] * 3 and len(index.boxes) == 5
    text = " ".join(why for _, _, why in problems)
    assert (
        "1 boxes without width or height" in text
        and "1 boxes reach outside" in text
        and "1 boxes repeat another" in text
    )
