"""Checks of boxes and images after reading, for every annotation format."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from visionloop.datasets.io.json_columns import repeated
from visionloop.datasets.io.layout import shorten
from visionloop.datasets.io.names import FileFinder
from visionloop.datasets.io.paths import PathIndex

if TYPE_CHECKING:
    from visionloop.datasets.detection.index import DetectionIndex

MARGIN = 0.5  # pixels that a box may reach beyond its image without a warning: rounding
USUAL_CROWDS = 0.05  # of the boxes; COCO has 1 %
CROWD_HINT = "CVAT writes brush masks as crowds: set iscrowd to 0 where each is one object"
LARGEST_NORMALIZED = 1.5  # in pixels, no dataset has only boxes this small

# (kind, path, why); a note is a warning that a training run prints at its start too
Problem: TypeAlias = tuple[Literal["error", "warning", "note"], str, str]


class Report:
    """Collector of problems, one line for each kind.

    Attributes:
        path: of the annotations, the place of problems without another path.
        problems: [("error" | "warning" | "note", path, why)].
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.problems: list[Problem] = []

    def error(self, why: str, path: str | os.PathLike[str] | None = None) -> None:
        """Add an error."""
        self.problems.append(("error", os.fspath(path or self.path), why))

    def warning(self, why: str) -> None:
        """Add a warning."""
        self.problems.append(("warning", self.path, why))

    def note(self, why: str) -> None:
        """Add a warning that a training run prints at its start too."""
        self.problems.append(("note", self.path, why))

    def note_each(self, places: Sequence[str], why: str) -> None:
        """Add one note for all places with the same problem: the first one, and their number."""
        if places:
            times = f" ({len(places)} times)" if len(places) > 1 else ""
            self.note(f"{places[0]}: {why}{times}")

    def error_each(
        self, errors: Sequence[tuple[str, str]], path: str | os.PathLike[str] | None = None
    ) -> None:
        """Add one error for [(name, why)] of the same kind: the first in full, others counted."""
        if not errors:
            return
        (name, why), others = errors[0], [name for name, _ in errors[1:]]
        more = f" ({len(errors)} such, also {shorten(others, 3)})" if others else ""
        self.error(f"{name}: {why}{more}", path)


def index_problems(index: DetectionIndex, need_images: bool = True) -> list[Problem]:
    """Return the problems of a DetectionIndex.

    Args:
        index: the images and boxes.
        need_images: whether a missing image file is an error.
    """
    report = Report(index.source)
    rows = np.repeat(np.arange(len(index)), np.diff(index.offsets))  # the image of each box
    if need_images:
        check_files(index, report)
    if len(rows) and not _is_other_format(index, rows, report):
        _check_boxes(index, rows, report)
    _check_repeated_boxes(index, rows, report)
    crowds = int(index.crowd.sum())
    if crowds > USUAL_CROWDS * len(rows):
        report.note(
            f"{crowds} of {len(rows)} boxes are crowds (iscrowd 1): never trained on, ignored in "
            f"scores; {CROWD_HINT}"
        )
    check_classes(index.classes, index.labels, "boxes", report)
    check_repeated_images(index, report)
    return report.problems


def nothing_to_train(index: DetectionIndex) -> str | None:
    """Return the reason why a model would learn nothing from an index, or None."""
    number = len(index.boxes)
    if not number:
        return "no boxes at all; there is nothing to detect"
    if index.crowd.all():
        return f"all {number} boxes are crowds (iscrowd 1), which training leaves out; {CROWD_HINT}"
    if not _has_objects(index):
        return (
            f"none of {number} boxes has width and height inside its image without being a crowd; "
            "there is nothing to detect"
        )
    return None


def nothing_to_score(index: DetectionIndex) -> str | None:
    """Return the reason why a validation index has no scores, or None."""
    if _has_objects(index):
        return None
    others = " (crowds and boxes outside their images do not count)" if len(index.boxes) else ""
    return f"no boxes to validate with{others}, so there is nothing to score; add images with boxes"


def _has_objects(index: DetectionIndex) -> bool:
    """Return whether some box has an area inside its image and is no crowd."""
    rows = np.repeat(np.arange(len(index)), np.diff(index.offsets))
    sizes_wh = index.sizes_hw[rows, ::-1].astype(np.float64)
    sizes_wh[sizes_wh == 0] = np.inf
    lows, sides = index.boxes[:, :2], index.boxes[:, 2:]
    has_area = (np.minimum(lows + sides, sizes_wh) > np.maximum(lows, 0)).all(axis=1)
    return bool((has_area & ~index.crowd).any())


