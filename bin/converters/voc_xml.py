"""Reader of one annotation file of Pascal VOC."""

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

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
        xmin + 1.

        Returns:
            (boxes float64 [G, 4] xywh in pixels, 0-based; inside bool [G], False where the box of
            the file reaches beyond the image).
        """
        top_left, bottom_right = self.corners[:, :2] - 1, self.corners[:, 2:]
        clipped_top_left = top_left.clip(0)
        clipped_bottom_right = np.minimum(bottom_right, (width, height))
        inside = (clipped_top_left == top_left).all(1)
        inside &= (clipped_bottom_right == bottom_right).all(1)
        sizes = clipped_bottom_right - clipped_top_left
        return np.concatenate([clipped_top_left, sizes], axis=1), inside


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
        name = (element.findtext("name") or "").strip()
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
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        line, column = error.position
        message = str(error).split(": line")[0]
        raise InvalidAnnotation(f"line {line}, column {column + 1}: {message}") from None
    except (ValueError, LookupError) as error:  # an encoding that the parser does not know
        raise InvalidAnnotation(str(error)) from None
    if root.tag != "annotation":
        raise InvalidAnnotation(f"<{root.tag}>: expected <annotation>")
    return root


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
