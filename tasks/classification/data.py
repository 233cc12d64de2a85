"""Training and evaluation splits of a data folder, and the collate function."""

from collections.abc import Sequence

import torch

from visionloop.datasets.classification.image_folder import ImageFolderIndex, scan
from visionloop.datasets.io.layout import DataLayoutError, find_split, require_split
from visionloop.engine.batch import Batch
from visionloop.engine.errors import UserError
from visionloop.engine.types import Sample
from visionloop.tasks import splits

LAYOUT = "train/<class>/*.jpg"
NO_VALIDATION = splits.no_validation("val/<class>/*.jpg")
# names in a sample and in a batch
COLUMNS = {"pixel_values": "pixel_values", "label": "labels", "sample_id": "sample_ids"}


def index_split(
    data: str | None, split: str, classes: Sequence[str] | None = None
) -> ImageFolderIndex:
    """Index the images of a split.

    Args:
        data: the data folder.
        split: "train", "val" or "test".
        classes: class names in order of id; None takes the folder's own, sorted.

    Raises:
        UserError: there is no data folder, or its layout is wrong.
    """
    folder = require_data(data)
    try:
        return scan(require_split(folder, split), classes)
    except DataLayoutError as error:
        hint = (
            "; --val-split F evaluates on the share that training set aside"
            if split == "val" and not has_split(folder, "val")
            else ""
        )
        raise UserError(
            f"{error}{hint}", code="bad_layout", file=error.path, field="data"
        ) from None


def require_data(data: str | None) -> str:
    """Return the data folder; raise UserError when none is given."""
    splits.require_data(data, LAYOUT)
    return str(data)


def has_split(data: str, split: str) -> bool:
    """Return True when the data folder has a folder for the split."""
    with splits.layout_errors():
        return find_split(data, split) is not None


def training_splits(
    data: str | None, val_split: float, classes: Sequence[str] | None = None
) -> tuple[ImageFolderIndex, ImageFolderIndex]:
    """Return (training index, validation index).

    The validation images are those of val/, or a share of train/ that is set aside by a hash of
    the path, class by class.

    Args:
        data: the data folder.
        val_split: share of train/ to set aside; 0 where there is a val/ folder.
        classes: class names in order of id; None takes those of train/, sorted.

    Raises:
        UserError: there is neither a validation split nor a share, or both.
    """
    train = index_split(data, "train", classes)
    folder = require_data(data)
    val = index_split(folder, "val", train.classes) if has_split(folder, "val") else None
    return splits.train_and_val(
        folder, val_split, train, val, missing=NO_VALIDATION, strata=lambda index: index.labels
    )


def collate(samples: Sequence[Sample], step: int = 0, offset: int = 0) -> Batch:
    """Stack samples into a Batch.

    Pixels stay uint8, which is a quarter of the bytes on the way to the device.

    Returns:
        A Batch with pixel_values uint8 [B, 3, S, S], sample_ids int64 [B] and, if the samples
        have a label, labels int64 [B].
    """
    present = {key: name for key, name in COLUMNS.items() if key in samples[0]}
    return Batch(
        {name: torch.stack([sample[key] for sample in samples]) for key, name in present.items()},
        step=step,
        offset=offset,
    )
