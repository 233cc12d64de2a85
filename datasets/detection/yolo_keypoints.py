"""Recognition of keypoints in lines that could be outlines."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

KeypointShape: TypeAlias = tuple[int, int]  # number of keypoints, 2 or 3 numbers each

VISIBILITIES = (0, 1, 2)  # the third number of a keypoint: not labelled, hidden, visible
BOX_MARGIN = 0.1  # of the sides of a box, by which its keypoints may lie outside
MOST = 0.9  # share of the lines that fit one reading
FEW_TRIANGLES = 3  # that may all end at the edge of their image
FEW_ODD_OUTLINES = 0.1  # share of real outlines whose second corner is far from the others


@dataclass
class LineReadings:
    """Readings of the lines of a split that are longer than a box: outlines, or keypoints too.

    Outlines differ in length, and each of their corners is near the others; of a box with keypoints
    all lines have one length, the keypoints lie in the box, and width and height read as a corner
    are somewhere else.

    Attributes:
        lengths: numbers of a line without the class.
        shapes: lines that fit as a box with such keypoints.
        odd_outlines: lines that do not look like an outline.
        tracks: lines that fit as a box, a confidence and the number of a track.
    """

    lengths: Counter[int] = field(default_factory=Counter)
    shapes: Counter[KeypointShape] = field(default_factory=Counter)
    odd_outlines: int = 0
    tracks: int = 0

    def add(self, shares: Sequence[float]) -> None:
        """Add a line. shares: its numbers without the class."""
        self.lengths[len(shares)] += 1
        if len(self.lengths) > 1:  # outlines: the rest of a large split need not be looked at
            return
        self.shapes.update(keypoint_shapes(shares))
        self.odd_outlines += not _is_compact(shares)
        self.tracks += len(shares) == 6 and shares[5] in (0, 1)

    def problem(self) -> str | None:
        """Return why the lines are no clear outlines, or None."""
        if len(self.lengths) != 1:
            return None
        ((length, number),) = self.lengths.items()
        corners, columns = length // 2, length + 1
        # a larger number of a track is no share of the image; one triangle may end at its edge
        if self.tracks == number >= FEW_TRIANGLES:
            return (
                f"{number} lines of {columns} numbers all end in 0 or 1: remove a confidence and "
                "the number of a track behind the box, or add kpt_shape: [0, 2] for outlines"
            )
        for shape, fitting in sorted(self.shapes.items(), key=lambda item: -item[1]):
            is_odd = shape[1] == 3 or self.odd_outlines > FEW_ODD_OUTLINES * number
            if is_odd and fitting >= MOST * number:
                return (
                    f"{number} lines of {columns} numbers are ambiguous, boxes with {shape[0]} "
                    f"keypoints or outlines of {corners} corners; add kpt_shape: {list(shape)} for "
                    "keypoints or kpt_shape: [0, 2] for outlines"
                )
        return None


def keypoint_shapes(shares: Sequence[float]) -> list[KeypointShape]:
    """Return the kinds of keypoints that a line may have behind its box."""
    cx, cy, width, height = shares[:4]
    rest, shapes = shares[4:], []
    for numbers in (2, 3):
        xs, ys = rest[::numbers], rest[1::numbers]
        if not rest or len(rest) % numbers:
            continue
        if numbers == 3 and not all(value in VISIBILITIES for value in rest[2::3]):
            continue
        reach_x, reach_y = (0.5 + BOX_MARGIN) * width, (0.5 + BOX_MARGIN) * height
        if all(
            (x == y == 0) or (abs(x - cx) <= reach_x and abs(y - cy) <= reach_y)
            for x, y in zip(xs, ys, strict=True)
        ):
            shapes.append((len(xs), numbers))
    return shapes


def _is_compact(shares: Sequence[float]) -> bool:
    """Return whether the second corner is not much farther from the others than these are apart."""
    pairs = list(zip(shares[::2], shares[1::2], strict=True))
    others = [pair for pair in (pairs[0], *pairs[2:]) if pair != (0, 0)] or [pairs[0]]
    lows = [min(values) for values in zip(*others, strict=True)]
    highs = [max(values) for values in zip(*others, strict=True)]
    extent = max(high - low for low, high in zip(lows, highs, strict=True))
    return all(
        low - extent <= value <= high + extent
        for value, low, high in zip(pairs[1], lows, highs, strict=True)
    )
