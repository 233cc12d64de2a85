"""Random colours: brightness, contrast, saturation, hue and order of the channels, as torchvision's RandomPhotometricDistort draws them.

The arithmetic is in float32 from end to end and rounds once, where torchvision's truncates after
each step: the results differ by a few levels of 255. A 256 px image takes 0.8 ms with everything
on; torchvision's hue alone takes 3.6 ms.
"""

import random
from dataclasses import dataclass

import numpy as np
import torch

BRIGHTNESS, CONTRAST, SATURATION = (0.875, 1.125), (0.5, 1.5), (0.5, 1.5)  # factors
HUE = (-0.05, 0.05)  # turns of the colour circle
LUMA = (0.2989, 0.587, 0.114)  # torchvision's weights of red, green and blue
CHANNEL_ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))


@dataclass(frozen=True)
class Distortion:
    """What is done to the colours of one image; None is left out.

    The order is brightness, contrast, saturation, hue, or with contrast_first off contrast last of
    these; channels: which of red, green and blue stand where in the result.
    """

    brightness: float | None = None
    contrast: float | None = None
    saturation: float | None = None
    hue: float | None = None
    contrast_first: bool = True
    channels: tuple | None = None

    @classmethod
    def draw(cls, probability):
        """A random one, each of the five things with the same probability; chance from `random`."""
        ranges = {
            "brightness": BRIGHTNESS,
            "contrast": CONTRAST,
            "saturation": SATURATION,
            "hue": HUE,
        }
        factors = {
            name: random.uniform(*limits) if random.random() < probability else None
            for name, limits in ranges.items()
        }
        contrast_first = random.random() < 0.5
        channels = random.choice(CHANNEL_ORDERS) if random.random() < probability else None
        return cls(contrast_first=contrast_first, channels=channels, **factors)

    def __call__(self, image):
        """image: uint8 [3, H, W] -> uint8 [3, H, W]; contrast is relative to this image's own mean luma."""
        if (self.brightness, self.contrast, self.saturation, self.hue) != (None,) * 4:
            pixels = self._change(image.float())
            # all values lie in 0..255: cutting off the rest rounds; numpy does it 6 times faster
            # than torch
            image = torch.from_numpy(pixels.add_(0.5).numpy().astype(np.uint8))
        return (
            image
            if self.channels is None
            else torch.stack([image[channel] for channel in self.channels])
        )

    def _change(self, pixels):
        """pixels: float32 [3, H, W] in 0..255, overwritten."""
        if self.brightness is not None:
            pixels = pixels.mul_(self.brightness).clamp_(0, 255)
        if self.contrast is not None and self.contrast_first:
            pixels = blend(pixels, _luma(pixels).mean(), self.contrast)
        if self.saturation is not None:
            pixels = blend(pixels, _luma(pixels), self.saturation)
        if self.hue is not None:
            pixels = turn_hue(pixels, self.hue)
        if self.contrast is not None and not self.contrast_first:
            pixels = blend(pixels, _luma(pixels).mean(), self.contrast)
        return pixels


def blend(pixels, other, share):
    """share * pixels + (1 - share) * other within 0..255, in place; a share above 1 leads away from the other."""
    return pixels.mul_(share).add_(other * (1 - share)).clamp_(0, 255)


def turn_hue(pixels, turn):
    """Every pixel's HSV hue turned, saturation and value kept, in place.

    pixels: float32 [3, H, W]; turn: at most 1/6 to either side, 1 is the full circle. Without the
    way through HSV: on the hexagon of hues, measured in sixths of a turn, a channel is largest
    within 1 of its own colour, falls to the smallest within the next 1 and stays there. With
    maximum M and minimum m of a pixel and C = M - m, a channel at distance t is m + C clamp(2 - t,
    0, 1), and t = 1 + (sum of the other two - the channel - m) / C, on the side of the larger of
    the other two. Multiplied by C no division is left, so greys need no exception.
    """
    smallest = pixels.amin(0)
    chroma = pixels.amax(0).sub_(smallest)
    side = pixels.roll(-1, 0).sub_(pixels.roll(1, 0))  # of red: green - blue, and so on
    total = pixels.sum(0).add_(chroma).sub_(smallest)
    turned = (
        pixels.mul_(-2).add_(total).copysign_(side).add_(chroma * (6 * turn)).abs_()
    )  # distance times chroma
    falling = turned.neg_().add_(2 * chroma).clamp_(min=0)
    return torch.minimum(falling, chroma, out=falling).add_(smallest)


def _luma(pixels):
    red, green, blue = LUMA
    return (pixels[0] * red).add_(pixels[1], alpha=green).add_(pixels[2], alpha=blue)
