"""Checks of data folders with segments: every problem at once, each with its file."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from segments_files import (
    annotation,
    rectangle,
    segment_info,
    small_instances,
    small_panoptic,
    write_class_masks,
    write_ids,
    write_instances,
    write_panoptic,
)

from visionloop.engine.errors import UserError
from visionloop.tasks.segmentation.segments.checks import ModelInput, check_segments_data
from visionloop.tasks.segmentation.segments.data import training_splits

MODEL = ModelInput(image_size=40, patch_size=2, num_queries=10)


def check(folder, kind, model=MODEL, val_split=0.2):
    return check_segments_data(str(folder), val_split, kind, model)


def whys(report, severity="errors"):
    return [(row["path"].rsplit("/", 1)[1], row["why"]) for row in report[severity]]


def warned(report, text):
    """Return whether one warning, and one alone, holds a text."""
    return sum(text in why for _, why in whys(report, "warnings")) == 1


def changed_panoptic(change):
    """Return (json, maps) of `small_panoptic`, changed in place by change(content, maps)."""
    content, maps = small_panoptic()
    change(content, maps)
    return content, maps


def test_instances_have_counts_and_lines(tmp_path):
    write_instances(tmp_path)
    report = check(tmp_path, "instance")
    assert report["errors"] == [] and report["classes"] == {"cat": 2, "dog": 2}
    assert report["lines"] == [
        "3 images in train, 1 of them without segments; 4 segments, 1.3 per image, 2 at most; "
        "1 crowds",
        "pixels in train: 19 % in segments, 1.2 % in several, 5.2 % in crowds",
        "segments at 40 px: 0 % smaller than a patch (2 x 2 px)",
    ]
    json.dumps(report)


def test_panoptic_data_has_counts_and_lines(tmp_path):
    write_panoptic(tmp_path)
    report = check(tmp_path, "panoptic")
    assert report["errors"] == [] and report["classes"] == {"dog": 2, "grass": 2}
    assert report["lines"][1] == "pixels in train: 79 % in segments, 6 % in crowds, 15 % void"


def test_masks_of_classes_and_objects_have_counts(tmp_path):
    ids, objects = np.zeros((2, 20, 24), dtype=np.uint8)
    ids[2:12, 2:12], ids[15:, 15:] = 1, 255
    objects[2:12, 2:7], objects[2:8, 7:12] = 1, 2
    write_class_masks(tmp_path, ids, objects)
    report = check(tmp_path, "panoptic")
    assert report["classes"] == {"sky": 1, "car": 2, "dog": 0} and report["errors"] == []
    assert warned(report, "no segments of 1 of 3 classes: dog")
    assert report["lines"][0].endswith("3 segments, 3.0 per image, 3 at most; 1 crowds")
    assert check(tmp_path, "instance")["classes"] == {"car": 2, "dog": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda content, maps: maps["a.png"].__setitem__((0, slice(0, 5)), 99),
            "holds 1 ids without an entry in segments_info (99) in 5 pixels",
        ),
        (
            lambda content, maps: maps.__setitem__("b.png", np.full((20, 24), 7)),
            "is 20 x 24 (height x width), its image 24 x 20: width and height are exchanged",
        ),
        (
            lambda content, maps: maps.__setitem__("b.png", np.full((25, 20), 7)),
            "is 25 x 20 (height x width), its image 24 x 20",
        ),
        (
            lambda content, maps: content["annotations"][0]["segments_info"][0].update(
                category_id=77
            ),
            "segment 300 of image 1: category_id 77 is no category's id",
        ),
        (
            lambda content, maps: maps.pop("b.png"),
            "1 of 2 masks are not in",
        ),
    ],
)
def test_a_wrong_png_or_entry_is_an_error(tmp_path, change, message):
    write_panoptic(tmp_path, *changed_panoptic(change))
    for kind in ("panoptic", "instance"):
        ((_, why),) = whys(check(tmp_path, kind))
        assert why.startswith(message)


def test_an_unreadable_png_is_an_error(tmp_path):
    write_panoptic(tmp_path)
    (tmp_path / "panoptic_train" / "a.png").write_bytes(b"no image")
    ((path, why),) = whys(check(tmp_path, "panoptic"))
    assert path == "a.png" and why.startswith("no PNG")


def test_entries_without_pixels_are_a_warning(tmp_path):
    def change(content, maps):
        content["annotations"][1]["segments_info"].append(segment_info(9, 4, maps["b.png"]))

    write_panoptic(tmp_path, *changed_panoptic(change))
    report = check(tmp_path, "panoptic")
    assert report["errors"] == [] and report["classes"]["dog"] == 2
    assert warned(report, "1 of 6 segments of train have no pixel: b.png; they are left out")


def test_areas_that_are_not_the_pixels_are_a_warning(tmp_path):
    def change(content, maps):
        content["annotations"][0]["segments_info"][3]["area"] = 31

    write_panoptic(tmp_path, *changed_panoptic(change))
    assert warned(
        check(tmp_path, "panoptic"),
        "the area of 1 of 5 segments of train is not their number of pixels, first in a.png 31 and"
        " 32; PQ takes the area from the file",
    )


def test_areas_of_outlines_may_differ_by_the_border(tmp_path):
    content = small_instances()
    for entry, pixels in zip(content["annotations"], (48, 80, 145, 100, 112), strict=True):
        entry["area"] = pixels + 3
    write_instances(tmp_path / "near", content)
    assert not any(
        "area" in why for _, why in whys(check(tmp_path / "near", "instance"), "warnings")
    )
    content["annotations"][0]["area"] = 400  # of 48 pixels
    write_instances(tmp_path / "far", content)
    assert warned(check(tmp_path / "far", "instance"), "the area of 1 of 5 segments of train")


def test_stuff_that_is_twice_in_an_image_is_a_warning(tmp_path):
    def change(content, maps):
        maps["b.png"][:5] = 8
        content["annotations"][1]["segments_info"] = [
            segment_info(key, 8, maps["b.png"]) for key in (7, 8)
        ]

    write_panoptic(tmp_path, *changed_panoptic(change))
    assert warned(
        check(tmp_path, "panoptic"),
        "1 images of train have several segments of a stuff class (grass): b.png; a model predicts"
        " one of each; join them",
    )


def test_images_with_more_segments_than_queries_are_counted(tmp_path):
    write_panoptic(tmp_path)
    few = ModelInput(image_size=40, patch_size=2, num_queries=2)
    assert warned(
        check(tmp_path, "panoptic", few),
        "1 of 2 images of train have more segments than the model has queries (2): 3 at most, and "
        "some are not learned; consider --num-queries 3",
    )
    assert not any("queries" in why for _, why in whys(check(tmp_path, "panoptic"), "warnings"))


def test_queries_are_chosen_by_the_training_images(tmp_path):
    for split in ("train", "val"):
        write_panoptic(tmp_path, split=split)
    report = check(tmp_path, "panoptic", ModelInput(image_size=40, patch_size=2, num_queries=2))
    lines = [why for _, why in whys(report, "warnings") if "have more segments" in why]
    assert len(lines) == 2 and lines[0].endswith("consider --num-queries 3")
    assert lines[1].startswith("1 of 2 images of val") and lines[1].endswith("are not predicted")


def test_classes_are_not_counted_where_images_could_not_be_read(tmp_path):
    write_panoptic(tmp_path)
    for path in (tmp_path / "panoptic_train").iterdir():
        path.write_bytes(b"")
    report = check(tmp_path, "panoptic")
    assert {why for _, why in whys(report, "errors")} >= {"empty file"}
    assert not any("class" in why for _, why in whys(report, "warnings"))


def test_segments_smaller_than_a_patch_are_counted(tmp_path):
    write_instances(tmp_path)
    report = check(tmp_path, "instance", ModelInput(image_size=40, patch_size=12, num_queries=9))
    assert report["lines"][-1] == "segments at 40 px: 50 % smaller than a patch (12 x 12 px)"
    assert warned(report, "50 % of the segments are smaller than a patch (12 x 12 px) at 40 px")
    small = check(tmp_path, "instance", ModelInput(image_size=10, patch_size=6, num_queries=9))
    assert warned(small, "hard to segment; consider --image-size")


def test_mostly_crowd_void_or_repeated_pixels_are_suspicious(tmp_path):
    def void(content, maps):
        maps["a.png"][:, :30][maps["a.png"][:, :30] == 70_000] = 0
        del content["annotations"][0]["segments_info"][1]
        maps["b.png"][2:] = 0
        content["annotations"][1]["segments_info"][0]["area"] = 40

    write_panoptic(tmp_path / "void", *changed_panoptic(void))
    report = check(tmp_path / "void", "panoptic")
    assert warned(report, "of the pixels of train are void") and report["errors"] == []

    ids, objects = np.full((20, 24), 1, dtype=np.uint8), np.zeros((20, 24), dtype=np.uint8)
    objects[:2] = 1
    write_class_masks(tmp_path / "crowd", ids, objects)
    assert warned(
        check(tmp_path / "crowd", "instance"), "90 % of the pixels of segments are of crowds"
    )

    content = small_instances()
    content["annotations"] += [
        annotation(10 + k, 7, 2, [rectangle(2, 3, 20, 18)], area=360) for k in range(2)
    ]
    write_instances(tmp_path / "twice", content)
    assert warned(check(tmp_path / "twice", "instance"), "are objects annotated twice?")


def test_images_without_any_segment_are_named(tmp_path):
    def change(content, maps):
        maps["b.png"][:] = 0
        content["annotations"][1]["segments_info"] = []

    write_panoptic(tmp_path, *changed_panoptic(change))
    assert warned(check(tmp_path, "panoptic"), "1 images of train have no segment: b.png")


def test_classes_that_splits_do_not_share_are_named(tmp_path):
    content = small_instances()
    write_instances(tmp_path, content | {"annotations": content["annotations"][:1]})
    val = content | {"annotations": content["annotations"][1:2]}
    write_instances(tmp_path, val, "val.json", "val")
    report = check(tmp_path, "instance")
    assert warned(report, "val has classes that train does not have: cat")
    assert warned(report, "val has no segment of dog; they get no score")
    assert warned(report, "few segments: 1 of dog; a class should have at least 10")


def test_nothing_to_learn_or_to_score_is_an_error(tmp_path):
    content = small_instances()
    write_instances(tmp_path, content | {"annotations": []})
    assert (
        "no segments at all; there is nothing to learn"
        in dict(whys(check(tmp_path, "instance"))).values()
    )
    ids, objects = np.full((20, 24), 255, dtype=np.uint8), np.zeros((20, 24), dtype=np.uint8)
    write_class_masks(tmp_path / "void", ids, objects)
    assert whys(check(tmp_path / "void", "panoptic")) == [
        ("classes.json", "no pixel of train belongs to a segment that is no crowd")
    ]


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("kept", ["crowds", "nothing"])
def test_training_refuses_what_check_says_cannot_be_learned_or_scored(tmp_path, split, kept):
    content = small_instances()
    rows = [row | {"iscrowd": 1} for row in content["annotations"]] if kept == "crowds" else []
    for each in ("train", "val"):
        changed = content | ({"annotations": rows} if each == split else {})
        write_instances(tmp_path, changed, f"{each}.json", each)
    with pytest.raises(UserError, match=r"no segments|all 5 segments are crowds") as caught:
        training_splits(str(tmp_path), 0.0, "instance")
    errors = check(tmp_path, "instance")["errors"]
    assert str(caught.value) in [f"{each['path']}: {each['why']}" for each in errors]


def test_unreadable_duplicate_and_rotated_images_are_reported(tmp_path):
    write_panoptic(tmp_path)
    write_panoptic(tmp_path, split="val")
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(np.zeros((30, 40, 3), dtype=np.uint8)).save(
        tmp_path / "val" / "a.png", exif=exif
    )
    report = check(tmp_path, "panoptic")
    assert warned(report, "val is not independent of train")
    assert warned(report, "1 images are rotated by EXIF and keep their size: a.png")
    (tmp_path / "val" / "a.png").write_bytes(b"")
    assert whys(check(tmp_path, "panoptic")) == [("a.png", "empty file")]


def test_an_image_of_another_size_than_its_outlines_is_an_error(tmp_path):
    write_instances(tmp_path)
    Image.new("RGB", (30, 40)).save(tmp_path / "train" / "a.png")
    ((path, why),) = whys(check(tmp_path, "instance"))
    assert path == "a.png" and why.startswith(
        "is 40 x 30 (height x width), the annotations say 30 x 40"
    )


def test_problems_of_all_splits_are_reported_at_once(tmp_path):
    for split in ("train", "val"):
        content, maps = small_panoptic()
        maps["a.png"][0, 0] = 12
        write_panoptic(tmp_path, content, maps, split=split)
        write_ids(tmp_path / f"panoptic_{split}" / "b.png", np.full((3, 3), 7))
    assert [path for path, _ in whys(check(tmp_path, "panoptic"))] == ["a.png", "b.png"] * 2


def test_a_missing_split_or_folder_is_one_error(tmp_path):
    write_panoptic(tmp_path)
    assert "--val-split 0.2" in check(tmp_path, "panoptic", val_split=0.0)["errors"][0]["why"]
    shutil.rmtree(tmp_path / "train")
    (tmp_path / "panoptic_train.json").unlink()
    assert len(check(tmp_path, "panoptic")["errors"]) == 1
    with pytest.raises(UserError, match="--data"):
        check_segments_data(None, 0.0, "instance", MODEL)
