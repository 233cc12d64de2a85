"""The colours that a `classes.json` may name."""

import numpy as np

from visionloop.datasets.io.json_columns import repeated, show
from visionloop.datasets.io.layout import shorten
from visionloop.datasets.segmentation.mask_values import IGNORED, is_value


def read_colors(given, classes):
    """uint8 [K, 3], a colour for every class in order of id, or None where none are given. Raises ValueError."""
    if given is None:
        return None
    if isinstance(given, list) and len(given) == len(classes):
        given = dict(zip(classes, given, strict=True))
    if not isinstance(given, dict):
        raise ValueError(
            f'"colors" is {show(given)}, expected {{name: [r, g, b]}} or a list of {len(classes)}'
        )
    unmatched_files, missing = (
        [name for name in given if name not in classes],
        [name for name in classes if name not in given],
    )
    if unmatched_files:
        raise ValueError(
            f'"colors" names {unmatched_files[0]!r}, which is no class; what is ignored goes into "ignore_colors"'
        )
    if missing:
        raise ValueError(f'"colors" has none for {shorten(missing)}')
    return np.array([_color(given[name], name) for name in classes], dtype=np.uint8)


def read_color_ids(colors, ignore_colors):
    """({(r, g, b): class id or 255}, whether all other colours are ignored) of coloured masks. Raises ValueError."""
    if colors is None:
        if ignore_colors is not None:
            raise ValueError('"ignore_colors" without "colors"')
        return {}, False
    colors = [tuple(color) for color in colors.tolist()]
    for position in repeated(colors):
        raise ValueError(f'"colors": two classes have {list(colors[position])}')
    color_ids = {color: label for label, color in enumerate(colors)}
    if ignore_colors in (None, "others"):
        return color_ids, ignore_colors == "others"
    if not isinstance(ignore_colors, list):
        raise ValueError(
            f'"ignore_colors" is {show(ignore_colors)}, expected a list of [r, g, b], or "others"'
        )
    ignored = [_color(color, "ignore_colors") for color in ignore_colors]
    for color in ignored:
        if color in color_ids:
            raise ValueError(f'"ignore_colors": {list(color)} is the colour of a class too')
    return color_ids | dict.fromkeys(ignored, IGNORED), False


def _color(value, name):
    if (
        isinstance(value, list)
        and len(value) == 3
        and all(is_value(part, text=False) and part <= 255 for part in value)
    ):
        return tuple(value)
    raise ValueError(f"the colour of {name!r} is {show(value)}, expected [r, g, b] of 0 to 255")
