"""Arbitrary input files: every reader returns an index or raises a one-line error."""

import json
import os
import shutil
from contextlib import suppress
from copy import deepcopy

import pytest
import yaml
from detection_files import small_coco
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from segments_files import small_instances, small_panoptic

from visionloop.datasets.classification.image_folder import scan
from visionloop.datasets.detection.index import DetectionIndex, inspect_coco, read_coco
from visionloop.datasets.detection.yolo import inspect_yolo
from visionloop.datasets.detection.yolo_description import list_images, read_description
from visionloop.datasets.detection.yolo_labels import LabelParser
from visionloop.datasets.io.layout import DataLayoutError
from visionloop.datasets.io.paths import files_below
from visionloop.datasets.segmentation.class_file import read_class_file
from visionloop.datasets.segments.coco_instances import inspect_instances
from visionloop.datasets.segments.coco_panoptic import inspect_panoptic
from visionloop.datasets.segments.index import SegmentsIndex
from visionloop.datasets.super_resolution.layout import (
    find_super_resolution_split,
    lr_without_hr,
    require_super_resolution_split,
    unused_lr_folders,
)

COCO_KEYS = "images annotations categories id file_name height width name bbox image_id category_id"
CLASS_FILE_KEYS = "classes ids colors ignore_index ignore_colors palette things"
SEGMENT_KEYS = "segmentation size counts segments_info isthing"
KEYS = st.sampled_from(
    f"{COCO_KEYS} area iscrowd {CLASS_FILE_KEYS} {SEGMENT_KEYS} names nc path train val 0 1".split()
)
PATHS = ["a.png", "../a.png", "/a.png", ".", "", "images/train", "\ud800", "a\0b"]
WORDS = ["shift", "cityscapes", "others", 2**63]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-2, 300),
    st.floats(),
    st.text(max_size=8),
    KEYS,
    st.sampled_from(PATHS + WORDS),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(KEYS, st.text(max_size=4)), inner, max_size=5),
    ),
    max_leaves=14,
)
CLASS_FILE = {
    "classes": ["sky", "wall", "dog"],
    "ignore_index": 255,
    "ids": {"7": 0, "8": "wall", "9": None},
    "colors": {"sky": [1, 2, 3], "wall": [4, 5, 6], "dog": [7, 8, 9]},
    "ignore_colors": [[0, 0, 0]],
    "palette": "values",
    "things": ["dog"],
}
DESCRIPTION = {
    "path": ".",
    "train": "images/train",
    "val": ["images/train", "list.txt"],
    "nc": 2,
    "names": {0: "cat", 1: "dog"},
}


@st.composite
def almost(draw, good):
    """A right document in which up to three places hold anything, or nothing."""
    document = deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        at = document
        while True:
            places = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not places:
                break
            place = draw(st.sampled_from(places))
            if isinstance(at[place], dict | list) and draw(st.booleans()):
                at = at[place]
                continue
            if draw(st.booleans()):
                at[place] = draw(ANYTHING)
            else:
                del at[place]
            break
    return document


def as_json(documents):
    return st.one_of(documents, ANYTHING).map(lambda document: json.dumps(document).encode())


BYTES = st.one_of(
    st.binary(max_size=80), st.text(alphabet='{}[]",:0e-. \n', max_size=60).map(str.encode)
)


@st.composite
def damaged(draw, good):
    """The bytes of a right document, cut, with some of them changed."""
    content = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.integers(0, len(content)))])


