"""What a task may show of a run beyond its scores. Every hook has a default that shows nothing."""

from typing import ClassVar

from visionloop.engine.metric import MetricSpec


class Reporting:
    """The part of the task socket that draws and tells. The engine never looks into a batch or a prediction; it asks here."""

    sample_score: ClassVar[MetricSpec | None] = None  # what `sample_scores` gives; None: no picture is better or worse than another
    score_charts: ClassVar[dict[str, tuple[str, ...]]] = {}  # {title: patterns of metric keys in one chart}; others get their own
    class_curves: ClassVar[tuple[str, ...]] = ()  # columns of `per_class_scores` that are worth a curve over the run

    # pictures -------------------------------------------------------------------------------------------------------
    def draw(self, batch):
        """{tag: uint8 array [H, W, 3]} of a training batch, as the network sees it."""
        return {}

    def draw_samples(self, batch, predictions):
        """One uint8 array [H, W, 3] for each picture of an evaluation's batch, prediction beside truth; [] for a task that draws none."""
        return []

    def draw_gallery(self, pictures, captions):
        """uint8 array [H, W, 3] with all pictures and a caption below each, or None. pictures: of `draw_samples`, at most 640 px wide."""
        return None

    def draw_scores(self, metric):
        """{tag: uint8 array [H, W, 3]} drawn from a whole evaluation, e.g. a confusion matrix."""
        return {}

    # numbers --------------------------------------------------------------------------------------------------------
    def sample_scores(self, metric):
        """(sample ids int64 [N], float64 [N]): the `sample_score` of every picture evaluated; nan where a picture has none."""
        raise NotImplementedError

    def per_class_scores(self, metric):
        """{class name: {column: number}} for tables, e.g. {"cat": {"AP": 0.5, "boxes": 12}}."""
        return {}

    def reference_scores(self, metric):
        """Scores of a trivial predictor on the same pictures, shown beside ours: {label: number}."""
        return {}

    def confusion(self, metric):
        """(class names, whole numbers [C, C] with the truth in rows, what is counted, e.g. "pictures"), or None."""
        return None

    def curves(self, metric):
        """[{"title", "x": label, "y": label, "lines": [{"name", "x": [numbers], "y": [numbers]}]}], e.g. precision against recall."""
        return []
