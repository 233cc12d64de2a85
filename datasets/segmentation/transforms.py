"""Augmentation and resizing of images uint8 [3, H, W] with masks of class ids uint8 [H, W].

Scaling to floats happens on the device. Image and mask go through the same geometry: whole pixels
of the file land on whole pixels of the result. The image is resized bilinearly, where a pixel of
the result is sampled at its center. So is the mask: nearest to the center, which torchvision calls
NEAREST_EXACT. Its NEAREST takes the upper left corner instead, and a mask made four times smaller
would be shifted by 1.5 pixels of the file against its image.

Random numbers come from `random`, which must be seeded before a sample.
"""

import random
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from visionloop.datasets.detection.photometric import Distortion
from visionloop.datasets.detection.transforms import resize
from visionloop.datasets.segmentation.mask_values import IGNORED


@dataclass(frozen=True)
class Placement:
    """The visible part of an image, and its size in the result.

    Rows top:bottom and columns left:right become height x width pixels. They are in the upper left
    corner of the result, the rest of which is black and ignored.

    Attributes:
        top, bottom, left, right: the part, in pixels of the image.
        height, width: its size in the result.
        mirrored: whether the part is flipped horizontally.
    """

    top: int
    bottom: int
    left: int
    right: int
    height: int
    width: int
    mirrored: bool = False

    def pixels(
        self, image: torch.Tensor, size: int, distortion: Distortion | None = None
    ) -> torch.Tensor:
        """Render an image, uint8 [3, H, W], as uint8 [3, size, size].

        Args:
            image: the image.
            size: side of the result.
            distortion: of the colors; pixels outside of the image stay black.
        """
        # cut out as a view; contiguous in the end, because images with the decoder's strides are
        # stacked much slower
        part = image[:, self.top : self.bottom, self.left : self.right]
        pixels = resize(part, self.height, self.width).contiguous()
        if distortion:
            pixels = distortion(pixels)
        if self.mirrored:
            pixels = pixels.flip(-1)
        if (self.height, self.width) == (size, size):
            return pixels
        canvas = torch.zeros((3, size, size), dtype=torch.uint8)
        canvas[:, : self.height, : self.width] = pixels
        return canvas

    def ids(self, ids: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
        """Render class ids, uint8 [H, W], as uint8 [size, size]."""
        rows = nearest(self.top, self.bottom, self.height)
        columns = nearest(self.left, self.right, self.width)
        part = ids.take(rows, axis=0).take(columns[::-1] if self.mirrored else columns, axis=1)
        if part.shape == (size, size):
            return part
        canvas = np.full((size, size), IGNORED, dtype=np.uint8)
        canvas[: self.height, : self.width] = part
        return canvas


class SegmentationTrainPreset:
    """EoMT's recipe: photometric distortion, flip, random scale, random square crop with padding.

    The recipe resizes the whole image and then crops. Here the crop comes first, on whole pixels
    of the file (its borders move by half a pixel at most), and what is cropped away is never
    resized. The distortion changes the pixels of the result: they are fewer than those of the file,
    and as the changes act pixel by pixel they nearly commute with the resize (contrast is relative
    to the mean of the visible part).
    """

    def __init__(
        self,
        *,
        size: int,
        color: float = 0.5,
        scale: tuple[float, float] = (0.5, 2.0),
        flip: float = 0.5,
        tries: int = 10,
    ) -> None:
        """Make a transform.

        Args:
            size: side of the result in pixels.
            color: probability of each photometric distortion.
            scale: range of sizes; 1 is the image that just fits into the square as a whole.
            flip: probability of a horizontal flip.
            tries: number of times that a crop with ignored pixels alone is drawn again.
        """
        self.size, self.color, self.scale, self.flip, self.tries = size, color, scale, flip, tries

    def __call__(self, image: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Transform an image and its mask to uint8 [3, size, size] and uint8 [size, size].

        Args:
            image: uint8 [3, H, W].
            ids: uint8 [H, W], 255 ignored.
        """
        height, width = ids.shape
        for _ in range(1 + self.tries):
            placement = random_placement(height, width, self.size, self.scale, self.flip)
            placed_ids = placement.ids(ids.numpy(), self.size)
            if (placed_ids != IGNORED).any():
                break
        distortion = replace(Distortion.draw(self.color), channels=None)
        return placement.pixels(image, self.size, distortion), torch.from_numpy(placed_ids)


class SegmentationEvalPreset:
    """Resize the shorter side to `size` for sliding windows, and fit the image into a square.

    The square is for the loss.
    """

    def __init__(self, *, size: int) -> None:
        self.size = size

    def __call__(
        self, image: torch.Tensor, ids: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Transform an image.

        Args:
            image: uint8 [3, H, W].
            ids: uint8 [H, W], or None for prediction.

        Returns:
            {"pixel_values": uint8 [3, h, w], "size": int64 [2], H and W}. With ids, also "fitted":
            uint8 [3, size, size] and "fitted_ids": uint8 [size, size], the whole image resized to
            fit and padded right or below, and "ids", unchanged.
        """
        height, width = image.shape[-2:]
        resized_hw = scaled_sides(height, width, self.size / min(height, width))
        sample = {
            "pixel_values": resize(image, *resized_hw).contiguous(),
            "size": torch.tensor([height, width]),
        }
        if ids is None:
            return sample
        placement = fitting_placement(height, width, self.size)
        fitted_ids = torch.from_numpy(placement.ids(ids.numpy(), self.size))
        fitted = placement.pixels(image, self.size)
        return sample | {"fitted": fitted, "fitted_ids": fitted_ids, "ids": ids}


def random_placement(
    height: int, width: int, size: int, scale: tuple[float, float], flip: float
) -> Placement:
    """Draw the Placement of a random crop; arguments as for SegmentationTrainPreset."""
    mirrored = random.random() < flip
    factor = size / max(height, width) * random.uniform(*scale)
    scaled_height, scaled_width = scaled_sides(height, width, factor)
    top, bottom, placed_height = _random_span(height, scaled_height, size)
    left, right, placed_width = _random_span(width, scaled_width, size)
    return Placement(top, bottom, left, right, placed_height, placed_width, mirrored)


def fitting_placement(height: int, width: int, size: int) -> Placement:
    """Return the Placement of the whole image, as large as fits into the square."""
    return Placement(0, height, 0, width, *scaled_sides(height, width, size / max(height, width)))


def scaled_sides(height: int, width: int, factor: float) -> tuple[int, int]:
    """Return (height, width) times a factor, rounded, at least 1."""
    return max(1, round(height * factor)), max(1, round(width * factor))


def _random_span(side: int, scaled: int, size: int) -> tuple[int, int, int]:
    """Draw the visible part of a side.

    Args:
        side: length in pixels of the image.
        scaled: its length after scaling.
        size: side of the result.

    Returns:
        (first, last, number): the pixels first:last become this number of pixels.
    """
    number = min(size, scaled)
    start = random.randint(0, scaled - number)
    first = min(round(start * side / scaled), side - 1)
    return first, max(first + 1, round((start + number) * side / scaled)), number


def nearest(first: int, last: int, count: int) -> NDArray[np.int64]:
    """Return the pixels of first:last nearest to the centers of `count` equal parts of it."""
    return first + (2 * np.arange(count) + 1) * (last - first) // (2 * count)
