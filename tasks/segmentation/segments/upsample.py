"""Mask logits of a padded square, resized to the image that the square shows, in strips of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.nn import functional as F

from visionloop.datasets.segmentation.transforms import scaled_sides

# Logits that are resized at once: 4 MiB. Small enough for a cache and for memory that the C library
# keeps; with 64 MiB a CPU takes two to four times as long.
STRIP = 2**20


def logit_strips(
    mask_logits: torch.Tensor, size_hw: Sequence[int], side: int
) -> Iterator[tuple[slice[int, int, None], torch.Tensor]]:
    """Resize mask logits to the square, cut off its padding, and resize to the image, bilinearly.

    The image was resized until its longer side was `side`, and padded right or below. Two resizes
    differ from one at the borders. Both are separable: columns are resized in the few rows of
    logits that a strip lies between, rows are interpolated explicitly, because the strips must have
    the sample positions of the whole image. Source:
    `revert_resize_and_pad_logits_instance_panoptic` in training/lightning_module.py of
    `tue-mps/eomt`.

    Args:
        mask_logits: [n, h, w] of one image, n >= 1.
        size_hw: height and width of the image.
        side: of the square in pixels.

    Yields:
        (rows of the image, their logits float32 [n, rows, W], which may be overwritten), from top
        to bottom.
    """
    num_masks, height, _ = mask_logits.shape
    out_height, out_width = int(size_hw[0]), int(size_hw[1])
    fitted_height, fitted_width = scaled_sides(out_height, out_width, side / max(size_hw))
    sources, weights = _source_rows(height, side, fitted_height, out_height)
    spans = sources[0].tolist(), sources[3].tolist()
    sources, weights = sources.to(mask_logits.device), weights.to(mask_logits.device)[..., None]
    # an image of few rows lies between more rows of logits than it has
    per_row = num_masks * max(out_width, side) * max(1, height // out_height)
    step = max(1, STRIP // per_row)
    for top in range(0, out_height, step):
        rows = slice(top, min(top + step, out_height))
        first, last = spans[0][rows.start], spans[1][rows.stop - 1] + 1
        wide = _resize_columns(mask_logits[:, first:last].float(), side)[..., :fitted_width]
        if fitted_width != out_width:
            wide = _resize_columns(wide, out_width)
        near = sources[:, rows] - first
        strip = _mix_rows(wide, near[0], near[1], weights[0, rows])
        if fitted_height != out_height:
            lower = _mix_rows(wide, near[2], near[3], weights[1, rows])
            strip.lerp_(lower, weights[2, rows])
        yield rows, strip


def _source_rows(
    height: int, side: int, fitted_height: int, out_height: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where the rows of an image lie among the rows of the logits.

    A row of the image lies between two rows of the resized image, and each of these between two
    rows of logits.

    Args:
        height: of the logits.
        side: of the square.
        fitted_height: of the resized image inside the square.
        out_height: of the image.

    Returns:
        (int64 [4, H]: the four rows of logits, ascending; float32 [3, H]: the weight of the second
        of the first pair, of the second of the second pair, and of the second pair).
    """
    upper, lower, weight = _neighbours(fitted_height, out_height)
    square_upper, square_lower, square_weight = _neighbours(height, side)
    rows = [square[pair] for pair in (upper, lower) for square in (square_upper, square_lower)]
    return torch.stack(rows), torch.stack([square_weight[upper], square_weight[lower], weight])


def _neighbours(length: int, out_length: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the two pixels that each pixel of the resized side lies between.

    Returns:
        (first int64 [N], second int64 [N], weight of the second float32 [N] in 0..1).
    """
    centers = torch.arange(out_length) + 0.5
    positions = (centers * (length / out_length) - 0.5).clamp_(min=0)
    first = positions.long().clamp_(max=length - 1)
    return first, (first + 1).clamp_(max=length - 1), positions - first


def _resize_columns(logits: torch.Tensor, width: int) -> torch.Tensor:
    """Resize [n, h, w] to [n, h, width]."""
    return F.interpolate(logits[None], size=(logits.shape[1], width), mode="bilinear")[0]


def _mix_rows(
    logits: torch.Tensor, first: torch.Tensor, second: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Interpolate between rows of [n, h, W]: [n, rows, W]; weight [rows, 1] of the second."""
    return logits.index_select(1, first).lerp_(logits.index_select(1, second), weight)
