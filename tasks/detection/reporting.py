"""What object detection shows of a run: the drawing and telling hooks of its task."""

from typing import ClassVar

from visionloop.engine.metric import MetricSpec
from visionloop.tasks.classification.draw import draw_confusion
from visionloop.tasks.detection.charts import draw_per_class, draw_precision_recall, recall_lines
from visionloop.tasks.detection.confusion import NOTHING, confuse_boxes
from visionloop.tasks.detection.draw import draw_batch, draw_samples
from visionloop.tasks.reporting import ClassReporting


class DetectionReporting(ClassReporting):
    """Boxes found beside the true ones, precision against recall, confusions, the validation loss picture by picture."""

    sample_score = MetricSpec("loss_per_box", "loss per box", "float", False, "the validation loss of the picture over its boxes")
    score_charts: ClassVar = {
        "average precision": ("mAP", "mAP50", "mAP75"),
        "average precision by size": ("mAP_small", "mAP_medium", "mAP_large"),
        "average recall by number of boxes": ("AR1", "AR10", "AR100"),
        "average recall by size": ("AR_small", "AR_medium", "AR_large"),
    }
    class_curves = ("AP", "AP50")
    score_column = "losses"

    def draw(self, batch):
        return {"batch": draw_batch(batch, self.classes)}

    def draw_samples(self, batch, predictions):
        return draw_samples(batch, predictions, self.classes)

    def draw_scores(self, metric):
        curves = draw_precision_recall(metric.curves(), self.classes)
        classes, counts, _ = self.confusion(metric)
        bars = draw_per_class(metric.per_class(), self.classes)
        return {"precision_recall": curves, "average_precision": bars, "confusion": draw_confusion(counts, classes)}

    def confusion(self, metric):
        return (*self.classes, NOTHING), confuse_boxes(metric.state(), len(self.classes)), "boxes"

    def curves(self, metric):
        lines = recall_lines(metric.curves(), self.classes)
        return [{"title": "precision and recall at IoU 0.5", "x": "recall", "y": "precision", "lines": lines}]
