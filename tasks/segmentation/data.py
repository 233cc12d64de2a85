"""Which images are trained on and which are evaluated on."""

import torch

from visionloop.datasets.segmentation.layout import (
    find_segmentation_split,
    require_segmentation_split,
)
from visionloop.datasets.segmentation.mask_values import IGNORED
from visionloop.datasets.segmentation.transforms import nearest
from visionloop.engine.batch import Batch
from visionloop.tasks import splits
from visionloop.tasks.segmentation.sliding_window import cut_windows

NO_VALIDATION = splits.no_validation("images/val/ and masks/val/")


def index_split(data, split, classes=None):
    """The SegmentationIndex of a split. classes: names in order of id, None: those of classes.json. Raises UserError."""
    require_data(data)
    with splits.layout_errors():
        return require_segmentation_split(data, split, classes)


def require_data(data):
    """UserError when no data folder is given."""
    splits.require_data(data, "images/train/, masks/train/ and classes.json")


def training_splits(data, val_split, classes=None):
    """(training index, validation index): the val split, or a share of the training images set aside by hash of the path.

    By hash alone: which classes an image holds is known only once its mask is read, and nearly
    every image holds the frequent ones.
    """
    train = index_split(data, "train", classes)
    with splits.layout_errors():
        val = find_segmentation_split(data, "val", train.classes)
    return splits.train_and_val(data, val_split, train, val, missing=NO_VALIDATION)


# Images to overfit, at the scale at which they are scored: what the windows of an
# evaluation show, with the truth in them.


def window_samples(sample, side):
    """[a sample for `collate_eval` of each window]. sample: of evaluation, with targets; side: of a window, in pixels.

    Of the whole image, fitted into one square, a longer image's network would learn things at a
    scale that it is never asked about.
    """
    height, width = sample["pixel_values"].shape[1:]
    rows, columns = (
        nearest(0, shown, size)
        for shown, size in zip(sample["ids"].shape, (height, width), strict=True)
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


# Samples to a batch. Pixels and class ids stay uint8: what a network reads, and a mask for each
# class, are made on the device.


def collate(samples, step=0, offset=0):
    """A Batch with pixel_values uint8 [B, 3, S, S], ids uint8 [B, S, S], 255 ignored, sample_ids int64 [B], and labels.

    labels: the class ids in each image, sorted, list of int64 [T_b]; here, because looking for
    them on the device would make the host wait for it.
    """
    items = {
        "pixel_values": _stack(samples, "pixel_values"),
        "ids": _stack(samples, "ids"),
        "sample_ids": _stack(samples, "sample_id"),
    }
    items["labels"] = [present_classes(sample["ids"]) for sample in samples]
    return Batch(items, step=step, offset=offset)


def collate_eval(samples):
    """A Batch of images of any size for evaluation or, without targets, for prediction.

    pixel_values: list of uint8 [3, h, w]; sizes: int64 [B, 2], height and width of the files;
    sample_ids: int64 [B]. With targets also ids: list of uint8 [H, W], the untouched truth, 255
    ignored; fitted: uint8 [B, 3, S, S]; fitted_ids: uint8 [B, S, S]; labels: the class ids in the
    fitted ones, list of int64 [T_b].
    """
    items = {
        "pixel_values": [sample["pixel_values"] for sample in samples],
        "sizes": _stack(samples, "size"),
    }
    items["sample_ids"] = _stack(samples, "sample_id")
    if "ids" in samples[0]:
        items |= {"ids": [sample["ids"] for sample in samples]}
        items |= {"fitted": _stack(samples, "fitted"), "fitted_ids": _stack(samples, "fitted_ids")}
        items["labels"] = [present_classes(sample["fitted_ids"]) for sample in samples]
    return Batch(items)


def present_classes(ids):
    """The class ids in a mask uint8 [H, W], sorted, without 255: int64 [T]."""
    return torch.bincount(ids.flatten(), minlength=IGNORED + 1)[:IGNORED].nonzero().flatten()


def _stack(samples, key):
    return torch.stack([sample[key] for sample in samples])
