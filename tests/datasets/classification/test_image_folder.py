"""The columnar index of a folder of classes, and the dataset on it."""

import os
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.datasets import ImageFolder

from visionloop.datasets.classification.image_folder import ImageFolderDataset, scan
from visionloop.datasets.classification.transforms import ClassificationEvalPreset
from visionloop.datasets.io.images import UnreadableImage, read_image
from visionloop.datasets.io.layout import DataLayoutError, find_split, require_split

TREE = [
    "10/a.jpg",
    "2/b.jpg",
    "2/a.JPG",
    "2/sub/z.png",
    "2/sub-b/c.jpg",
    "Zebra/x.jpeg",
    "ant/y.jpg",
    "ant/deep/er/w.jpg",
]


def rows(index):
    return [(index.name(i), int(index.labels[i])) for i in range(len(index))]


def test_the_index_is_torchvisions_list_in_its_order(class_tree):
    folder = class_tree(TREE)
    theirs = ImageFolder(folder)
    index = scan(folder)
    assert list(index.classes) == theirs.classes == ["10", "2", "Zebra", "ant"]
    assert [(index.path(i), int(index.labels[i])) for i in range(len(index))] == theirs.samples


NAMES = st.text(st.sampled_from("ab Z-_é1.J"), min_size=1, max_size=4).filter(
    lambda name: name.strip(".") == name
)
SUFFIXES = st.sampled_from([".jpg", ".PNG", ".txt", "", ".jpg.part"])
FILES = st.lists(
    st.tuples(NAMES, st.lists(NAMES, max_size=2), NAMES, SUFFIXES), min_size=1, max_size=12
)


@settings(max_examples=40, deadline=None)
@given(files=FILES)
def test_the_index_holds_what_a_plain_walk_finds(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp("tree")
    for number, (kind, parts, name, suffix) in enumerate(files):
        place = folder.joinpath(kind, *(part + "_d" for part in parts))
        place.mkdir(parents=True, exist_ok=True)
        (place / (name + suffix)).write_bytes(bytes(number))
    expected = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix.lower() in (".jpg", ".png"):
            expected[path.relative_to(folder).as_posix()] = (
                path.relative_to(folder).parts[0],
                path.stat().st_size,
            )
    if {kind for kind, _ in expected.values()} != {entry.name for entry in folder.iterdir()}:
        with pytest.raises(DataLayoutError, match="without images"):
            scan(folder)
        return
    index = scan(folder)
    actual = {
        index.name(i): (index.classes[index.labels[i]], int(index.sizes[i]))
        for i in range(len(index))
    }
    assert actual == expected and len(index) == len(expected)


def test_hidden_files_and_folders_are_passed_over(class_tree):
    folder = class_tree(
        [
            "a/x.jpg",
            "a/.hidden.jpg",
            "a/.ipynb_checkpoints/x.jpg",
            ".cache/x.jpg",
            "__MACOSX/a/x.jpg",
        ]
    )
    assert rows(scan(folder)) == [("a/x.jpg", 0)]


def test_links_are_followed_and_a_link_upwards_ends(class_tree):
    folder = class_tree(["a/x.jpg", "b/y.jpg"])
    elsewhere = class_tree(["more/z.jpg"], root="elsewhere")
    (folder / "a" / "linked").symlink_to(elsewhere / "more")
    (folder / "a" / "up").symlink_to(folder / "a")
    assert rows(scan(folder)) == [("a/x.jpg", 0), ("a/linked/z.jpg", 0), ("b/y.jpg", 1)]


def test_a_million_images_cost_tens_of_megabytes(class_tree):
    index = scan(class_tree([f"class/image_{number:08}.jpg" for number in range(50)]))
    arrays = sum(column.nbytes for column in (index.starts, index.stops, index.labels, index.sizes))
    assert (arrays + len(index.paths)) / len(index) < 64  # bytes per image


def test_the_fingerprint_changes_with_paths_sizes_and_labels_alone(class_tree, tmp_path):
    folder = class_tree(["a/1.jpg", "a/2.jpg", "b/3.jpg"])
    before = scan(folder).fingerprint()
    copy = tmp_path / "another place"
    shutil.copytree(folder, copy)
    os.utime(copy / "a" / "1.jpg", (0, 0))
    assert scan(copy).fingerprint() == before

    def after(change):
        changed = tmp_path / "changed"
        shutil.copytree(folder, changed)
        change(changed)
        fingerprint = scan(changed).fingerprint()
        shutil.rmtree(changed)
        return fingerprint

    changes = [
        lambda place: (place / "a" / "1.jpg").rename(place / "a" / "4.jpg"),
        lambda place: (place / "a" / "1.jpg").rename(place / "b" / "1.jpg"),
        lambda place: (place / "a" / "1.jpg").unlink(),
        lambda place: (place / "b").rename(place / "c"),
        lambda place: (place / "a" / "1.jpg").write_bytes(
            (place / "a" / "1.jpg").read_bytes() + b"\0"
        ),
    ]
    assert len({before, *map(after, changes)}) == len(changes) + 1


@given(chosen=st.lists(st.integers(0, len(TREE) - 1), max_size=12))
def test_a_subset_is_the_rows_asked_for(tree_index, chosen):
    subset = tree_index.subset(chosen)
    everything = rows(tree_index)
    assert rows(subset) == [everything[row] for row in chosen]
    assert subset.classes == tree_index.classes
    assert (subset.fingerprint() == tree_index.fingerprint()) == (chosen == list(range(len(TREE))))


@pytest.fixture(scope="module")
def tree_index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tree")
    for name in TREE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return scan(folder)


def test_validation_takes_the_labels_of_training(class_tree):
    train = scan(class_tree(["a/x.jpg", "b/x.jpg", "c/x.jpg"], root="train"))
    val = scan(class_tree(["c/x.jpg", "b/x.jpg"], root="val"), train.classes)
    assert val.classes == ("a", "b", "c")
    assert rows(val) == [("b/x.jpg", 1), ("c/x.jpg", 2)]
    with pytest.raises(DataLayoutError, match="not one of the 2 known classes"):
        scan(class_tree(["c/x.jpg"], root="val"), ("a", "b"))


@pytest.mark.parametrize(
    ("names", "path", "why"),
    [
        ([], "", "no class folder"),
        (["x.jpg", "y.jpg"], "", "2 images lie directly in it"),
        (
            ["a/x.jpg", "b/notes.txt", "b/photo.HEIC", "c/y.txt"],
            "b",
            "class without images.* 1 .heic.*; so are 1 more classes: c",
        ),
    ],
)
def test_a_wrong_layout_is_reported_in_one_line(tmp_path, names, path, why):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataLayoutError, match=why) as caught:
        scan(tmp_path)
    assert caught.value.path == str(tmp_path / path)
    assert str(caught.value) == f"{caught.value.path}: {caught.value.why}" and "\n" not in str(
        caught.value
    )


