"""Conversion to masks of any source: splits, images and what training reads."""

from pathlib import Path

import numpy as np
import pytest
from conversion_files import (
    HEIGHT,
    WIDTH,
    box,
    classes,
    coco,
    files_below,
    image,
    labelme,
    mask,
    write,
)
from pycocotools import mask as coco_mask

from visionloop.datasets.segmentation.class_file import read_class_file
from visionloop.datasets.segmentation.dataset import read_pair
from visionloop.datasets.segmentation.layout import require_segmentation_split
from visionloop.datasets.segmentation.masks import read_mask

CAMVID = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "camvid-mini"


def test_without_a_val_split_a_share_of_train_becomes_one(convert, tmp_path):
    for stem in "abcd":
        labelme(tmp_path / "me", stem, [("x", "rectangle", [[0, 0], [4, 4]])])
    for name in ("out", "again"):
        assert convert("masks", tmp_path / "me", tmp_path / name, "--val-split", "0.5")[0] == 0
    files = files_below(tmp_path / "out/masks")
    assert [name[:4] for name in files] == [
        "trai",
        "trai",
        "val/",
        "val/",
    ] and files == files_below(tmp_path / "again/masks")
    coco(tmp_path / "coco", [(3, [box(0, 0, 2, 2)])])
    coco(tmp_path / "coco", [(3, [box(0, 0, 2, 2)])], split="val")
    status, _, err = convert("masks", tmp_path / "coco", tmp_path / "more", "--val-split", "0.5")
    assert status == 2 and "has a val split already" in err and err.count("\n") == 1


def test_folders_of_images_are_linked_only_where_all_of_them_have_masks(convert, tmp_path):
    coco(tmp_path / "coco", [(3, [box(0, 0, 2, 2)])])
    assert convert("masks", tmp_path / "coco", tmp_path / "out", "--images", "none")[0] == 0
    assert (tmp_path / "out/images/train").is_symlink() and (
        tmp_path / "out/images/train/a.jpg"
    ).is_file()
    image(tmp_path / "coco/train/other.jpg")
    status, _, err = convert("masks", tmp_path / "coco", tmp_path / "out", "--images", "none")
    assert (
        status == 2
        and "1 images that are not of this split, like other.jpg; use --images link" in err
    )
    assert (tmp_path / "coco/train/a.jpg").is_file()


@pytest.mark.parametrize("how", ["copy", "link", "none"])
def test_training_reads_the_converted_masks(convert, tmp_path, how):
    coco(tmp_path / "coco", [(3, [box(0, 0, 2, 2)])], images=("a.jpg", "deep/b.jpg"))
    coco(tmp_path / "coco", [(6, [box(0, 0, 2, 2)])], split="val", images=("c.jpg",))
    assert convert("masks", tmp_path / "coco", tmp_path / "out", "--images", how)[0] == 0
    for split, expected in (("train", ["a.jpg", "deep/b.jpg"]), ("val", ["c.jpg"])):
        index = require_segmentation_split(tmp_path / "out", split)
        assert (
            index.classes == ("background", "dog", "cat")
            and [index.name(i) for i in range(len(index))] == expected
        )
        assert all(read_pair(index, i)[1].shape == (HEIGHT, WIDTH) for i in range(len(index)))


def test_real_masks_survive_the_way_through_run_lengths(convert, tmp_path):
    if not CAMVID.is_dir():
        pytest.skip("no camvid-mini beside the repository")
    index = require_segmentation_split(CAMVID, "val").subset([0, 1, 2])
    images, annotations, expected_ids = [], [], {}
    for i in range(len(index)):
        ids = read_mask(index.mask_path(i), read_class_file(CAMVID / "classes.json")).numpy()
        expected_ids[index.name(i)] = ids
        images.append({"id": i, "file_name": index.name(i)})
        for label in sorted({*ids.ravel().tolist()} - {255}):
            counts = coco_mask.encode(np.asfortranarray(ids == label))["counts"].decode()
            row = {
                "image_id": i,
                "category_id": label,
                "segmentation": {"size": list(ids.shape), "counts": counts},
            }
            annotations.append(row | {"id": len(annotations)})
        image(tmp_path / "coco/train" / index.name(i), *ids.shape)
    categories = [{"id": label, "name": name} for label, name in enumerate(index.classes)]
    write(
        tmp_path / "coco/train.json",
        {"images": images, "annotations": annotations, "categories": categories},
    )
    assert convert("masks", tmp_path / "coco", tmp_path / "out", "--background", "ignore")[0] == 0
    assert tuple(classes(tmp_path / "out")) == index.classes and len(annotations) > 15
    for name, ids in expected_ids.items():
        assert mask(tmp_path / "out", Path("train", name).with_suffix(".png")) == ids.tolist()


def test_two_images_that_would_share_a_mask_are_refused(convert, tmp_path):
    coco(tmp_path / "coco", [(3, [box(0, 0, 2, 2)])], images=("a.jpg", "a.png"))
    status, _, err = convert("masks", tmp_path / "coco", tmp_path / "out")
    assert status == 2 and "a.png: a.jpg has the same name but for the suffix" in err


def test_images_without_annotations_alone_are_an_error(convert, tmp_path):
    coco(tmp_path / "coco", [])
    status, _, err = convert("masks", tmp_path / "coco", tmp_path / "out")
    assert (
        status == 2
        and "1 images without a single annotated region" in err
        and not (tmp_path / "out").exists()
    )


def test_a_source_of_no_supported_kind_is_reported_in_one_line(convert, tmp_path):
    write(tmp_path / "other" / "notes.json", {"x": 1})
    for source in (tmp_path / "other", tmp_path / "absent", tmp_path / "other" / "notes.json"):
        for choice in ((), ("--from", "coco"), ("--from", "voc"), ("--from", "labelme")):
            status, _, err = convert("masks", source, tmp_path / "out", *choice)
            assert status == 2 and err.count("\n") == 1 and str(source) in err, (
                source,
                choice,
                err,
            )
    assert not (tmp_path / "out").exists()


def test_options_that_do_not_apply_are_refused(convert, tmp_path):
    coco(tmp_path / "coco", [(3, [box(0, 0, 2, 2)])])
    status, _, err = convert("masks", tmp_path / "coco", tmp_path / "out", "--classes", "mine.json")
    assert status == 2 and "--classes" in err and "is coco" in err and err.count("\n") == 1
    status, _, err = convert("masks", tmp_path / "coco", tmp_path / "out", "--background", " ")
    assert status == 2 and "--background" in err and err.count("\n") == 1
