"""The loss of the last layer, picture by picture, to watch on pictures that were not trained on."""

import torch

from visionloop.tasks.detection.answers import Truth
from visionloop.tasks.detection.boxes import corners_of, iou_and_giou
from visionloop.tasks.detection.matcher import assign, matching_costs
from visionloop.tasks.detection.pairing import to_device
from visionloop.tasks.detection.varifocal import varifocal_losses


@torch.no_grad()
def last_layer_losses(logits, boxes, targets, *, vfl=1.0, bbox=5.0, giou=2.0):
    """Weighted sum of varifocal, L1 and GIoU loss of each picture by its own matching, not divided: float32 [B].

    logits: [B, Q, C]; boxes: [B, Q, 4] cxcywh in 0..1; targets: [{"class_labels": [G], "boxes": [G, 4]}]. The sum over pictures divided
    by the number of their boxes is comparable between data sets. One host read, of the matching costs.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits, boxes, truth = logits.float(), boxes.float(), Truth.join(targets)
        (images,) = to_device([truth.images()], logits.device)
        costs = matching_costs([(logits[:, None], boxes[:, None])], truth.labels, truth.boxes, images)
        pairs = assign(costs.cpu().numpy(), truth.sizes)
        images, queries, matched = to_device([pairs.images, pairs.queries, pairs.boxes], logits.device)
        found, true = boxes[images, queries], truth.boxes[matched]
        iou, generalised = iou_and_giou(corners_of(found.unbind(-1)), corners_of(true.unbind(-1)))
        of_classes = varifocal_losses(logits, images * logits.shape[1] + queries, truth.labels[matched], iou).sum(-1)
        of_boxes = bbox * (found - true).abs().sum(-1) + giou * (1 - generalised)
        return (vfl * of_classes).index_add_(0, images, of_boxes)
