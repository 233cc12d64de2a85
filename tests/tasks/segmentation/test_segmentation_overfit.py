"""The samples of `check --overfit`: the windows of the inference."""

import numpy as np
import pytest
import torch

from visionloop.datasets.segmentation.transforms import SegmentationEvalPreset
from visionloop.tasks.segmentation.semantic.data import collate_eval, overfit_windows

SIDE = 16


def sample_of(height, width, block):
    """Return blocks of four classes, four shades in the image; the last row is ignored."""
    ids = (
        np.add.outer(np.arange(height) // block, 2 * (np.arange(width) // block)).astype(np.uint8)
        % 4
    )
    ids[-1] = 255
    image = torch.from_numpy(60 * (ids % 4)).expand(3, -1, -1).contiguous()
    return SegmentationEvalPreset(size=SIDE)(image, torch.from_numpy(ids)) | {
        "sample_id": torch.tensor(3)
    }


@pytest.mark.parametrize(("height", "width", "windows"), [(16, 16, 1), (16, 40, 3), (33, 16, 3)])
def test_each_window_shows_its_own_part_of_image_and_ground_truth(height, width, windows):
    parts = overfit_windows(sample_of(height, width, 4), SIDE)
    assert len(parts) == windows
    for part in parts:
        valid = part["ids"] != 255
        assert torch.equal(part["pixel_values"][0][valid], 60 * part["ids"][valid])
        assert torch.equal(part["fitted"], part["pixel_values"]) and torch.equal(
            part["fitted_ids"], part["ids"]
        )


@pytest.mark.parametrize("size", [(64, 160), (160, 64), (8, 19)])
def test_the_ground_truth_is_resized_with_the_image(size):
    for part in overfit_windows(sample_of(*size, min(size) // 2), SIDE):
        valid = part["ids"] != 255
        near = (
            part["pixel_values"][0].int() - 60 * part["ids"].int()
        ).abs() <= 20  # borders of a block are mixed
        assert near[valid].float().mean() > 0.7 and part["ids"].shape == (SIDE, SIDE)


def test_windows_of_several_images_make_a_batch_of_squares():
    batch = collate_eval(
        overfit_windows(sample_of(16, 40, 4), SIDE) + overfit_windows(sample_of(40, 16, 4), SIDE)
    )
    assert (
        batch["fitted"].shape == (6, 3, SIDE, SIDE)
        and batch["sizes"].tolist() == [[SIDE, SIDE]] * 6
    )
    assert (
        all(set(labels.tolist()) == {0, 1, 2, 3} for labels in batch["labels"])
        and batch["sample_ids"].tolist() == [3] * 6
    )
