"""What the tasks tell of a run in the same way."""

from typing import ClassVar

from visionloop.engine.task import Reporting
from visionloop.tasks.drawing.contact_sheet import draw_gallery

# Scores class by class, for tables.


def name_rows(classes, columns):
    """{class name: {column: number}} in order of label; the second class of a name, as ImageNet has one, is told by "#" and its label.

    columns: {column: array [C]}.
    """
    rows = {}
    for i, name in enumerate(classes):
        rows[f"{name} #{i}" if name in rows else name] = {
            column: values[i].item() for column, values in columns.items()
        }
    return rows


class ImageReporting(Reporting):
    """For a metric whose `per_image()` is {column: array [N]} with "sample_ids" and `score_column`."""

    score_column: ClassVar[str]  # what `sample_score` is about
    draw_gallery = staticmethod(draw_gallery)

    def sample_scores(self, metric):
        rows = metric.per_image()
        return rows["sample_ids"], rows[self.score_column]


class ClassReporting(ImageReporting):
    """The same for a task with `classes`, whose metric has `per_class()`: {column: array [C]}."""

    def per_class_scores(self, metric):
        return name_rows(self.classes, metric.per_class())
