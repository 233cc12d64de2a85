"""Splits and batches of images with masks."""

import numpy as np
import pytest
import torch
from segmentation_files import write_pair, write_segmentation_data

from visionloop.datasets.segmentation.dataset import SegmentationDataset
from visionloop.datasets.segmentation.layout import require_segmentation_split
from visionloop.datasets.segmentation.transforms import (
    SegmentationEvalPreset,
    SegmentationTrainPreset,
)
from visionloop.engine.errors import UserError
from visionloop.tasks.segmentation.semantic.data import (
    collate,
    collate_eval,
    index_split,
    present_classes,
    training_splits,
)


@pytest.fixture
def data(tmp_path):
    return write_segmentation_data(tmp_path / "data", images=10)


def samples(dataset, rows):
    return [dataset[row] | {"sample_id": torch.tensor(row)} for row in rows]


def test_the_validation_folder_is_taken_where_there_is_one(data):
    train, val = training_splits(str(data), 0.0)
    assert train.name(0) == "train00.png" and val.name(0) == "val00.png"
    with pytest.raises(
        UserError, match=r"--val-split: .* has a validation split; leave the option out"
    ):
        training_splits(str(data), 0.2)


def test_a_share_is_set_aside_by_hash_and_the_same_each_time(data):
    (data / "images" / "val").rename(data / "images" / "later")
    with pytest.raises(
        UserError,
        match=r"no validation split \(images/val/ and masks/val/\); add one, or .*--val-split 0\.2",
    ):
        training_splits(str(data), 0.0)
    train, val = training_splits(str(data), 0.2)
    names = [[index.name(i) for i in range(len(index))] for index in (train, val)]
    assert [len(part) for part in names] == [8, 2] and not set(names[0]) & set(names[1])
    assert [index.name(0) for index in training_splits(str(data), 0.2)] == [
        part[0] for part in names
    ]


def test_a_wrong_layout_is_a_user_error(data):
    with pytest.raises(UserError, match=r"--data: expected a folder with images/train/") as caught:
        index_split(None, "train")
    assert caught.value.field == "data"
    with pytest.raises(UserError, match="found in images/ train, val") as caught:
        index_split(str(data), "test")
    assert caught.value.code == "bad_layout" and caught.value.file == str(data)
    with pytest.raises(UserError, match="is not one of the 2 known classes"):
        training_splits(str(data), 0.0, ("sky", "road"))


def test_a_batch_has_ids_and_the_classes_in_them(data):
    write_pair(data, "train", "train00", np.full((20, 24), 255, dtype=np.uint8))
    write_pair(data, "train", "train01", np.full((20, 24), 2, dtype=np.uint8))
    dataset = SegmentationDataset(
        index_split(str(data), "train"), SegmentationTrainPreset(size=16, scale=(1, 1))
    )
    batch = collate(samples(dataset, [0, 1, 5]), step=4, offset=8)
    assert (
        batch["pixel_values"].shape == (3, 3, 16, 16)
        and batch["ids"].shape == (3, 16, 16)
        and batch["ids"].dtype == torch.uint8
    )
    assert batch["sample_ids"].tolist() == [0, 1, 5] and (batch.step, batch.offset, len(batch)) == (
        4,
        8,
        3,
    )
    assert [labels.tolist() for labels in batch["labels"]] == [[], [2], [0, 1, 2]]
    assert all(labels.dtype == torch.int64 for labels in batch["labels"])


def test_present_classes_are_those_of_the_mask():
    ids = torch.randint(
        0, 256, (5, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    assert present_classes(ids).tolist() == sorted(set(ids.flatten().tolist()) - {255})
    assert present_classes(torch.tensor([[254, 255, 0]], dtype=torch.uint8)).tolist() == [0, 254]


def test_images_of_any_size_share_an_evaluation_batch(data):
    write_pair(data, "val", "val01", np.ones((9, 31), dtype=np.uint8))
    dataset = SegmentationDataset(
        require_segmentation_split(data, "val"),
        SegmentationEvalPreset(size=16),
        with_ground_truth=True,
    )
    batch = collate_eval(samples(dataset, [0, 1]))
    assert [tuple(pixels.shape) for pixels in batch["pixel_values"]] == [(3, 16, 19), (3, 16, 55)]
    assert [tuple(ids.shape) for ids in batch["ids"]] == [(20, 24), (9, 31)] and batch[
        "sizes"
    ].tolist() == [[20, 24], [9, 31]]
    assert batch["fitted"].shape == (2, 3, 16, 16) and batch["fitted_ids"].shape == (2, 16, 16)
    assert [labels.tolist() for labels in batch["labels"]] == [[0, 1, 2], [1]] and batch[
        "sample_ids"
    ].tolist() == [0, 1]


def test_prediction_needs_no_targets():
    image = torch.zeros(3, 10, 20, dtype=torch.uint8)
    batch = collate_eval([SegmentationEvalPreset(size=8)(image) | {"sample_id": torch.tensor(3)}])
    assert set(batch) == {"pixel_values", "sizes", "sample_ids"} and batch["sizes"].tolist() == [
        [10, 20]
    ]
