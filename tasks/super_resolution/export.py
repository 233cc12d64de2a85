"""A super-resolution network as ONNX reads it."""

import torch
from torch import nn

from visionloop.tasks.onnx import export_onnx


class PictureAlone(nn.Module):
    """pixel_values -> (picture,), without the auxiliary one."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, pixel_values):
        return (self.module(pixel_values)["sr"],)


def export_super_resolver(module, folder, size):
    """Write model.onnx: tiles [B, 3, size, size] in 0..1 to pictures [B, 3, s*size, s*size]. Returns lines that say what was done."""
    trial = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    return export_onnx(PictureAlone(module), trial, folder, ["reconstruction"])
