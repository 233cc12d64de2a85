"""A detector as ONNX reads it."""

from unittest.mock import patch

import torch
from torch import nn
from transformers.models.d_fine import modeling_d_fine

from visionloop.tasks.onnx import export_onnx


class LastLayer(nn.Module):
    """pixel_values -> (logits [B, Q, C], boxes [B, Q, 4] cxcywh in 0..1) of the last layer."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, pixel_values):
        outputs = self.module(pixel_values)
        return outputs.intermediate_logits[:, -1], outputs.intermediate_reference_points[:, -1]


def export_detector(module, folder, size):
    """Write model.onnx: pixel_values [1, 3, size, size] in 0..1 to logits and boxes. Returns lines that say what was done.

    One picture at a time: the library's forward reads the batch size with `len`, which fixes it in the exported graph.
    """
    trial = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    # the library's check that its levels fill its sequence has no form in ONNX
    with patch.object(modeling_d_fine, "torch_compilable_check", lambda *_: None):
        return export_onnx(LastLayer(module), trial, folder, ["logits", "boxes"], any_batch=False, align=align_queries)


def align_queries(theirs, ours):
    """(theirs, ours): each of our queries beside the nearest of `theirs`, the twentieth that agrees least left out.

    Queries stand in the order of the proposals' scores: rounding swaps neighbours, and at the end of the list one proposal may give way
    to another whose score is the same but for rounding.
    """
    rows = [torch.cat([*answer], dim=-1)[0] for answer in (ours, theirs)]  # [Q, C + 4] each
    distance = torch.cdist(*rows, compute_mode="donot_use_mm_for_euclid_dist")  # [Q, Q]; the quick way is off by 1e-3
    distance, nearest = distance.min(dim=1)
    kept = distance.argsort()[: len(distance) - len(distance) // 20]
    return [tensor[:, nearest[kept]] for tensor in theirs], [tensor[:, kept] for tensor in ours]
