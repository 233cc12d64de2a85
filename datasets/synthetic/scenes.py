"""What all drawn scenes are made of: ground that lies in shade, and shapes that are brighter than it."""

import colorsys

import numpy as np

from visionloop.datasets.synthetic.shapes import shape_mask
from visionloop.datasets.synthetic.textures import random_patch

GROUND_CONTRAST, GROUND_BRIGHTNESS = 0.4, 0.5  # of the texture as photographed
SMALLEST_STEP = 90  # luma of a shape above what it covers, of 255
GRAIN = 0.15  # how much of a texture shows in the shape's colour
LUMA = np.array([0.299, 0.587, 0.114])
CLOSEST = 0.9  # distance of two shapes, as a share of where their circles touch
TRIES = 20  # places tried for a shape
HUE_WIDTH = 1 / 9  # of the circle of hues, to either side of the one asked for
SATURATIONS, VALUES = (0.5, 1.0), (0.7, 1.0)  # of a colour whose hue is asked for


class Scene:
    """An image that fills up. ground: float64 [H, W, 3], without shapes; pixels: with them; shorter: side in pixels."""

    def __init__(self, ground):
        self.ground, self.pixels = ground, ground.copy()
        self.shorter = min(ground.shape[:2])
        self.circles = []  # (x, y, radius) of what is there

    def find_room(self, generator, radius):
        """The centre of a free circle inside the image, float64 [2], noted as taken; None when the tries are used up."""
        height, width = self.ground.shape[:2]
        for _ in range(TRIES):
            x, y = generator.uniform(radius, (width - radius, height - radius))
            if all(
                np.hypot(x - other_x, y - other_y) >= CLOSEST * (radius + other)
                for other_x, other_y, other in self.circles
            ):
                self.circles.append((x, y, radius))
                return np.array([x, y])
        return None

    def paint(self, generator, kind, centre_xy, radius, largest_turn, hue=None):
        """Blend one shape in, turned at random: (window, mask), the slices that it lies in and how much it covers there, float64.

        hue: about that of its colour, in 0..1; None: any.
        """
        # only the window around it is touched: a fifth of the time of whole images
        left, top = np.maximum(np.floor(centre_xy - radius).astype(int) - 1, 0)
        window = np.s_[top : int(centre_xy[1] + radius) + 2, left : int(centre_xy[0] + radius) + 2]
        ground = self.ground[window]
        angle = generator.uniform(-largest_turn, largest_turn)
        mask = shape_mask(
            kind, *ground.shape[:2], centre_xy=centre_xy - (left, top), radius=radius, angle=angle
        )
        colours = shape_colours(generator, ground, mask[..., None], hue)
        self.pixels[window] += (colours - self.pixels[window]) * mask[..., None]
        return window, mask

    def image(self):
        """What is painted so far: uint8 [H, W, 3]."""
        return np.clip(self.pixels, 0, 255).astype(np.uint8)


def shaded_patch(generator, height, width):
    """A random texture with less light and less contrast: float64 [height, width, 3] in 0..255.

    generator: a numpy Generator, the only source of chance.
    """
    ground = random_patch(generator, height, width).astype(np.float64)
    mean = ground.mean((0, 1))
    return GROUND_BRIGHTNESS * (mean + GROUND_CONTRAST * (ground - mean))


def shape_colours(generator, ground, mask, hue=None):
    """A grainy colour for a shape on shaded ground, as if it filled all of it: float64 [H, W, 3].

    ground: float64 [H, W, 3]; mask: what the shape covers of each pixel, float64 [H, W, 1] in 0..1;
    hue: about that of the colour, in 0..1; None: any.
    """
    covered = (ground * mask).sum((0, 1)) / mask.sum()
    grain = random_patch(generator, *ground.shape[:2]).astype(np.float64)
    colour = (
        brighter_colour(generator, covered)
        if hue is None
        else brighter_hue(generator, covered, hue)
    )
    return (1 - GRAIN) * colour + GRAIN * grain


def brighter_colour(generator, than):
    """A random RGB colour whose luma is at least SMALLEST_STEP above that of `than`; shaded ground leaves room for it."""
    while True:
        colour = generator.uniform(0, 255, 3)
        if (colour - than) @ LUMA >= SMALLEST_STEP:
            return colour


def brighter_hue(generator, than, hue):
    """The same with about that hue, in 0..1: mixed with white as far as it takes to be bright enough, because no pure blue ever is."""
    hue = generator.uniform(hue - HUE_WIDTH, hue + HUE_WIDTH) % 1
    colour = 255 * np.array(
        colorsys.hsv_to_rgb(hue, generator.uniform(*SATURATIONS), generator.uniform(*VALUES))
    )
    missing = SMALLEST_STEP - (colour - than) @ LUMA
    if missing > 0:
        colour += (255 - colour) * missing / (255 - colour @ LUMA)
    return colour
