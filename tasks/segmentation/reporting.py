"""What semantic segmentation shows of a run: the drawing and telling hooks of its task."""

from typing import ClassVar

from visionloop.engine.metric import MetricSpec
from visionloop.tasks.reporting import ClassReporting
from visionloop.tasks.segmentation.charts import draw_confusion, draw_per_class
from visionloop.tasks.segmentation.draw import draw_batch, draw_samples


class SegmentationReporting(ClassReporting):
    """Classes in colours beside the true ones, the confusion of pixels, mIoU picture by picture."""

    sample_score = MetricSpec("picture_miou", "mIoU", "percent", True, "mean over the classes that truly are in the picture")
    score_charts: ClassVar = {
        "mIoU": ("miou", "miou_level_.*"),
        "accuracy of pixels and of classes": ("pixel_accuracy", "mean_class_accuracy"),
    }
    class_curves = ("IoU", "accuracy")
    score_column = "miou"

    def draw(self, batch):
        return {"batch": draw_batch(batch, self.classes, self.colors)}

    def draw_samples(self, batch, predictions):
        return draw_samples(batch, predictions, self.classes, self.colors)

    def draw_scores(self, metric):
        return {"confusion": draw_confusion(metric.confusion(), self.classes), "iou": draw_per_class(metric.per_class(), self.classes)}

    def confusion(self, metric):
        return self.classes, metric.confusion(), "pixels"
