"""Antialiased flat shapes at any position, size and rotation."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SUPERSAMPLING = 4  # shapes are drawn this many times larger and averaged, for soft edges


Outline = list[tuple[float, float]]  # corners (x, y) in the unit circle


def _regular(corners: int, rotation: float = 0.0) -> Outline:
    """Return the corners of a regular polygon; without rotation (radians) the first is on top."""
    angles = [2 * math.pi * k / corners - math.pi / 2 + rotation for k in range(corners)]
    return [(math.cos(angle), math.sin(angle)) for angle in angles]


def _cross(arm: float = 0.17) -> Outline:
    """Return a plus sign with arms of width 2 * arm that reach the unit circle."""
    reach = math.sqrt(1 - arm**2)
    quarter = [(arm, -reach), (arm, -arm), (reach, -arm)]
    corners: Outline = []
    for _ in range(4):
        corners += quarter
        quarter = [(-y, x) for x, y in quarter]
    return corners


# The round outline is a polygon too, so that there is one way of drawing.
# With a disc for the ring, or with thick arms, a small network took more than twice as many steps
# to tell the shapes apart.
OUTLINES = {
    "cross": _cross(),
    "ring": _regular(64),
    "square": _regular(4, rotation=math.pi / 4),
    "triangle": _regular(3),
}
HOLES = {"ring": 0.5}  # radius of a hole with the same outline, relative to the radius


def shape_mask(
    kind: str,
    height: int,
    width: int,
    *,
    center_xy: NDArray[np.float64],
    radius: float,
    angle: float,
) -> NDArray[np.float64]:
    """Return the coverage of each pixel by the shape, float64 [height, width] in 0..1.

    radius: of the circumscribed circle, in pixels; angle: clockwise, in radians.
    """
    canvas = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING))
    draw = ImageDraw.Draw(canvas)
    draw.polygon(_place(OUTLINES[kind], center_xy, radius, angle), fill=255)
    if kind in HOLES:
        draw.polygon(_place(OUTLINES[kind], center_xy, radius * HOLES[kind], angle), fill=0)
    return np.asarray(canvas.reduce(SUPERSAMPLING), dtype=np.float64) / 255


def _place(
    outline: Outline, center_xy: NDArray[np.float64], radius: float, angle: float
) -> Outline:
    """Return the corners of an outline on the supersampled canvas."""
    cos, sin = radius * math.cos(angle), radius * math.sin(angle)
    corners = [
        (center_xy[0] + cos * x - sin * y, center_xy[1] + sin * x + cos * y) for x, y in outline
    ]
    return [(SUPERSAMPLING * x, SUPERSAMPLING * y) for x, y in corners]
