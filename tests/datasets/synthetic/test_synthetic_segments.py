"""Sample data of instance and panoptic segmentation: masks that match the image to the pixel."""

import json

import numpy as np
import pycocotools.mask
import pytest
from PIL import Image

from visionloop.datasets.segments.layers import NO_SEGMENT
from visionloop.datasets.segments.layout import inspect_segments_split, require_segments_split
from visionloop.datasets.segments.reading import read_segment_map, read_segments
from visionloop.datasets.synthetic.segmentation import BAND, GROUND, IGNORED
from visionloop.datasets.synthetic.segments import (
    CASES,
    CATEGORY_IDS,
    FIRST_OBJECT,
    PERIOD,
    SHAPES,
    SIDES,
    bounding_box,
    draw_scene,
)
from visionloop.datasets.synthetic.shapes import OUTLINES
from visionloop.datasets.synthetic.writers import WRITERS

IMAGES = {"train": 2 * PERIOD, "val": PERIOD}
TASKS = {"instance": "instance_segmentation", "panoptic": "panoptic_segmentation"}
KINDS = sorted(TASKS)
JSON_NAMES = {"instance": "{}.json", "panoptic": "panoptic_{}.json"}


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def images_of(folder):
    return {name: data for name, data in contents(folder).items() if not name.endswith(".json")}


def rows(folder, kind, split):
    return json.loads((folder / JSON_NAMES[kind].format(split)).read_text())


def write(kind, folder, **options):
    folder.mkdir()
    WRITERS[TASKS[kind]](folder, **{"seed": 0, "images": IMAGES} | options)
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    top = tmp_path_factory.mktemp("sample")
    return {kind: write(kind, top / kind) for kind in KINDS}


def scenes(count=3 * PERIOD, seed=3):
    return [
        draw_scene(np.random.default_rng([seed, number]), number, SIDES) for number in range(count)
    ]


def scenes_of(case, count=20):
    """Scenes of one case, 20 by default."""
    number = next(number for number, name in CASES.items() if name == case)
    return [draw_scene(np.random.default_rng([7, seed]), number) for seed in range(count)]


def visible(scene, k):
    return scene.ids == FIRST_OBJECT + k


def count_parts(mask):
    """Count the parts of a mask whose pixels share an edge."""
    mask, parts = np.pad(mask, 1), 0
    while mask.any():
        parts += 1
        front = np.zeros_like(mask)
        front[tuple(np.argwhere(mask)[0])] = True
        while front.any():
            mask &= ~front
            front = mask & near(front)
    return parts


