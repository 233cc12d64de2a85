"""The task of panoptic segmentation: its hooks call the functions of the files beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from transformers import PretrainedConfig, PreTrainedModel

from visionloop.datasets.segments.dataset import SegmentsDataset
from visionloop.engine.batch import Batch
from visionloop.engine.types import JsonObject, Predictions
from visionloop.metrics.detection_confusion import BACKGROUND
from visionloop.metrics.panoptic_quality import PanopticQualityMetric
from visionloop.tasks.segmentation.export import CardText
from visionloop.tasks.segmentation.panoptic import saved_predictions
from visionloop.tasks.segmentation.panoptic.card import card_text
from visionloop.tasks.segmentation.panoptic.config import PanopticConfig
from visionloop.tasks.segmentation.panoptic.evaluate import predict
from visionloop.tasks.segmentation.panoptic.scored_predictions import score_saved_predictions
from visionloop.tasks.segmentation.panoptic.scores import METRICS, SAMPLE_SCORE
from visionloop.tasks.segmentation.recipes import PANOPTIC
from visionloop.tasks.segmentation.segments.task import SegmentsTask
from visionloop.tasks.segmentation.segments.things import read_is_thing
from visionloop.tasks.segmentation.segments.visualize import draw_panoptic_scores
from visionloop.tasks.visualize import class_table, per_image_scores


class PanopticTask(SegmentsTask):
    """One segment for each pixel: an object, or the stuff of a class."""

    config: PanopticConfig
    name = "panoptic_segmentation"
    kind = "panoptic"
    metrics = METRICS
    config_class = PanopticConfig
    saved_predictions_suffix = ".json"
    sample_score = SAMPLE_SCORE
    recipe_of = PANOPTIC
    recipe = staticmethod(PANOPTIC.recipe)
    resolve_defaults = staticmethod(PANOPTIC.resolve_defaults)
    overfit_goal = ("pq", 0.7)
    score_charts: ClassVar[dict[str, tuple[str, ...]]] = {
        "PQ": ("pq.*",),
        "SQ: IoU of the matches": ("sq.*",),
        "RQ: F1 of the segments": ("rq.*",),
    }
    class_curves = ("PQ",)

    # model --------------------
    def card_text(self) -> CardText:
        return card_text(self.image_size, self.classes, self.is_thing)

    @classmethod
    def things_of(cls, model_config: PretrainedConfig, folder: str) -> tuple[bool, ...]:
        return read_is_thing(model_config, folder)

    # predict --------------------
    def predict(self, model: PreTrainedModel, batch: Batch) -> Predictions:
        has_targets = "ground_truth" in batch
        return predict(
            model,
            self.normalize,
            batch,
            self.image_size,
            self.is_thing,
            score=self.config.score,
            overlap=self.config.overlap,
            losses=partial(self.per_image_losses, batch=batch) if has_targets else None,
        )

    def build_metric(self) -> PanopticQualityMetric:
        if self.keep_predictions:
            return saved_predictions.RecordedPanopticQuality(self.is_thing)
        return PanopticQualityMetric(self.is_thing)

    def describe_predictions(
        self, batch: Batch, predictions: Predictions, names: Sequence[str]
    ) -> list[JsonObject]:
        return saved_predictions.describe(predictions, names, self.classes)

    def prediction_images(
        self, paths: Sequence[Path], predictions: Predictions
    ) -> dict[str, Iterable[NDArray[np.uint8] | Image.Image]]:
        return saved_predictions.prediction_files(predictions)

    def write_predictions(self, folder: Path, rows: Iterable[JsonObject]) -> None:
        saved_predictions.write_predictions(folder, rows, self.classes, self.is_thing)

    def save_scored_predictions(
        self,
        metric: saved_predictions.RecordedPanopticQuality,
        dataset: SegmentsDataset,
        path: Path,
    ) -> None:
        saved_predictions.save_scored_predictions(metric, dataset, path)

    @classmethod
    def score_saved_predictions(
        cls, path: str | Path, *, data: str, split: str
    ) -> tuple[PanopticTask, PanopticQualityMetric]:
        classes, is_thing, metric = score_saved_predictions(path, data=data, split=split)
        return cls(PanopticConfig(data=str(data)), classes, is_thing), metric

    # draw and report --------------------
    def draw_scores(self, metric: PanopticQualityMetric) -> dict[str, NDArray[np.uint8]]:
        return draw_panoptic_scores(metric.confusion(), metric.per_class(), self.classes)

    def sample_scores(
        self, metric: PanopticQualityMetric
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        return per_image_scores(metric, "pq")

    def per_class_scores(
        self, metric: PanopticQualityMetric, picks: NDArray[np.int64] | None = None
    ) -> dict[str, dict[str, float]]:
        return class_table(self.classes, metric.per_class(picks))

    def confusion(
        self, metric: PanopticQualityMetric
    ) -> tuple[Sequence[str], NDArray[np.int64], str]:
        return (*self.classes, BACKGROUND), metric.confusion(), "segments"
