"""Sample data of segmentation: readable masks that match the image pixel by pixel."""

import json

import numpy as np
import pytest
from PIL import Image

from visionloop.datasets.segmentation.dataset import read_pair
from visionloop.datasets.segmentation.layout import require_segmentation_split
from visionloop.datasets.synthetic.segmentation import (
    BAND,
    CLASSES,
    COLORS,
    GROUND,
    IGNORED,
    SHAPES,
    SIDES,
    draw_scene,
)
from visionloop.datasets.synthetic.shapes import OUTLINES
from visionloop.datasets.synthetic.writers import WRITERS

IMAGES = {"train": 40, "val": 20}


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def scenes(count, seed=3):
    return [draw_scene(np.random.default_rng([seed, number])) for number in range(count)]


def share(ids, value):
    return (ids == value).mean()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    WRITERS["segmentation"](folder, seed=0, images=IMAGES)
    return folder


@pytest.mark.parametrize("split", IMAGES)
def test_our_readers_take_it_and_masks_are_as_large_as_their_images(written, split):
    index = require_segmentation_split(written, split)
    assert index.classes == CLASSES and index.colors.tolist() == [list(color) for color in COLORS]
    assert [index.name(i) for i in range(len(index))] == [
        f"{number:04}.jpg" for number in range(IMAGES[split])
    ]
    sizes_hw = set()
    for i in range(len(index)):
        image, ids = read_pair(index, i)
        assert image.shape[1:] == ids.shape and set(ids.unique().tolist()) <= {
            *range(len(CLASSES)),
            IGNORED,
        }
        sizes_hw.add(tuple(ids.shape))
    assert (
        SIDES[0] <= min(map(min, sizes_hw))
        and max(map(max, sizes_hw)) <= SIDES[1]
        and len(sizes_hw) > IMAGES[split] / 2
    )


def test_a_mask_is_displayed_in_the_colors_of_its_classes(written):
    with Image.open(written / "masks/train/0000.png") as image:
        ids, colors = np.asarray(image), np.asarray(image.convert("RGB"))
    assert json.loads((written / "classes.json").read_text())["colors"]["ground"] == list(
        COLORS[GROUND]
    )
    for value in np.unique(ids):
        assert (colors[ids == value] == (255 if value == IGNORED else COLORS[value])).all()


def test_shapes_are_brighter_than_the_ground_around_them():
    for pixels, ids in scenes(40):
        luma = pixels @ np.array([0.299, 0.587, 0.114])
        shapes = luma[(ids > BAND) & (ids != IGNORED)]
        assert shapes.mean() > luma[ids == GROUND].mean() + 60 and np.quantile(
            shapes, 0.1
        ) > np.median(luma[ids == GROUND])


def test_the_edge_of_a_shape_lies_where_the_mask_changes():
    """Two pixels away from every border of the mask a shape is not mixed with what lies below."""
    for pixels, ids in scenes(20):
        labels = np.where(ids == IGNORED, GROUND, ids)
        lowest = np.min(
            [np.roll(labels, (dy, dx), (0, 1)) for dy in range(-2, 3) for dx in range(-2, 3)],
            axis=0,
        )
        highest = np.max(
            [np.roll(labels, (dy, dx), (0, 1)) for dy in range(-2, 3) for dx in range(-2, 3)],
            axis=0,
        )
        luma = pixels @ np.array([0.299, 0.587, 0.114])
        inner = luma[(lowest == highest) & (labels > BAND)]
        outer = luma[(lowest == highest) & (labels == GROUND)]
        assert inner.min() > np.median(outer) + 20


def test_classes_are_shared_out_so_that_each_can_be_learned():
    ids = [ids for _, ids in scenes(80)]
    together = np.concatenate([each.reshape(-1) for each in ids])
    assert (
        0.5 < share(together, GROUND) < 0.75
        and 0.05 < share(together, BAND) < 0.15
        and 0.01 < share(together, IGNORED) < 0.06
    )
    assert all(0.02 < share(together, CLASSES.index(kind)) < 0.12 for kind in OUTLINES)
    present = [set(np.unique(each)) - {GROUND, BAND, IGNORED} for each in ids]
    assert min(map(len, present)) >= 1 and max(map(len, present)) == len(
        OUTLINES
    )  # some lack a class, some have all
    assert 0.3 < np.mean([BAND in each for each in ids]) < 0.7
    assert 0.1 < np.mean([IGNORED not in each for each in ids]) + 0.1 < 0.5


def test_an_image_holds_a_few_shapes_most_of_them_apart():
    counts = [count_components((ids > BAND) & (ids != IGNORED)) for _, ids in scenes(60)]
    assert max(counts) <= SHAPES[1] and np.mean(counts) > SHAPES[0]


def count_components(region):
    """Count the connected components of a mask by flood fill."""
    region, components = region.copy(), 0
    while region.any():
        components += 1
        front = [tuple(np.argwhere(region)[0])]
        region[front[0]] = False
        while front:
            y, x = front.pop()
            for near in ((y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)):
                if (
                    0 <= near[0] < region.shape[0]
                    and 0 <= near[1] < region.shape[1]
                    and region[near]
                ):
                    region[near] = False
                    front.append(near)
    return components


def test_ignored_pixels_lie_around_shapes_alone():
    for _, ids in scenes(20):
        near = np.zeros(ids.shape, dtype=bool)
        padded = np.pad((ids > BAND) & (ids != IGNORED), 2)
        for dy in range(5):
            for dx in range(5):
                near |= padded[dy : dy + ids.shape[0], dx : dx + ids.shape[1]]
        assert near[ids == IGNORED].all()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(written, tmp_path):
    for name, seed in (("same", 0), ("other", 1)):
        (tmp_path / name).mkdir()
        WRITERS["segmentation"](tmp_path / name, seed, images=IMAGES)
    first, same, other = (
        contents(written),
        contents(tmp_path / "same"),
        contents(tmp_path / "other"),
    )
    assert same == first
    assert other.pop("classes.json") == first.pop("classes.json")
    assert other.keys() == first.keys() and not set(other.values()) & set(first.values())


def test_an_image_does_not_depend_on_how_many_there_are(written, tmp_path):
    WRITERS["segmentation"](tmp_path, seed=0, images={"train": 5, "val": 2})
    assert contents(tmp_path).items() <= contents(written).items()


def test_no_two_images_are_the_same(written):
    images = [content for name, content in contents(written).items() if name.endswith(".jpg")]
    assert len(set(images)) == len(images) == sum(IMAGES.values())
