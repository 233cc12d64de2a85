"""Scores of instance segmentation: names, formats and meanings. Imports no torch."""

from visionloop.engine.metric import MetricSpec
from visionloop.tasks.coco_scores import percent, scores_by_size

METRICS = (
    percent("mAP", "mask AP", "average precision of masks over classes and over IoU 0.50 to 0.95"),
    percent("mAP50", "mask AP50", "average precision of masks at IoU 0.50"),
    percent("mAP75", "mask AP75", "average precision of masks at IoU 0.75"),
    *scores_by_size("mask ", "mask(s)"),
    MetricSpec("val_loss", "validation loss", "float", False, "the last level's loss of an image"),
)
# for the images that an evaluation draws
SAMPLE_SCORE = MetricSpec("image_loss", "loss", "float", False, "the validation loss of the image")
