"""Outlines of objects in a COCO json as columns, and their masks in run-length encoding.

A polygon is stored as whole numbers of fifths of a pixel: pycocotools rounds its coordinates to
fifths before anything else (`rleFrPoly` in cocoapi `common/maskApi.c`), so nothing is lost, and
they take half of the memory.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
import pycocotools.mask
from numpy.typing import NDArray

from visionloop.datasets.detection.coco_columns import given
from visionloop.datasets.io.images import MAX_PIXELS
from visionloop.datasets.io.json_columns import JsonObject, is_number, show, whole_numbers

FIFTHS = 5.0  # `scale` of rleFrPoly
LARGEST_COORDINATE = 2.0**20  # pixels; the time to fill a polygon grows with its sides
FEWEST_VALUES = 6  # of a polygon: three points
EXPECTED = "expected polygons [[x1, y1, x2, y2, ...]] or {size, counts}"
# of an annotation that training and conversion do without
NO_OUTLINE = "no usable outline (segmentation), left out"
DROPPED_POLYGON = "a polygon with fewer than three points or an odd number of values, left out"


class Rle(TypedDict):
    """A mask in COCO's compressed run-length encoding; size: [height, width]."""

    size: list[int]
    counts: bytes


@dataclass(frozen=True, eq=False)
class Outlines:
    """Outlines of M objects.

    Attributes:
        polygons: int32, for each polygon the number of its values and then these, x and y by turns,
            in fifths of a pixel.
        counts: uint8, characters of COCO's compressed run-length encoding.
        starts, stops: int64 [M], of each outline in `counts` or in `polygons`.
        is_rle: bool [M], whether it is in `counts`.
        rle_sizes: int64 [M, 2], (height, width) that an encoding names, 0 for polygons.
    """

    polygons: NDArray[np.int32]
    counts: NDArray[np.uint8]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    is_rle: NDArray[np.bool_]
    rle_sizes: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of outlines."""
        return len(self.starts)

    def select(self, rows: NDArray[np.int64]) -> "Outlines":
        """Return these outlines alone, in this order; polygons and counts are shared."""
        columns = ("starts", "stops", "is_rle", "rle_sizes")
        return replace(self, **{name: getattr(self, name)[rows] for name in columns})

    def content(self, k: int) -> bytes:
        """Return the bytes that outline k is stored as, the same on every machine."""
        source = self.counts if self.is_rle[k] else self.polygons.astype("<i4", copy=False)
        return source[self.starts[k] : self.stops[k]].tobytes()

    def rle(self, k: int, height: int, width: int) -> Rle:
        """Return the mask of outline k, {"size": [height, width], "counts": bytes}."""
        values = slice(int(self.starts[k]), int(self.stops[k]))
        if self.is_rle[k]:
            return {"size": [height, width], "counts": self.counts[values].tobytes()}
        polygons = _unpack(self.polygons[values])
        rle: Rle = pycocotools.mask.merge(pycocotools.mask.frPyObjects(polygons, height, width))
        return rle


def _unpack(values: NDArray[np.int32]) -> list[list[float]]:
    """Return the polygons of an outline, in pixels."""
    # (k - 0.75) / 5 is rounded to k fifths where k is negative: C truncates towards 0
    pixels = np.where(values >= 0, values / FIFTHS, (values - 0.75) / FIFTHS).tolist()
    polygons, start = [], 0
    while start < len(values):
        stop = start + 1 + int(values[start])
        polygons.append(pixels[start + 1 : stop])
        start = stop
    return polygons


def usable_polygons(
    outline: Sequence[object],
) -> tuple[list[Sequence[object]], int]:
    """Return (polygons with three points or more, number of the others) of a "segmentation".

    One polygon without its brackets is read too, as pycocotools does. The values may still be no
    numbers.

    Raises:
        ValueError: for anything else than lists of values.
    """
    if outline and is_number(outline[0]):
        outline = [outline]
    usable: list[Sequence[object]] = []
    dropped = 0
    for polygon in outline:
        if not isinstance(polygon, list | array):
            raise ValueError(f"segmentation holds {show(polygon)}, {EXPECTED}")
        if len(polygon) >= FEWEST_VALUES and len(polygon) % 2 == 0:
            usable.append(polygon)
            continue
        if nested := [value for value in polygon if isinstance(value, list)]:
            raise ValueError(wrong_value(nested[0]))
        dropped += 1
    return usable, dropped


def no_usable_outline(number: int) -> str:
    """Return the error of a json with `number` annotations, none of which has a usable outline."""
    return (
        f"none of {number} annotations has a usable outline (segmentation); {EXPECTED} for every "
        "object"
    )


def wrong_value(value: object) -> str:
    """Return the error of a polygon with a value that is no coordinate in pixels."""
    if isinstance(value, float):
        return f"segmentation has a polygon with {value:g}, expected are pixels"
    return f"segmentation has a polygon with {show(value)}, {EXPECTED}"


class OutlineParser:
    """Collector of the outlines of a COCO json, as the `object_hook` of its parser.

    The lists of an outline are packed as soon as it has been parsed: those of COCO's training split
    would take gigabytes together. In their place an entry gets the number of its outline.

    Attributes:
        problems: {number: why} of outlines that are not valid.
        dropped_polygons: of each outline, the number of polygons with too few or an odd number of
            values.
    """

    def __init__(self) -> None:
        self.problems: dict[int, str] = {}
        self.dropped_polygons = array("q")
        self._coordinates = array("d")
        self._polygon_starts = array("q")
        self._counts = bytearray()
        # of each outline: start, stop, whether it is an encoding, height, width
        self._rows = array("q")

    def __call__(self, entry: JsonObject) -> JsonObject:
        """Replace the outline of an entry. Its box is not used and need not be valid."""
        if "segmentation" in entry:
            entry["segmentation"] = self._add(entry["segmentation"])
            entry["bbox"] = [0, 0, 0, 0]
        return entry

    def _add(self, outline: object) -> int:
        """Store an outline and return its number."""
        number, dropped = len(self.dropped_polygons), 0
        row = (0, 0, 0, 0, 0)
        try:
            if isinstance(outline, dict):
                row = self._add_rle(outline)
            elif isinstance(outline, list):
                start = len(self._coordinates)
                dropped = self._add_polygons(outline)
                row = (start, len(self._coordinates), 0, 0, 0)
            elif given(outline) is not None:
                raise ValueError(f"segmentation is {show(outline)}, {EXPECTED}")
        except ValueError as error:
            self.problems[number] = str(error)
        self._rows.extend(row)
        self.dropped_polygons.append(dropped)
        return number

    def _add_polygons(self, outline: Sequence[object]) -> int:
        """Append the usable polygons and return the number of the others."""
        polygons, dropped = usable_polygons(outline)
        start, first = len(self._coordinates), len(self._polygon_starts)
        for polygon in polygons:
            try:
                self._polygon_starts.append(len(self._coordinates))
                self._coordinates.append(len(polygon))
                self._coordinates.extend(polygon)  # type: ignore[arg-type]  # refuses other types
            except (TypeError, OverflowError):
                del self._coordinates[start:], self._polygon_starts[first:]
                wrong = next(value for value in polygon if not is_number(value))
                raise ValueError(wrong_value(wrong)) from None
        return dropped

    def _add_rle(self, outline: JsonObject) -> tuple[int, int, int, int, int]:
        """Append a run-length encoding and return its row."""
        size, counts = outline.get("size"), outline.get("counts")
        if isinstance(size, list):
            size = whole_numbers(size)  # some tools write 480.0
        if not (
            isinstance(size, list)
            and len(size) == 2
            and all(type(side) is int and side > 0 for side in size)
            and size[0] * size[1] <= MAX_PIXELS
        ):
            raise ValueError(
                f"segmentation has the size {show(size)}, expected [height, width] of at most "
                f"{MAX_PIXELS} pixels"
            )
        if isinstance(counts, list):
            counts = _compress(counts, *size)
        if not isinstance(counts, str) or not counts.isascii():
            raise ValueError(
                f"segmentation has the counts {show(counts)}, expected text of COCO's compressed "
                "encoding or a list of run lengths"
            )
        start = len(self._counts)
        self._counts += counts.encode()
        return start, len(self._counts), 1, *size

    def outlines(self) -> Outlines:
        """Return the outlines by number; coordinates that are no finite numbers become problems."""
        rows = np.array(self._rows, dtype=np.int64).reshape(-1, 5)
        starts, stops, is_rle = rows[:, 0], rows[:, 1], rows[:, 2] == 1
        values = np.frombuffer(self._coordinates, dtype=np.float64)
        with np.errstate(invalid="ignore"):
            wrong = np.flatnonzero(~(np.abs(values) <= LARGEST_COORDINATE))
            fifths = FIFTHS * values
            fifths += 0.5  # in place: COCO's training split has hundreds of megabytes of them
            np.trunc(fifths, out=fifths)
        lengths_at = np.array(self._polygon_starts, dtype=np.int64)
        fifths[lengths_at] = values[lengths_at]
        fifths[wrong] = 0
        polygon_rows = np.flatnonzero(~is_rle & (stops > starts))
        for k in wrong.tolist():
            row = int(polygon_rows[np.searchsorted(starts[polygon_rows], k, side="right") - 1])
            self.problems.setdefault(row, wrong_value(float(values[k])))
        counts = np.frombuffer(bytes(self._counts), dtype=np.uint8)
        return Outlines(fifths.astype(np.int32), counts, starts, stops, is_rle, rows[:, 3:])


def _compress(counts: Sequence[object], height: int, width: int) -> str:
    """Return the compressed encoding of a list of run lengths. Raises ValueError."""
    wrong = next((run for run in counts if type(run) is not int or run < 0), None)
    if wrong is not None or not counts:
        raise ValueError(
            f"segmentation has counts with {show(wrong)}, expected run lengths of at least 0"
        )
    total = sum(run for run in counts if isinstance(run, int))
    if total != height * width:
        raise ValueError(
            f"segmentation has counts of {total} pixels in all, its size {height} x {width} "
            f"(height x width) has {height * width}"
        )
    encoding = {"size": [height, width], "counts": counts}
    text: bytes = pycocotools.mask.frPyObjects(encoding, height, width)["counts"]
    return text.decode()