def assert_one_line(error):
    assert error.why and error.path and "\n" not in str(error)
    str(error).encode(errors="surrogateescape")  # can be printed


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """images/train with an image and its text of boxes, and a list of it."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("images/train/a.png", "images/train/b.png", "a.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(folder / name)
    (folder / "labels/train").mkdir(parents=True)
    (folder / "labels/train/a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (folder / "list.txt").write_text("images/train/a.png\n")
    return folder


LISTED = ["images/train/a.png", "gone.png", "..", ".", "/", "a\0b"]

# one file --------------------


@settings(max_examples=300, deadline=None)
@given(
    content=st.one_of(
        as_json(almost(small_coco())), BYTES, damaged(json.dumps(small_coco()).encode())
    )
)
def test_any_coco_json_is_an_index_or_a_list_of_problems(folder, content):
    path = folder / "x.json"
    path.write_bytes(content)
    index, problems = inspect_coco(path, folder)
    assert isinstance(index, DetectionIndex) or any(kind == "error" for kind, _, _ in problems)
    for kind, where, why in problems:
        assert kind in ("error", "warning", "note") and where and why and "\n" not in why
    if index is not None:
        assert len(index.fingerprint()) == 64 and index.offsets[-1] == len(index.boxes) == len(
            index.labels
        )
        assert all(
            ".." not in index.name(i).split(os.sep) and not os.path.isabs(index.name(i))
            for i in range(len(index))
        )
    try:
        read_coco(path, folder, need_images=False)
    except DataLayoutError as error:
        assert_one_line(error)


def assert_segments_or_problems(index, problems):
    assert isinstance(index, SegmentsIndex) or any(kind == "error" for kind, _, _ in problems)
    for kind, where, why in problems:
        assert kind in ("error", "warning", "note") and where and why and "\n" not in why
    if index is None:
        return
    number = index.offsets[-1]
    columns = (index.labels, index.ids, index.crowd, index.areas)
    assert len(index.fingerprint()) == 64 and {len(column) for column in columns} == {number}
    assert len(index.classes) == len(index.is_thing) == len(index.category_ids)
    assert ((index.labels >= 0) & (index.labels < len(index.classes))).all()
    assert len(index.stuff_ids) == index.stuff_offsets[-1] and len(index.offsets) == len(index) + 1


@settings(max_examples=300, deadline=None)
@given(
    content=st.one_of(
        as_json(almost(small_instances())), BYTES, damaged(json.dumps(small_instances()).encode())
    )
)
def test_any_json_of_instances_is_an_index_whose_masks_decode_or_a_list_of_problems(
    folder, content
):
    path = folder / "x.json"
    path.write_bytes(content)
    index, problems = inspect_instances(path, [folder], need_images=False)
    assert_segments_or_problems(index, problems)
    for i in range(len(index) if index else 0):
        height, width = index.sizes_hw[i].tolist() if index.sizes_hw[i].all() else (6, 8)
        for k in range(*index.rows_of(i)):
            if height * width < 10**6:
                mask = coco_mask.decode(index.outlines.rle(k, height, width))
                assert mask.shape == (height, width)


@settings(max_examples=300, deadline=None)
@given(
    content=st.one_of(
        as_json(almost(small_panoptic()[0])),
        BYTES,
        damaged(json.dumps(small_panoptic()[0]).encode()),
    ),
    kind=st.sampled_from(["instance", "panoptic"]),
)
def test_any_panoptic_json_is_an_index_or_a_list_of_problems(folder, content, kind):
    path = folder / "x.json"
    path.write_bytes(content)
    assert_segments_or_problems(*inspect_panoptic(path, [folder], [folder], kind))


@settings(max_examples=300, deadline=None)
@given(
    content=st.one_of(as_json(almost(CLASS_FILE)), BYTES, damaged(json.dumps(CLASS_FILE).encode()))
)
def test_any_class_file_is_a_map_or_one_line(folder, content):
    path = folder / "classes.json"
    path.write_bytes(content)
    try:
        class_file = read_class_file(path)
    except DataLayoutError as error:
        assert_one_line(error)
        return
    assert (
        class_file.classes
        and len(class_file.digest()) == 64
        and class_file.describe_values() is not None
    )
    assert set(class_file.table[class_file.is_valid].tolist()) <= {
        *range(len(class_file.classes)),
        255,
    }


@settings(max_examples=300, deadline=None)
@given(
    content=st.one_of(
        almost(DESCRIPTION).map(yaml.dump),
        ANYTHING.map(yaml.dump),
        st.text(alphabet="abn:{}[]&*!-?|>%@`'\"\\ \t\n0.", max_size=60),
    ).map(lambda text: text.encode(errors="surrogatepass"))
    | BYTES
    | damaged(yaml.dump(DESCRIPTION).encode())
)
def test_any_data_yaml_is_an_index_or_one_line(folder, content):
    path = folder / "data.yaml"
    path.write_bytes(content)
    try:
        description = read_description(path)
        for split in ("train", "val", "test"):
            with suppress(DataLayoutError):
                list_images(description, split)
    except DataLayoutError as error:
        assert_one_line(error)
    index, problems = inspect_yolo(path, "train")
    assert isinstance(index, DetectionIndex) or any(kind == "error" for kind, _, _ in problems)
    assert all("\n" not in why for _, _, why in problems)


@settings(max_examples=300, deadline=None)
@given(
    content=st.binary(max_size=60)
    | st.text(alphabet="0123456789.-+e naif\t\r\n\u2028", max_size=80).map(str.encode),
    classes=st.integers(1, 3),
)
def test_any_text_of_boxes_gives_boxes_and_complaints(folder, content, classes):
    path = folder / "x.txt"
    path.write_bytes(content)
    boxes, wrong = LabelParser(classes).read(path)
    assert all(
        0 <= kind < classes and all(-0.02 <= share <= 1.02 for share in shares)
        for kind, *shares in boxes
    )
    assert all(number >= 1 and why and "\n" not in why for number, why in wrong)


@settings(max_examples=150, deadline=None)
@given(
    content=st.binary(max_size=60)
    | st.lists(st.sampled_from(LISTED)).map("\n".join).map(str.encode)
)
def test_any_list_of_images_gives_their_boxes_or_problems(folder, content):
    (folder / "any.txt").write_bytes(content)
    (folder / "data.yaml").write_text("train: any.txt\nnames: [cat, dog]\n")
    index, problems = inspect_yolo(folder / "data.yaml", "train")
    assert isinstance(index, DetectionIndex) or any(kind == "error" for kind, _, _ in problems)


# folders --------------------

NAMES = st.one_of(
    st.sampled_from(
        [
            "a",
            "b.jpg",
            "b.PNG",
            "bx2.png",
            "b",
            ".hidden",
            "__MACOSX",
            "HR",
            "LR_x2",
            "LR_x3",
            "train",
            "val",
            "x2.png",
        ]
    ),
    st.text(
        st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=5
    ),
    st.sampled_from([os.fsdecode(b"\xff\xfe.png"), "line\nfeed.png"]),
).filter(lambda name: name not in (".", ".."))
ENTRIES = st.sampled_from(["empty", "text", "link to nowhere", "link up", "link to itself"])
TREES = st.recursive(
    ENTRIES, lambda inner: st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)
FOLDERS = st.dictionaries(NAMES, TREES, max_size=5)


def build(folder, tree):
    folder.mkdir()
    for name, what in tree.items():
        path = folder / name
        if isinstance(what, dict):
            build(path, what)
        elif what.startswith("link"):
            path.symlink_to(
                {"link to nowhere": "nowhere", "link up": "..", "link to itself": name}[what]
            )
        else:
            path.write_bytes(b"" if what == "empty" else b"text")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """build(tree) -> a folder that holds it, the same for each tree."""
    root = tmp_path_factory.mktemp("trees")

    def make(tree):
        shutil.rmtree(root / "data", ignore_errors=True)
        build(root / "data", tree)
        return root / "data"

    return make


@settings(max_examples=80, deadline=None)
@given(tree=FOLDERS, classes=st.none() | st.lists(NAMES, min_size=1, max_size=3, unique=True))
def test_any_folder_tree_is_an_index_of_images_by_class_or_one_line(place, tree, classes):
    data = place(tree)
    try:
        index = scan(data, classes)
    except DataLayoutError as error:
        assert error.why and error.path
        return
    assert len(index.fingerprint()) == 64 and len(index.labels) == len(index) == len(index.sizes)
    assert all(
        index.name(i).split(os.sep)[0] == index.classes[index.labels[i]] for i in range(len(index))
    )
    assert all(os.path.lexists(index.path(i)) for i in range(len(index)))


@settings(max_examples=80, deadline=None)
@given(large=FOLDERS, small=FOLDERS, other=FOLDERS, scale=st.sampled_from([1, 2, 3]))
def test_any_names_of_large_and_small_images_are_pairs_or_one_line(
    place, large, small, other, scale
):
    data = place({"train": {**other, "HR": large, "LR_x2": small}})
    try:
        index = require_super_resolution_split(data, "train", scale)
    except DataLayoutError as error:
        assert error.why and error.path
        return
    names = {folder.name for folder in unused_lr_folders(index)}
    assert len(index.fingerprint()) == 64 and names <= {"LR_x2", "LR_x3"}
    assert [index.name(i) for i in range(len(index))] == list(
        files_below(data / "train" / "HR", (".jpg", ".png"))
    )
    if scale == 2:
        used = [index.lr_name(i) for i in range(len(index))]
        assert len(set(used)) == len(used), "no small image belongs to two large ones"
        alone = {os.path.relpath(path, data / "train" / "LR_x2") for path in lr_without_hr(index)}
        assert {*used} | alone == set(files_below(data / "train" / "LR_x2", (".jpg", ".png")))


@settings(max_examples=80, deadline=None)
@given(tree=FOLDERS, scale=st.sampled_from([1, 2]))
def test_any_folder_tree_holds_pairs_or_none_or_is_one_line(place, tree, scale):
    with suppress(DataLayoutError):
        index = find_super_resolution_split(place(tree), "train", scale)
        assert index is None or len(index)