def test_a_missing_folder_is_reported(tmp_path):
    for call in (scan, lambda folder: find_split(folder, "train")):
        with pytest.raises(DataLayoutError, match="no such folder"):
            call(tmp_path / "gone")


def test_valid_and_validation_mean_val(tmp_path):
    assert find_split(tmp_path, "val") is None
    for name in ("valid", "validation", "val"):
        (tmp_path / name).mkdir()
        assert find_split(tmp_path, "val") == tmp_path / name
        (tmp_path / name).rmdir()
    (tmp_path / "val").mkdir()
    (tmp_path / "valid").mkdir()
    with pytest.raises(DataLayoutError, match="keep one"):
        find_split(tmp_path, "val")


def test_a_missing_split_says_what_is_there_instead(tmp_path):
    for name in ("cats", "dogs", ".git"):
        (tmp_path / name).mkdir()
    with pytest.raises(DataLayoutError, match=r"expected train/<class>/\*.jpg, found cats, dogs$"):
        require_split(tmp_path, "train")


def test_a_folder_one_level_too_high_or_too_low_suggests_the_right_one(tmp_path):
    (tmp_path / "outer" / "pets" / "train" / "cats").mkdir(parents=True)
    (tmp_path / "outer" / "boxes" / "train").mkdir(parents=True)  # without classes
    for wrong in ("outer", "outer/pets/train", "outer/pets/train/cats"):
        with pytest.raises(
            DataLayoutError, match=rf"found .*; did you mean {tmp_path}/outer/pets\?$"
        ):
            require_split(tmp_path / wrong, "train")
    (tmp_path / "outer" / "birds" / "train" / "owls").mkdir(parents=True)
    with pytest.raises(DataLayoutError, match=r"found birds, boxes, pets$"):
        require_split(tmp_path / "outer", "train")


def test_a_sample_is_the_image_and_its_label(class_tree):
    folder = class_tree(["a/x.png", "b/y.png"])
    dataset = ImageFolderDataset(scan(folder), ClassificationEvalPreset(size=8, resize=(8, 8)))
    sample = dataset[1]
    assert sample["pixel_values"].shape == (3, 8, 8) and sample["pixel_values"].dtype == torch.uint8
    assert torch.equal(sample["pixel_values"][:, 0, 0], read_image(folder / "b" / "y.png")[:, 0, 0])
    assert (
        sample["label"].dtype == torch.int64
        and sample["label"].shape == ()
        and sample["label"] == 1
    )
    assert dataset.name(1) == str(folder / "b" / "y.png") and np.array_equal(dataset.labels, [0, 1])
    part = dataset.subset([1])
    assert len(part) == 1 and torch.equal(part[0]["pixel_values"], sample["pixel_values"])
    assert part.fingerprint() != dataset.fingerprint()


def test_an_unreadable_image_is_named(class_tree):
    folder = class_tree(["a/x.jpg"])
    (folder / "a" / "x.jpg").write_bytes(b"")
    with pytest.raises(UnreadableImage, match=r"x\.jpg: empty file"):
        ImageFolderDataset(scan(folder), ClassificationEvalPreset(size=8, resize=(8, 8)))[0]
    (folder / "a" / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    with pytest.raises(UnreadableImage, match=r"gone\.jpg: No such file"):
        ImageFolderDataset(scan(folder), ClassificationEvalPreset(size=8, resize=(8, 8)))[0]


def test_real_photographs_are_indexed_as_torchvision_does_and_read(real_data):
    data = real_data("sign-digits")
    for split, count in (("train", 1633), ("val", 429)):
        folder = require_split(data, split)
        index = scan(folder)
        assert len(index) == count
        assert [(index.path(i), int(index.labels[i])) for i in range(count)] == ImageFolder(
            folder
        ).samples
    dataset = ImageFolderDataset(index, ClassificationEvalPreset(size=64, resize=(64, 64)))
    assert {tuple(dataset[i]["pixel_values"].shape) for i in range(0, count, 40)} == {(3, 64, 64)}
