"""Parser of YOLO's label files.

A line is `class cx cy w h` in shares of the image, `class cx cy w h` with keypoints, which are
dropped, or `class x y x y x y ...`, an outline, of which the bounding box is taken.
"""

import math
import os
from collections.abc import Sequence
from typing import TypeAlias

from visionloop.datasets.detection.yolo_keypoints import (
    KeypointShape,
    LineReadings,
    keypoint_shapes,
)
from visionloop.datasets.io.json_columns import show
from visionloop.datasets.io.text import NotText, read_text

SLACK = 0.01  # shares may exceed 0..1 by this much: rounding

# (class, cx, cy, w, h)
Box: TypeAlias = tuple[int, float, float, float, float]


class LabelParser:
    """Parser of the label files of a split.

    Attributes:
        num_classes: of the description.
        keypoints: "kpt_shape" of the description; None: not given.
        readings: of the lines that were taken for outlines so far.
    """

    def __init__(self, num_classes: int, keypoints: KeypointShape | None = None) -> None:
        self.num_classes, self.keypoints = num_classes, keypoints
        self.readings = LineReadings()

    def read(self, path: str | os.PathLike[str]) -> tuple[list[Box], list[tuple[int, str]]]:
        """Return (boxes, [(line number, error)]) of a file; both empty without the file."""
        try:
            lines = read_text(path, errors="replace").split("\n")
        except FileNotFoundError:
            return [], []
        except NotText as error:
            return [], [(1, str(error))]
        except OSError as error:
            return [], [(1, error.strerror or str(error))]
        boxes, errors = [], []
        for number, line in enumerate(lines, 1):
            words = line.split()
            if not words:
                continue
            try:
                boxes.append(self._box([_number(word) for word in words]))
            except ValueError as error:
                errors.append((number, str(error)))
        return boxes, errors

    def _box(self, values: Sequence[float]) -> Box:
        """Return the box of a line's numbers. Raises ValueError."""
        label, shares = values[0], values[1:]
        self._check_length(shares)
        if label not in range(self.num_classes):
            raise ValueError(f"class {label:g}, expected 0 to {self.num_classes - 1}")
        is_box = len(shares) == 4 or (self.keypoints is not None and self.keypoints[0] > 0)
        used = shares[:4] if is_box else shares
        if not all(math.isfinite(share) and -SLACK <= share <= 1 + SLACK for share in used):
            outside = next(share for share in used if not -SLACK <= share <= 1 + SLACK)
            hint = _what_follows(shares) or "; are these pixels?"
            raise ValueError(f"{outside:g} is no share of the image (0 to 1){hint}")
        if is_box:
            cx, cy, width, height = used
            return int(label), cx, cy, width, height
        if self.keypoints is None:
            self.readings.add(shares)
        left, right = min(shares[::2]), max(shares[::2])
        top, bottom = min(shares[1::2]), max(shares[1::2])
        return int(label), (left + right) / 2, (top + bottom) / 2, right - left, bottom - top

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
