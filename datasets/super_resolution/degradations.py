"""Degradations that a restoration network learns to undo: Gaussian noise and JPEG.

A degradation takes an image uint8 [3, H, W] and returns one of the same size and type. Random
numbers come from torch's default generator, which must be seeded before a sample, or from a
generator that is passed. For evaluation, `fixed()` is the same at the middle of its range (of
15-50: 32.5), and the random numbers are a function of the image's name alone: scores are
reproducible. The single values that papers report, sigma 15, 25, 50 and quality 10, 20, 30, 40,
need training or evaluation with that value.
"""

import io
import re
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import simplejpeg
import torch
from PIL import Image

LARGEST_SIGMA = 255


@dataclass(frozen=True)
class GaussianNoise:
    """Independent normal noise on every value of every pixel.

    The noisy image is rounded and clipped to 8 bits, as a camera's file is. Papers add the noise
    to floats, and neither round nor clip (SwinIR main_test_swinir.py): rounding adds 1/12 to the
    variance, 0.04 % at 15; clipping removes noise near black and white only.

    Attributes:
        lowest, highest: range of the standard deviation on a scale of 255, drawn uniformly.
        margin: pixels that a training crop must be larger.
    """

    lowest: float
    highest: float
    margin: ClassVar[int] = 0

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse "25" or "15-50". Raises ValueError with what was expected."""
        return cls(*parse_range(text, 0, LARGEST_SIGMA))

    def __call__(
        self, pixels: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Degrade an image, uint8 [3, H, W]."""
        sigma: float | torch.Tensor = self.lowest
        if self.highest > self.lowest:
            sigma += (self.highest - self.lowest) * torch.rand((), generator=generator)
        noise = torch.randn(pixels.shape, generator=generator)
        return noise.mul_(sigma).add_(pixels).round_().clamp_(0, 255).to(torch.uint8)

    def fixed(self) -> "GaussianNoise":
        """Return the degradation at the middle of the range."""
        middle = (self.lowest + self.highest) / 2
        return GaussianNoise(middle, middle)


@dataclass(frozen=True)
class Jpeg:
    """JPEG compression.

    Colors at half the resolution (4:2:0) and the exact DCT, as cameras, Pillow and OpenCV write it.
    Pillow encodes: simplejpeg's encoder takes the fast DCT below quality 96, which differs by a
    gray level on average. A crop of 136 x 136 takes 0.14 ms. The blocks of 8 x 8 begin in the upper
    left corner of the encoded image; see SuperResolutionTrainPreset.

    Attributes:
        lowest, highest: range of the quality, 1 to 100, drawn uniformly.
        margin: pixels that a training crop must be larger: a block.
    """

    lowest: int
    highest: int
    margin: ClassVar[int] = 8

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse "30" or "10-40". Raises ValueError with what was expected."""
        return cls(*(int(quality) for quality in parse_range(text, 1, 100, whole=True)))

    def __call__(
        self, pixels: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Degrade an image, uint8 [3, H, W]."""
        quality = self.lowest
        if self.highest > self.lowest:
            quality = int(torch.randint(self.lowest, self.highest + 1, (), generator=generator))
        encoded = io.BytesIO()
        image = Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))
        image.save(encoded, "JPEG", quality=quality)
        decoded = simplejpeg.decode_jpeg(encoded.getbuffer())
        return torch.from_numpy(decoded).permute(2, 0, 1)

    def fixed(self) -> "Jpeg":
        """Return the degradation at the middle of the range."""
        middle = (self.lowest + self.highest) // 2
        return Jpeg(middle, middle)


def parse_range(
    text: str, least: float, most: float, *, whole: bool = False
) -> tuple[float, float]:
    """Return (lowest, highest) of "25" or "15-50", within least..most.

    Args:
        text: a number or a range.
        least, most: limits of the numbers.
        whole: accept whole numbers only.

    Raises:
        ValueError: with what was expected.
    """
    number = r"\d+" if whole else r"\d+(?:\.\d+)?"
    match = re.fullmatch(rf"\s*({number})\s*(?:-\s*({number})\s*)?", str(text))
    lowest, highest = (float(match[1]), float(match[2] or match[1])) if match else (1, 0)
    if not least <= lowest <= highest <= most:
        kind = "whole number" if whole else "number"
        raise ValueError(
            f"expected a {kind} or a range such as 15-50, within {least} to {most}, got {text!r}"
        )
    return lowest, highest
