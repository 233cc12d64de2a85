"""Box formats, and the overlap of pairs of boxes.

There is no N x N table anywhere: after matching, only matched pairs are compared.
"""

from collections.abc import Sequence

import torch

# smaller than the area of any real box (one pixel of 4000 x 4000 is 6e-8): it changes only 0 / 0
_MIN_AREA = 1e-12


def cxcywh_to_xyxy(boxes: torch.Tensor) -> torch.Tensor:
    """Convert boxes [..., 4]; a negative width or height counts as zero."""
    return torch.stack(corners_of(boxes.unbind(-1)), -1)


def corners_of(
    coordinates: Sequence[torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Convert (cx, cy, w, h) to (x1, y1, x2, y2), four tensors of one shape each.

    A negative width or height counts as zero: a box that D-FINE reads from its corner
    distributions may have its left edge right of the right one.
    """
    cx, cy, w, h = coordinates
    half_w, half_h = 0.5 * w.clamp(min=0), 0.5 * h.clamp(min=0)
    return cx - half_w, cy - half_h, cx + half_w, cy + half_h


def iou_and_giou(
    first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the IoU (0..1) and the generalized IoU (-1..1, arXiv:1902.09630) of pairs of boxes.

    Never raises: two boxes without an area have overlap 0, and nan stays nan.

    Args:
        first: four tensors x1, y1, x2, y2.
        second: the same; all shapes broadcast to that of the results.
    """
    ax1, ay1, ax2, ay2 = first
    bx1, by1, bx2, by2 = second
    intersection = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp_(min=0)
    intersection = intersection * (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp_(min=0)
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - intersection
    enclosing = (torch.maximum(ax2, bx2) - torch.minimum(ax1, bx1)) * (
        torch.maximum(ay2, by2) - torch.minimum(ay1, by1)
    )
    iou = intersection / union.clamp(min=_MIN_AREA)
    return iou, iou - (enclosing - union) / enclosing.clamp(min=_MIN_AREA)
