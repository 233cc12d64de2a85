"""From images to logits, and what the scores mean."""

from visionloop.engine.task import MetricSpec

METRICS = (
    MetricSpec(
        "accuracy",
        "accuracy",
        "percent",
        True,
        "share of images whose highest score is their class",
    ),
    MetricSpec(
        "accuracy_top5",
        "top-5 accuracy",
        "percent",
        True,
        "share of images whose class is among the five highest scores",
    ),
    MetricSpec(
        "mean_class_accuracy",
        "mean class accuracy",
        "percent",
        True,
        "accuracy of each class, averaged over classes",
    ),
    MetricSpec(
        "val_loss",
        "validation loss",
        "float",
        False,
        "plain cross-entropy: no smoothing, no weights, no mixing",
    ),
)
TOP = 5


def predict(module, pixels):
    """pixels: what the network reads, [B, 3, S, S] -> {"logits": float32 [B, C]}."""
    return {"logits": module(pixel_values=pixels).logits.float()}


def describe(predictions, names, classes):
    """One json-able dict per image: file, label, score (its softmax probability) and the five best."""
    probabilities = predictions["logits"].softmax(dim=1).cpu()
    # stable, so that ties go to the lower id as in the metric
    order = probabilities.sort(dim=1, descending=True, stable=True)
    rows = []
    for name, scores, ids in zip(names, order.values.tolist(), order.indices.tolist(), strict=True):
        best = [
            {"id": i, "label": classes[i], "score": round(score, 6)}
            for i, score in zip(ids[:TOP], scores[:TOP], strict=True)
        ]
        rows.append(
            {"file": name, "label": best[0]["label"], "score": best[0]["score"], "top5": best}
        )
    return rows
