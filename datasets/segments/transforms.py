"""Augmentation and resizing of images uint8 [3, H, W] with layers of segments uint8 [C, H, W].

Image and layers go through the same geometry, see datasets/segmentation/transforms.py. Random
numbers come from `random`, which must be seeded before a sample.
"""

from dataclasses import replace

import numpy as np
import torch

from visionloop.datasets.detection.photometric import Distortion
from visionloop.datasets.segmentation.transforms import (
    Placement,
    fitting_placement,
    random_placement,
)
from visionloop.datasets.segments.layers import NO_SEGMENT


class SegmentsTrainPreset:
    """EoMT's recipe: flip, random scale ("large-scale jitter"), random square crop with padding.

    The recipe resizes the whole image and then crops; the order here is that of
    SegmentationTrainPreset.
    """

    def __init__(
        self,
        *,
        size: int,
        color: float = 0.0,
        scale: tuple[float, float] = (0.1, 2.0),
        flip: float = 0.5,
        tries: int = 10,
    ) -> None:
        """Make a transform.

        Args:
            size: side of the result in pixels.
            color: probability of each photometric distortion.
            scale: range of sizes; 1 is the image that just fits into the square as a whole.
            flip: probability of a horizontal flip.
            tries: number of times that a crop without a pixel of any segment is drawn again.
        """
        self.size, self.color, self.scale, self.flip, self.tries = size, color, scale, flip, tries

    def __call__(
        self,
        image: torch.Tensor,
        layers: torch.Tensor,
        segments: torch.Tensor,
        ignored: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Transform an image with its segments.

        Args:
            image: uint8 [3, H, W].
            layers: uint8 [C, H, W], numbers of the segments of each layer, 255 for none.
            segments: int64 [n, 3], (layer, number, label) of each.
            ignored: uint8 [H, W], 1 where nothing is known.

        Returns:
            {"pixel_values": uint8 [3, S, S], "layers": uint8 [C, S, S], "segments": unchanged, also
            those that are outside of the crop, "ignored": uint8 [S, S], 1 in padding too}.
        """
        height, width = ignored.shape
        for _ in range(1 + self.tries):
            placement = random_placement(height, width, self.size, self.scale, self.flip)
            placed = place_layers(placement, layers, self.size)
            if not len(segments) or (placed != NO_SEGMENT).any():
                break
        distortion = replace(Distortion.draw(self.color), channels=None)
        return {
            "pixel_values": placement.pixels(image, self.size, distortion),
            "layers": placed,
            "segments": segments,
            "ignored": place_ignored(placement, ignored, self.size),
        }


class SegmentsEvalPreset:
    """Fit the whole image into a square, black to the right or below."""

    def __init__(self, *, size: int) -> None:
        """Make a transform. size: side of the result in pixels."""
        self.size = size

    def __call__(
        self,
        image: torch.Tensor,
        layers: torch.Tensor | None = None,
        segments: torch.Tensor | None = None,
        ignored: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Transform an image; arguments as for SegmentsTrainPreset, or the image alone.

        Returns:
            {"pixel_values": uint8 [3, S, S], "size": int64 [2], H and W}. With segments, also
            "layers", "segments" and "ignored", see SegmentsTrainPreset.
        """
        height, width = image.shape[-2:]
        placement = fitting_placement(height, width, self.size)
        sample = {
            "pixel_values": placement.pixels(image, self.size),
            "size": torch.tensor([height, width]),
        }
        if layers is None or segments is None or ignored is None:
            return sample
        return sample | {
            "layers": place_layers(placement, layers, self.size),
            "segments": segments,
            "ignored": place_ignored(placement, ignored, self.size),
        }


def place_layers(placement: Placement, layers: torch.Tensor, size: int) -> torch.Tensor:
    """Render layers, uint8 [C, H, W], as uint8 [C, size, size]; padding belongs to no segment."""
    placed = [placement.ids(layer, size) for layer in layers.numpy()]
    return torch.from_numpy(np.stack(placed))


def place_ignored(placement: Placement, ignored: torch.Tensor, size: int) -> torch.Tensor:
    """Render a map of ignored pixels, uint8 [H, W], as uint8 [size, size], 1 in padding."""
    return torch.from_numpy((placement.ids(ignored.numpy(), size) != 0).astype(np.uint8))
