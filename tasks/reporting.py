"""What the tasks tell of a run in the same way."""

from typing import ClassVar

from visionloop.engine.reporting import Reporting
from visionloop.tasks.gallery import draw_gallery
from visionloop.tasks.per_class import name_rows


class PictureReporting(Reporting):
    """For a metric whose `per_picture()` is {column: array [N]} with "sample_ids" and `score_column`."""

    score_column: ClassVar[str]  # what `sample_score` is about
    draw_gallery = staticmethod(draw_gallery)

    def sample_scores(self, metric):
        rows = metric.per_picture()
        return rows["sample_ids"], rows[self.score_column]


class ClassReporting(PictureReporting):
    """The same for a task with `classes`, whose metric has `per_class()`: {column: array [C]}."""

    def per_class_scores(self, metric):
        return name_rows(self.classes, metric.per_class())
