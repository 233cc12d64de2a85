"""Flat shapes with soft edges, at any place, size and rotation: what the sample data shows."""

import math

import numpy as np
from PIL import Image, ImageDraw

SUPERSAMPLING = 4  # drawn so many times larger and averaged down, for soft edges


def _regular(corners):
    """Corners of a regular polygon in the unit circle, the first at the top: [(x, y)]."""
    angles = [2 * math.pi * k / corners - math.pi / 2 for k in range(corners)]
    return [(math.cos(angle), math.sin(angle)) for angle in angles]


def _cross(arm=0.3):
    """A plus sign with arms 2 * arm wide that reach the unit circle."""
    reach = math.sqrt(1 - arm**2)
    quarter = [(arm, -reach), (arm, -arm), (reach, -arm)]
    corners = []
    for _ in range(4):
        corners += quarter
        quarter = [(-y, x) for x, y in quarter]
    return corners


# Outlines in the unit circle. The square stands on a corner; the disc is a polygon too, so that there is one way of drawing.
OUTLINES = {"cross": _cross(), "disc": _regular(64), "square": _regular(4), "triangle": _regular(3)}


def shape_mask(kind, height, width, *, centre_xy, radius, angle):
    """How much of each pixel the shape covers: float64 [height, width] in 0..1.

    radius: of the circle around the shape, in pixels; angle: clockwise, in radians.
    """
    canvas = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING))
    cos, sin = radius * math.cos(angle), radius * math.sin(angle)
    corners = [(centre_xy[0] + cos * x - sin * y, centre_xy[1] + sin * x + cos * y) for x, y in OUTLINES[kind]]
    ImageDraw.Draw(canvas).polygon([(SUPERSAMPLING * x, SUPERSAMPLING * y) for x, y in corners], fill=255)
    return np.asarray(canvas.reduce(SUPERSAMPLING), dtype=np.float64) / 255
