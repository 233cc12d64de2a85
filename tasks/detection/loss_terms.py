"""Terms of the D-FINE loss: varifocal, fine-grained localization (FGL) and distillation (DDF).

- Varifocal loss: the class loss, with the IoU of a match as its target. Zhang et al. 2021,
  arXiv:2008.13367; `loss_labels_vfl` in src/zoo/dfine/dfine_criterion.py of `Peterande/D-FINE`.
- FGL: cross-entropy of the corner distributions of Fine-grained Distribution Refinement (FDR),
  section 4.1 of Peng et al. 2024, arXiv:2410.13842; `weighting_function`, `translate_gt` and
  `bbox2distance` in src/zoo/dfine/dfine_utils.py, `unimodal_distribution_focal_loss` in
  dfine_criterion.py.
- Decoupled Distillation Focal loss (DDF): section 4.2 of the same paper; `loss_local` in
  dfine_criterion.py.
"""

import torch
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from visionloop.tasks.detection.boxes import corners_of

VFL_ALPHA = 0.75  # weight of the negatives


class _Context(FunctionCtx):
    """The context that both backward passes read; typed here because torch leaves it open."""

    saved_tensors: tuple[torch.Tensor, ...]
    temperature: float


class _VarifocalLoss(torch.autograd.Function):
    """Varifocal loss with its gradient in closed form.

    The weights are constants of the loss, so its gradient is alpha p^3 at a negative and q (p - q)
    at a positive. One dense tensor is kept for the backward; autograd's own graph of the same
    formula keeps three.
    """

    @staticmethod
    def forward(
        ctx: _Context, logits: torch.Tensor, positives: torch.Tensor, quality: torch.Tensor
    ) -> torch.Tensor:
        p = logits.sigmoid()
        losses = F.softplus(logits).mul_(p).mul_(p).mul_(VFL_ALPHA)
        positive_logits = logits.view(-1)[positives]
        losses.view(-1)[positives] = quality * (
            F.softplus(positive_logits) - quality * positive_logits
        )
        ctx.save_for_backward(p, positives, quality)
        return losses.sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        p, positives, quality = ctx.saved_tensors
        slope = p.pow(3).mul_(VFL_ALPHA)
        slope.view(-1)[positives] = quality * (p.view(-1)[positives] - quality)
        return slope.mul_(gradient[..., None]), None, None


def varifocal_losses(
    logits: torch.Tensor, rows: torch.Tensor, labels: torch.Tensor, quality: torch.Tensor
) -> torch.Tensor:
    """Compute the varifocal loss of each query, summed over the classes.

    It is quality * BCE(logit, quality) at a positive and 0.75 p^2 BCE(logit, 0) anywhere else.
    Neither the weights nor the quality get a gradient.

    Args:
        logits: [..., C].
        rows: int64 [n], queries with a match, each once; positions in the flattened [-1, C].
        labels: int64 [n], their classes.
        quality: float [n], IoU of their matches, 0..1.

    Returns:
        [...].
    """
    loss: torch.Tensor = _VarifocalLoss.apply(
        logits.contiguous(), rows * logits.shape[-1] + labels, quality.detach()
    )
    return loss


def bin_values(reg_max: int, reg_scale: float, up: float) -> torch.Tensor:
    """Return the offsets W(n) of the bins n = 0..reg_max, rising, float32 [reg_max + 1].

    Fine around 0 and coarse outside: 0 and +-(step^i - 1) up to +-up * reg_scale, and twice that
    at both ends. The unit is 1 / reg_scale of the side of the reference box.
    """
    bound, half = abs(up) * abs(reg_scale), reg_max // 2
    step = (bound + 1) ** (2 / (reg_max - 2))
    positive = [step**i - 1 for i in range(1, half)] + [2 * bound]
    return torch.tensor([-value for value in reversed(positive)] + [0.0] + positive)


def corner_targets(
    references: torch.Tensor, boxes: torch.Tensor, bins: torch.Tensor, reg_scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the two bins that each side of a ground-truth box lies between, and their weights.

    A side beyond all bins goes wholly to the outermost one, and so does nan.

    Args:
        references: float [N, 4], cxcywh, the boxes that the distributions refine.
        boxes: float [N, 4], cxcywh, the ground truth.
        bins: of `bin_values`.
        reg_scale: of the model.

    Returns:
        (int64 [N, 4]: the left bin, float32 [N, 4]: the weight of its right neighbor). The left
        bin has the rest of 1. Sides: left, top, right, bottom.
    """
    scale, last = abs(reg_scale), len(bins) - 1
    cx, cy, w, h = references.unbind(-1)
    x1, y1, x2, y2 = corners_of(boxes.unbind(-1))
    sides = torch.stack([w, h, w, h], -1) / scale + 1e-16
    distances = torch.stack([cx - x1, cy - y1, x2 - cx, y2 - cy], -1) / sides - scale / 2
    index = torch.searchsorted(bins, distances.contiguous(), right=True) - 1
    left = index.clamp(0, last - 1)
    below, above = (distances - bins[left]).abs(), (bins[left + 1] - distances).abs()
    inside = below / (below + above)
    return left, torch.where(index < 0, 0.0, torch.where(index >= last, 1.0, inside))


def fgl_losses(
    logits: torch.Tensor, left: torch.Tensor, right_weight: torch.Tensor
) -> torch.Tensor:
    """Compute the cross-entropy of corner distributions with two neighboring bins.

    The caller multiplies by the IoU of the match.

    Args:
        logits: [N, L, 4, reg_max + 1]; all layers L share the targets.
        left: int64 [N, 4], see `corner_targets`.
        right_weight: float [N, 4].

    Returns:
        [N, L], summed over the four sides.
    """
    left = left[:, None, :, None].expand(*logits.shape[:-1], 1)
    right_weight = right_weight[:, None]
    at_left, at_right = logits.gather(-1, left).squeeze(-1), logits.gather(-1, left + 1).squeeze(-1)
    # the weights add up to 1, so the log-partition comes once
    return (logits.logsumexp(-1) - torch.lerp(at_left, at_right, right_weight)).sum(-1)


class _Divergence(torch.autograd.Function):
    """KL divergence from the last layer with its gradient in closed form."""

    @staticmethod
    def forward(ctx: _Context, logits: torch.Tensor, temperature: float) -> torch.Tensor:
        log_p = (logits / temperature).log_softmax(-1)
        students, teacher = log_p[:, :-1], log_p[:, -1:]
        ctx.save_for_backward(log_p)
        ctx.temperature = temperature
        return (teacher - students).mul_(teacher.exp()).sum((-2, -1))

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (log_p,) = ctx.saved_tensors
        slope = log_p.exp()
        slope[:, :-1].sub_(slope[:, -1:]).mul_(gradient[..., None, None] / ctx.temperature)
        slope[:, -1].zero_()
        return slope, None


def divergence_from_last_layer(logits: torch.Tensor, temperature: float = 5.0) -> torch.Tensor:
    """Compute KL(softmax(teacher / T) || softmax(student / T)), summed over the four sides.

    The last layer is the teacher of all others and gets no gradient.

    Args:
        logits: corner distributions, [B, L, Q, 4, bins].
        temperature: T.

    Returns:
        [B, L - 1, Q].
    """
    divergence: torch.Tensor = _Divergence.apply(logits, temperature)
    return divergence
