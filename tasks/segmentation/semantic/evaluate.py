"""Inference of EoMT: a class for every pixel of an image, and the scores of an evaluation."""

from collections.abc import Callable, Sequence

import torch

from visionloop.engine.batch import Batch
from visionloop.engine.types import Predictions, TaskModule
from visionloop.tasks.segmentation.network import query_mask_draws
from visionloop.tasks.segmentation.semantic.sliding_window import semantic_maps


def predict(
    module: TaskModule,
    normalize: Callable[[torch.Tensor], torch.Tensor],
    batch: Batch,
    side: int,
    *,
    levels: bool = False,
    losses: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
) -> Predictions:
    """Predict the class of every pixel of a batch of images of any size.

    Queries that are masked with some probability are drawn by sample id, so that a score in
    mid-training depends on neither the batch nor the rank.

    Args:
        module: the EoMT in eval mode.
        normalize: uint8 [N, 3, h, w] -> the network's input.
        batch: of `collate_eval`.
        side: of the windows in pixels.
        levels: predictions of all levels too.
        losses: (mask logits, class logits) -> losses [B] of the padded images by the last level;
            None: compute none.

    Returns:
        {"ids": uint8 [H, W] of each image}, with `losses` "losses": float32 [B], with `levels`
        "level_ids": uint8 [S - 1, H, W] of each image.
    """
    sample_ids = batch["sample_ids"].tolist()

    def forward(
        windows: torch.Tensor, keys: Sequence[tuple[int, int]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        sample_keys = [(sample_ids[i], j) for i, j in keys]
        draws = query_mask_draws(module, sample_keys, windows.device)
        mask_logits, class_logits = module(normalize(windows), draws=draws, all_levels=levels)
        return mask_logits, class_logits

    maps = list(semantic_maps(forward, batch["pixel_values"], batch["sizes"].tolist(), side))
    predictions: Predictions = {"ids": [image_levels[-1] for image_levels in maps]}
    if levels:
        predictions["level_ids"] = [image_levels[:-1] for image_levels in maps]
    if losses is not None:
        fitted = batch["fitted"]
        draws = query_mask_draws(module, [(i, -1) for i in sample_ids], fitted.device)
        mask_logits, class_logits = module(normalize(fitted), draws=draws)
        predictions["losses"] = losses(mask_logits, class_logits)
    return predictions
