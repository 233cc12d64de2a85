"""Text files as editors on Windows write them, in every reader."""

import json

import numpy as np
import pytest
from detection_files import small_coco, write_coco
from PIL import Image

from visionloop.datasets.detection.index import read_coco
from visionloop.datasets.detection.yolo import read_yolo
from visionloop.datasets.io.text import NotText, read_text
from visionloop.datasets.segmentation.class_file import read_class_file
from visionloop.engine.config.options import read_config_file
from visionloop.tasks.saved_predictions import read_entries, read_lines

TEXT = "é 1\nzwei\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_a_text_is_the_same_in_every_encoding_and_with_every_newline(tmp_path, encoding, newline):
    (tmp_path / "x.txt").write_bytes(TEXT.replace("\n", newline).encode(encoding))
    assert read_text(tmp_path / "x.txt") == TEXT


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("é 1".encode("latin-1"), "not UTF-8 text at byte 0; save it as UTF-8"),
        (TEXT.encode("utf-16")[:-1], "not UTF-16 text at byte 18"),
        (b"0 1\n".decode().encode("utf-16-le"), "holds zero bytes"),
    ],
)
def test_what_is_no_text_is_named_with_what_to_do(tmp_path, data, why):
    (tmp_path / "x.txt").write_bytes(data)
    with pytest.raises(NotText, match=why):
        read_text(tmp_path / "x.txt")


@pytest.fixture(params=["utf-8-sig", "utf-16"])
def save(request):
    """Write a text as an editor of Windows does; its path."""

    def write(path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.replace("\n", "\r\n").encode(request.param))
        return path

    return write


def test_every_text_of_a_yolo_folder_may_come_from_windows(tmp_path, save):
    path = tmp_path / "images" / "a.jpg"
    path.parent.mkdir()
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(path)
    save(tmp_path / "labels" / "a.txt", "0 0.5 0.5 0.5 0.5\n")
    save(tmp_path / "list.txt", "images\\a.jpg\n")
    index = read_yolo(save(tmp_path / "data.yaml", "names: [cat]\ntrain: list.txt\n"), "train")
    assert index.boxes.tolist() == [[2, 2, 4, 4]]


def test_every_json_may_come_from_windows(tmp_path, save):
    write_coco(tmp_path)
    index = read_coco(
        save(tmp_path / "train.json", json.dumps(small_coco(), indent=1)), tmp_path / "train"
    )
    assert len(index.boxes) == 4
    assert read_class_file(save(tmp_path / "classes.json", '["sky"]\n')).classes == ("sky",)
    assert read_config_file(save(tmp_path / "config.json", '{"steps": 4}\n')) == {"steps": 4}
    assert read_entries(save(tmp_path / "p.json", "[{}]\n")) == [("entry 0", {})]
    assert read_lines(save(tmp_path / "p.jsonl", '{}\n\n{"a": 1}\n')) == [
        ("line 1", {}),
        ("line 3", {"a": 1}),
    ]