def near(mask):
    """The pixels that share an edge with one of a mask whose borders are empty."""
    return np.any([np.roll(mask, step, axis) for step in (-1, 1) for axis in (0, 1)], axis=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", IMAGES)
def test_our_reader_takes_it_without_an_error_or_a_note(written, kind, split):
    index, problems = inspect_segments_split(written[kind], split, kind)
    assert problems == [] and len(index) == IMAGES[split]
    things = dict.fromkeys(sorted(OUTLINES), True)
    stuff = {"ground": False, "band": False} if kind == "panoptic" else {}
    assert dict(zip(index.classes, index.is_thing, strict=True)) == things | stuff
    assert index.category_ids == tuple(CATEGORY_IDS[name] for name in index.classes)
    for i in range(len(index)):
        image = read_segments(index, i)[0]
        assert tuple(image.shape[1:]) == tuple(index.sizes_hw[i])
    assert index.sizes_hw.min() >= SIDES[0] and index.sizes_hw.max() <= SIDES[1]


@pytest.mark.parametrize("split", IMAGES)
def test_areas_and_boxes_of_instances_are_those_of_their_pixels(written, split):
    for row in rows(written["instance"], "instance", split)["annotations"]:
        rle = row["segmentation"]
        if row["iscrowd"]:
            rle = pycocotools.mask.frPyObjects(rle, *rle["size"])
        mask = pycocotools.mask.decode(rle).astype(bool)
        assert row["area"] == mask.sum() > 0 and row["bbox"] == bounding_box(mask)
        assert row["bbox"] == pycocotools.mask.toBbox(rle).tolist()


@pytest.mark.parametrize("split", IMAGES)
def test_areas_and_boxes_of_panoptic_segments_are_those_of_their_pixels(written, split):
    folder = written["panoptic"]
    for row in rows(folder, "panoptic", split)["annotations"]:
        with Image.open(folder / f"panoptic_{split}" / row["file_name"]) as image:
            ids = np.asarray(image).astype(int) @ [1, 256, 65536]
        given = {info["id"]: info for info in row["segments_info"]}
        assert len(given) == len(row["segments_info"])  # no two segments have one id
        assert set(np.unique(ids)) - {0} == given.keys()
        for key, info in given.items():
            assert info["area"] == (ids == key).sum()
            assert info["bbox"] == bounding_box(ids == key)


def test_both_tasks_have_the_same_images_and_the_same_visible_objects(written):
    names = [name for name in contents(written["instance"]) if name.endswith(".jpg")]
    for name in names:
        same = (written[kind].joinpath(name).read_bytes() for kind in KINDS)
        assert len(set(same)) == 1
    instance = require_segments_split(written["instance"], "val", "instance")
    panoptic = require_segments_split(written["panoptic"], "val", "instance")
    overlap = next(number for number, case in CASES.items() if case == "overlap")
    for i in range(len(instance)):
        ours, other = (read_segments(index, i)[4] for index in (instance, panoptic))
        assert ours["labels"].tolist() == other["labels"].tolist()
        assert ours["crowd"].tolist() == other["crowd"].tolist()
        assert (ours["rles"] == other["rles"]) == (i != overlap)


def test_instances_that_overlap_lie_in_two_layers_and_all_others_in_one(written):
    index = require_segments_split(written["instance"], "train", "instance")
    for i in range(len(index)):
        _, layers, segments, _, truth = read_segments(index, i)
        assert len(layers) == (2 if CASES.get(i % PERIOD) == "overlap" else 1)
        for layer, number, _ in segments.tolist():
            assert (layers[layer] == number).any()
        assert len(segments) == (~truth["crowd"]).sum()
    assert (layers == NO_SEGMENT).all()  # the last image is empty


def test_crowds_and_void_are_ignored_and_void_is_in_panoptic_data_alone(written):
    for kind in KINDS:
        index = require_segments_split(written[kind], "train", kind)
        ignored = [read_segments(index, i)[3].bool().numpy() for i in range(len(index))]
        has_crowd = [CASES.get(i % PERIOD) == "crowd" for i in range(len(index))]
        assert all(ignored[i].any() for i in range(len(index)) if has_crowd[i])
        others = [mask.any() for mask, crowd in zip(ignored, has_crowd, strict=True) if not crowd]
        assert 0.2 < np.mean(others) < 0.9 if kind == "panoptic" else not any(others)
        assert index.crowd.sum() == sum(has_crowd) == 2


def test_void_lies_around_objects_and_takes_no_pixel_of_one(written):
    index = require_segments_split(written["panoptic"], "train", "panoptic")
    for i in range(len(index)):
        segments = read_segment_map(index, i)
        objects = np.pad(np.isin(segments.numbers, np.flatnonzero(segments.labels < 4) + 1), 2)
        height, width = segments.is_void.shape
        around = np.any(
            [objects[y : y + height, x : x + width] for y in range(5) for x in range(5)], axis=0
        )
        assert around[segments.is_void].all()
    for scene in scenes():
        for k, item in enumerate(scene.objects):
            assert (item.mask >= visible(scene, k)).all() and visible(scene, k).any()


def test_touching_objects_of_one_class_share_an_edge():
    for scene in scenes_of("touching"):
        first, second, *_ = scene.objects
        assert first.kind == second.kind
        padded = [np.pad(visible(scene, k), 1) for k in range(2)]
        assert (near(padded[0]) & padded[1]).any()


def test_a_cut_square_is_in_two_parts_of_nearly_the_same_size():
    for scene in scenes_of("cut"):
        assert [item.kind for item in scene.objects[:2]] == ["square", "cross"]
        square = visible(scene, 0)
        left, _, width, _ = bounding_box(square)
        half = square[:, : left + width // 2].sum()
        assert count_parts(square) == 2 and 0.4 < half / square.sum() < 0.6


def test_an_object_below_another_keeps_all_its_pixels_as_an_instance():
    for scene in scenes_of("overlap"):
        first, second, *_ = scene.objects
        common = first.mask & second.mask
        assert 0.05 < common.sum() / first.mask.sum() < 0.8
        assert (visible(scene, 0) == first.mask & ~common).all() and count_parts(first.mask) == 1
    for scene in scenes():
        for k, item in enumerate(scene.objects[1:], start=1):
            assert (item.mask == visible(scene, k)).all()


def test_a_crowd_is_one_segment_of_several_shapes():
    for scene in scenes_of("crowd"):
        crowd, *others = scene.objects
        assert crowd.is_crowd and not any(item.is_crowd for item in others)
        assert crowd.mask.sum() > 100


def test_a_speck_has_four_pixels_and_nothing_covers_it():
    for scene in scenes_of("speck", 60):
        assert scene.objects[0].kind == "square" and visible(scene, 0).sum() == 4
        assert bounding_box(visible(scene, 0))[2:] == [2, 2]


def test_an_empty_scene_has_grounds_alone():
    for scene in scenes_of("empty"):
        assert scene.objects == () and scene.ids.max() <= BAND


def test_plain_scenes_have_a_few_large_shapes_of_all_classes():
    plain = [scene for number, scene in enumerate(scenes()) if number % PERIOD not in CASES]
    objects = [item for scene in plain for item in scene.objects]
    counts = [len(scene.objects) for scene in plain]
    assert SHAPES[0] == min(counts) and max(counts) <= SHAPES[1] and np.mean(counts) > 1.3
    assert {item.kind for item in objects} == set(OUTLINES)
    shares = [item.mask.sum() / min(item.mask.shape) ** 2 for item in objects]
    assert min(shares) > 0.015 and np.median(shares) > 0.06


def test_shapes_are_brighter_than_the_ground():
    for scene in scenes():
        luma = scene.image @ np.array([0.299, 0.587, 0.114])
        shapes = luma[(scene.ids >= FIRST_OBJECT) & (scene.ids != IGNORED)]
        if len(shapes):
            assert shapes.mean() > luma[scene.ids == GROUND].mean() + 60


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(written, tmp_path, kind):
    same, other = (write(kind, tmp_path / str(seed), seed=seed) for seed in (0, 1))
    assert contents(same) == contents(written[kind])
    assert contents(other).keys() == contents(same).keys()
    assert not set(contents(other).values()) & set(contents(same).values())


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_and_its_segments_do_not_depend_on_how_many_there_are(written, tmp_path, kind):
    few = write(kind, tmp_path / "few", images={"train": 14, "val": 3})
    assert images_of(few).items() <= images_of(written[kind]).items()
    for split in IMAGES:
        some, all_ = (rows(folder, kind, split)["annotations"] for folder in (few, written[kind]))
        assert some and some == all_[: len(some)]


def test_no_two_images_are_the_same(written):
    images = [data for name, data in contents(written["instance"]).items() if "jpg" in name]
    assert len(set(images)) == len(images) == sum(IMAGES.values())
