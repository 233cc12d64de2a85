"""What image classification shows of a run: the drawing and telling hooks of its task."""

from typing import ClassVar

from visionloop.engine.metric import MetricSpec
from visionloop.tasks.classification.draw import draw_batch, draw_confusion, draw_samples
from visionloop.tasks.reporting import ClassReporting


class ClassificationReporting(ClassReporting):
    """Pictures with labels, the confusion matrix, cross-entropy picture by picture."""

    sample_score = MetricSpec("cross_entropy", "cross-entropy", "float", False, "of the true class, without label smoothing")
    score_charts: ClassVar = {"accuracy": ("accuracy", "accuracy_top5", "mean_class_accuracy")}
    class_curves = ("accuracy", "precision")
    score_column = "losses"

    def draw(self, batch):
        return {"batch": draw_batch(batch, self.classes)}

    def draw_samples(self, batch, predictions):
        return draw_samples(batch, predictions, self.classes)

    def draw_scores(self, metric):
        return {"confusion": draw_confusion(metric.confusion(), self.classes)}

    def reference_scores(self, metric):
        return {"accuracy of always naming the most frequent class": metric.majority_accuracy()}

    def confusion(self, metric):
        return self.classes, metric.confusion(), "pictures"
