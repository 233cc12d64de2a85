"""Augmentation and resizing of uint8 images [3, H, W]; pixels stay bytes, normalising happens on the device.

Chance comes from `random`, and inside RandAugment from torch's default generator: both must be
seeded before a sample. The steps are called one by one rather than through v2.Compose, which costs
as much again as the resize (100 px -> 64 px: 30 us against 63 us).
"""

import math
import random

import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from visionloop.datasets.io.reduced_jpeg import resized_part

CROP_RATIO = (3 / 4, 4 / 3)  # width over height, before the resize to a square
ERASE_SCALE, ERASE_RATIO = (0.02, 1 / 3), (0.3, 1 / 0.3)
MID_GREY = 128  # what RandAugment shows beyond the image's border: about zero after normalising


class ClassificationTrainPreset:
    """A random part of the image as a square, mirrored at times; then RandAugment and erasing where asked for.

    size: side of the result; crop_scale_min: smallest part of the image's area; interpolation:
    "bilinear" or "bicubic"; flip: probability of a left-right mirror; randaugment_ops: operations
    per image, 0 is off; randaugment_magnitude: 0 to 30; erase: probability that a rectangle (2 to
    33 % of the area) is overwritten with uniform noise.
    """

    def __init__(
        self,
        *,
        size,
        crop_scale_min=0.35,
        interpolation="bilinear",
        flip=0.5,
        randaugment_ops=0,
        randaugment_magnitude=9,
        erase=0.0,
    ):
        self.size, self.crop_scale_min, self.flip, self.erase = size, crop_scale_min, flip, erase
        self.interpolation = InterpolationMode(interpolation)
        self.randaugment = None
        if randaugment_ops:
            # after the crop: it costs more than all the rest and here it has few pixels
            self.randaugment = v2.RandAugment(
                randaugment_ops,
                randaugment_magnitude,
                interpolation=InterpolationMode.BILINEAR,
                fill=[MID_GREY] * 3,
            )

    @property
    def least_side(self):
        """Of an image's shorter side, so that the smallest part drawn has as many pixels as the result, give or take one."""
        return int(self.size / math.sqrt(self.crop_scale_min * CROP_RATIO[0]))

    def __call__(self, image, whole_hw=None):
        """image: uint8 [3, H, W], or a scaled one of an image of this (height, width) -> uint8 [3, size, size]."""
        height, width = image.shape[-2:] if whole_hw is None else map(int, whole_hw)
        box = random_box(height, width, (self.crop_scale_min, 1.0), CROP_RATIO) or centred_box(
            height, width, CROP_RATIO
        )
        if whole_hw is None:
            top, left, box_height, box_width = box
            image = image[
                :, top : top + box_height, left : left + box_width
            ]  # a view: nothing is copied before the resize
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
    """The whole image as a square, or its middle.

    resize: (height, width) whatever the image's shape ("squash", as the ViT processor of
    transformers does), or one number for the shorter side; then the centre of size x size is cut
    out. The two differ by a point of accuracy on the same weights: keep the checkpoint's.
    """

    def __init__(self, *, size, resize, interpolation="bilinear"):
        self.size, self.resize = size, [resize] if isinstance(resize, int) else list(resize)
        self.interpolation = InterpolationMode(interpolation)

    def __call__(self, image):
        """image: uint8 [3, H, W] -> uint8 [3, size, size]."""
        image = F.resize_image(image, self.resize, interpolation=self.interpolation, antialias=True)
        # rounded down like the library's centre crop; torchvision's rounds half to even
        top, left = (image.shape[-2] - self.size) // 2, (image.shape[-1] - self.size) // 2
        return image[:, top : top + self.size, left : left + self.size]


def random_box(height, width, scale, ratio):
    """(top, left, height, width) of a random part of an image, or None when ten tries did not fit.

    scale: range of its share of the area; ratio: range of width over height, log-uniform.
    """
    for _ in range(10):
        area = height * width * random.uniform(*scale)
        aspect = math.exp(random.uniform(math.log(ratio[0]), math.log(ratio[1])))
        box_height, box_width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < box_height <= height and 0 < box_width <= width:
            return (
                random.randint(0, height - box_height),
                random.randint(0, width - box_width),
                box_height,
                box_width,
            )
    return None


def centred_box(height, width, ratio):
    """The largest centred part with a legal ratio of width over height, for images too long for random_box; as torchvision."""
    box_height = max(1, min(height, round(width / ratio[0])))
    box_width = max(1, min(width, round(height * ratio[1])))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def erase_rectangle(image):
    """The image with one random rectangle of uniform noise."""
    box = random_box(*image.shape[-2:], ERASE_SCALE, ERASE_RATIO)
    if box is None:
        return image
    top, left, height, width = box
    image = image.clone()  # it may be a view of the caller's image
    noise = torch.randint(0, 256, (image.shape[0], height, width), dtype=torch.uint8)
    image[:, top : top + height, left : left + width] = noise
    return image
