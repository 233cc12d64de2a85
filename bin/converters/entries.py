"""Images of a split whose annotations are read one image after the other."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, TypeAlias, TypeVar

from visionloop.datasets.io.paths import Rows
from visionloop.engine.data.subsets import hash_split
from visionloop.engine.errors import UserError

# the annotations of an image, in a form that each source chooses for its own reader
Entry: TypeAlias = Any  # type: ignore[explicit-any]


@dataclass(frozen=True, eq=False)
class EntrySplit:
    """Images with their annotations, not yet read.

    Attributes:
        folder: of the images.
        names: paths of the images relative to the folder.
        entries: annotations of each image.
        classes: names in order of id.
    """

    folder: str
    names: list[str]
    entries: list[Entry]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.names)

    def name(self, i: int) -> str:
        """Return the path of image i relative to the folder."""
        return self.names[i]

    def path(self, i: int) -> str:
        """Return the path of image i."""
        return os.path.join(self.folder, self.names[i])

    def subset(self, rows: Rows) -> Self:
        """Return the split with these images alone, in this order."""
        names, entries = [self.names[i] for i in rows], [self.entries[i] for i in rows]
        return replace(self, names=names, entries=entries)


AnySplit = TypeVar("AnySplit", bound=EntrySplit)


def split_off_val(
    splits: Mapping[str, AnySplit], source: str, val_split: float
) -> dict[str, AnySplit]:
    """Return the splits with a fraction of train as val.

    Args:
        splits: {split: images}.
        source: for the message.
        val_split: fraction in 0..1, chosen by the hash of the image's name; 0: change nothing.

    Raises:
        UserError: where the source has a val split already.
    """
    if not val_split or "train" not in splits:
        return dict(splits)
    if "val" in splits:
        why = f"--val-split: {source} has a val split already"
        raise UserError(why, field="val_split", file=source)
    whole = splits["train"]
    train, val = hash_split(whole.names, None, val_split)
    return {**splits, "train": whole.subset(train), "val": whole.subset(val)}
