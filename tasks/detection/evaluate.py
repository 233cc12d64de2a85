"""Predictions in pixels of the image files, and the metrics of object detection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from visionloop.engine.errors import UserError
from visionloop.engine.types import JsonObject
from visionloop.metrics.coco_evaluation import backend_classes
from visionloop.tasks.detection.loss import last_layer_losses
from visionloop.tasks.operating_point import ScoreThresholds

if TYPE_CHECKING:
    from visionloop.tasks.detection.network import DFineForObjectDetection

MOST_DETECTIONS = 300  # of an image; COCO's metrics use the best 100 of each class


def predict(
    module: DFineForObjectDetection,
    pixels: torch.Tensor,
    sizes: torch.Tensor,
    targets: Sequence[Mapping[str, torch.Tensor]] | None,
    weights: Mapping[str, float],
) -> dict[str, torch.Tensor]:
    """Predict the best pairs of query and class of each image, without non-maximum suppression.

    Args:
        module: the model in eval mode.
        pixels: float [B, 3, S, S] in 0..1.
        sizes: int64 [B, 2], height and width of the files.
        targets: of the batch, see `DFineCriterion`, or None.
        weights: of the loss terms, {"vfl", "bbox", "giou"}.

    Returns:
        {"boxes": float32 [B, K, 4] xyxy in pixels of the files, "scores": [B, K] falling, "labels":
        int64 [B, K]}, K at most 300; with targets also "losses": [B], the sum over each image.
    """
    outputs = module(pixels)
    logits = outputs.intermediate_logits[:, -1]  # [B, Q, C]
    boxes = outputs.intermediate_reference_points[:, -1]  # [B, Q, 4]
    predictions = decode(logits, boxes, sizes)
    if targets is not None:
        predictions["losses"] = last_layer_losses(logits, boxes, targets, weights)
    return predictions


def decode(
    logits: torch.Tensor, boxes_cxcywh: torch.Tensor, sizes: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Choose the best K pairs of query and class of each image; see `predict`."""
    num_classes = logits.shape[-1]
    most = min(MOST_DETECTIONS, logits[0].numel())
    scores, indices = logits.sigmoid().flatten(1).topk(most)  # [B, K]
    queries = indices // num_classes
    cx, cy, w, h = boxes_cxcywh.gather(1, queries[..., None].expand(-1, -1, 4)).unbind(-1)
    height, width = sizes.to(cx.dtype).unsqueeze(1).unbind(-1)  # [B, 1] each
    boxes = torch.stack(
        [(cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height],
        dim=-1,
    )
    return {"boxes": boxes, "scores": scores, "labels": indices % num_classes}


def describe(
    predictions: Mapping[str, torch.Tensor],
    sizes: torch.Tensor,
    names: Sequence[str],
    classes: Sequence[str],
    thresholds: ScoreThresholds,
) -> list[JsonObject]:
    """Return one row of predictions.jsonl for each image.

    Args:
        predictions: of `predict`.
        sizes: int64 [B, 2], height and width of the files.
        names: of the files.
        classes: names in order of label.
        thresholds: lowest score of a detection.

    Returns:
        [{"file", "width", "height", "detections": [{"label", "id", "score", "box"}]}], box: x, y,
        width and height in pixels.
    """
    rows = []
    columns = (*(predictions[key].cpu() for key in ("boxes", "scores", "labels")), sizes.cpu())
    for name, boxes, scores, labels, (height, width) in zip(names, *columns, strict=True):
        is_kept = thresholds.reached(scores, labels)
        selected = (column[is_kept].tolist() for column in (boxes, scores, labels))
        detections = [
            {
                "label": classes[i],
                "id": i,
                "score": round(score, 6),
                "box": [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)],
            }
            for (x1, y1, x2, y2), score, i in zip(*selected, strict=True)
        ]
        rows.append(
            {"file": name, "width": int(width), "height": int(height), "detections": detections}
        )
    return rows


def check_backend(name: str) -> None:
    """Raise UserError when the package of --metric-backend is not installed.

    A run should fail at its start, not at its first evaluation.
    """
    try:
        backend_classes(name)
    except ValueError as error:
        raise UserError(f"--metric-backend: {error}", field="metric_backend") from None
