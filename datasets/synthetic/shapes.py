"""Flat shapes with soft edges, at any place, size and rotation: what the sample data shows."""

import math

import numpy as np
from PIL import Image, ImageDraw

SUPERSAMPLING = 4  # drawn so many times larger and averaged down, for soft edges


def _regular(corners, turn=0.0):
    """Corners of a regular polygon in the unit circle, the first at the top but for `turn` radians: [(x, y)]."""
    angles = [2 * math.pi * k / corners - math.pi / 2 + turn for k in range(corners)]
    return [(math.cos(angle), math.sin(angle)) for angle in angles]


def _cross(arm=0.17):
    """A plus sign with arms 2 * arm wide that reach the unit circle."""
    reach = math.sqrt(1 - arm**2)
    quarter = [(arm, -reach), (arm, -arm), (reach, -arm)]
    corners = []
    for _ in range(4):
        corners += quarter
        quarter = [(-y, x) for x, y in quarter]
    return corners


# Outlines in the unit circle; the round one is a polygon too, so that there is one way of drawing.
# With a disc for the ring, or with thick arms, a small network took more than twice as many steps
# to tell the shapes apart.
OUTLINES = {
    "cross": _cross(),
    "ring": _regular(64),
    "square": _regular(4, turn=math.pi / 4),
    "triangle": _regular(3),
}
HOLES = {"ring": 0.5}  # a hole of the same outline, as a share of its radius


def shape_mask(kind, height, width, *, centre_xy, radius, angle):
    """How much of each pixel the shape covers: float64 [height, width] in 0..1.

    radius: of the circle around the shape, in pixels; angle: clockwise, in radians.
    """
    canvas = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING))
    draw = ImageDraw.Draw(canvas)
    draw.polygon(_place(OUTLINES[kind], centre_xy, radius, angle), fill=255)
    if kind in HOLES:
        draw.polygon(_place(OUTLINES[kind], centre_xy, radius * HOLES[kind], angle), fill=0)
    return np.asarray(canvas.reduce(SUPERSAMPLING), dtype=np.float64) / 255


def _place(outline, centre_xy, radius, angle):
    """The outline's corners on the canvas."""
    cos, sin = radius * math.cos(angle), radius * math.sin(angle)
    corners = [
        (centre_xy[0] + cos * x - sin * y, centre_xy[1] + sin * x + cos * y) for x, y in outline
    ]
    return [(SUPERSAMPLING * x, SUPERSAMPLING * y) for x, y in corners]
