"""The task of semantic segmentation: its hooks call the functions of the files beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import PreTrainedModel

from visionloop.datasets.io.images import read_image
from visionloop.datasets.io.reduced_jpeg import read_image_to_draw
from visionloop.datasets.segmentation.dataset import SegmentationDataset, SegmentationIndex
from visionloop.datasets.segmentation.mask_values import IGNORED
from visionloop.datasets.segmentation.transforms import (
    SegmentationEvalPreset,
    SegmentationTrainPreset,
)
from visionloop.engine.batch import Batch
from visionloop.engine.types import JsonObject, Predictions, Sample
from visionloop.metrics.segmentation import SegmentationMetric
from visionloop.tasks.augmentation import user_function
from visionloop.tasks.segmentation.drawing import MAX_DRAWING_SIDE, class_colors, to_array
from visionloop.tasks.segmentation.export import CardText
from visionloop.tasks.segmentation.model import warn_of_few_queries
from visionloop.tasks.segmentation.recipes import SEMANTIC
from visionloop.tasks.segmentation.semantic import evaluate, saved_predictions, visualize
from visionloop.tasks.segmentation.semantic.card import card_text
from visionloop.tasks.segmentation.semantic.checks import check_segmentation_data
from visionloop.tasks.segmentation.semantic.config import SemanticConfig
from visionloop.tasks.segmentation.semantic.data import (
    collate,
    collate_eval,
    image_targets,
    index_split,
    overfit_windows,
    training_splits,
)
from visionloop.tasks.segmentation.semantic.scores import METRICS, SAMPLE_SCORE, level_metrics
from visionloop.tasks.segmentation.task import EomtTask
from visionloop.tasks.visualize import class_table, per_image_scores


class SemanticTask(EomtTask):
    """One class per pixel.

    Args:
        config: the settings.
        classes: names in order of id, of a trained model; None: those of the data's classes.json.
    """

    config: SemanticConfig
    name = "segmentation"
    metrics = METRICS
    config_class = SemanticConfig
    # thin objects in a street at 96 px are smaller than a pixel: four images give 0.79 at most
    overfit_goal = ("miou", 0.7)
    sample_score = SAMPLE_SCORE
    score_charts: ClassVar[dict[str, tuple[str, ...]]] = visualize.SCORE_CHARTS
    class_curves = visualize.CLASS_CURVES
    recipe_of = SEMANTIC
    recipe = staticmethod(SEMANTIC.recipe)
    resolve_defaults = staticmethod(SEMANTIC.resolve_defaults)
    collate = staticmethod(collate)
    collate_eval = staticmethod(collate_eval)
    image_targets = staticmethod(image_targets)

    def __init__(self, config: SemanticConfig, classes: Sequence[str] | None = None) -> None:
        super().__init__(config, classes)
        # levels that are scored besides the last
        self.num_levels = self.model_config.num_blocks if config.score_levels else 0
        # set on the instance: the class has no levels
        self.metrics = METRICS + level_metrics(self.num_levels)  # type: ignore[misc]

    # data --------------------
    @cached_property
    def splits(self) -> tuple[SegmentationIndex, SegmentationIndex]:
        """Return (training index, validation index)."""
        return training_splits(self.config.data, self.config.val_split, self.model_classes)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Return the class names in order of id."""
        return tuple(self.model_classes or self.splits[0].classes)

    @cached_property
    def colors(self) -> NDArray[np.uint8]:
        """Return the class colors, uint8 [K, 3]: of the data, else of a fixed list."""
        has_own_data = self.config.data and not self.model_classes
        colors = self.splits[0].colors if has_own_data else None
        return class_colors(self.classes, colors)

    def build_datasets(self) -> tuple[SegmentationDataset, SegmentationDataset]:
        config, (train, val) = self.config, self.splits
        transform = SegmentationTrainPreset(
            size=self.image_size,
            color=config.color,
            scale=(config.scale_min, config.scale_max),
            flip=0.5 if config.hflip else 0.0,
        )
        train_dataset = SegmentationDataset(
            train, transform, memory=config.memory_bytes, user_function=user_function(config)
        )
        return train_dataset, self._eval_dataset(val)

    def build_eval_dataset(self, split: str) -> SegmentationDataset:
        if self.config.val_split and split != "test":
            return self._eval_dataset(self.splits[split == "val"])
        return self._eval_dataset(index_split(self.config.data, split, self.classes))

    def _eval_dataset(self, index: SegmentationIndex) -> SegmentationDataset:
        transform = SegmentationEvalPreset(size=self.image_size)
        return SegmentationDataset(
            index, transform, with_ground_truth=True, memory=self.config.memory_bytes
        )

    def check_data(self) -> JsonObject:
        return check_segmentation_data(self.config.data, self.config.val_split, self.image_size)

    def overfit_samples(self, samples: Sequence[Sample]) -> tuple[list[Sample], Sequence[Sample]]:
        windows = [
            window for sample in samples for window in overfit_windows(sample, self.image_size)
        ]
        return windows, samples

    # model --------------------
    def build_model(self) -> PreTrainedModel:
        warn_of_few_queries(self.model_config.num_queries, self.classes)
        return super().build_model()

    def card_text(self) -> CardText:
        return card_text(self.image_size)

    # training --------------------
    def to_input(self, batch: Batch) -> torch.Tensor:
        return self.normalize(batch["fitted"] if "fitted" in batch else batch["pixel_values"])

    def without_targets(self, batch: Batch) -> Batch:
        return batch.replace(
            ids=torch.full_like(batch["ids"], IGNORED),
            labels=[labels[:0] for labels in batch["labels"]],
        )

    # predict --------------------
    def predict(self, model: PreTrainedModel, batch: Batch) -> Predictions:
        return evaluate.predict(
            model,
            self.normalize,
            batch,
            self.image_size,
            levels=self.config.score_levels,
            losses=partial(self.per_image_losses, batch=batch) if "fitted" in batch else None,
        )

    def build_metric(self) -> SegmentationMetric:
        return SegmentationMetric(len(self.classes), self.num_levels)

    def read_sample(self, path: str | Path) -> Sample:
        sample: Sample = SegmentationEvalPreset(size=self.image_size)(read_image(path))
        return sample

    def describe_predictions(
        self, batch: Batch, predictions: Predictions, names: Sequence[str]
    ) -> list[JsonObject]:
        return saved_predictions.describe(predictions, names, self.classes)

    def draw_predictions(
        self, paths: Sequence[Path], rows: Sequence[JsonObject], predictions: Predictions
    ) -> Iterable[NDArray[np.uint8]]:
        for path, ids in zip(paths, predictions["ids"], strict=True):
            image, _ = read_image_to_draw(path, MAX_DRAWING_SIDE)
            yield visualize.draw_prediction(
                to_array(image), ids.cpu().numpy(), self.classes, self.colors
            )

    def prediction_images(
        self, paths: Sequence[Path], predictions: Predictions
    ) -> dict[str, Iterable[NDArray[np.uint8] | Image.Image]]:
        return saved_predictions.prediction_files(predictions, self.colors)

    @classmethod
    def score_saved_predictions(
        cls, path: str | Path, *, data: str, split: str
    ) -> tuple[SemanticTask, SegmentationMetric]:
        classes, metric = saved_predictions.score_saved_predictions(path, data=data, split=split)
        return cls(SemanticConfig(data=str(data)), classes), metric

    # draw and report --------------------
    def draw(self, batch: Batch) -> dict[str, NDArray[np.uint8]]:
        return {"batch": visualize.draw_batch(batch, self.classes, self.colors)}

    def draw_samples(self, batch: Batch, predictions: Predictions) -> list[NDArray[np.uint8]]:
        return visualize.draw_samples(batch, predictions, self.classes, self.colors)

    def draw_scores(self, metric: SegmentationMetric) -> dict[str, NDArray[np.uint8]]:
        return visualize.draw_scores(metric.confusion(), metric.per_class(), self.classes)

    def sample_scores(
        self, metric: SegmentationMetric
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        return per_image_scores(metric, "miou")

    def per_class_scores(
        self, metric: SegmentationMetric, picks: NDArray[np.int64] | None = None
    ) -> dict[str, dict[str, float]]:
        return class_table(self.classes, metric.per_class(picks))

    def confusion(self, metric: SegmentationMetric) -> tuple[Sequence[str], NDArray[np.int64], str]:
        return self.classes, metric.confusion(), "pixels"
