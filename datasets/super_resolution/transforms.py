"""From a pair of images to a sample: random flips and rotations, degradation, bicubic baseline.

Images come in as numpy uint8 [H, W, 3], views into files at best, and leave as contiguous tensors
uint8 [3, H, W]; scaling to floats happens on the device. Random numbers come from `random` and
torch's default generator, which must be seeded before a sample.
"""

import hashlib
import os
import random

import numpy as np
import torch
from numpy.typing import NDArray

from visionloop.datasets.io.matlab_resize import matlab_resize
from visionloop.datasets.super_resolution.degradations import GaussianNoise, Jpeg

NUM_SYMMETRIES = 8  # of a square: four rotations by 90 degrees, each also flipped


class SuperResolutionTrainPreset:
    """One of the eight symmetries of the square for both images, and a degradation of the input.

    JPEG is encoded with a margin and the patch is cut out afterwards, half of the time at the
    corner and else anywhere (KAIR data/dataset_jpeg.py): the network sees blocks at every position,
    and often where a whole image has them.
    """

    def __init__(
        self,
        *,
        patch: int,
        scale: int,
        degradation: GaussianNoise | Jpeg | None = None,
        augment: bool = True,
    ) -> None:
        """Make a transform.

        Args:
            patch: side of the low-resolution image of a sample in pixels.
            scale: high over low resolution.
            degradation: of the low-resolution image; None: none.
            augment: False leaves images upright.
        """
        self.patch, self.scale, self.degradation, self.augment = patch, scale, degradation, augment
        # of the low-resolution crop, larger than the patch by the margin of the degradation
        self.side: int | None = patch + (degradation.margin if degradation else 0)

    def __call__(
        self, lr: NDArray[np.uint8], hr: NDArray[np.uint8], name: str = ""
    ) -> dict[str, torch.Tensor]:
        """Transform a pair of crops to {"pixel_values", "hr"} of the patch.

        Args:
            lr: [side, side, 3].
            hr: [scale * side, scale * side, 3].
            name: of the image, not used.
        """
        symmetry = random.randrange(NUM_SYMMETRIES) if self.augment else 0
        lr_pixels, hr_pixels = apply_symmetry(lr, symmetry), apply_symmetry(hr, symmetry)
        if self.degradation:
            lr_pixels = self.degradation(lr_pixels)
            margin = self.degradation.margin
            if margin:
                anywhere = random.random() < 0.5
                top, left = (
                    (random.randint(0, margin), random.randint(0, margin)) if anywhere else (0, 0)
                )
                lr_pixels = crop_square(lr_pixels, top, left, self.patch)
                hr_pixels = crop_square(
                    hr_pixels, self.scale * top, self.scale * left, self.scale * self.patch
                )
        return {"pixel_values": lr_pixels, "hr": hr_pixels}


class SuperResolutionEvalPreset:
    """Whole images: the input, degraded at the middle of the range, the target and bicubic."""

    side: int | None = None  # no crops

    def __init__(self, *, scale: int, degradation: GaussianNoise | Jpeg | None = None) -> None:
        self.scale, self.degradation = scale, degradation.fixed() if degradation else None

    def __call__(
        self, lr: NDArray[np.uint8], hr: NDArray[np.uint8] | None = None, name: str = ""
    ) -> dict[str, torch.Tensor]:
        """Transform a pair to {"pixel_values", "hr", "bicubic"}.

        At scale 1 "bicubic" is the input.

        Args:
            lr: [h, w, 3].
            hr: [scale * h, scale * w, 3]; None for prediction: then "pixel_values" alone, without a
                degradation.
            name: of the image, the seed of the degradation.
        """
        pixels = apply_symmetry(lr, 0)
        if hr is None:
            return {"pixel_values": pixels}
        if self.degradation:
            pixels = self.degradation(pixels, torch.Generator().manual_seed(seed_of(name)))
        bicubic = pixels
        if self.scale > 1:
            enlarged = matlab_resize(pixels.permute(1, 2, 0).numpy(), self.scale)
            bicubic = apply_symmetry(enlarged, 0)
        return {"pixel_values": pixels, "hr": apply_symmetry(hr, 0), "bicubic": bicubic}


def apply_symmetry(image: NDArray[np.uint8], symmetry: int) -> torch.Tensor:
    """Copy an image [H, W, 3] to a tensor [3, H, W], flipped or rotated.

    One pass: 10 us for 96 x 96 pixels.

    Args:
        image: the image.
        symmetry: bits: 1 flips vertically, 2 horizontally, 4 swaps rows and columns; 0: upright.
    """
    if symmetry & 1:
        image = image[::-1]
    if symmetry & 2:
        image = image[:, ::-1]
    if symmetry & 4:
        image = image.swapaxes(0, 1)
    return torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C"))


def crop_square(pixels: torch.Tensor, top: int, left: int, side: int) -> torch.Tensor:
    """Cut a square out of an image [3, H, W]."""
    return pixels[:, top : top + side, left : left + side].contiguous()


def seed_of(name: str) -> int:
    """Return a 64-bit seed from an image's relative path."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(name), digest_size=8).digest(), "little")
