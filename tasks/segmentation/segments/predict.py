"""Run an EoMT on whole padded images."""

from collections.abc import Callable

import torch

from visionloop.engine.batch import Batch
from visionloop.engine.types import TaskModule
from visionloop.tasks.segmentation.network import query_mask_draws

# (mask logits [B, S, Q, h, w], class logits [B, S, Q, K + 1]) -> losses [B]
Losses = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def forward_padded(
    module: TaskModule,
    normalize: Callable[[torch.Tensor], torch.Tensor],
    batch: Batch,
    *,
    losses: Losses | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Predict masks and classes of a batch of images that are resized and padded to squares.

    Queries that are masked with some probability are drawn by sample id, so that a score in
    mid-training depends on neither the batch nor the rank.

    Args:
        module: the EoMT in eval mode.
        normalize: uint8 [B, 3, S, S] -> the network's input.
        batch: with pixel_values uint8 [B, 3, S, S] and sample_ids int64 [B].
        losses: (mask logits [B, 1, Q, h, w], class logits [B, 1, Q, K + 1]) -> losses [B]; None:
            compute none.

    Returns:
        (mask logits [B, Q, h, w], class logits [B, Q, K + 1], float32 [B] or None) of the last
        level.
    """
    pixel_values = batch["pixel_values"]
    keys = [(sample_id, -1) for sample_id in batch["sample_ids"].tolist()]
    draws = query_mask_draws(module, keys, pixel_values.device)
    mask_logits, class_logits = module(normalize(pixel_values), draws=draws)
    image_losses = None if losses is None else losses(mask_logits, class_logits)
    return mask_logits[:, -1], class_logits[:, -1], image_losses
