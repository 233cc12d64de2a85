"""Augmentation and resizing of images uint8 [3, H, W]; normalization happens on the device.

Random numbers come from `random`, and inside RandAugment from torch's default generator: both must
be seeded before a sample. The transforms are called one by one rather than through v2.Compose,
which costs as much again as the resize (100 px -> 64 px: 30 us against 63 us).
"""

import math
import random
from collections.abc import Sequence

import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from visionloop.datasets.io.reduced_jpeg import resized_part

CROP_RATIO = (3 / 4, 4 / 3)  # width over height, before the resize to a square
ERASE_SCALE, ERASE_RATIO = (0.02, 1 / 3), (0.3, 1 / 0.3)
MID_GRAY = 128  # RandAugment's fill beyond the image's border: about zero after normalization


class ClassificationTrainPreset:
    """Random resized crop and random flip; optionally RandAugment and random erasing."""

    def __init__(
        self,
        *,
        size: int,
        crop_scale_min: float = 0.35,
        interpolation: str = "bilinear",
        flip: float = 0.5,
        randaugment_ops: int = 0,
        randaugment_magnitude: int = 9,
        erase: float = 0.0,
    ) -> None:
        """Make a transform.

        Args:
            size: side of the result in pixels.
            crop_scale_min: smallest share of the image's area in a crop.
            interpolation: "bilinear" or "bicubic".
            flip: probability of a horizontal flip.
            randaugment_ops: RandAugment operations for each image; 0: off.
            randaugment_magnitude: 0 to 30.
            erase: probability that a rectangle (2 to 33 % of the area) is replaced by uniform
                noise.
        """
        self.size, self.crop_scale_min, self.flip, self.erase = size, crop_scale_min, flip, erase
        self.interpolation = InterpolationMode(interpolation)
        self.randaugment = None
        if randaugment_ops:
            # after the crop: it costs more than all the rest and here it has few pixels
            self.randaugment = v2.RandAugment(
                randaugment_ops,
                randaugment_magnitude,
                interpolation=InterpolationMode.BILINEAR,
                fill=[MID_GRAY] * 3,
            )

    @property
    def min_side(self) -> int:
        """Shorter side of an image whose smallest crop has about as many pixels as the result."""
        return int(self.size / math.sqrt(self.crop_scale_min * CROP_RATIO[0]))

    def __call__(self, image: torch.Tensor, full_hw: torch.Tensor | None = None) -> torch.Tensor:
        """Transform an image to uint8 [3, size, size].

        Args:
            image: uint8 [3, H, W].
            full_hw: of a reduced image, the (height, width) of the full one.
        """
        height, width = image.shape[-2:] if full_hw is None else map(int, full_hw)
        box = random_box(height, width, (self.crop_scale_min, 1.0), CROP_RATIO)
        box = box or centered_box(height, width, CROP_RATIO)
        if full_hw is None:
            top, left, box_height, box_width = box
            # a view: nothing is copied before the resize
            image = image[:, top : top + box_height, left : left + box_width]
            image = F.resize_image(
                image, [self.size, self.size], interpolation=self.interpolation, antialias=True
            )
        else:
            image = resized_part(
                image, (height, width), box, self.size, self.size, self.interpolation.value
            )
        if random.random() < self.flip:
            image = image.flip(-1)
        if self.randaugment:
            image = self.randaugment(image)
        if random.random() < self.erase:
            image = erase_rectangle(image)
        return image


class ClassificationEvalPreset:
    """Resize the whole image to a square, or its shorter side and then crop the center."""

    def __init__(
        self, *, size: int, resize: int | Sequence[int], interpolation: str = "bilinear"
    ) -> None:
        """Make a transform.

        Args:
            size: side of the center crop in pixels.
            resize: (height, width) for any shape of the image, as the ViT processor of transformers
                does, or one number for the shorter side. The two differ by a point of accuracy on
                the same weights: use the checkpoint's.
            interpolation: "bilinear" or "bicubic".
        """
        self.size, self.resize = size, [resize] if isinstance(resize, int) else list(resize)
        self.interpolation = InterpolationMode(interpolation)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Transform an image, uint8 [3, H, W], to uint8 [3, size, size]."""
        image = F.resize_image(image, self.resize, interpolation=self.interpolation, antialias=True)
        # rounded down like the center crop of transformers; torchvision's rounds half to even
        top, left = (image.shape[-2] - self.size) // 2, (image.shape[-1] - self.size) // 2
        return image[:, top : top + self.size, left : left + self.size]


def random_box(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int] | None:
    """Draw a random part of an image.

    Args:
        height, width: of the image.
        scale: range of its share of the area.
        ratio: range of width over height, log-uniform.

    Returns:
        (top, left, height, width), or None when ten tries did not fit.
    """
    for _ in range(10):
        area = height * width * random.uniform(*scale)
        aspect = math.exp(random.uniform(math.log(ratio[0]), math.log(ratio[1])))
        box_height, box_width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < box_height <= height and 0 < box_width <= width:
            top = random.randint(0, height - box_height)
            return top, random.randint(0, width - box_width), box_height, box_width
    return None


def centered_box(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    """Return the largest centered part with a ratio of width over height in the range.

    For images too long for random_box, as in torchvision.
    """
    box_height = max(1, min(height, round(width / ratio[0])))
    box_width = max(1, min(width, round(height * ratio[1])))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def erase_rectangle(image: torch.Tensor) -> torch.Tensor:
    """Replace one random rectangle of an image, uint8 [3, H, W], by uniform noise."""
    height, width = image.shape[-2:]
    box = random_box(height, width, ERASE_SCALE, ERASE_RATIO)
    if box is None:
        return image
    top, left, height, width = box
    image = image.clone()  # it may be a view of the caller's image
    noise = torch.randint(0, 256, (image.shape[0], height, width), dtype=torch.uint8)
    image[:, top : top + height, left : left + width] = noise
    return image
