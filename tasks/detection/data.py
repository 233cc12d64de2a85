"""Which pictures are trained on and which are evaluated on."""

import numpy as np

from visionloop.datasets.detection_layout import find_detection_split, require_detection_split
from visionloop.datasets.layout import DataLayoutError
from visionloop.engine.errors import UserError
from visionloop.engine.splits import hash_split


def index_split(data, split, classes=None):
    """The DetectionIndex of a split. classes: names in order of label, None: the split's own. Raises UserError."""
    require_data(data)
    try:
        return require_detection_split(data, split, classes)
    except DataLayoutError as error:
        raise UserError(str(error), code="bad_layout", file=error.path, field="data") from None


def require_data(data):
    """UserError when no data folder is given."""
    if data is None:
        raise UserError("--data: expected a folder with train.json (COCO) and train/", field="data")


def training_splits(data, val_split, classes=None):
    """(training index, validation index): the val split, or a share of the training pictures set aside by hash of the path.

    The share is taken within pictures whose rarest class is the same, so that rare classes are on both sides.
    """
    train = index_split(data, "train", classes)
    try:
        val = find_detection_split(data, "val", train.classes)
    except DataLayoutError as error:
        raise UserError(str(error), code="bad_layout", file=error.path, field="data") from None
    if val is not None:
        if val_split:
            raise UserError(f"--val-split: {data} has a validation split; leave the option out", field="val_split")
        return train, val
    if not val_split:
        why = "no validation split (val.json and val/); add one, or set a share of the training pictures aside with --val-split 0.2"
        raise UserError(f"{data}: {why}", code="bad_layout", file=str(data), field="val_split")
    train_rows, val_rows = hash_split([train.name(i) for i in range(len(train))], rarest_classes(train), val_split)
    return train.subset(train_rows), train.subset(val_rows)


def rarest_classes(index):
    """The label of each picture's rarest class in the whole index, -1 for a picture without boxes: int64 [N]."""
    counts = np.bincount(index.labels, minlength=len(index.classes))
    rank = np.argsort(np.argsort(counts, kind="stable"), kind="stable")  # 0: the rarest
    of_rank = np.argsort(rank)
    found = np.full(len(index), -1, dtype=np.int64)
    for i in range(len(index)):
        labels = index.boxes_of(i)[1]
        if len(labels):
            found[i] = of_rank[rank[labels].min()]
    return found
