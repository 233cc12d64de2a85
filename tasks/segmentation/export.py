"""A segmenter as ONNX reads it."""

import torch
from torch import nn

from visionloop.tasks.onnx import export_onnx


class LastLevel(nn.Module):
    """pixel_values -> (mask logits [B, Q, h, w], class logits [B, Q, K + 1]) of the last level."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, pixel_values):
        mask_logits, class_logits = self.module(pixel_values)
        return mask_logits[:, -1], class_logits[:, -1]


def export_segmenter(module, folder, size):
    """Write model.onnx: normalised windows [B, 3, size, size] to mask and class logits. Returns lines that say what was done."""
    trial = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    return export_onnx(LastLevel(module), trial, folder, ["mask_logits", "class_logits"])
