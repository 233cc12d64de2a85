"""A data set in a folder, and the limits of counting its images. Imports no torch."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from visionloop.datasets.io.folders import IMAGE_SUFFIXES
from visionloop.datasets.io.layout import DataLayoutError, is_hidden
from visionloop.datasets.io.names import one_line

NO_VALIDATION = "no_validation"
WRONG_LAYOUT = "wrong_layout"
SPLITS = ("train", "val")
MAX_DESCRIPTION = 16 << 20  # bytes of a file with annotations or class names that is read


class Budget:
    """Limits of a walk. A walk that has reached one goes on no further: its counts are too low.

    Args:
        entries: number of files and folders.
        seconds: from now.
    """

    def __init__(self, entries: int, seconds: float) -> None:
        self.entries, self.deadline = entries, time.monotonic() + seconds

    def spend(self) -> bool:
        """Count one entry. Returns False when nothing is left."""
        self.entries -= 1
        return not self.is_spent

    @property
    def is_spent(self) -> bool:
        return self.entries < 0 or time.monotonic() > self.deadline


@dataclass(frozen=True)
class DataSet:
    """A folder in the layout of a task.

    Attributes:
        path: of the folder.
        task_type: as platforms call it.
        layout: "class_folders", "coco", "coco_panoptic", "yolo", "masks", "masks_instances", "hr"
            or "hr_lr".
        images: {split: number of images}, without the splits that are not there.
        classes: number of classes; None without classes, or where counting them takes too long.
        is_complete: the numbers are exact; False: there are at least as many.
        problem: NO_VALIDATION, WRONG_LAYOUT or None.
        why: the problem in one line.
    """

    path: Path
    task_type: str
    layout: str
    images: Mapping[str, int] = field(default_factory=dict)
    classes: int | None = None
    is_complete: bool = True
    problem: str | None = None
    why: str | None = None


def require_small(path: Path) -> None:
    """Raise DataLayoutError for a file that is missing or too large to be read here."""
    if not path.is_file():
        raise DataLayoutError(path, "no such file")
    if path.stat().st_size > MAX_DESCRIPTION:
        raise DataLayoutError(path, "larger than 16 MiB; not read for the list of data sets")


def wrong_layout(folder: Path, task_type: str, layout: str, error: DataLayoutError) -> DataSet:
    """Return a data set that cannot be used, with the reason."""
    why = one_line(str(error))
    return DataSet(folder, task_type, layout, problem=WRONG_LAYOUT, why=why)


def data_set_of(
    folder: Path,
    task_type: str,
    layout: str,
    counts: Mapping[str, int],
    classes: int | None,
    budget: Budget,
    *,
    is_complete: bool = True,
) -> DataSet:
    """Return a data set whose folders are there, with the problem of missing images."""
    exact = is_complete and not budget.is_spent
    problem = why = None
    if exact and not counts.get("train"):
        problem, why = WRONG_LAYOUT, "no training images"
    elif "val" not in counts:
        problem = NO_VALIDATION
        why = "no validation images: give val_split, a share of the training images"
    return DataSet(folder, task_type, layout, counts, classes, exact, problem, why)


def count_images(folder: Path, budget: Budget, depth: int = 0) -> int:
    """Return the number of images below a folder, of those at least `depth` folders down.

    Links to folders are followed, once each. Names in hidden folders do not count.
    """
    count, waiting, seen = 0, [(str(folder), 0)], set()
    while waiting:
        path, level = waiting.pop()
        real = os.path.realpath(path)
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if not budget.spend():
                        return count
                    if is_hidden(entry.name):
                        continue
                    if level >= depth and entry.name.lower().endswith(IMAGE_SUFFIXES):
                        count += 1
                    elif entry.is_dir():
                        waiting.append((entry.path, level + 1))
        except OSError:
            continue  # a folder that cannot be listed has no images that can be read
    return count
