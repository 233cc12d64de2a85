"""Splits and batches of images with masks."""

from collections.abc import Iterator, Sequence

import torch

from visionloop.datasets.segmentation.dataset import SegmentationIndex
from visionloop.datasets.segmentation.layout import (
    find_segmentation_split,
    require_segmentation_split,
)
from visionloop.datasets.segmentation.mask_values import IGNORED
from visionloop.datasets.segmentation.transforms import nearest
from visionloop.engine.batch import Batch, RaggedTensor
from visionloop.engine.types import Sample
from visionloop.tasks import splits
from visionloop.tasks.segmentation.loss import ImageTargets
from visionloop.tasks.segmentation.semantic.sliding_window import cut_windows

NO_VALIDATION = splits.no_validation("images/val/ and masks/val/")


def require_data(data: str | None) -> str:
    """Return the data folder. Raises UserError when none is set."""
    return splits.require_data(data, "images/train/, masks/train/ and classes.json")


def index_split(
    data: str | None, split: str, classes: Sequence[str] | None = None
) -> SegmentationIndex:
    """Return the index of a split.

    classes: names in order of id; None: those of classes.json. Raises UserError for a folder with
    another layout, and for a class of the data that is not in `classes`.
    """
    data = require_data(data)
    with splits.layout_errors():
        return require_segmentation_split(data, split, classes)


def training_splits(
    data: str | None, val_split: float, classes: Sequence[str] | None = None
) -> tuple[SegmentationIndex, SegmentationIndex]:
    """Return the training and the validation index.

    Validation is the val split, or a share of the training images that is set aside by the hash of
    the path alone: the classes of an image are known only once its mask is read, and nearly every
    image has the frequent ones.
    """
    data = require_data(data)
    train = index_split(data, "train", classes)
    with splits.layout_errors():
        val = find_segmentation_split(data, "val", train.classes)
    return splits.train_and_val(data, val_split, train, val, missing=NO_VALIDATION)


def collate(samples: Sequence[Sample], step: int = 0, offset: int = 0) -> Batch:
    """Collate training samples.

    Pixels and class ids stay uint8: the network's input, and one mask per class, are made on the
    device. The labels are computed here, because computing them on the device would be a host sync.

    Returns:
        A Batch with pixel_values uint8 [B, 3, S, S], ids uint8 [B, S, S] with 255 ignored,
        sample_ids int64 [B], and labels: the class ids in each image, sorted, int64 [T_b] each, as
        a RaggedTensor.
    """
    items: dict[str, object] = {
        "pixel_values": _stack(samples, "pixel_values"),
        "ids": _stack(samples, "ids"),
        "sample_ids": _stack(samples, "sample_id"),
        "labels": RaggedTensor.cat([present_classes(sample["ids"]) for sample in samples]),
    }
    return Batch(items, step=step, offset=offset)


def collate_eval(samples: Sequence[Sample]) -> Batch:
    """Collate images of any size for evaluation or, without targets, for prediction.

    Returns:
        A Batch with pixel_values: list of uint8 [3, h, w]; sizes: int64 [B, 2], height and width of
        the files; sample_ids: int64 [B]. With targets also ids: list of uint8 [H, W], the ground
        truth at its own size, 255 ignored; fitted: uint8 [B, 3, S, S], the image padded to a
        square; fitted_ids: uint8 [B, S, S]; labels: of fitted_ids, as in `collate`.
    """
    items: dict[str, object] = {
        "pixel_values": [sample["pixel_values"] for sample in samples],
        "sizes": _stack(samples, "size"),
        "sample_ids": _stack(samples, "sample_id"),
    }
    if "ids" in samples[0]:
        items |= {
            "ids": [sample["ids"] for sample in samples],
            "fitted": _stack(samples, "fitted"),
            "fitted_ids": _stack(samples, "fitted_ids"),
            "labels": RaggedTensor.cat(
                [present_classes(sample["fitted_ids"]) for sample in samples]
            ),
        }
    return Batch(items)


def image_targets(batch: Batch) -> Iterator[ImageTargets]:
    """Yield the targets of each image of a batch of `collate` or `collate_eval`: a mask per class.

    Those of evaluation are of the padded images.
    """
    # images as evaluation reads them have both
    all_ids = batch["fitted_ids"] if "fitted_ids" in batch else batch["ids"]
    for ids, labels in zip(all_ids, batch["labels"], strict=True):
        yield ImageTargets(ids == labels[:, None, None], labels, ids != IGNORED)


def present_classes(ids: torch.Tensor) -> torch.Tensor:
    """Return the class ids in a mask uint8 [H, W], sorted, without 255: int64 [T]."""
    return torch.bincount(ids.flatten(), minlength=IGNORED + 1)[:IGNORED].nonzero().flatten()


def overfit_windows(sample: Sample, side: int) -> list[Sample]:
    """Cut a sample of evaluation into one training sample per window of the inference.

    Overfitting must happen at the scale of the scores: fitted into one square, a longer image would
    teach the network a scale that inference never uses.

    Args:
        sample: of `build_eval_dataset`, with targets.
        side: of a window in pixels.

    Returns:
        Samples for `collate_eval`, image and ground truth cut alike.
    """
    height, width = sample["pixel_values"].shape[1:]
    rows, columns = (
        nearest(0, size, resized)
        for size, resized in zip(sample["ids"].shape, (height, width), strict=True)
    )
    ids = torch.from_numpy(sample["ids"].numpy().take(rows, axis=0).take(columns, axis=1))
    pixels, _ = cut_windows(sample["pixel_values"], side)
    masks, _ = cut_windows(ids[None], side)
    size = torch.tensor([side, side])
    return [
        sample
        | {
            "pixel_values": window,
            "fitted": window,
            "ids": mask[0],
            "fitted_ids": mask[0],
            "size": size,
        }
        for window, mask in zip(pixels, masks, strict=True)
    ]


def _stack(samples: Sequence[Sample], key: str) -> torch.Tensor:
    return torch.stack([sample[key] for sample in samples])
