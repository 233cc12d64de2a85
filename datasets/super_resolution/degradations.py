"""What spoils an image on purpose, so that a network can learn to undo it: noise and JPEG.

A degradation takes an image uint8 [3, H, W] and gives one of the same size and kind. Chance comes
from torch's default generator, which must be seeded before a sample, or from a generator that is
handed over. For evaluation, `fixed()` is the same at the middle of its range (of 15-50: 32.5), and
what is drawn there is a function of the image's name alone: scores repeat. The single values that
papers report, sigma 15, 25, 50 and quality 10, 20, 30, 40, are had by training or evaluating with
that value.
"""

import re
from dataclasses import dataclass
from typing import ClassVar

import torch
from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg

LARGEST_SIGMA = 255


@dataclass(frozen=True)
class GaussianNoise:
    """Independent normal noise on every value of every pixel. lowest, highest: of its standard deviation, of 255; drawn evenly.

    The noisy image is rounded and clipped to 8 bits, as a camera's file is. Papers add the noise
    to floats, and neither round nor clip (SwinIR main_test_swinir.py): rounding adds 1/12 to the
    variance, 0.04 % at 15; clipping takes noise away near black and white only.
    """

    lowest: float
    highest: float
    margin: ClassVar[int] = 0  # pixels a training crop must be larger

    @classmethod
    def from_text(cls, text):
        """Of "25" or "15-50". Raises ValueError that says what was expected."""
        return cls(*parse_range(text, 0, LARGEST_SIGMA))

    def __call__(self, pixels, generator=None):
        """pixels: uint8 [3, H, W] -> the same."""
        sigma = self.lowest
        if self.highest > self.lowest:
            sigma += (self.highest - self.lowest) * torch.rand((), generator=generator)
        noise = torch.randn(pixels.shape, generator=generator)
        return noise.mul_(sigma).add_(pixels).round_().clamp_(0, 255).to(torch.uint8)

    def fixed(self):
        middle = (self.lowest + self.highest) / 2
        return GaussianNoise(middle, middle)


@dataclass(frozen=True)
class Jpeg:
    """Encoded as JPEG and decoded again. lowest, highest: of the quality, 1 to 100, drawn evenly.

    Colours at half the resolution (4:2:0), as cameras, Pillow and OpenCV write it: torchvision's
    encoder gives the same bytes of pixels as Pillow's in 60 % of the time. The blocks of 8 x 8
    begin in the upper left corner of what is encoded; see SuperResolutionTrainPreset.
    """

    lowest: int
    highest: int
    margin: ClassVar[int] = 8  # a block

    @classmethod
    def from_text(cls, text):
        """Of "30" or "10-40". Raises ValueError that says what was expected."""
        return cls(*(int(quality) for quality in parse_range(text, 1, 100, whole=True)))

    def __call__(self, pixels, generator=None):
        """pixels: uint8 [3, H, W] -> the same."""
        quality = self.lowest
        if self.highest > self.lowest:
            quality = int(torch.randint(self.lowest, self.highest + 1, (), generator=generator))
        return decode_jpeg(
            encode_jpeg(pixels.contiguous(), quality=quality), mode=ImageReadMode.RGB
        )

    def fixed(self):
        middle = (self.lowest + self.highest) // 2
        return Jpeg(middle, middle)


def parse_range(text, least, most, *, whole=False):
    """(lowest, highest) of "25" or "15-50", within least..most, floats. Raises ValueError that says what was expected."""
    number = r"\d+" if whole else r"\d+(?:\.\d+)?"
    found = re.fullmatch(rf"\s*({number})\s*(?:-\s*({number})\s*)?", str(text))
    lowest, highest = (float(found[1]), float(found[2] or found[1])) if found else (1, 0)
    if not least <= lowest <= highest <= most:
        kind = "whole number" if whole else "number"
        raise ValueError(
            f"expected a {kind} or a range such as 15-50, within {least} to {most}, got {text!r}"
        )
    return lowest, highest
