"""Augmentation and resizing of uint8 images [3, H, W] with masks of class ids uint8 [H, W]; scaling to floats happens on the device.

Image and mask go through the same geometry: whole pixels of the file land on whole pixels of the
result. The image is resized bilinearly, where a pixel of the result is looked up at its centre.
So is the mask: nearest to the centre, which torchvision calls NEAREST_EXACT. Its NEAREST takes the
upper left corner instead, and a mask made four times smaller would lie 1.5 pixels of the file
beside its image.

Chance comes from `random`, which must be seeded before a sample.
"""

import random
from dataclasses import dataclass, replace

import numpy as np
import torch

from visionloop.datasets.detection.photometric import Distortion
from visionloop.datasets.detection.transforms import resize
from visionloop.datasets.segmentation.mask_values import IGNORED


@dataclass(frozen=True)
class Placement:
    """Which part of an image is shown, and how large: rows top:bottom and columns left:right become height x width pixels.

    They lie in the upper left corner of the result, the rest of which is black and ignored.
    mirrored: left and right are swapped in them.
    """

    top: int
    bottom: int
    left: int
    right: int
    height: int
    width: int
    mirrored: bool = False

    def pixels(self, image, size, distortion=None):
        """uint8 [3, size, size] of an image uint8 [3, H, W]; distortion: of the colours, what lies beyond the image stays black."""
        # cut out as a view; contiguous in the end, because images with the decoder's strides are
        # stacked much slower
        pixels = resize(
            image[:, self.top : self.bottom, self.left : self.right], self.height, self.width
        ).contiguous()
        if distortion:
            pixels = distortion(pixels)
        if self.mirrored:
            pixels = pixels.flip(-1)
        if (self.height, self.width) == (size, size):
            return pixels
        canvas = torch.zeros((3, size, size), dtype=torch.uint8)
        canvas[:, : self.height, : self.width] = pixels
        return canvas

    def ids(self, ids, size):
        """uint8 [size, size], numpy, of class ids uint8 [H, W], numpy."""
        columns = nearest(self.left, self.right, self.width)
        shown = ids.take(nearest(self.top, self.bottom, self.height), axis=0).take(
            columns[::-1] if self.mirrored else columns, axis=1
        )
        if shown.shape == (size, size):
            return shown
        canvas = np.full((size, size), IGNORED, dtype=np.uint8)
        canvas[: self.height, : self.width] = shown
        return canvas


class SegmentationTrainPreset:
    """EoMT's recipe: random colours, mirror, random scale, a square crop that is padded where the image ends.

    size: side of the result; color: probability of each change of colour; scale: range of sizes, 1
    is the image that just fits into the square as a whole; flip: probability of a left-right
    mirror; tries: so often a crop of ignored pixels alone is drawn again, the last one is kept.

    The recipe resizes the whole image and then crops. Here the crop comes first, on whole pixels
    of the file (its borders move by half a pixel at most), and what is cropped away is never
    resized. Colours change the result's pixels, not the file's: they are fewer, and as the changes
    act pixel by pixel they nearly commute with the resize (contrast is relative to the mean of what
    is seen).
    """

    def __init__(self, *, size, color=0.5, scale=(0.5, 2.0), flip=0.5, tries=10):
        self.size, self.color, self.scale, self.flip, self.tries = size, color, scale, flip, tries

    def __call__(self, image, ids):
        """image: uint8 [3, H, W], ids: uint8 [H, W], 255 ignored -> uint8 [3, size, size], uint8 [size, size]."""
        for _ in range(1 + self.tries):
            placement = random_placement(*ids.shape, self.size, self.scale, self.flip)
            shown = placement.ids(ids.numpy(), self.size)
            if (shown != IGNORED).any():
                break
        distortion = replace(Distortion.draw(self.color), channels=None)
        return placement.pixels(image, self.size, distortion), torch.from_numpy(shown)


class SegmentationEvalPreset:
    """The image with its shorter side at `size`, for windows along the longer one; and as a whole in a square, for the loss."""

    def __init__(self, *, size):
        self.size = size

    def __call__(self, image, ids=None):
        """image: uint8 [3, H, W] -> {"pixel_values": uint8 [3, h, w], "size": int64 [2], H and W}.

        With ids, uint8 [H, W], also "fitted": uint8 [3, size, size] and "fitted_ids": uint8 [size,
        size], the whole image resized to fit and padded right or below, and "ids", untouched.
        """
        height, width = image.shape[-2:]
        sample = {
            "pixel_values": resize(
                image, *scaled_sides(height, width, self.size / min(height, width))
            ).contiguous(),
            "size": torch.tensor([height, width]),
        }
        if ids is None:
            return sample
        placement = fitting_placement(height, width, self.size)
        fitted_ids = torch.from_numpy(placement.ids(ids.numpy(), self.size))
        return sample | {
            "fitted": placement.pixels(image, self.size),
            "fitted_ids": fitted_ids,
            "ids": ids,
        }


def random_placement(height, width, size, scale, flip):
    """The Placement of a random crop of a randomly scaled, perhaps mirrored image; see SegmentationTrainPreset."""
    mirrored = random.random() < flip
    factor = size / max(height, width) * random.uniform(*scale)
    scaled_height, scaled_width = scaled_sides(height, width, factor)
    top, bottom, shown_height = _random_span(height, scaled_height, size)
    left, right, shown_width = _random_span(width, scaled_width, size)
    return Placement(top, bottom, left, right, shown_height, shown_width, mirrored)


def fitting_placement(height, width, size):
    """The Placement of the whole image, as large as fits into the square."""
    return Placement(0, height, 0, width, *scaled_sides(height, width, size / max(height, width)))


def scaled_sides(height, width, factor):
    """(height, width) times a factor, rounded, at least 1."""
    return max(1, round(height * factor)), max(1, round(width * factor))


def _random_span(side, scaled, size):
    """(first, last, shown): the pixels first:last of a side are shown as so many; scaled: length of the whole side then."""
    shown = min(size, scaled)
    start = random.randint(0, scaled - shown)
    first = min(round(start * side / scaled), side - 1)
    return first, max(first + 1, round((start + shown) * side / scaled)), shown


def nearest(first, last, count):
    """int64 [count]: the pixels of first:last that the centres of `count` equal parts of it lie in."""
    return first + (2 * np.arange(count) + 1) * (last - first) // (2 * count)
