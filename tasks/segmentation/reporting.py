"""What semantic segmentation shows of a run: the drawing and telling hooks of its task."""

from typing import ClassVar

from visionloop.engine.metric import MetricSpec
from visionloop.engine.reporting import Reporting
from visionloop.tasks.gallery import draw_gallery
from visionloop.tasks.per_class import name_rows
from visionloop.tasks.segmentation.charts import draw_confusion, draw_per_class
from visionloop.tasks.segmentation.draw import draw_batch, draw_samples


class SegmentationReporting(Reporting):
    """Classes in colours beside the true ones, the confusion of pixels, mIoU picture by picture."""

    sample_score = MetricSpec("picture_miou", "mIoU", "percent", True, "mean over the classes that truly are in the picture")
    score_charts: ClassVar = {
        "mIoU": ("miou", "miou_level_.*"),
        "accuracy of pixels and of classes": ("pixel_accuracy", "mean_class_accuracy"),
    }
    class_curves = ("IoU", "accuracy")
    draw_gallery = staticmethod(draw_gallery)

    def draw(self, batch):
        return {"batch": draw_batch(batch, self.classes, self.colors)}

    def draw_samples(self, batch, predictions):
        return draw_samples(batch, predictions, self.classes, self.colors)

    def draw_scores(self, metric):
        return {"confusion": draw_confusion(metric.confusion(), self.classes), "iou": draw_per_class(metric.per_class(), self.classes)}

    def sample_scores(self, metric):
        rows = metric.per_picture()
        return rows["sample_ids"], rows["miou"]

    def per_class_scores(self, metric):
        return name_rows(self.classes, metric.per_class())

    def confusion(self, metric):
        return self.classes, metric.confusion(), "pixels"
