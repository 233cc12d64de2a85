"""Segments from masks of class ids and files of object numbers."""

import numpy as np
import pytest
from PIL import Image
from segments_files import decode, masks_of, write_class_masks, write_ids

from visionloop.datasets.io.layout import DataLayoutError
from visionloop.datasets.segmentation.layout import require_segmentation_split
from visionloop.datasets.segmentation.masks import UnreadableMask
from visionloop.datasets.segments.layout import require_segments_split
from visionloop.datasets.segments.reading import read_segments

SKY, CAR, DOG, VOID = 0, 1, 2, 255


def scene():
    """(class ids, object numbers): sky, two cars, a crowd of cars, a dog, void."""
    ids, objects = np.zeros((2, 20, 24), dtype=np.uint8)
    ids[2:6, 2:8], objects[2:6, 2:8] = CAR, 1
    ids[2:6, 8:12], objects[2:6, 8:12] = CAR, 2
    ids[10:12] = CAR
    ids[14:16, :4], objects[14:16, :4] = DOG, 1
    ids[18:] = VOID
    objects[0, 0] = 9  # numbers of stuff mean nothing
    return ids, objects


def read(folder, kind):
    index = require_segments_split(folder, "train", kind)
    return index, *read_segments(index, 0)


def test_panoptic_segments_are_stuff_and_the_objects_of_things(tmp_path):
    ids, objects = scene()
    index, _, layers, segments, ignored, truth = read(
        write_class_masks(tmp_path, ids, objects), "panoptic"
    )
    assert index.classes == ("sky", "car", "dog") and index.is_thing == (False, True, True)
    expected = [
        ids == SKY,
        (ids == CAR) & (objects == 1),
        (ids == CAR) & (objects == 2),
        ids == DOG,
    ]
    assert segments[:, 2].tolist() == [0, 1, 1, 2]
    assert np.array_equal(masks_of(layers, segments).numpy(), np.stack(expected))
    assert np.array_equal(ignored.numpy() == 1, (ids == VOID) | ((ids == CAR) & (objects == 0)))
    assert truth["labels"].tolist() == [0, 1, 1, 1, 2]
    assert truth["crowd"].tolist() == [False, True, False, False, False]
    assert truth["areas"].tolist() == [
        (truth["segment_map"] == k + 1).sum().item() for k in range(5)
    ]


def test_an_instance_task_takes_the_things_alone(tmp_path):
    ids, objects = scene()
    index, _, layers, segments, ignored, truth = read(
        write_class_masks(tmp_path, ids, objects), "instance"
    )
    assert index.classes == ("car", "dog") and index.is_thing == (True, True)
    assert segments[:, 2].tolist() == [0, 0, 1]
    assert np.array_equal(ignored.numpy() == 1, (ids == VOID) | ((ids == CAR) & (objects == 0)))
    masks = decode(truth["rles"], 20, 24)
    assert truth["crowd"].tolist() == [True, False, False, False]
    assert np.array_equal(masks[1:], masks_of(layers, segments).numpy())
    assert np.array_equal(masks[0], (ids == CAR) & (objects == 0))


def test_without_things_an_instance_task_takes_all_classes_and_no_crowds(tmp_path):
    ids, objects = scene()
    folder = write_class_masks(tmp_path, ids, objects, things=None)
    index, _, layers, segments, ignored, truth = read(folder, "instance")
    assert index.classes == ("sky", "car", "dog")
    assert np.array_equal(ignored.numpy() == 1, ids == VOID)
    assert segments[:, 2].tolist() == [0, 1, 1, 2] and not truth["crowd"].any()
    assert masks_of(layers, segments)[0].sum() == 1  # the sky's object 9
    with pytest.raises(DataLayoutError, match='no "things"; add the list of the classes whose obj'):
        require_segments_split(folder, "train", "panoptic")


