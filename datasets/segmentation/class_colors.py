"""Parser of the colors in a `classes.json`."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from visionloop.datasets.io.json_columns import repeated, show
from visionloop.datasets.io.layout import shorten
from visionloop.datasets.segmentation.mask_values import IGNORED, is_value

Color: TypeAlias = tuple[int, int, int]


def read_colors(raw_colors: object, classes: Sequence[str]) -> NDArray[np.uint8] | None:
    """Return the color of every class in order of id, uint8 [K, 3].

    Args:
        raw_colors: "colors" of the `classes.json`, or None.
        classes: names in order of id.

    Returns:
        None when there are none.

    Raises:
        ValueError: when a class has no color, a color has no class or is not valid.
    """
    if raw_colors is None:
        return None
    if isinstance(raw_colors, list) and len(raw_colors) == len(classes):
        raw_colors = dict(zip(classes, raw_colors, strict=True))
    if not isinstance(raw_colors, dict):
        raise ValueError(
            f'"colors" is {show(raw_colors)}, expected {{name: [r, g, b]}} or a list of '
            f"{len(classes)}"
        )
    unknown = [name for name in raw_colors if name not in classes]
    missing = [name for name in classes if name not in raw_colors]
    if unknown:
        raise ValueError(
            f'"colors" names {unknown[0]!r}, which is no class; what is ignored goes into '
            '"ignore_colors"'
        )
    if missing:
        raise ValueError(f'"colors" has none for {shorten(missing)}')
    return np.array([_color(raw_colors[name], name) for name in classes], dtype=np.uint8)


def read_color_ids(
    colors: NDArray[np.uint8] | None, ignore_colors: object
) -> tuple[dict[Color, int], bool]:
    """Return the meaning of the colors in mask files.

    Args:
        colors: of the classes, see read_colors.
        ignore_colors: of the `classes.json`, or None.

    Returns:
        ({(r, g, b): class id or 255}, whether all other colors are ignored).

    Raises:
        ValueError: when it is contradictory or not valid.
    """
    if colors is None:
        if ignore_colors is not None:
            raise ValueError('"ignore_colors" without "colors"')
        return {}, False
    class_colors = [(red, green, blue) for red, green, blue in colors.tolist()]
    for position in repeated(class_colors):
        raise ValueError(f'"colors": two classes have {list(class_colors[position])}')
    color_ids = {color: label for label, color in enumerate(class_colors)}
    if ignore_colors in (None, "others"):
        return color_ids, ignore_colors == "others"
    if not isinstance(ignore_colors, list):
        raise ValueError(
            f'"ignore_colors" is {show(ignore_colors)}, expected a list of [r, g, b], or "others"'
        )
    ignored = [_color(color, "ignore_colors") for color in ignore_colors]
    for color in ignored:
        if color in color_ids:
            raise ValueError(f'"ignore_colors": {list(color)} is the color of a class too')
    return color_ids | dict.fromkeys(ignored, IGNORED), False


def _color(value: object, name: str) -> Color:
    if (
        isinstance(value, list)
        and len(value) == 3
        and all(is_value(part, text=False) and part <= 255 for part in value)
    ):
        red, green, blue = value
        return red, green, blue
    raise ValueError(f"the color of {name!r} is {show(value)}, expected [r, g, b] of 0 to 255")
