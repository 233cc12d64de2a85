"""What all drawn scenes are made of: ground that lies in shade, and shapes that are brighter than it."""

import numpy as np

from visionloop.datasets.textures import random_patch

GROUND_CONTRAST, GROUND_BRIGHTNESS = 0.4, 0.5  # of the texture as photographed
SMALLEST_STEP = 90  # luma of a shape above what it covers, of 255
GRAIN = 0.15  # how much of a texture shows in the shape's colour
LUMA = np.array([0.299, 0.587, 0.114])


def shaded_patch(generator, height, width):
    """A random texture with less light and less contrast: float64 [height, width, 3] in 0..255.

    generator: a numpy Generator, the only source of chance.
    """
    ground = random_patch(generator, height, width).astype(np.float64)
    mean = ground.mean((0, 1))
    return GROUND_BRIGHTNESS * (mean + GROUND_CONTRAST * (ground - mean))


def shape_colours(generator, ground, mask):
    """A grainy colour for a shape on shaded ground, as if it filled all of it: float64 [H, W, 3].

    ground: float64 [H, W, 3]; mask: what the shape covers of each pixel, float64 [H, W, 1] in 0..1.
    """
    covered = (ground * mask).sum((0, 1)) / mask.sum()
    grain = random_patch(generator, *ground.shape[:2]).astype(np.float64)
    return (1 - GRAIN) * brighter_colour(generator, covered) + GRAIN * grain


def brighter_colour(generator, than):
    """A random RGB colour whose luma is at least SMALLEST_STEP above that of `than`; shaded ground leaves room for it."""
    while True:
        colour = generator.uniform(0, 255, 3)
        if (colour - than) @ LUMA >= SMALLEST_STEP:
            return colour
