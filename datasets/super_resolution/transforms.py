"""From a pair of images to a sample: the eight turns, degradations, and what the evaluation compares with.

Images come in as numpy uint8 [H, W, 3], views into files at best, and leave as contiguous tensors
uint8 [3, H, W]; scaling to floats happens on the device. Chance comes from `random` and torch's
default generator, which must be seeded before a sample.
"""

import hashlib
import os
import random

import numpy as np
import torch

from visionloop.datasets.io.matlab_resize import matlab_resize

TURNS = 8  # of a square: four quarter turns, each also mirrored


class SuperResolutionTrainPreset:
    """One of the eight turns, the same for both images; then the degradation of the small one.

    patch: side of the small image of a sample; scale: large over small; degradation: see
    degradations.py, None: clean; augment: False leaves images upright. side: of the small crop it
    wants, larger than the patch by the degradation's margin.

    JPEG is encoded with a margin and the patch cut out of it afterwards, half of the time at its
    corner and else anywhere (KAIR data/dataset_jpeg.py): the network sees blocks at every place,
    and often where a whole image has them.
    """

    def __init__(self, *, patch, scale, degradation=None, augment=True):
        self.patch, self.scale, self.degradation, self.augment = patch, scale, degradation, augment
        self.side = patch + (degradation.margin if degradation else 0)

    def __call__(self, lr, hr, name=""):
        """lr: [side, side, 3], hr: [scale * side, scale * side, 3] -> {"pixel_values", "hr"} of the patch; see the module."""
        turn = random.randrange(TURNS) if self.augment else 0
        lr, hr = turned(lr, turn), turned(hr, turn)
        if self.degradation:
            lr = self.degradation(lr)
        margin = self.side - self.patch
        if margin:
            anywhere = random.random() < 0.5
            top, left = (
                (random.randint(0, margin), random.randint(0, margin)) if anywhere else (0, 0)
            )
            lr, hr = (
                cut(lr, top, left, self.patch),
                cut(hr, self.scale * top, self.scale * left, self.scale * self.patch),
            )
        return {"pixel_values": lr, "hr": hr}


class SuperResolutionEvalPreset:
    """Whole images: the small one, degraded at the middle of the range, the large one, and what bicubic makes of the small one."""

    side = None  # no crops

    def __init__(self, *, scale, degradation=None):
        self.scale, self.degradation = scale, degradation.fixed() if degradation else None

    def __call__(self, lr, hr=None, name=""):
        """lr: [h, w, 3], hr: [scale * h, scale * w, 3] -> {"pixel_values", "hr", "bicubic"}, at scale 1 the input is its own bicubic.

        Without hr, for prediction, "pixel_values" alone, untouched. name: of the image, seeds
        what is drawn.
        """
        pixels = turned(lr, 0)
        if hr is None:
            return {"pixel_values": pixels}
        if self.degradation:
            pixels = self.degradation(pixels, torch.Generator().manual_seed(seed_of(name)))
        enlarged = pixels
        if self.scale > 1:
            enlarged = turned(matlab_resize(pixels.permute(1, 2, 0).numpy(), self.scale), 0)
        return {"pixel_values": pixels, "hr": turned(hr, 0), "bicubic": enlarged}


def turned(image, turn):
    """A copy of an image [H, W, 3] as tensor [3, H, W], in one of the eight ways; 0: upright. One pass, 10 us for 96 x 96 pixels."""
    if turn & 1:
        image = image[::-1]
    if turn & 2:
        image = image[:, ::-1]
    if turn & 4:
        image = image.swapaxes(0, 1)
    return torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C"))


def cut(pixels, top, left, side):
    """A square of an image [3, H, W]."""
    return pixels[:, top : top + side, left : left + side].contiguous()


def seed_of(name):
    """A 64-bit seed from an image's relative path."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(name), digest_size=8).digest(), "little")
