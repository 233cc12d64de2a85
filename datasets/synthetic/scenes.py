"""Building blocks of synthetic scenes: a dark textured ground and brighter shapes."""

import colorsys
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from visionloop.datasets.synthetic.shapes import shape_mask
from visionloop.datasets.synthetic.textures import random_patch

GROUND_CONTRAST, GROUND_BRIGHTNESS = 0.4, 0.5  # relative to the photographed texture
SMALLEST_STEP = 90  # luma of a shape above what it covers, on a scale of 255
GRAIN = 0.15  # weight of a texture in the color of a shape
LUMA = np.array([0.299, 0.587, 0.114])
CLOSEST = 0.9  # distance of two shapes, as a share of where their circles touch
MAX_TRIES = 20  # positions tried for a shape
HUE_WIDTH = 1 / 9  # of the hue circle, to either side of the requested hue
SATURATIONS, VALUES = (0.5, 1.0), (0.7, 1.0)  # of a color with a requested hue

# (rows, columns)
Window: TypeAlias = tuple[slice, slice]  # type: ignore[explicit-any]  # slice is generic in its bounds


class Scene:
    """An image that shapes are painted into.

    ground: float64 [H, W, 3], without shapes; pixels: with them; shorter: shorter side in pixels.
    """

    def __init__(self, ground: NDArray[np.float64]) -> None:
        self.ground, self.pixels = ground, ground.copy()
        self.shorter = min(ground.shape[:2])
        self.circles: list[tuple[float, float, float]] = []  # (x, y, radius) of the shapes

    def find_room(
        self, generator: np.random.Generator, radius: float
    ) -> NDArray[np.float64] | None:
        """Reserve a free circle inside the image.

        Returns its center, float64 [2] (x, y), or None after MAX_TRIES tries.
        """
        height, width = self.ground.shape[:2]
        for _ in range(MAX_TRIES):
            x, y = generator.uniform(radius, (width - radius, height - radius))
            if all(
                np.hypot(x - other_x, y - other_y) >= CLOSEST * (radius + other)
                for other_x, other_y, other in self.circles
            ):
                self.circles.append((x, y, radius))
                return np.array([x, y])
        return None

    def paint(
        self,
        generator: np.random.Generator,
        kind: str,
        center_xy: NDArray[np.float64],
        radius: float,
        max_rotation: float,
        hue: float | None = None,
    ) -> tuple[Window, NDArray[np.float64]]:
        """Blend in one shape at a random rotation of at most `max_rotation` radians.

        hue: approximate hue of its color, in 0..1; None: any. Returns (window, mask): the slices
        (rows, columns) that contain the shape, and its coverage there, float64 in 0..1.
        """
        # only the window around it is touched: a fifth of the time of whole images
        left, top = np.maximum(np.floor(center_xy - radius).astype(int) - 1, 0)
        window = np.s_[top : int(center_xy[1] + radius) + 2, left : int(center_xy[0] + radius) + 2]
        ground = self.ground[window]
        angle = generator.uniform(-max_rotation, max_rotation)
        mask = shape_mask(
            kind, *ground.shape[:2], center_xy=center_xy - (left, top), radius=radius, angle=angle
        )
        colors = shape_colors(generator, ground, mask[..., None], hue)
        self.pixels[window] += (colors - self.pixels[window]) * mask[..., None]
        return window, mask

    def image(self) -> NDArray[np.uint8]:
        """Return the painted image, uint8 [H, W, 3]."""
        return np.clip(self.pixels, 0, 255).astype(np.uint8)


def random_grid(
    generator: np.random.Generator, members: int, side: float
) -> list[NDArray[np.float64]]:
    """Return the centers of the cells of a square grid of which about a fifth is left out.

    members: cells along a side; side: of a cell. Returns float64 [2] (x, y) each, relative to the
    center of the grid; two opposite corners are always there.
    """
    steps = (np.arange(members) - (members - 1) / 2) * side
    taken = generator.random((members, members)) < 0.8
    taken[0, 0] = taken[-1, -1] = True  # never an empty grid
    return [np.array([steps[x], steps[y]]) for y, x in np.argwhere(taken)]


def shaded_patch(generator: np.random.Generator, height: int, width: int) -> NDArray[np.float64]:
    """Return a random texture, darkened and with less contrast: float64 [H, W, 3] in 0..255."""
    ground = random_patch(generator, height, width).astype(np.float64)
    mean = ground.mean((0, 1))
    return GROUND_BRIGHTNESS * (mean + GROUND_CONTRAST * (ground - mean))


def shape_colors(
    generator: np.random.Generator,
    ground: NDArray[np.float64],
    mask: NDArray[np.float64],
    hue: float | None = None,
) -> NDArray[np.float64]:
    """Return a grainy color for a shape on shaded ground, for every pixel: float64 [H, W, 3].

    ground: float64 [H, W, 3]; mask: coverage of each pixel, float64 [H, W, 1] in 0..1; hue:
    approximate hue of the color, in 0..1; None: any.
    """
    covered = (ground * mask).sum((0, 1)) / mask.sum()
    grain = random_patch(generator, *ground.shape[:2]).astype(np.float64)
    color = (
        brighter_color(generator, covered) if hue is None else brighter_hue(generator, covered, hue)
    )
    return (1 - GRAIN) * color + GRAIN * grain


def brighter_color(
    generator: np.random.Generator, reference: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return a random RGB color whose luma is at least SMALLEST_STEP above that of `reference`.

    Shaded ground always leaves room for one.
    """
    while True:
        color = generator.uniform(0, 255, 3)
        if (color - reference) @ LUMA >= SMALLEST_STEP:
            return color


def brighter_hue(
    generator: np.random.Generator, reference: NDArray[np.float64], hue: float
) -> NDArray[np.float64]:
    """Return such a color with approximately the given hue, in 0..1.

    It is mixed with white until it is bright enough, since no pure blue is.
    """
    hue = generator.uniform(hue - HUE_WIDTH, hue + HUE_WIDTH) % 1
    color = 255 * np.array(
        colorsys.hsv_to_rgb(hue, generator.uniform(*SATURATIONS), generator.uniform(*VALUES))
    )
    missing = SMALLEST_STEP - (color - reference) @ LUMA
    if missing > 0:
        color += (255 - color) * missing / (255 - color @ LUMA)
    return color
