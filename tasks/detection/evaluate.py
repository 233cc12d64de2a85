"""From what the network says to boxes in the image's own pixels, and what the scores mean."""

import torch

from visionloop.engine.errors import UserError
from visionloop.engine.metric import MetricSpec
from visionloop.metrics.coco_evaluation import backend_classes
from visionloop.tasks.detection.loss import last_layer_losses

MOST = 300  # boxes kept of an image; COCO's scores read the best 100 per class
# What `predict` writes down. Boxes below hardly count: on BCCD (3 classes) 0.02 leaves AP as it is,
# 0.1 costs 0.0001, 0.4 costs 0.02.
LEAST_SCORE = 0.01
SIZES = {
    "small": "smaller than 32 x 32 px",
    "medium": "32 x 32 to 96 x 96 px",
    "large": "larger than 96 x 96 px",
}
METRICS = (
    MetricSpec(
        "mAP",
        "AP",
        "percent",
        True,
        "average precision over classes and over IoU 0.50 to 0.95 (COCO's AP)",
    ),
    MetricSpec("mAP50", "AP50", "percent", True, "the same at IoU 0.50"),
    MetricSpec("mAP75", "AP75", "percent", True, "the same at IoU 0.75"),
    *(
        MetricSpec(f"mAP_{size}", f"AP {size}", "percent", True, f"AP of objects {which}")
        for size, which in SIZES.items()
    ),
    *(
        MetricSpec(
            f"AR{n}",
            f"AR {n}",
            "percent",
            True,
            f"average recall with {n} box(es) an image and class",
        )
        for n in (1, 10, 100)
    ),
    *(
        MetricSpec(
            f"AR_{size}", f"AR {size}", "percent", True, f"average recall of objects {which}"
        )
        for size, which in SIZES.items()
    ),
    MetricSpec(
        "val_loss",
        "validation loss",
        "float",
        False,
        "VFL, L1 and GIoU of the last layer by its own matching, per box",
    ),
)


def predict(module, pixels, sizes, targets=None, weights=None):
    """pixels: what the network reads, [B, 3, S, S]; sizes: int64 [B, 2], height and width of the files.

    Returns {"boxes": float32 [B, K, 4] xyxy in pixels of the files, "scores": [B, K] falling,
    "labels": int64 [B, K]}, K at most 300: the best pairs of query and class, without suppression.
    With targets, also "losses": [B], sums over each image; weights: {"vfl", "bbox", "giou"}.
    """
    outputs = module(pixels)
    logits, boxes = (
        outputs.intermediate_logits[:, -1],
        outputs.intermediate_reference_points[:, -1],
    )  # [B, Q, C], [B, Q, 4]
    found = decode(logits, boxes, sizes)
    if targets is not None:
        found["losses"] = last_layer_losses(logits, boxes, targets, **weights)
    return found


def decode(logits, boxes_cxcywh, sizes):
    """The best K pairs of query and class of each image, as `predict` returns them."""
    num_classes = logits.shape[-1]
    scores, places = logits.sigmoid().flatten(1).topk(min(MOST, logits[0].numel()))  # [B, K]
    queries = places // num_classes
    cx, cy, w, h = boxes_cxcywh.gather(1, queries[..., None].expand(-1, -1, 4)).unbind(-1)
    height, width = sizes.to(cx.dtype).unsqueeze(1).unbind(-1)  # [B, 1] each
    corners = torch.stack(
        [(cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height],
        dim=-1,
    )
    return {"boxes": corners, "scores": scores, "labels": places % num_classes}


def describe(predictions, sizes, names, classes, min_score):
    """One json-able dict per image: file, width, height, detections with label, id, score and box [x, y, width, height] in pixels."""
    rows = []
    columns = (
        predictions["boxes"].cpu(),
        predictions["scores"].cpu(),
        predictions["labels"].cpu(),
        sizes.cpu(),
    )
    for name, boxes, scores, labels, (height, width) in zip(names, *columns, strict=True):
        kept = scores >= min_score
        detections = [
            {
                "label": classes[i],
                "id": i,
                "score": round(score, 6),
                "box": [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)],
            }
            for (x1, y1, x2, y2), score, i in zip(
                boxes[kept].tolist(), scores[kept].tolist(), labels[kept].tolist(), strict=True
            )
        ]
        rows.append(
            {"file": name, "width": int(width), "height": int(height), "detections": detections}
        )
    return rows


def check_backend(name):
    """UserError when what computes the scores is not installed: better before the training than at its first evaluation."""
    try:
        backend_classes(name)
    except ValueError as error:
        raise UserError(f"--metric-backend: {error}", field="metric_backend") from None
