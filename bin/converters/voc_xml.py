"""One annotation file of Pascal VOC."""

import math
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np

CORNERS = ("xmin", "ymin", "xmax", "ymax")


class BrokenAnnotation(ValueError):
    """An xml that cannot be used; the message names the line or the element, not the file."""


@dataclass(frozen=True)
class VocAnnotation:
    """What one xml says. size_hw: None where it does not say; corners: float64 [G, 4] xyxy, 1-based, both inclusive; difficult: bools."""

    size_hw: tuple[int, int] | None
    kinds: list[str]
    corners: np.ndarray
    difficult: list[bool]

    def boxes_in(self, height, width):
        """(boxes, inside): float64 [G, 4] xywh clipped to the image, 0-based; bool [G], False where the file's box reaches beyond it.

        The pixels xmin..xmax are counted from 1 and all belong to the box: x = xmin - 1, w = xmax -
        xmin + 1.
        """
        near, far = self.corners[:, :2] - 1, self.corners[:, 2:]
        kept_near, kept_far = near.clip(0), np.minimum(far, (width, height))
        inside = (kept_near == near).all(1) & (kept_far == far).all(1)
        return np.concatenate([kept_near, kept_far - kept_near], axis=1), inside


def read_voc_xml(path):
    """The VocAnnotation of a file. Raises BrokenAnnotation, and OSError where there is no such file."""
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        line, column = error.position
        raise BrokenAnnotation(
            f"line {line}, column {column + 1}: {str(error).split(': line')[0]}"
        ) from None
    except (ValueError, LookupError) as error:  # an encoding that the parser does not know
        raise BrokenAnnotation(str(error)) from None
    if root.tag != "annotation":
        raise BrokenAnnotation(f"<{root.tag}>: expected <annotation>")
    kinds, corners, difficult = [], [], []
    # direct children alone: <part> elements inside have a name and a box of their own
    for number, element in enumerate(root.findall("object"), 1):
        kind = (element.findtext("name") or "").strip()
        if not kind:
            raise BrokenAnnotation(f"object {number}: <name> is missing or empty")
        where = f"object {number} ({kind})"
        box = element.find("bndbox")
        if box is None:
            raise BrokenAnnotation(f"{where}: <bndbox> is missing")
        kinds.append(kind)
        corners.append([_number(box, tag, f"{where}: <bndbox>") for tag in CORNERS])
        difficult.append((element.findtext("difficult") or "").strip() == "1")
    return VocAnnotation(
        _size_hw(root), kinds, np.array(corners, dtype=np.float64).reshape(-1, 4), difficult
    )


def _size_hw(root):
    size = root.find("size")
    if size is None:
        return None
    height, width = (int(_number(size, tag, "<size>")) for tag in ("height", "width"))
    return (height, width) if height and width else None  # some tools write zeros for "unknown"


def _number(element, tag, where):
    text = element.findtext(tag)
    if text is None:
        raise BrokenAnnotation(f"{where}: <{tag}> is missing")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BrokenAnnotation(f"{where}: <{tag}> is {text.strip()!r}, expected a number")
    return value
