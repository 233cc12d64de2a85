"""Parser of YOLO's label files.

A line is `class cx cy w h` in shares of the image, `class cx cy w h` with keypoints, which are
dropped, or `class x y x y x y ...`, an outline, of which detection takes the bounding box.
"""

import math
import os
from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

from visionloop.datasets.detection.yolo_keypoints import (
    KeypointShape,
    LineReadings,
    keypoint_shapes,
)
from visionloop.datasets.io.json_columns import show
from visionloop.datasets.io.text import NotText, read_text

SLACK = 0.01  # shares may exceed 0..1 by this much: rounding
OUTLINE_SLACK = 0.05  # those of an outline, which is clipped: drawn over the edge of the image

# (class, cx, cy, w, h)
Box: TypeAlias = tuple[int, float, float, float, float]
Outline: TypeAlias = tuple[int, Sequence[float]]  # (class, [x1, y1, x2, y2, ...])
Line = TypeVar("Line")


class LabelParser:
    """Parser of the label files of a split.

    Attributes:
        num_classes: of the description.
        keypoints: "kpt_shape" of the description; None: not given.
        readings: of the lines that were taken for outlines so far.
        clipped: number of outlines that `read_outlines` has clipped to the image so far.
    """

    def __init__(self, num_classes: int, keypoints: KeypointShape | None = None) -> None:
        self.num_classes, self.keypoints = num_classes, keypoints
        self.readings = LineReadings()
        self.clipped = 0

    def read(self, path: str | os.PathLike[str]) -> tuple[list[Box], list[tuple[int, str]]]:
        """Return (boxes, [(line number, error)]) of a file; both empty without the file."""
        return _read_lines(path, self._box)

    def read_outlines(
        self, path: str | os.PathLike[str]
    ) -> tuple[list[Outline], list[tuple[int, str]]]:
        """Return (outlines, [(line number, error)]) of a file, where a box is an error.

        What reaches out of the image by up to OUTLINE_SLACK of a side is clipped.
        """
        return _read_lines(path, self._outline)

    def _box(self, values: Sequence[float]) -> Box:
        """Return the box of a line's numbers. Raises ValueError."""
        label, shares, is_box = self._check(values)
        if is_box:
            cx, cy, width, height = shares
            return label, cx, cy, width, height
        left, right = min(shares[::2]), max(shares[::2])
        top, bottom = min(shares[1::2]), max(shares[1::2])
        return label, (left + right) / 2, (top + bottom) / 2, right - left, bottom - top

    def _outline(self, values: Sequence[float]) -> Outline:
        """Return the outline of a line's numbers. Raises ValueError."""
        label, shares, is_box = self._check(values, OUTLINE_SLACK)
        if is_box:
            raise ValueError("a box (class cx cy w h), expected an outline (class x y x y x y ...)")
        if all(-SLACK <= share <= 1 + SLACK for share in shares):
            return label, shares
        self.clipped += 1
        return label, [min(max(share, 0.0), 1.0) for share in shares]

    def _check(
        self, values: Sequence[float], slack: float = SLACK
    ) -> tuple[int, Sequence[float], bool]:
        """Return (class, numbers of a box or outline, whether it is a box). Raises ValueError.

        slack: by which numbers may exceed 0..1.
        """
        label, shares = values[0], values[1:]
        self._check_length(shares)
        if label not in range(self.num_classes):
            raise ValueError(f"class {label:g}, expected 0 to {self.num_classes - 1}")
        is_box = len(shares) == 4 or (self.keypoints is not None and self.keypoints[0] > 0)
        used = shares[:4] if is_box else shares
        if not all(math.isfinite(share) and -slack <= share <= 1 + slack for share in used):
            outside = next(share for share in used if not -slack <= share <= 1 + slack)
            hint = _what_follows(shares) or "; are these pixels?"
            raise ValueError(f"{outside:g} is no share of the image (0 to 1){hint}")
        if not is_box and self.keypoints is None:
            self.readings.add(shares)
        return int(label), used, is_box

    def _check_length(self, shares: Sequence[float]) -> None:
        """Raise ValueError for a line that can be neither a box nor an outline."""
        length = len(shares)
        if self.keypoints and self.keypoints[0]:
            most = 4 + math.prod(self.keypoints)
            if length not in (4, most):
                raise ValueError(
                    f"{length + 1} numbers, expected are 5 (class cx cy w h), or {most + 1} with "
                    f"keypoints (kpt_shape: {list(self.keypoints)})"
                )
        elif length != 4 and (length < 6 or length % 2):
            raise ValueError(
                f"{length + 1} numbers, expected are 5 (class cx cy w h) or an outline (class x y "
                f"x y x y ...){_what_follows(shares)}"
            )


def _read_lines(
    path: str | os.PathLike[str], parse: Callable[[Sequence[float]], Line]
) -> tuple[list[Line], list[tuple[int, str]]]:
    """Return (lines that could be parsed, [(line number, error)]) of a label file.

    Both are empty without the file.

    Args:
        path: of the file.
        parse: called with the numbers of a line; raises ValueError.
    """
    try:
        texts = read_text(path, errors="replace").split("\n")
    except FileNotFoundError:
        return [], []
    except NotText as error:
        return [], [(1, str(error))]
    except OSError as error:
        return [], [(1, error.strerror or str(error))]
    lines, errors = [], []
    for number, text in enumerate(texts, 1):
        words = text.split()
        if not words:
            continue
        try:
            lines.append(parse([_number(word) for word in words]))
        except ValueError as error:
            errors.append((number, str(error)))
    return lines, errors


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        hint = "; numbers have a point and spaces between them" if "," in word else ""
        raise ValueError(f"{show(word)} is no number{hint}") from None


def _what_follows(shares: Sequence[float]) -> str:
    """Return a hint about what stands behind the box of a line, or ""."""
    if len(shares) < 5 or not all(map(math.isfinite, shares)):
        return ""
    if len(shares) == 5 and -SLACK <= shares[4] <= 1 + SLACK:
        return "; a confidence behind the box must be removed"
    if len(shares) == 6 and shares[5] > 1 and shares[5] == int(shares[5]):
        return "; a confidence and the number of a track behind the box must be removed"
    shapes = [list(shape) for shape in keypoint_shapes(shares) if shape[1] == 3]
    return f"; for boxes with keypoints add kpt_shape: {shapes[0]} to data.yaml" if shapes else ""
