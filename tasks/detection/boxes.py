"""Boxes as numbers: forms, and overlaps of pairs. No N x N table anywhere: after matching, only pairs are compared."""

import torch

# below any area that a real box has (one pixel of 4000 x 4000 is 6e-8), so it changes nothing but 0
# / 0
_LEAST_AREA = 1e-12


def cxcywh_to_xyxy(boxes):
    """Corners of boxes [..., 4] given by centre and size; a negative width or height counts as zero."""
    return torch.stack(corners_of(boxes.unbind(-1)), -1)


def corners_of(coordinates):
    """(x1, y1, x2, y2) of (cx, cy, w, h), four tensors of one shape each; a negative width or height counts as zero.

    A box that D-FINE reads from its edge distributions may be turned inside out: the left edge
    right of the right one.
    """
    cx, cy, w, h = coordinates
    half_w, half_h = 0.5 * w.clamp(min=0), 0.5 * h.clamp(min=0)
    return cx - half_w, cy - half_h, cx + half_w, cy + half_h


def iou_and_giou(first, second):
    """Intersection over union (0..1) and its generalised form (-1..1, Rezatofighi et al. 2019) of pairs of boxes.

    first, second: four tensors x1, y1, x2, y2 each, whose shapes broadcast to that of the answers.
    Never raises: two boxes without an area have overlap 0, and NaN stays NaN.
    """
    ax1, ay1, ax2, ay2 = first
    bx1, by1, bx2, by2 = second
    shared = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp_(min=0)
    shared = shared * (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp_(min=0)
    joined = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - shared
    around = (torch.maximum(ax2, bx2) - torch.minimum(ax1, bx1)) * (
        torch.maximum(ay2, by2) - torch.minimum(ay1, by1)
    )
    iou = shared / joined.clamp(min=_LEAST_AREA)
    return iou, iou - (around - joined) / around.clamp(min=_LEAST_AREA)
