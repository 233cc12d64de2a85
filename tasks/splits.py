"""Choice of the images to train on and to evaluate on, shared by the tasks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from visionloop.datasets.io.layout import DataLayoutError
from visionloop.engine.data.subsets import hash_split
from visionloop.engine.errors import UserError


class ImageIndex(Protocol):
    """The images of one split, as the indexes of datasets/ list them."""

    @property
    def folder(self) -> str:
        """Folder that the names are relative to."""
        ...

    def __len__(self) -> int: ...

    def name(self, i: int) -> str:
        """Path of image i relative to the folder."""
        ...

    def path(self, i: int) -> str:
        """Path of image i."""
        ...

    def subset(self, rows: NDArray[np.int64]) -> Self:
        """Return the index of the images at these rows, int64 [n]."""
        ...


Index = TypeVar("Index", bound=ImageIndex)


def require_data(data: str | None, expected: str) -> str:
    """Return the data folder; UserError when none is set. expected: its content, for messages."""
    if data is None:
        raise UserError(f"--data: expected a folder with {expected}", field="data")
    return data


@contextmanager
def layout_errors() -> Iterator[None]:
    """Turn a DataLayoutError inside the block into a UserError: users can fix a data folder."""
    try:
        yield
    except DataLayoutError as error:
        raise UserError(str(error), code="bad_layout", file=error.path, field="data") from None


def no_validation(expected: str) -> str:
    """Return the message for a data folder without a validation split. expected: its place."""
    return (
        f"no validation split ({expected}); add one, or set a share of the training images aside "
        "with --val-split 0.2"
    )


def train_and_val(
    data: str,
    val_split: float,
    train: Index,
    val: Index | None,
    *,
    missing: str,
    strata: Callable[[Index], NDArray[np.int64]] | None = None,
) -> tuple[Index, Index]:
    """Return the training and the validation index of a data folder.

    Args:
        data: the data folder, for messages.
        val_split: share of `train` that becomes the validation split, chosen by the hash of the
            path; 0 where the data has its own validation split.
        train: index of the training split.
        val: index of the validation split, or None.
        missing: message of `no_validation`.
        strata: index -> a label for each image; the share is then taken within each label.

    Raises:
        UserError: `val_split` is set although there is a validation split, or there is neither.
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
    names = [train.name(i) for i in range(len(train))]
    train_rows, val_rows = hash_split(names, strata(train) if strata else None, val_split)
    return train.subset(train_rows), train.subset(val_rows)
