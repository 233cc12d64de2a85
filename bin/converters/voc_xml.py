"""Reader of one annotation file of Pascal VOC."""

import math
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from visionloop.datasets.detection.layout import CVAT_HINT
from visionloop.datasets.io.names import class_name

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

ENCODING = re.compile(rb"""\s*<\?xml[^>]*encoding=["']([\w.-]+)""")
CORNERS = ("xmin", "ymin", "xmax", "ymax")


class InvalidAnnotation(ValueError):
    """An xml that cannot be used; the message names the line or the element, not the file."""


@dataclass(frozen=True)
class VocAnnotation:
    """The content of one xml.

    Attributes:
        size_hw: (height, width) in pixels, None without a size.
        class_names: of the G objects.
        corners: float64 [G, 4] xyxy in pixels, 1-based, both corners inclusive.
        difficult: whether each object is marked difficult.
    """

    size_hw: tuple[int, int] | None
    class_names: list[str]
    corners: NDArray[np.float64]
    difficult: list[bool]

    def boxes_in(self, height: int, width: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the boxes clipped to an image.

        The pixels xmin..xmax are counted from 1 and all belong to the box: x = xmin - 1, w = xmax -
        xmin + 1. Exchanged corners are put in order.

        Returns:
            (boxes float64 [G, 4] xywh in pixels, 0-based; inside bool [G], False where the box of
            the file reaches beyond the image).
        """
        corners = np.where(self.exchanged()[:, None], _in_order(self.corners), self.corners)
        top_left, bottom_right = corners[:, :2] - 1, corners[:, 2:]
        clipped_top_left = top_left.clip(0)
        clipped_bottom_right = np.minimum(bottom_right, (width, height))
        inside = (clipped_top_left == top_left).all(1)
        inside &= (clipped_bottom_right == bottom_right).all(1)
        sizes = clipped_bottom_right - clipped_top_left
        return np.concatenate([clipped_top_left, sizes], axis=1), inside

    def exchanged(self) -> NDArray[np.bool_]:
        """Return whether a minimum of each object is above the maximum by more than rounding."""
        is_exchanged: NDArray[np.bool_] = np.any(
            self.corners[:, :2] > self.corners[:, 2:] + 1, axis=1
        )
        return is_exchanged


def _in_order(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return corners, float64 [G, 4] xyxy, with the minima first."""
    first, second = corners[:, :2], corners[:, 2:]
    return np.concatenate([np.minimum(first, second), np.maximum(first, second)], axis=1)


def read_voc_xml(path: str | os.PathLike[str]) -> VocAnnotation:
    """Read an annotation file.

    Raises:
        InvalidAnnotation: for content that cannot be used.
        OSError: without the file.
    """
    root = _parse(path)
    class_names, corners, difficult = [], [], []
    # direct children alone: <part> elements inside have a name and a box of their own
    for number, element in enumerate(root.findall("object"), 1):
        name = class_name(element.findtext("name") or "")
        if not name:
            raise InvalidAnnotation(f"object {number}: <name> is missing or empty")
        where = f"object {number} ({name})"
        box = element.find("bndbox")
        if box is None:
            raise InvalidAnnotation(f"{where}: <bndbox> is missing")
        class_names.append(name)
        corners.append([_number(box, tag, f"{where}: <bndbox>") for tag in CORNERS])
        difficult.append((element.findtext("difficult") or "").strip() == "1")
    corner_array = np.array(corners, dtype=np.float64).reshape(-1, 4)
    return VocAnnotation(_size_hw(root), class_names, corner_array, difficult)


def _parse(path: str | os.PathLike[str]) -> "Element":
    """Return the <annotation> element of a file."""
    with open(path, "rb") as file:
        data = file.read()
    try:
        root = ElementTree.fromstring(_decoded(data))
    except ElementTree.ParseError as error:
        line, column = error.position
        message = str(error).split(": line")[0]
        raise InvalidAnnotation(f"line {line}, column {column + 1}: {message}") from None
    except (ValueError, LookupError) as error:  # an encoding that the parser does not know
        raise InvalidAnnotation(str(error)) from None
    if root.tag != "annotation":
        hint = f"; {CVAT_HINT}" if root.tag == "annotations" else ""
        raise InvalidAnnotation(f"<{root.tag}>: expected <annotation>{hint}")
    return root


def _decoded(data: bytes) -> bytes | str:
    """Return an xml as text where its encoding is of several bytes, which the parser refuses."""
    match = ENCODING.match(data)
    name = match[1].decode() if match else "utf-8"
    return data if name.lower().startswith(("utf", "ascii", "iso")) else data.decode(name)


def _size_hw(root: "Element") -> tuple[int, int] | None:
    """Return (height, width) of <size>, None without one."""
    size = root.find("size")
    if size is None:
        return None
    height, width = (int(_number(size, tag, "<size>")) for tag in ("height", "width"))
    return (height, width) if height and width else None  # some tools write zeros for "unknown"


def _number(element: "Element", tag: str, where: str) -> float:
    """Return the finite number in a child element."""
    text = element.findtext(tag)
    if text is None:
        raise InvalidAnnotation(f"{where}: <{tag}> is missing")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InvalidAnnotation(f"{where}: <{tag}> is {text.strip()!r}, expected a number")
    return value
