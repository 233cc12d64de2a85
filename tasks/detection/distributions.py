"""Edges of a box as distributions over bins of unequal width (D-FINE, Peng et al. 2024, arXiv 2410.13842, section 4.1)."""

import torch

from visionloop.tasks.detection.boxes import corners_of


def bin_values(reg_max, reg_scale, up):
    """The offsets W that the bins 0..reg_max stand for, float32 [reg_max + 1], rising; unit: 1 / reg_scale of the reference's side.

    Fine around 0, coarse outside: 0 and +-(step^i - 1) up to +-up * reg_scale, and twice that at both ends.
    """
    bound, half = abs(up) * abs(reg_scale), reg_max // 2
    step = (bound + 1) ** (2 / (reg_max - 2))
    positive = [step**i - 1 for i in range(1, half)] + [2 * bound]
    return torch.tensor([-value for value in reversed(positive)] + [0.0] + positive)


def edge_targets(references, boxes, bins, reg_scale):
    """Between which two bins each edge of a true box lies, seen from its reference.

    references, boxes: cxcywh [N, 4]; bins: `bin_values`. Returns the left bin, int64 [N, 4], and the weight of its right neighbour,
    float32 [N, 4]; the left one has the rest of 1. Sides: left, top, right, bottom. What lies outside all bins goes wholly to the
    outermost one; so does what is not a number.
    """
    scale, last = abs(reg_scale), len(bins) - 1
    cx, cy, w, h = references.unbind(-1)
    x1, y1, x2, y2 = corners_of(boxes.unbind(-1))
    sides = torch.stack([w, h, w, h], -1) / scale + 1e-16
    distances = torch.stack([cx - x1, cy - y1, x2 - cx, y2 - cy], -1) / sides - scale / 2
    found = torch.searchsorted(bins, distances.contiguous(), right=True) - 1
    left = found.clamp(0, last - 1)
    below, above = (distances - bins[left]).abs(), (bins[left + 1] - distances).abs()
    inside = below / (below + above)
    return left, torch.where(found < 0, 0.0, torch.where(found >= last, 1.0, inside))


def edge_losses(logits, left, right_weight):
    """Cross-entropy of edge distributions with two neighbouring bins, summed over the sides: [N, L].

    logits: [N, L, 4, reg_max + 1]; left, right_weight: [N, 4], see `edge_targets`; the layers L share them.
    """
    left = left[:, None, :, None].expand(*logits.shape[:-1], 1)
    right_weight = right_weight[:, None]
    at_left, at_right = logits.gather(-1, left).squeeze(-1), logits.gather(-1, left + 1).squeeze(-1)
    # the weights add up to 1, so the normaliser comes once
    return (logits.logsumexp(-1) - torch.lerp(at_left, at_right, right_weight)).sum(-1)
