"""What the tasks share in choosing the images to train on and to evaluate on."""

from contextlib import contextmanager

from visionloop.datasets.io.layout import DataLayoutError
from visionloop.engine.data.subsets import hash_split
from visionloop.engine.errors import UserError


def require_data(data, expected):
    """UserError when no data folder is given. expected: what it is to hold."""
    if data is None:
        raise UserError(f"--data: expected a folder with {expected}", field="data")


@contextmanager
def layout_errors():
    """What is wrong with the layout of a data folder is the user's to mend: a DataLayoutError inside becomes a UserError."""
    try:
        yield
    except DataLayoutError as error:
        raise UserError(str(error), code="bad_layout", file=error.path, field="data") from None


def no_validation(expected):
    """Why a folder without a validation split is not enough. expected: where that split would lie."""
    return f"no validation split ({expected}); add one, or set a share of the training images aside with --val-split 0.2"


def train_and_val(data, val_split, train, val, *, missing, strata=None):
    """(training index, validation index): the data's own, or where `val` is None a share of `train` set aside by hash of the path.

    missing: of `no_validation`; strata: index -> a label for each image, within which the share
    is taken. Raises UserError where a share is asked for beside a validation split, and where there
    is neither.
    """
    if val is not None:
        if val_split:
            raise UserError(
                f"--val-split: {data} has a validation split; leave the option out",
                field="val_split",
            )
        return train, val
    if not val_split:
        raise UserError(f"{data}: {missing}", code="bad_layout", file=str(data), field="val_split")
    rows = hash_split(
        [train.name(i) for i in range(len(train))], strata(train) if strata else None, val_split
    )
    return tuple(train.subset(part) for part in rows)
