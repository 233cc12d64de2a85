"""Which images are trained on and which are evaluated on."""

import torch

from visionloop.datasets.classification.image_folder import scan
from visionloop.datasets.io.layout import DataLayoutError, find_split, require_split
from visionloop.engine.batch import Batch
from visionloop.engine.data.subsets import hash_split
from visionloop.engine.errors import UserError


def index_split(data, split, classes=None):
    """The ImageFolderIndex of a split. classes: names in order of id, None: the folder's own, sorted. Raises UserError."""
    require_data(data)
    try:
        return scan(require_split(data, split), classes)
    except DataLayoutError as error:
        hint = (
            "; --val-split F stands for the share that training set aside"
            if split == "val" and not has_split(data, "val")
            else ""
        )
        raise UserError(
            f"{error}{hint}", code="bad_layout", file=error.path, field="data"
        ) from None


def require_data(data):
    """UserError when no data folder is given."""
    if data is None:
        raise UserError("--data: expected a folder with train/<class>/*.jpg", field="data")


def has_split(data, split):
    """True when the folder holds that split."""
    try:
        return find_split(data, split) is not None
    except DataLayoutError as error:
        raise UserError(str(error), code="bad_layout", file=error.path, field="data") from None


def training_splits(data, val_split, classes=None):
    """(training index, validation index): the val folder, or a share of train/ set aside by hash of the path, class by class."""
    train = index_split(data, "train", classes)
    if has_split(data, "val"):
        if val_split:
            raise UserError(
                f"--val-split: {data} has a validation folder; leave the option out",
                field="val_split",
            )
        return train, index_split(data, "val", train.classes)
    if not val_split:
        raise UserError(
            f"{data}: no val/ folder; add one, or set a share of train/ aside with --val-split 0.2",
            code="bad_layout",
            file=str(data),
            field="val_split",
        )
    names = [train.name(i) for i in range(len(train))]
    train_rows, val_rows = hash_split(names, train.labels, val_split)
    return train.subset(train_rows), train.subset(val_rows)


# Samples to a batch. Pixels stay uint8: a quarter of the bytes on the way to the device.


def collate(samples, step=0, offset=0):
    """A Batch with pixel_values uint8 [B, 3, S, S], sample_ids int64 [B] and, unless the images come without, labels int64 [B]."""
    columns = {"pixel_values": "pixel_values", "label": "labels", "sample_id": "sample_ids"}
    present = {key: name for key, name in columns.items() if key in samples[0]}
    return Batch(
        {name: torch.stack([sample[key] for sample in samples]) for key, name in present.items()},
        step=step,
        offset=offset,
    )
