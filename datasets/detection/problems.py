"""What can be wrong with boxes and images once they are read, whatever format they came in."""

import os

import numpy as np

from visionloop.datasets.io.layout import shorten

MARGIN = 0.5  # pixels that a box may reach beyond its image unnoticed: rounding
NORMALISED = 1.5  # no box is this small in pixels all through a dataset


class Report:
    """Collects [("error" | "warning", path, why)], one line for each kind of problem. path: of the annotations, unless told otherwise."""

    def __init__(self, path):
        self.path, self.problems = os.fspath(path), []

    def error(self, why, path=None):
        self.problems.append(("error", os.fspath(path or self.path), why))

    def warning(self, why):
        self.problems.append(("warning", self.path, why))

    def error_each(self, found, path=None):
        """One error for [(name, why)] of the same kind: the first in full, the others counted."""
        if not found:
            return
        (name, why), others = found[0], [name for name, _ in found[1:]]
        more = f" ({len(found)} such, also {shorten(others, 3)})" if others else ""
        self.error(f"{name}: {why}{more}", path)


def index_problems(index, need_images=True):
    """[(kind, path, why)] of a DetectionIndex. need_images: whether an image that is not on the disk is an error."""
    report = Report(index.source)
    rows = np.repeat(np.arange(len(index)), np.diff(index.offsets))  # the image of each box
    if need_images:
        _check_files(index, report)
    if len(rows) and not _is_other_format(index, rows, report):
        _check_boxes(index, rows, report)
    _check_repeated_boxes(index, rows, report)
    counts = np.bincount(index.labels, minlength=len(index.classes))
    without = [
        name for name, count in zip(index.classes, counts.tolist(), strict=True) if not count
    ]
    if without:
        report.warning(f"no boxes of {len(without)} of {len(counts)} classes: {shorten(without)}")
    names = [index.name(i) for i in range(len(index))]
    if len(set(names)) < len(names):
        seen = set()
        twice = [name for name in names if name in seen or seen.add(name)]
        report.warning(
            f"{len(twice)} images are listed twice or more: {shorten(list(dict.fromkeys(twice)))}"
        )
    return report.problems


def _check_files(index, report):
    """By listing folders: cheaper than asking for a hundred thousand files one by one."""
    listings, missing = {}, []
    for i in range(len(index)):
        name = index.name(i)
        level, file = os.path.split(name)
        if level not in listings:
            listings[level] = _listing(os.path.join(index.folder, level))
        # asked once more: some file systems find a name in other capitals
        if file not in listings[level] and not os.path.exists(index.path(i)):
            missing.append(name)
    if missing:
        report.error(
            f"{len(missing)} of {len(index)} images are not in {index.folder}: {shorten(missing)}"
        )


def _listing(folder):
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


def _is_other_format(index, rows, report):
    """Whether the numbers are no xywh in pixels; the error says what they look like."""
    boxes, sizes_wh = index.boxes, index.sizes_hw[rows, ::-1]
    known = sizes_wh.all(axis=1)
    if (
        (boxes <= NORMALISED).all()
        and (boxes > 0).any()
        and not (known & (sizes_wh.max(axis=1) <= 2)).any()
    ):
        report.error(
            f"no number of any bbox is above {boxes.max():g}: they look like shares of the image, expected are pixels"
        )
        return True
    boxes, sizes_wh = boxes[known], sizes_wh[known]
    outside = (boxes[:, :2] + boxes[:, 2:] > sizes_wh + 1).any(axis=1)
    corners = (
        (boxes[:, 2:] > boxes[:, :2])
        & (boxes[:, :2] >= -MARGIN)
        & (boxes[:, 2:] <= sizes_wh + MARGIN)
    )
    if 2 * outside.sum() > len(boxes) and corners.all():
        why = f"{outside.sum()} of {len(boxes)} boxes reach outside their image, and as corners all lie inside"
        report.error(f"bbox looks like [x1, y1, x2, y2], expected is [x, y, width, height]: {why}")
        return True
    return False


def _check_boxes(index, rows, report):
    boxes, sizes_wh = index.boxes, index.sizes_hw[rows, ::-1].astype(np.float64)
    sizes_wh[sizes_wh == 0] = np.inf
    empty = (boxes[:, 2:] <= 0).any(axis=1)
    beyond = np.maximum(-boxes[:, :2], boxes[:, :2] + boxes[:, 2:] - sizes_wh).max(axis=1)
    outside = (beyond > MARGIN) & ~empty
    if empty.any():
        report.warning(
            f"{empty.sum()} boxes without width or height, they are left out: {_names(index, rows[empty])}"
        )
    if outside.any():
        why = f"{outside.sum()} boxes reach outside their image, by up to {beyond[outside].max():.4g} pixels"
        report.warning(f"{why}; they are clipped: {_names(index, rows[outside])}")


def _check_repeated_boxes(index, rows, report):
    """Boxes with the same corners and class in one image."""
    order = np.lexsort((*index.boxes.T, index.labels, rows))
    keys = np.column_stack([rows, index.labels, index.boxes])[order]
    repeated = rows[order[1:]][(keys[1:] == keys[:-1]).all(axis=1)]
    if len(repeated):
        report.warning(
            f"{len(repeated)} boxes repeat another of the same class and place: {_names(index, repeated)}"
        )


def _names(index, rows):
    """The first few images, by name."""
    few = list(dict.fromkeys(rows[:1000].tolist()))
    return shorten([index.name(row) for row in few])