def check_files(index: PathIndex, report: Report, kind: str = "images") -> None:
    """Report files of an index that do not exist. kind: what they are, for the message."""
    finder = FileFinder(index.folder)
    missing = [name for i in range(len(index)) if finder.find(name := index.name(i)) is None]
    if missing:
        report.error(
            f"{len(missing)} of {len(index)} {kind} are not in {index.folder}: {shorten(missing)}"
        )


def check_classes(
    classes: Sequence[str], labels: NDArray[np.int32], kind: str, report: Report
) -> None:
    """Note the classes without annotations.

    Args:
        classes: names in order of label.
        labels: of the annotations, int32 [M].
        kind: what is annotated, "boxes" or "segments".
        report: receives the problem.
    """
    counts = np.bincount(labels, minlength=len(classes))
    without = [name for name, count in zip(classes, counts.tolist(), strict=True) if not count]
    if without:
        report.note(f"no {kind} of {len(without)} of {len(counts)} classes: {shorten(without)}")


def check_repeated_images(index: PathIndex, report: Report) -> None:
    """Warn of images that are listed twice or more."""
    names = [index.name(i) for i in range(len(index))]
    duplicates = [names[position] for position in repeated(names)]
    if duplicates:
        report.warning(
            f"{len(duplicates)} images are listed twice or more: "
            f"{shorten(list(dict.fromkeys(duplicates)))}"
        )


def _is_other_format(index: DetectionIndex, rows: NDArray[np.int64], report: Report) -> bool:
    """Return whether the numbers are not xywh in pixels; the error names the likely format."""
    boxes, sizes_wh = index.boxes, index.sizes_hw[rows, ::-1]
    has_size = sizes_wh.all(axis=1)
    if (
        (boxes <= LARGEST_NORMALIZED).all()
        and (boxes > 0).any()
        and not (has_size & (sizes_wh.max(axis=1) <= 2)).any()
    ):
        report.error(
            f"no number of any bbox is above {boxes.max():g}: "
            "they look like shares of the image, expected are pixels"
        )
        return True
    boxes, sizes_wh = boxes[has_size], sizes_wh[has_size]
    outside = (boxes[:, :2] + boxes[:, 2:] > sizes_wh + 1).any(axis=1)
    are_corners = (
        (boxes[:, 2:] > boxes[:, :2])
        & (boxes[:, :2] >= -MARGIN)
        & (boxes[:, 2:] <= sizes_wh + MARGIN)
    )
    if 2 * outside.sum() > len(boxes) and are_corners.all():
        report.error(
            "bbox looks like [x1, y1, x2, y2], expected is [x, y, width, height]: "
            f"{outside.sum()} of {len(boxes)} boxes reach outside their image, and as corners all "
            "lie inside"
        )
        return True
    return False


def _check_boxes(index: DetectionIndex, rows: NDArray[np.int64], report: Report) -> None:
    """Warn of boxes that are empty or reach outside their image."""
    boxes, sizes_wh = index.boxes, index.sizes_hw[rows, ::-1].astype(np.float64)
    sizes_wh[sizes_wh == 0] = np.inf
    empty = (boxes[:, 2:] <= 0).any(axis=1)
    beyond = np.maximum(-boxes[:, :2], boxes[:, :2] + boxes[:, 2:] - sizes_wh).max(axis=1)
    outside = (beyond > MARGIN) & ~empty
    if empty.any():
        report.warning(
            f"{empty.sum()} boxes without width or height, they are left out: "
            f"{_names(index, rows[empty])}"
        )
    if outside.any():
        report.warning(
            f"{outside.sum()} boxes reach outside their image, by up to "
            f"{beyond[outside].max():.4g} pixels; they are clipped: {_names(index, rows[outside])}"
        )


def _check_repeated_boxes(index: DetectionIndex, rows: NDArray[np.int64], report: Report) -> None:
    """Warn of boxes with the same corners and class in one image."""
    order = np.lexsort((*index.boxes.T, index.labels, rows))
    keys = np.column_stack([rows, index.labels, index.boxes])[order]
    duplicates = rows[order[1:]][(keys[1:] == keys[:-1]).all(axis=1)]
    if len(duplicates):
        report.warning(
            f"{len(duplicates)} boxes repeat another of the same class and place: "
            f"{_names(index, duplicates)}"
        )


def _names(index: DetectionIndex, rows: NDArray[np.int64]) -> str:
    """Return the names of the first few images."""
    few = list(dict.fromkeys(rows[:1000].tolist()))
    return shorten([index.name(row) for row in few])
