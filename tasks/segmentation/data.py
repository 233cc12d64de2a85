"""Which pictures are trained on and which are evaluated on."""

from visionloop.datasets.segmentation_layout import find_segmentation_split, require_segmentation_split
from visionloop.tasks import splits

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
    """(training index, validation index): the val split, or a share of the training pictures set aside by hash of the path.

    By hash alone: which classes a picture holds is known only once its mask is read, and nearly every picture holds the frequent ones.
    """
    train = index_split(data, "train", classes)
    with splits.layout_errors():
        val = find_segmentation_split(data, "val", train.classes)
    return splits.train_and_val(data, val_split, train, val, missing=NO_VALIDATION)
