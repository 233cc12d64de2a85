"""Bytes to what a network reads."""

import torch


class Normalise:
    """uint8 pixels [N, 3, H, W] -> float, scaled to 0..1, minus mean, divided by std (three numbers each)."""

    def __init__(self, mean, std):
        mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (mean, std))
        self.constants = {None: (1 / (255 * std), -mean / std)}  # by device, sent there once

    def __call__(self, pixels):
        device = pixels.device
        if device not in self.constants:
            self.constants[device] = tuple(numbers.to(device) for numbers in self.constants[None])
        scale, shift = self.constants[device]
        return pixels.float() * scale + shift
