"""Varifocal loss (Zhang et al. 2021, arXiv 2008.13367) with a gradient in closed form."""

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

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

    rows, labels, quality: [n], each row (of the flattened [-1, C]) that a box belongs to, once, with its class and overlap 0..1. There
    quality * BCE(logit, quality); for all other entries 0.75 p^2 BCE(logit, 0). Weights get no gradient, nor does the quality.
    """
    return _VarifocalLoss.apply(logits.contiguous(), rows * logits.shape[-1] + labels, quality.detach())
