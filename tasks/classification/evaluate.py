"""Metrics of image classification, the forward of an evaluation, and predictions as JSON."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from visionloop.engine.types import JsonObject, Predictions

TOP = 5


def predict(module: PreTrainedModel, pixel_values: torch.Tensor) -> Predictions:
    """Compute the logits of normalized images [B, 3, S, S]: {"logits": float32 [B, C]}."""
    return {"logits": module(pixel_values=pixel_values).logits.float()}


def describe_predictions(
    predictions: Predictions, names: Sequence[str], classes: Sequence[str]
) -> list[JsonObject]:
    """Convert logits to one JSON object per image.

    Args:
        predictions: the result of `predict`.
        names: file names of the B images.
        classes: class names in order of id.

    Returns:
        B objects {"file", "label", "score": softmax probability, "top5": [{"id", "label",
        "score"}, ..]}.
    """
    probabilities = predictions["logits"].softmax(dim=1).cpu()
    # stable, so that ties go to the lower id as in the metric
    order = probabilities.sort(dim=1, descending=True, stable=True)
    rows: list[JsonObject] = []
    for name, scores, ids in zip(names, order.values.tolist(), order.indices.tolist(), strict=True):
        top = [
            {"id": i, "label": classes[i], "score": round(score, 6)}
            for i, score in zip(ids[:TOP], scores[:TOP], strict=True)
        ]
        rows.append({"file": name, "label": top[0]["label"], "score": top[0]["score"], "top5": top})
    return rows