@pytest.mark.parametrize("form", ["gray", "16 bits", "color", "palette"])
def test_object_numbers_are_read_from_each_form_of_png(tmp_path, form):
    ids, objects = scene()
    objects = objects.astype(np.uint16)
    expected = read(write_class_masks(tmp_path / "a", ids, objects.astype(np.uint8)), "panoptic")
    if form == "16 bits":
        objects = np.where(objects > 0, objects + 40_000, 0).astype(np.uint16)
    folder = write_class_masks(
        tmp_path / "b", ids, objects if form == "16 bits" else objects.astype(np.uint8)
    )
    if form == "color":
        numbers = np.where(objects > 0, objects.astype(int) + 70_000, 0)
        write_ids(folder / "instances" / "train" / "a.png", numbers)
    if form == "palette":
        image = Image.fromarray(objects.astype(np.uint8))
        image.putpalette([7, 7, 7] * 256)
        image.save(folder / "instances" / "train" / "a.png")
    actual = read(folder, "panoptic")
    for one, other in zip(actual[1:5], expected[1:5], strict=True):
        assert np.array_equal(one, other)


def test_the_same_folder_is_data_of_semantic_segmentation(tmp_path):
    index = require_segmentation_split(write_class_masks(tmp_path, *scene()), "train")
    assert index.classes == ("sky", "car", "dog")


def test_labels_of_another_split_go_by_name(tmp_path):
    folder = write_class_masks(tmp_path, *scene(), split="val")
    index = require_segments_split(folder, "val", "panoptic", ("dog", "cow", "car", "sky"))
    assert index.category_ids == (2, None, 1, 0) and index.is_thing == (True, True, True, False)
    assert read_segments(index, 0)[2][:, 2].tolist() == [3, 2, 2, 0]
    with pytest.raises(DataLayoutError, match="class 'sky' is not one of the 2 known classes"):
        require_segments_split(folder, "val", "panoptic", ("car", "dog"))


def test_what_is_missing_or_wrong_is_named(tmp_path):
    ids, objects = scene()
    folder = write_class_masks(tmp_path, ids, objects, things=["cow"])
    with pytest.raises(DataLayoutError, match="\"things\" names 'cow', which is no class"):
        require_segments_split(folder, "train", "instance")
    write_class_masks(tmp_path, ids, objects, things="car")
    with pytest.raises(DataLayoutError, match="\"things\" is 'car', expected a list of names"):
        require_segments_split(folder, "train", "instance")
    write_class_masks(tmp_path, ids, objects, things=[])
    with pytest.raises(DataLayoutError, match='"things" is empty'):
        require_segments_split(folder, "train", "instance")
    write_class_masks(tmp_path, ids, objects[1:])
    index = require_segments_split(folder, "train", "instance")
    with pytest.raises(UnreadableMask, match=r"is 19 x 24 .*, the mask of its classes 20 x 24"):
        read_segments(index, 0)
    path = folder / "instances" / "train" / "a.png"
    path.unlink()
    with pytest.raises(DataLayoutError, match=r"1 of 1 files are missing: a\.png$"):
        require_segments_split(folder, "train", "instance")
    path.with_suffix(".jpg").touch()
    with pytest.raises(DataLayoutError, match=r"missing: a\.png; other formats than PNG are there"):
        require_segments_split(folder, "train", "instance")
    path.with_suffix(".jpg").unlink()
    path.parent.rmdir()
    with pytest.raises(DataLayoutError, match="instances/train: no such folder; expected a PNG"):
        require_segments_split(folder, "train", "panoptic")


def test_the_fingerprint_changes_with_the_things_and_the_size_of_a_file(tmp_path):
    ids, objects = scene()
    folder = write_class_masks(tmp_path, ids, objects)
    prints = [require_segments_split(folder, "train", "panoptic").fingerprint()]
    write_class_masks(tmp_path, ids, objects, things=["car"])
    prints.append(require_segments_split(folder, "train", "panoptic").fingerprint())
    write_class_masks(tmp_path, ids, np.random.default_rng(0).integers(0, 9, ids.shape, np.uint8))
    prints.append(require_segments_split(folder, "train", "panoptic").fingerprint())
    assert len(set(prints)) == 3
