"""The segmentation task: its hooks call the functions of the other files of this folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from visionloop.datasets.io.images import read_image
from visionloop.datasets.io.reduced_jpeg import read_image_to_draw
from visionloop.datasets.segmentation.dataset import SegmentationDataset, SegmentationIndex
from visionloop.datasets.segmentation.mask_values import IGNORED
from visionloop.datasets.segmentation.transforms import (
    SegmentationEvalPreset,
    SegmentationTrainPreset,
)
from visionloop.engine.batch import Batch, Normalizers
from visionloop.engine.optim import ParameterGroup
from visionloop.engine.system.kernels import LayerWidths
from visionloop.engine.task import Task
from visionloop.engine.types import JsonObject, Predictions, Sample, Scores
from visionloop.metrics.segmentation import SegmentationMetric
from visionloop.tasks.drawing.contact_sheet import draw_gallery
from visionloop.tasks.huggingface.hub import ModelSource, check_folder
from visionloop.tasks.huggingface.loading import class_names
from visionloop.tasks.normalize import Normalize
from visionloop.tasks.segmentation import evaluate, recipes, saved_predictions, visualize
from visionloop.tasks.segmentation.architectures import MODEL_NAMES
from visionloop.tasks.segmentation.checks import check_segmentation_data
from visionloop.tasks.segmentation.config import SegmentationConfig
from visionloop.tasks.segmentation.data import (
    collate,
    collate_eval,
    index_split,
    overfit_windows,
    training_splits,
)
from visionloop.tasks.segmentation.export import (
    MeanStd,
    export_segmenter,
    load_folder,
    pixel_statistics,
    save_folder,
    write_segmenter_card,
)
from visionloop.tasks.segmentation.loss import EomtCriterion, per_image_losses
from visionloop.tasks.segmentation.mask_annealing import parse_mask_annealing
from visionloop.tasks.segmentation.model import (
    build_model,
    load_model,
    parameter_groups,
    source_config,
)
from visionloop.tasks.segmentation.scores import METRICS, SAMPLE_SCORE, level_metrics
from visionloop.tasks.splits import passed_over_notes
from visionloop.tasks.visualize import class_table, per_image_scores


class SegmentationTask(Task):
    """One class per pixel, with EoMT of every size, on a ViT or on DINOv3.

    Args:
        config: the settings.
        classes: names in order of id, of a trained model; None: those of the data's classes.json.
    """

    config: SegmentationConfig
    name = "segmentation"
    metrics = METRICS
    config_class = SegmentationConfig
    normalizer_names = ("masks", "class_weight")
    # thin objects in a street at 96 px are smaller than a pixel: four images give 0.79 at most
    overfit_goal = ("miou", 0.7)
    sample_score = SAMPLE_SCORE
    score_charts: ClassVar[dict[str, tuple[str, ...]]] = visualize.SCORE_CHARTS
    class_curves = visualize.CLASS_CURVES
    recipe = staticmethod(recipes.recipe)
    resolve_defaults = staticmethod(recipes.resolve_defaults)
    collate = staticmethod(collate)
    collate_eval = staticmethod(collate_eval)
    draw_gallery = staticmethod(draw_gallery)

    def __init__(self, config: SegmentationConfig, classes: Sequence[str] | None = None) -> None:
        super().__init__(config)
        self.model_classes = classes
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
        return visualize.class_colors(self.classes, colors)

    def build_datasets(self) -> tuple[SegmentationDataset, SegmentationDataset]:
        config, (train, val) = self.config, self.splits
        transform = SegmentationTrainPreset(
            size=self.image_size,
            color=config.color,
            scale=(config.scale_min, config.scale_max),
            flip=0.5 if config.hflip else 0.0,
        )
        train_dataset = SegmentationDataset(train, transform, memory=config.memory_bytes)
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

    def notes(self) -> list[str]:
        return passed_over_notes(self.splits)

    def check_data(self) -> JsonObject:
        return check_segmentation_data(self.config.data, self.config.val_split, self.image_size)

    def overfit_samples(self, samples: Sequence[Sample]) -> tuple[list[Sample], Sequence[Sample]]:
        windows = [
            window for sample in samples for window in overfit_windows(sample, self.image_size)
        ]
        return windows, samples

    # model --------------------
    @cached_property
    def source(self) -> ModelSource:
        """Return the architecture or the folder that `--model` names."""
        return MODEL_NAMES.find(self.config.model, self.config.from_scratch)

    @cached_property
    def model_config(self) -> PretrainedConfig:
        """Return the config of the model to build, without the classes."""
        config = self.config
        return source_config(
            self.source,
            image_size=config.image_size,
            num_queries=config.num_queries,
            num_blocks=config.num_blocks,
        )

    @property
    def image_size(self) -> int:
        """Return the side of the network's input in pixels."""
        side: int = self.model_config.image_size
        return side

    @cached_property
    def pixel_statistics(self) -> MeanStd:
        """Return mean and std of the images that the model was trained with."""
        return pixel_statistics(self.source)

    def build_model(self) -> PreTrainedModel:
        self.annealing = parse_mask_annealing(
            self.config.mask_annealing or "auto", self.model_config.num_blocks
        )
        return build_model(self.source, self.classes, self.model_config, self.config.init)

    def layer_widths(self) -> LayerWidths:
        return LayerWidths(linear=self.model_config.hidden_size, conv=None)

    def parameter_groups(self, module: PreTrainedModel) -> list[ParameterGroup]:
        config = self.config
        return parameter_groups(
            module,
            layer_decay=config.layer_decay,
            rest=config.backbone_rest,
            warmup=config.backbone_warmup,
            decay_all=config.decay_all,
        )

    def backbone(self, module: PreTrainedModel) -> nn.Module:
        return nn.ModuleList([module.embeddings, module.layers[: -module.config.num_blocks]])

    def grad_checkpointing_blocks(self, module: PreTrainedModel) -> list[nn.Module]:
        return [*module.layers, module.heads]

    def compile(self, module: PreTrainedModel) -> PreTrainedModel:
        # masks change during the run: they stay outside of the compiled parts
        for block in self.grad_checkpointing_blocks(module):
            block.compile()
        return module

    def save(
        self, module: PreTrainedModel, tensors: Mapping[str, torch.Tensor], folder: Path
    ) -> None:
        save_folder(module, tensors, folder, self.image_size, *self.pixel_statistics)

    def load(self, module: PreTrainedModel, folder: Path) -> None:
        load_folder(module, folder)

    def save_best(
        self,
        module: PreTrainedModel,
        tensors: Mapping[str, torch.Tensor],
        folder: Path,
        scores: Scores,
    ) -> None:
        self.save(module, tensors, folder)
        trained_on = None if self.model_classes else [len(index) for index in self.splits]
        write_segmenter_card(folder, self, self.classes, self.image_size, scores, trained_on)

    @classmethod
    def load_trained(  # type: ignore[explicit-any]  # settings have the types of their fields
        cls,
        folder: str | Path,
        *,
        data: str | None = None,
        val_split: float = 0.0,
        **settings: Any,
    ) -> tuple[SegmentationTask, PreTrainedModel]:
        """See `Task.load_trained`. settings: of SegmentationConfig, by name."""
        module = load_model(check_folder(folder))
        classes = class_names(module.config) or [
            f"LABEL_{i}" for i in range(module.config.num_labels)
        ]
        config = SegmentationConfig(data=data, model=str(folder), val_split=val_split)
        return cls(replace(config, **settings), classes), module.eval()

    # training --------------------
    @cached_property
    def normalize(self) -> Normalize:
        """Return the normalization of uint8 pixels."""
        return Normalize(*self.pixel_statistics)

    def to_input(self, batch: Batch) -> torch.Tensor:
        return self.normalize(batch["fitted"] if "fitted" in batch else batch["pixel_values"])

    @cached_property
    def criterion(self) -> EomtCriterion:
        """Return the criterion."""
        config = self.config
        return EomtCriterion(
            len(self.classes),
            points=config.points,
            share_candidates=config.share_candidates,
            mask_ignore=config.mask_ignore,
            no_object_weight=config.no_object_weight,
            weights=(config.weight_class, config.weight_mask, config.weight_dice),
        )

    def count_normalizers(self, micro_batches: Sequence[Batch]) -> dict[str, float]:
        sizes = [len(labels) for batch in micro_batches for labels in batch["labels"]]
        num_queries = self.model_config.num_queries
        num_pairs = sum(min(num_queries, size) for size in sizes)
        num_unmatched = len(sizes) * num_queries - num_pairs
        class_weight = num_pairs + self.config.no_object_weight * num_unmatched
        return {"masks": num_pairs, "class_weight": class_weight}

    def loss(
        self, model: nn.Module, batch: Batch, normalizers: Normalizers
    ) -> dict[str, torch.Tensor]:
        mask_logits, class_logits = model(self.to_input(batch))
        # images as evaluation reads them have both
        ids = batch["fitted_ids"] if "fitted_ids" in batch else batch["ids"]
        masks = [
            image_ids == labels[:, None, None]
            for image_ids, labels in zip(ids, batch["labels"], strict=True)
        ]
        return self.criterion(
            mask_logits, class_logits, masks, batch["labels"], normalizers, valid=ids != IGNORED
        )

    def before_step(self, module: PreTrainedModel, step: int, steps: int) -> None:
        module.mask_probs = self.annealing.probabilities(step, steps)

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
            losses=partial(per_image_losses, self.criterion) if "fitted" in batch else None,
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
            image, _ = read_image_to_draw(path, visualize.MAX_DRAWING_SIDE)
            yield visualize.draw_prediction(
                visualize.to_array(image), ids.cpu().numpy(), self.classes, self.colors
            )

    def prediction_images(
        self, paths: Sequence[Path], predictions: Predictions
    ) -> dict[str, Iterable[NDArray[np.uint8] | Image.Image]]:
        return saved_predictions.prediction_files(predictions, self.colors)

    @classmethod
    def score_saved_predictions(
        cls, path: str | Path, *, data: str, split: str
    ) -> tuple[SegmentationTask, SegmentationMetric]:
        classes, metric = saved_predictions.score_saved_predictions(path, data=data, split=split)
        return cls(SegmentationConfig(data=str(data)), classes), metric

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

    def per_class_scores(self, metric: SegmentationMetric) -> dict[str, dict[str, float]]:
        return class_table(self.classes, metric.per_class())

    def confusion(self, metric: SegmentationMetric) -> tuple[Sequence[str], NDArray[np.int64], str]:
        return self.classes, metric.confusion(), "pixels"

    # export --------------------
    def export(self, module: PreTrainedModel, folder: Path, *, onnx: bool = False) -> list[str]:
        self.save(module, module.state_dict(), folder)
        write_segmenter_card(folder, self, self.classes, self.image_size, {}, None)
        return export_segmenter(module, folder, self.image_size) if onnx else []
