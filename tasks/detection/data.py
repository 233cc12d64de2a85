"""Which pictures are trained on and which are evaluated on."""

import numpy as np

from visionloop.datasets.detection_layout import find_detection_split, require_detection_split
from visionloop.tasks import splits

NO_VALIDATION = splits.no_validation("val.json and val/")


def index_split(data, split, classes=None):
    """The DetectionIndex of a split. classes: names in order of label, None: the split's own. Raises UserError."""
    require_data(data)
    with splits.layout_errors():
        return require_detection_split(data, split, classes)


def require_data(data):
    """UserError when no data folder is given."""
    splits.require_data(data, "train.json (COCO) and train/")


def training_splits(data, val_split, classes=None):
    """(training index, validation index): the val split, or a share of the training pictures set aside by hash of the path.

    The share is taken within pictures whose rarest class is the same, so that rare classes are on both sides.
    """
    train = index_split(data, "train", classes)
    with splits.layout_errors():
        val = find_detection_split(data, "val", train.classes)
    return splits.train_and_val(data, val_split, train, val, missing=NO_VALIDATION, strata=rarest_classes)


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
