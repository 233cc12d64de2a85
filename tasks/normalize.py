"""Normalization of pixels on the device."""

from collections.abc import Sequence

import torch


class Normalize:
    """Scale uint8 pixels [N, 3, H, W] to 0..1, subtract the mean and divide by the std, in fp32.

    One multiplication and one addition, so that no intermediate copy of the batch is made.

    Args:
        mean: of each channel, in 0..1.
        std: of each channel, in 0..1.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        means, stds = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (mean, std))
        # {device: (scale, shift)}; None holds the originals, each device gets its copy once
        self.constants: dict[torch.device | None, tuple[torch.Tensor, ...]] = {
            None: (1 / (255 * stds), -means / stds)
        }

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return float32 [N, 3, H, W]."""
        device = pixels.device
        if device not in self.constants:
            self.constants[device] = tuple(tensor.to(device) for tensor in self.constants[None])
        scale, shift = self.constants[device]
        return pixels.float() * scale + shift
