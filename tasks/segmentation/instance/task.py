"""The task of instance segmentation: its hooks call the functions of the files beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from transformers import PretrainedConfig, PreTrainedModel

from visionloop.datasets.segments.dataset import SegmentsDataset
from visionloop.engine.batch import Batch
from visionloop.engine.errors import UserError
from visionloop.engine.types import JsonObject, Predictions
from visionloop.metrics.detection_confusion import BACKGROUND, count_confusion
from visionloop.metrics.mask_average_precision import MaskAveragePrecision
from visionloop.tasks import operating_point
from visionloop.tasks.drawing.charts import recall_lines
from visionloop.tasks.segmentation.export import CardText
from visionloop.tasks.segmentation.instance import saved_predictions
from visionloop.tasks.segmentation.instance.card import card_text
from visionloop.tasks.segmentation.instance.config import InstanceConfig
from visionloop.tasks.segmentation.instance.scores import METRICS, SAMPLE_SCORE
from visionloop.tasks.segmentation.instance.top_masks import reaching, top_masks
from visionloop.tasks.segmentation.recipes import INSTANCE
from visionloop.tasks.segmentation.segments.predict import forward_padded
from visionloop.tasks.segmentation.segments.task import SegmentsTask
from visionloop.tasks.segmentation.segments.things import stated_things
from visionloop.tasks.segmentation.segments.visualize import draw_instance_scores
from visionloop.tasks.visualize import class_table, per_image_scores


class InstanceTask(SegmentsTask):
    """A mask for every object; masks may overlap."""

    config: InstanceConfig
    name = "instance_segmentation"
    kind = "instance"
    metrics = METRICS
    config_class = InstanceConfig
    saved_predictions_suffix = ".json"
    sample_score = SAMPLE_SCORE
    recipe_of = INSTANCE
    recipe = staticmethod(INSTANCE.recipe)
    resolve_defaults = staticmethod(INSTANCE.resolve_defaults)
    # an image has up to 60 objects at 96 px
    overfit_goal = ("mAP50", 0.7)
    score_charts: ClassVar[dict[str, tuple[str, ...]]] = {
        "mask AP": ("mAP", "mAP50", "mAP75"),
        "mask AP by size of the object": ("mAP_.*",),
        "mask AR": ("AR.*",),
    }
    class_curves = ("AP", "AP50")

    # data --------------------
    @cached_property
    def is_thing(self) -> tuple[bool, ...]:
        return (True,) * len(self.classes)

    # model --------------------
    @classmethod
    def things_of(cls, model_config: PretrainedConfig, folder: str) -> None:
        if False in (stated_things(model_config) or ()):
            raise UserError(
                f"--model {folder}: a panoptic segmenter (config.json has stuff in is_thing), "
                "expected an instance segmenter; `train` starts from such a folder",
                field="model",
                file=folder,
            )

    @classmethod
    def load_trained(  # type: ignore[explicit-any]  # settings have the types of their fields
        cls,
        folder: str | Path,
        *,
        data: str | None = None,
        val_split: float = 0.0,
        **settings: Any,
    ) -> tuple[Self, PreTrainedModel]:
        task, module = super().load_trained(folder, data=data, val_split=val_split, **settings)
        task.thresholds = operating_point.thresholds_of(
            module.config, task.classes, settings.get("score"), task.config.score
        )
        return task, module

    def card_text(self) -> CardText:
        return card_text(self.image_size)

    # predict --------------------
    def predict(self, model: PreTrainedModel, batch: Batch) -> Predictions:
        mask_logits, class_logits, losses = forward_padded(
            model,
            self.normalize,
            batch,
            losses=partial(self.per_image_losses, batch=batch) if "ground_truth" in batch else None,
        )
        # average precision counts instances of any score
        has_targets, thresholds = "ground_truth" in batch, self.thresholds
        score = 0.0 if has_targets else min(thresholds.values)
        images = [
            top_masks(masks, classes, size, self.image_size, score=score)
            for masks, classes, size in zip(
                mask_logits, class_logits, batch["sizes"].tolist(), strict=True
            )
        ]
        if not has_targets:
            images = [reaching(thresholds, *image) for image in images]
        rles, labels, scores = zip(*images, strict=True)
        predictions: Predictions = {
            "rles": list(rles),
            "labels": list(labels),
            "scores": list(scores),
        }
        return predictions if losses is None else predictions | {"losses": losses}

    @cached_property
    def thresholds(self) -> operating_point.ScoreThresholds:
        """Return the smallest score of an instance that `predict` writes, by class."""
        return operating_point.ScoreThresholds((self.config.score,) * len(self.classes))

    def prediction_notes(self) -> list[str]:
        return [self.thresholds.note] if self.thresholds.note else []

    def build_metric(self) -> MaskAveragePrecision:
        return MaskAveragePrecision(len(self.classes))

    def describe_predictions(
        self, batch: Batch, predictions: Predictions, names: Sequence[str]
    ) -> list[JsonObject]:
        sizes = batch["sizes"].tolist()
        return saved_predictions.describe(predictions, sizes, names, self.classes)

    def write_predictions(self, folder: Path, rows: Iterable[JsonObject]) -> None:
        saved_predictions.write_predictions(folder, rows)

    def save_scored_predictions(
        self, metric: MaskAveragePrecision, dataset: SegmentsDataset, path: Path
    ) -> None:
        saved_predictions.save_scored_predictions(metric, dataset, path)

    @classmethod
    def score_saved_predictions(
        cls, path: str | Path, *, data: str, split: str
    ) -> tuple[InstanceTask, MaskAveragePrecision]:
        index, metric = saved_predictions.score_saved_predictions(path, data=data, split=split)
        return cls(InstanceConfig(data=str(data)), index.classes, index.is_thing), metric

    # draw and report --------------------
    def draw_scores(self, metric: MaskAveragePrecision) -> dict[str, NDArray[np.uint8]]:
        _, counts, _ = self.confusion(metric)
        return draw_instance_scores(metric.curves(), counts, metric.per_class(), self.classes)

    def confusion(
        self, metric: MaskAveragePrecision
    ) -> tuple[Sequence[str], NDArray[np.int64], str]:
        counts = count_confusion(metric.state(), len(self.classes), "segm")
        return (*self.classes, BACKGROUND), counts, "segments"

    def sample_scores(
        self, metric: MaskAveragePrecision
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        return per_image_scores(metric, "losses")

    def per_class_scores(
        self, metric: MaskAveragePrecision, picks: NDArray[np.int64] | None = None
    ) -> dict[str, dict[str, float]]:
        return class_table(self.classes, metric.per_class(picks))

    def curves(self, metric: MaskAveragePrecision) -> list[JsonObject]:
        lines = recall_lines(metric.curves(), self.classes)
        title = "precision and recall at IoU 0.5"
        return [{"title": title, "x": "recall", "y": "precision", "lines": lines}]
