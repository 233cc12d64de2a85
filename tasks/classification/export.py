"""A classifier as ONNX reads it."""

import torch
from torch import nn

from visionloop.tasks.onnx import export_onnx


class LogitsAlone(nn.Module):
    """pixel_values -> (logits,), tensors instead of the library's output object."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, pixel_values):
        return (self.module(pixel_values=pixel_values).logits,)


def export_classifier(module, folder, size):
    """Write model.onnx: pixel_values [batch, 3, size, size], normalised, to logits. Returns lines that say what was done."""
    trial = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    return export_onnx(LogitsAlone(module), trial, folder, ["logits"])
