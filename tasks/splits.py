"""Choice of the images to train on and to evaluate on, shared by the tasks."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from visionloop.datasets.io.folders import (
    IMAGE_SUFFIXES,
    SuffixCounts,
    passed_over_warning,
)
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


class SplitIndex(ImageIndex, Protocol):
    """An index that was made by listing a folder."""

    @property
    def passed_over(self) -> SuffixCounts:
        """Files of the folder that are no images, by suffix."""
        ...


class AnnotatedIndex(SplitIndex, Protocol):
    """An index with classes, whose images and classes have ids in a file of annotations."""

    @property
    def source(self) -> str:
        """Path of the file of annotations."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in order of label."""
        ...

    @property
    def image_ids(self) -> NDArray[np.int64] | NDArray[np.str_]:
        """Id of each image, [N]."""
        ...

    @property
    def category_ids(self) -> tuple[int | str | None, ...]:
        """Id of each class, None for one that the annotations do not list."""
        ...

    @property
    def sizes_hw(self) -> NDArray[np.int64]:
        """Height and width of each image, int64 [N, 2], 0 where the annotations give no size."""
        ...


Index = TypeVar("Index", bound=ImageIndex)


def require_data(data: str | None, expected: str) -> str:
    """Return the data folder; UserError when none is set. expected: its content, for messages."""
    if data is None:
        raise UserError(f"--data: expected a folder with {expected}", field="data")
    return data


@contextmanager
def layout_errors(field: str = "data") -> Iterator[None]:
    """Turn a DataLayoutError inside the block into a UserError: users can fix a data folder.

    field: the setting that names the folder.
    """
    try:
        yield
    except DataLayoutError as error:
        raise UserError(str(error), code="bad_layout", file=error.path, field=field) from None


def no_validation(expected: str) -> str:
    """Return the message for a data folder without a validation split. expected: its place."""
    return (
        f"no validation split ({expected}); add one, or set a share of the training images aside "
        "with --val-split 0.2"
    )


def passed_over_files(
    indexes: Iterable[SplitIndex], target: str = ".jpg"
) -> Iterator[tuple[str, str]]:
    """Yield (folder, warning) of each folder with files that are no images.

    target: suffix of the format that the warning advises to convert them to.
    """
    for folder, counts in {index.folder: index.passed_over for index in indexes}.items():
        if warning := passed_over_warning(counts, folder, IMAGE_SUFFIXES, target):
            yield folder, warning


def passed_over_notes(indexes: Iterable[SplitIndex], target: str = ".jpg") -> list[str]:
    """Return the lines of `passed_over_files` for the start of a run."""
    return [f"warning: {folder}: {why}" for folder, why in passed_over_files(indexes, target)]


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
    if not len(train_rows) or not len(val_rows):
        kind = "validation" if len(train_rows) else "training"
        of_each = ", which are divided class by class" if strata else ""
        raise UserError(
            f"--val-split {val_split:g}: leaves no {kind} images of the {len(names)} in "
            f"{train.folder}{of_each}; add images, or a validation split",
            field="val_split",
            file=train.folder,
        )
    return train.subset(train_rows), train.subset(val_rows)
