"""Which pictures are trained on and which are evaluated on."""

from visionloop.datasets.layout import DataLayoutError
from visionloop.datasets.segmentation_layout import find_segmentation_split, require_segmentation_split
from visionloop.engine.errors import UserError
from visionloop.engine.splits import hash_split

NO_VALIDATION = (
    "no validation split (images/val/ and masks/val/); add one, or set a share of the training pictures aside with --val-split 0.2"
)


def index_split(data, split, classes=None):
    """The SegmentationIndex of a split. classes: names in order of id, None: those of classes.json. Raises UserError."""
    require_data(data)
    try:
        return require_segmentation_split(data, split, classes)
    except DataLayoutError as error:
        raise UserError(str(error), code="bad_layout", file=error.path, field="data") from None


def require_data(data):
    """UserError when no data folder is given."""
    if data is None:
        raise UserError("--data: expected a folder with images/train/, masks/train/ and classes.json", field="data")


def training_splits(data, val_split, classes=None):
    """(training index, validation index): the val split, or a share of the training pictures set aside by hash of the path.

    By hash alone: which classes a picture holds is known only once its mask is read, and nearly every picture holds the frequent ones.
    """
    train = index_split(data, "train", classes)
    try:
        val = find_segmentation_split(data, "val", train.classes)
    except DataLayoutError as error:
        raise UserError(str(error), code="bad_layout", file=error.path, field="data") from None
    if val is not None:
        if val_split:
            raise UserError(f"--val-split: {data} has a validation split; leave the option out", field="val_split")
        return train, val
    if not val_split:
        raise UserError(f"{data}: {NO_VALIDATION}", code="bad_layout", file=str(data), field="val_split")
    train_rows, val_rows = hash_split([train.name(i) for i in range(len(train))], None, val_split)
    return train.subset(train_rows), train.subset(val_rows)
