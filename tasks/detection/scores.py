"""Scores of object detection: names, formats and meanings. Imports no torch."""

from visionloop.engine.metric import MetricSpec
from visionloop.tasks.coco_scores import percent, scores_by_size

METRICS = (
    percent("mAP", "AP", "average precision over classes and over IoU 0.50 to 0.95 (COCO's AP)"),
    percent("mAP50", "AP50", "average precision at IoU 0.50"),
    percent("mAP75", "AP75", "average precision at IoU 0.75"),
    *scores_by_size("", "box(es)"),
    MetricSpec(
        "val_loss",
        "validation loss",
        "float",
        False,
        "VFL, L1 and GIoU loss of the last decoder layer by its own matching, per box",
    ),
)
# for the images that an evaluation draws
SAMPLE_SCORE = MetricSpec(
    "loss_per_box",
    "loss per box",
    "float",
    False,
    "the validation loss of the image over its boxes",
)
