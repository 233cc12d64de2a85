"""Colors of classes and sizes of drawings that the segmentation tasks share."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.color import rgb2lab

Pixels = NDArray[np.uint8]  # an image [H, W, 3], class ids [H, W] or colors [K, 3]

# far apart on any image, the first ones most; further classes get what is left between them. Dark
# ones come late: brown looks like orange over a dark part of an image
COLORS = np.array(
    [
        *[(45, 125, 230), (255, 140, 40), (60, 180, 75), (225, 50, 70), (255, 220, 60)],
        *[(150, 80, 210), (70, 215, 225), (250, 140, 190), (175, 230, 70), (220, 60, 190)],
        *[(20, 130, 125), (190, 170, 255), (150, 90, 45), (255, 205, 160), (140, 25, 50)],
        *[(40, 60, 150), (130, 130, 30), (150, 245, 190), (140, 145, 155), (15, 95, 45)],
    ]
)
SIDE = 300  # longer side of an image in a grid, in pixels
PART_SIDE = 317  # of each of the four parts of a sample
MAX_TRAINING_IMAGES = 12  # in a grid
MIN_DRAWING_SIDE, MAX_DRAWING_SIDE = 640, 1600  # longer side in pixels
GAP = 6


def class_colors(classes: Sequence[str], colors: Pixels | None = None) -> Pixels:
    """Return the color of each class, uint8 [K, 3].

    Args:
        classes: names in order of id.
        colors: those of the data; None: those of a fixed list, in which class i has the same color
            for any number of classes.
    """
    if colors is not None:
        return np.asarray(colors, dtype=np.uint8)
    return spread_colors()[: len(classes)].copy()


@lru_cache
def spread_colors(count: int = 255) -> Pixels:
    """Return COLORS, then always the color farthest from all before it, uint8 [count, 3].

    None is dark, pale or gray.
    """
    steps = np.linspace(16, 248, 9).round()
    candidates = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = rgb2lab(candidates / 255)
    usable = (lab[:, 0] > 36) & (lab[:, 0] < 92) & (np.hypot(lab[:, 1], lab[:, 2]) > 12)
    candidates, lab = candidates[usable], lab[usable]
    chosen = list(COLORS.astype(np.float64))
    distances = np.linalg.norm(lab[:, None] - rgb2lab(COLORS / 255), axis=2).min(axis=1)
    while len(chosen) < count:
        farthest = distances.argmax()
        chosen.append(candidates[farthest])
        distances = np.minimum(distances, np.linalg.norm(lab - lab[farthest], axis=1))
    return np.array(chosen, dtype=np.uint8)


def to_array(pixel_values: torch.Tensor) -> Pixels:
    """Turn an image tensor uint8 [3, H, W] into a numpy array [H, W, 3]."""
    array: Pixels = pixel_values.permute(1, 2, 0).cpu().numpy()
    return array
