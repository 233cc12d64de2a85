"""Sample data of detection: readable COCO files with boxes that match the image."""

import json

import numpy as np
import pytest

from visionloop.datasets.detection.index import read_coco
from visionloop.datasets.io.images import read_image
from visionloop.datasets.synthetic.detection import (
    CATEGORY_IDS,
    CROWD_EVERY,
    MAX_SHAPES,
    SIDES,
    draw_scene,
    write_detection,
)
from visionloop.datasets.synthetic.scenes import shaded_patch
from visionloop.datasets.synthetic.shapes import OUTLINES
from visionloop.datasets.synthetic.writers import WRITERS

IMAGES = {"train": 40, "val": CROWD_EVERY}


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def rows(folder, split):
    return json.loads((folder / f"{split}.json").read_text())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    write_detection(folder, seed=0, images=IMAGES)
    return folder


@pytest.mark.parametrize("split", IMAGES)
def test_our_reader_takes_it_and_finds_images_of_the_sizes_it_names(written, split):
    index = read_coco(written / f"{split}.json", written / split)
    assert len(index) == IMAGES[split]
    assert index.classes == tuple(sorted(OUTLINES)) and index.category_ids == tuple(
        CATEGORY_IDS.values()
    )
    assert [tuple(size_hw) for size_hw in index.sizes_hw] == [
        tuple(read_image(index.path(i)).shape[1:]) for i in range(len(index))
    ]
    assert (
        index.sizes_hw.min() >= SIDES[0]
        and index.sizes_hw.max() <= SIDES[1]
        and len(np.unique(index.sizes_hw[:, 0])) > 20
    )


@pytest.mark.parametrize("split", IMAGES)
def test_boxes_lie_inside_and_ids_start_at_one(written, split):
    content = rows(written, split)
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    assert [row["id"] for row in content["annotations"]] == list(
        range(1, len(content["annotations"]) + 1)
    ) and min(sizes) == 1
    for row in content["annotations"]:
        x, y, width, height = row["bbox"]
        assert (
            x >= 0
            and y >= 0
            and x + width <= sizes[row["image_id"]][0]
            and y + height <= sizes[row["image_id"]][1]
        )
        assert row["area"] == width * height and min(width, height) >= 8


def test_a_box_fits_its_shape_to_the_pixel():
    lone = 0
    for number in range(60):
        pixels, objects = draw_scene(np.random.default_rng([3, number]), crowded=False)
        if len(objects) != 1:
            continue
        lone += 1
        generator = np.random.default_rng([3, number])
        generator.integers(
            *SIDES, size=2, endpoint=True
        )  # the draw of the size, which comes before the ground
        changed = np.abs(pixels - shaded_patch(generator, *pixels.shape[:2])).max(-1) > 45
        (top, left), (bottom, right) = np.argwhere(changed).min(0), np.argwhere(changed).max(0) + 1
        x, y, width, height = objects[0]["bbox"]
        assert (
            np.abs(np.array([left, top, right, bottom]) - (x, y, x + width, y + height)).max() <= 1
        )
    assert lone >= 3


def test_there_are_empty_and_full_images_and_all_classes(written):
    index = read_coco(written / "train.json", written / "train")
    counts = np.diff(index.offsets)
    assert counts.min() == 0 and MAX_SHAPES - 1 <= counts.max() <= MAX_SHAPES
    assert np.bincount(index.labels, minlength=len(OUTLINES)).min() > len(index.labels) / 10


def test_shapes_hardly_cover_each_other(written):
    index = read_coco(written / "train.json", written / "train")
    overlaps = []
    for i in range(len(index)):
        boxes = index.boxes_of(i)[0]
        near, far = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
        sides = (np.minimum(far[:, None], far) - np.maximum(near[:, None], near)).clip(0)
        smaller = np.minimum(boxes[:, None, 2:].prod(-1), boxes[None, :, 2:].prod(-1))
        overlaps += (sides.prod(-1) / smaller)[np.triu_indices(len(boxes), 1)].tolist()
    # of boxes, whose corners are empty: shapes cover each other less
    assert len(overlaps) > 100 and np.mean(overlaps) < 0.02 and max(overlaps) < 0.5


def test_the_one_crowd_is_in_validation_and_larger_than_its_members(written):
    assert not any(row["iscrowd"] for row in rows(written, "train")["annotations"])
    crowds = [row for row in rows(written, "val")["annotations"] if row["iscrowd"]]
    assert [row["image_id"] for row in crowds] == [CROWD_EVERY]
    index = read_coco(written / "val.json", written / "val")
    assert crowds[0]["area"] > 0.1 * index.sizes_hw[-1].min() ** 2


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(written, tmp_path):
    for name, seed in (("same", 0), ("other", 1)):
        (tmp_path / name).mkdir()
        WRITERS["detection"](tmp_path / name, seed, images=IMAGES)
    first, same, other = (
        contents(written),
        contents(tmp_path / "same"),
        contents(tmp_path / "other"),
    )
    assert same == first
    assert other.keys() == first.keys() and not set(other.values()) & set(first.values())


def test_an_image_and_its_boxes_do_not_depend_on_how_many_there_are(written, tmp_path):
    write_detection(tmp_path, seed=0, images={"train": 7, "val": 2})
    few, many = contents(tmp_path), contents(written)
    assert all(few[name] == many[name] for name in few if name.endswith(".jpg"))
    for split in IMAGES:
        some = rows(tmp_path, split)
        assert some["images"] == rows(written, split)["images"][: len(some["images"])]
        assert (
            some["annotations"] == rows(written, split)["annotations"][: len(some["annotations"])]
        )


def test_no_two_images_are_the_same(written):
    images = [content for name, content in contents(written).items() if name.endswith(".jpg")]
    assert len(set(images)) == len(images) == sum(IMAGES.values())
