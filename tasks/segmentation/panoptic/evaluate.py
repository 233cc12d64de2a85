"""Inference of panoptic segmentation: the segments of whole images, and those of an evaluation."""

from collections.abc import Callable, Sequence

import torch

from visionloop.engine.batch import Batch
from visionloop.engine.types import Predictions, TaskModule
from visionloop.tasks.segmentation.panoptic.merge import panoptic_maps
from visionloop.tasks.segmentation.segments.predict import Losses, forward_padded

# at the authors' score of 0.8 a young model finds hardly any object: 13 PQ at 0.5 were 3 at 0.8
HALF = 0.5


def predict(
    module: TaskModule,
    normalize: Callable[[torch.Tensor], torch.Tensor],
    batch: Batch,
    side: int,
    is_thing: Sequence[bool],
    *,
    score: float,
    overlap: float,
    losses: Losses | None = None,
) -> Predictions:
    """Predict the segment of every pixel of a batch of images of any size.

    Args:
        module: the EoMT in eval mode.
        normalize: uint8 [B, 3, S, S] -> the network's input.
        batch: of `collate_eval`.
        side: of the network's input in pixels.
        is_thing: of each class, [K].
        score, overlap: see PanopticConfig.
        losses: of an evaluation, see `forward_padded`; None: of a prediction.

    Returns:
        {"segment_maps": int32 [H, W] of each image, 0 for no segment and i + 1 for segment i;
        "labels": int64 [n] and "scores": float32 [n] of its segments}; with `losses` also "losses":
        float32 [B], and "at_half": {"segment_maps", "labels"} with score 0.5 unless that is
        `score`.
    """
    mask_logits, class_logits, image_losses = forward_padded(
        module, normalize, batch, losses=losses
    )
    sizes = batch["sizes"].tolist()

    def merge(threshold: float) -> Predictions:
        images = [
            panoptic_maps(masks, classes, size, side, is_thing, score=threshold, overlap=overlap)
            for masks, classes, size in zip(mask_logits, class_logits, sizes, strict=True)
        ]
        maps, labels, scores = zip(*images, strict=True)
        return {"segment_maps": list(maps), "labels": list(labels), "scores": list(scores)}

    predictions = merge(score)
    if image_losses is not None:
        predictions["losses"] = image_losses
        if score != HALF:
            predictions["at_half"] = merge(HALF)
    return predictions
