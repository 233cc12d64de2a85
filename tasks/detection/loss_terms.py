"""Varifocal loss (Zhang et al. 2021, arXiv 2008.13367) with a gradient in closed form."""

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from visionloop.tasks.detection.boxes import corners_of

ALPHA = 0.75


class _VarifocalLoss(torch.autograd.Function):
    """The weights are constants of the loss, so its gradient is alpha p^3 where nothing is and q (p - q) where a box is.

    One dense tensor is kept for the backward; autograd's own graph of the same formula keeps three.
    """

    @staticmethod
    def forward(ctx, logits, positives, quality):
        probabilities = logits.sigmoid()
        losses = F.softplus(logits).mul_(probabilities).mul_(probabilities).mul_(ALPHA)
        at = logits.view(-1)[positives]
        losses.view(-1)[positives] = quality * (F.softplus(at) - quality * at)
        ctx.save_for_backward(probabilities, positives, quality)
        return losses.sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        probabilities, positives, quality = ctx.saved_tensors
        slope = probabilities.pow(3).mul_(ALPHA)
        slope.view(-1)[positives] = quality * (probabilities.view(-1)[positives] - quality)
        return slope.mul_(gradient[..., None]), None, None


def varifocal_losses(logits, rows, labels, quality):
    """Loss of each row of class logits, summed over the classes: logits [..., C] -> [...].

    rows, labels, quality: [n], each row (of the flattened [-1, C]) that a box belongs to, once,
    with its class and overlap 0..1. There quality * BCE(logit, quality); for all other entries 0.75
    p^2 BCE(logit, 0). Weights get no gradient, nor does the quality.
    """
    return _VarifocalLoss.apply(
        logits.contiguous(), rows * logits.shape[-1] + labels, quality.detach()
    )


# Edges of a box as distributions over bins of unequal width (D-FINE, Peng et al. 2024, arXiv
# 2410.13842, section 4.1).


def bin_values(reg_max, reg_scale, up):
    """The offsets W that the bins 0..reg_max stand for, float32 [reg_max + 1], rising; unit: 1 / reg_scale of the reference's side.

    Fine around 0, coarse outside: 0 and +-(step^i - 1) up to +-up * reg_scale, and twice that at
    both ends.
    """
    bound, half = abs(up) * abs(reg_scale), reg_max // 2
    step = (bound + 1) ** (2 / (reg_max - 2))
    positive = [step**i - 1 for i in range(1, half)] + [2 * bound]
    return torch.tensor([-value for value in reversed(positive)] + [0.0] + positive)


def edge_targets(references, boxes, bins, reg_scale):
    """Between which two bins each edge of a true box lies, seen from its reference.

    references, boxes: cxcywh [N, 4]; bins: `bin_values`. Returns the left bin, int64 [N, 4], and
    the weight of its right neighbour, float32 [N, 4]; the left one has the rest of 1. Sides: left,
    top, right, bottom. What lies outside all bins goes wholly to the outermost one; so does what is
    not a number.
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

    logits: [N, L, 4, reg_max + 1]; left, right_weight: [N, 4], see `edge_targets`; the layers L
    share them.
    """
    left = left[:, None, :, None].expand(*logits.shape[:-1], 1)
    right_weight = right_weight[:, None]
    at_left, at_right = logits.gather(-1, left).squeeze(-1), logits.gather(-1, left + 1).squeeze(-1)
    # the weights add up to 1, so the normaliser comes once
    return (logits.logsumexp(-1) - torch.lerp(at_left, at_right, right_weight)).sum(-1)


# How far the edge distributions of earlier decoder layers are from those of the last one, with a
# gradient in closed form.


class _Divergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, temperature):
        log_p = (logits / temperature).log_softmax(-1)
        students, teacher = log_p[:, :-1], log_p[:, -1:]
        ctx.save_for_backward(log_p)
        ctx.temperature = temperature
        return (teacher - students).mul_(teacher.exp()).sum((-2, -1))

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        (log_p,) = ctx.saved_tensors
        slope = log_p.exp()
        slope[:, :-1].sub_(slope[:, -1:]).mul_(gradient[..., None, None] / ctx.temperature)
        slope[:, -1].zero_()
        return slope, None


def divergence_from_last(logits, temperature=5.0):
    """KL(softmax(teacher / T) || softmax(student / T)), summed over the four sides: [B, L - 1, Q].

    logits: edge distributions [B, L, Q, 4, bins]; the last layer is the teacher and gets no
    gradient.
    """
    return _Divergence.apply(logits, temperature)
