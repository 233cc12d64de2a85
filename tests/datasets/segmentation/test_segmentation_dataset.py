"""Samples of images with masks."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from segmentation_files import write_pair, write_segmentation_data

from visionloop.datasets.io.images import UnreadableImage
from visionloop.datasets.segmentation.dataset import SegmentationDataset, mask_mismatch, read_pair
from visionloop.datasets.segmentation.layout import require_segmentation_split
from visionloop.datasets.segmentation.masks import UnreadableMask
from visionloop.datasets.segmentation.transforms import (
    SegmentationEvalPreset,
    SegmentationTrainPreset,
)


@pytest.fixture
def data(tmp_path):
    return write_segmentation_data(tmp_path / "data", images=3)


def training(data):
    return SegmentationDataset(
        require_segmentation_split(data, "train"), SegmentationTrainPreset(size=16)
    )


def evaluation(data, split="val"):
    return SegmentationDataset(
        require_segmentation_split(data, split),
        SegmentationEvalPreset(size=16),
        with_ground_truth=True,
    )


def test_a_training_sample_is_a_crop_and_its_class_ids(data):
    random.seed(0)
    sample = training(data)[0]
    assert {key: (value.dtype, tuple(value.shape)) for key, value in sample.items()} == {
        "pixel_values": (torch.uint8, (3, 16, 16)),
        "ids": (torch.uint8, (16, 16)),
    }


def test_an_evaluation_sample_holds_the_unchanged_ground_truth(data):
    sample = evaluation(data)[1]
    assert {key: tuple(value.shape) for key, value in sample.items()} == {
        "pixel_values": (3, 16, 19),
        "fitted": (3, 16, 16),
        "fitted_ids": (16, 16),
        "ids": (20, 24),
        "size": (2,),
    }
    assert sample["size"].tolist() == [20, 24]
    assert (
        sample["ids"].tolist()
        == np.array(Image.open(data / "masks" / "val" / "val01.png")).tolist()
    )


def test_samples_are_the_same_whether_images_are_cached_or_not(data):
    index = require_segmentation_split(data, "train")
    samples = []
    for memory in (0, 2**20):
        dataset = SegmentationDataset(index, SegmentationTrainPreset(size=16), memory=memory)
        for epoch in range(3):
            for i in range(len(dataset)):
                random.seed(10 * epoch + i)
                samples.append(dataset[i])
    uncached, cached = samples[:9], samples[9:]
    for one, other in zip(uncached, cached, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_mask_of_another_size_is_named_with_both(data):
    image, mask = write_pair(data, "train", "train01", np.zeros((20, 24), dtype=np.uint8))
    Image.new("RGB", (25, 20)).save(image)
    with pytest.raises(
        UnreadableMask, match=r"train01\.png: is 20 x 24 \(height x width\), its image 20 x 25$"
    ) as caught:
        training(data)[1]
    assert caught.value.path == str(mask)


def test_a_mask_drawn_before_the_image_was_rotated_says_so(data):
    image = data / "images" / "train" / "train01.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((20, 24, 3), dtype=np.uint8)).save(image, exif=exif)
    with pytest.raises(
        UnreadableMask,
        match=r"is 20 x 24 .*, its image 24 x 20: the mask was drawn before its EXIF",
    ):
        training(data)[1]
    Image.fromarray(np.zeros((24, 20), dtype=np.uint8)).save(
        data / "masks" / "train" / "train01.png"
    )
    assert evaluation(data, "train")[1]["size"].tolist() == [24, 20]


def test_values_without_a_class_name_the_mask(data):
    write_pair(data, "train", "train02", np.full((20, 24), 3, dtype=np.uint8))
    with pytest.raises(
        UnreadableMask, match=r"masks/train/train02\.png: holds the value 3 in 480 pixels"
    ):
        training(data)[2]


def test_an_unreadable_image_is_named(data):
    (data / "images" / "train" / "train00.png").write_bytes(b"")
    with pytest.raises(UnreadableImage, match=r"images/train/train00\.png: empty file"):
        training(data)[0]


def test_a_dataset_has_names_classes_and_subsets(data):
    dataset = evaluation(data)
    part = dataset.subset([2, 0])
    assert (
        len(dataset) == 3
        and len(part) == 2
        and part.classes == dataset.classes == ("sky", "road", "car")
    )
    assert part.name(0) == dataset.name(2) == str(data / "images" / "val" / "val02.png")
    assert (
        torch.equal(part[0]["ids"], dataset[2]["ids"])
        and part.fingerprint() != dataset.fingerprint() == evaluation(data).fingerprint()
    )


def test_sizes_that_agree_are_no_mismatch():
    assert mask_mismatch(torch.Size([3, 4]), (3, 4)) is None


def test_real_masks_hold_their_classes(real_data):
    index = require_segmentation_split(real_data("camvid-mini"), "val")
    counts = np.zeros(256, dtype=np.int64)
    for i in range(0, len(index), 4):
        image, ids = read_pair(index, i)
        assert image.shape == (3, 360, 480)
        counts += np.bincount(ids.flatten().numpy(), minlength=256)
    assert counts[:11].all() and not counts[11:255].any() and 0 < counts[255] < 0.1 * counts.sum()
    random.seed(0)
    sample = SegmentationDataset(index, SegmentationTrainPreset(size=96))[0]
    assert len(sample["ids"].unique()) > 3
