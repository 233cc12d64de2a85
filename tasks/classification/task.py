"""The classification task: its hooks call the functions of the other files of this folder."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from visionloop.datasets.classification.image_folder import ImageFolderDataset, ImageFolderIndex
from visionloop.datasets.classification.transforms import ClassificationTrainPreset
from visionloop.datasets.io.images import read_image
from visionloop.datasets.io.reduced_jpeg import read_image_to_draw
from visionloop.engine.batch import Batch, Normalizers
from visionloop.engine.optim import ParameterGroup
from visionloop.engine.system.kernels import LayerWidths, layout_for_convolutions
from visionloop.engine.task import Task
from visionloop.engine.types import JsonObject, Predictions, Sample, Scores
from visionloop.metrics.classification import ClassificationMetric
from visionloop.tasks.augmentation import user_function
from visionloop.tasks.classification import evaluate, recipes, saved_predictions, visualize
from visionloop.tasks.classification.architectures import MODEL_NAMES
from visionloop.tasks.classification.attention_rollout import draw_attention
from visionloop.tasks.classification.checks import check_classification_data
from visionloop.tasks.classification.config import ClassificationConfig
from visionloop.tasks.classification.data import collate, index_split, training_splits
from visionloop.tasks.classification.export import (
    export_classifier,
    load_folder,
    save_folder,
    write_model_card,
)
from visionloop.tasks.classification.loss import (
    Mixing,
    balanced_class_weights,
    classification_loss,
    mixing_enabled_at,
)
from visionloop.tasks.classification.model import (
    DEPTHWISE,
    TRANSFORMERS,
    build_model,
    grad_checkpointing_blocks,
    layer_widths,
    load_model,
    model_type,
    own_image_size,
    parameter_groups,
)
from visionloop.tasks.classification.positions import set_image_size, trains_resized_positions
from visionloop.tasks.classification.processor import EvalTransform, initial_transform
from visionloop.tasks.classification.scores import METRICS, SAMPLE_SCORE
from visionloop.tasks.drawing.confusion_matrix import draw_confusion
from visionloop.tasks.drawing.contact_sheet import draw_gallery
from visionloop.tasks.huggingface.hub import ModelSource, check_folder
from visionloop.tasks.huggingface.loading import class_names
from visionloop.tasks.image_cache import training_images
from visionloop.tasks.normalize import Normalize
from visionloop.tasks.splits import passed_over_notes
from visionloop.tasks.visualize import class_table, per_image_scores


class ClassificationTask(Task):
    """One label per image, with any image classifier of transformers.

    Args:
        config: the settings.
        classes: class names in order of id, from a trained model; None takes those of the training
            folder.
    """

    config: ClassificationConfig
    name = "classification"
    metrics = METRICS
    config_class = ClassificationConfig
    normalizer_names = ("samples",)
    overfit_goal = ("accuracy", 0.99)
    saved_predictions_suffix = ".jsonl"
    sample_score = SAMPLE_SCORE
    score_charts: ClassVar[dict[str, tuple[str, ...]]] = {
        "accuracy": ("accuracy", "accuracy_top5", "mean_class_accuracy")
    }
    class_curves = ("accuracy", "precision")
    recipe = staticmethod(recipes.recipe)
    draw_gallery = staticmethod(draw_gallery)

    def __init__(self, config: ClassificationConfig, classes: Sequence[str] | None = None) -> None:
        super().__init__(config)
        self.model_classes, self.mixing_active = classes, True
        self.class_weights: dict[torch.device, torch.Tensor | None] = {}

    # data --------------------
    @cached_property
    def splits(self) -> tuple[ImageFolderIndex, ImageFolderIndex]:
        """Return (training index, validation index)."""
        return training_splits(self.config.data, self.config.val_split, self.model_classes)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Return the class names in order of id."""
        return tuple(self.model_classes or self.splits[0].classes)

    @cached_property
    def eval_transform(self) -> EvalTransform:
        """Return the transform of evaluation images."""
        config = self.config
        return initial_transform(
            self.source.folder,
            own_image_size(self.source),
            size=config.image_size,
            style=config.eval_resize,
            crop_pct=config.crop_pct,
        )

    @cached_property
    def train_transform(self) -> ClassificationTrainPreset:
        """Return the augmentation of training images."""
        config = self.config
        return ClassificationTrainPreset(
            size=self.eval_transform.size,
            crop_scale_min=config.crop_scale_min,
            interpolation=self.eval_transform.interpolation,
            flip=0.5 if config.hflip else 0.0,
            randaugment_ops=config.rand_augment_ops,
            randaugment_magnitude=config.rand_augment_magnitude,
            erase=config.random_erasing,
        )

    def build_datasets(self) -> tuple[ImageFolderDataset, ImageFolderDataset]:
        train, val = self.splits
        images = training_images(train, self.config, self.train_transform.min_side)
        own = user_function(self.config)
        train_dataset = ImageFolderDataset(train, self.train_transform, images, own)
        return train_dataset, ImageFolderDataset(val, self.eval_transform)

    def build_eval_dataset(self, split: str) -> ImageFolderDataset:
        if self.config.val_split and split != "test":
            train, val = self.splits
            index = val if split == "val" else train
        else:
            index = index_split(self.config.data, split, self.classes)
        return ImageFolderDataset(index, self.eval_transform)

    def collate(self, samples: Sequence[Sample], step: int, offset: int) -> Batch:
        return collate(samples, step, offset)

    def notes(self) -> list[str]:
        return passed_over_notes(self.splits)

    def check_data(self) -> JsonObject:
        return check_classification_data(self.config.data, self.config.val_split)

    # model --------------------
    @cached_property
    def source(self) -> ModelSource:
        """Return the architecture or the folder that `--model` names."""
        return MODEL_NAMES.find(self.config.model, self.config.from_scratch)

    def build_model(self) -> PreTrainedModel:
        config = self.config
        return build_model(
            self.source,
            self.classes,
            image_size=self.eval_transform.size,
            drop_path=config.drop_path,
            zero_head=config.zero_head,
            init=config.init,
        )

    def layer_widths(self) -> LayerWidths:
        return layer_widths(self.source)

    def parameter_groups(self, module: PreTrainedModel) -> list[ParameterGroup]:
        return parameter_groups(module, self.config.layer_decay)

    def backbone(self, module: PreTrainedModel) -> nn.Module:
        backbone: nn.Module = module.base_model
        return backbone

    def grad_checkpointing_blocks(self, module: PreTrainedModel) -> list[nn.Module]:
        return grad_checkpointing_blocks(module)

    def nondeterministic_ops(self, module: PreTrainedModel) -> tuple[str, ...]:
        if trains_resized_positions(module, self.eval_transform.size):
            return ("upsample_bicubic2d",)
        return ()

    def save(
        self, module: PreTrainedModel, tensors: Mapping[str, torch.Tensor], folder: Path
    ) -> None:
        save_folder(module, tensors, folder, self.eval_transform)

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
        write_model_card(folder, self, scores, trained_on)

    @classmethod
    def load_trained(
        cls, folder: str | Path, *, data: str | None = None, val_split: float = 0.0
    ) -> tuple[ClassificationTask, PreTrainedModel]:
        module = load_model(check_folder(folder))
        classes = class_names(module.config) or [
            f"LABEL_{i}" for i in range(module.config.num_labels)
        ]
        task = cls(ClassificationConfig(data=data, model=str(folder), val_split=val_split), classes)
        set_image_size(module, task.eval_transform.size)
        return task, module.eval()

    # training --------------------
    @cached_property
    def normalize(self) -> Normalize:
        """Return the normalization with the checkpoint's mean and std."""
        return Normalize(self.eval_transform.mean, self.eval_transform.std)

    @cached_property
    def mixing(self) -> Mixing:
        """Return mixup and CutMix."""
        config = self.config
        return Mixing(
            mixup=config.mixup,
            cutmix=config.cutmix,
            prob=config.mixup_prob,
            switch=config.mixup_switch,
            num_classes=len(self.classes),
        )

    def class_weights_on(self, device: torch.device) -> torch.Tensor | None:
        """Return the class weights [C] on a device, copied there once; None for equal weights."""
        if self.config.class_weights == "none":
            return None
        if device not in self.class_weights:
            weights = balanced_class_weights(self.splits[0].labels, len(self.classes))
            self.class_weights[device] = weights.to(device)
        return self.class_weights[device]

    @cached_property
    def model_type(self) -> str:
        """Return the type of the network, as transformers names it."""
        return model_type(self.source)

    def to_input(self, batch: Batch) -> torch.Tensor:
        pixels: torch.Tensor = batch["pixel_values"]
        if self.model_type not in TRANSFORMERS:
            pixels = layout_for_convolutions(pixels, everywhere=self.model_type in DEPTHWISE)
        return self.normalize(pixels)

    def count_normalizers(self, micro_batches: Sequence[Batch]) -> dict[str, float]:
        return {"samples": sum(len(batch) for batch in micro_batches)}

    def before_step(self, module: PreTrainedModel, step: int, steps: int) -> None:
        self.mixing_active = mixing_enabled_at(step, steps, self.config.mixup_off)

    def min_micro_batch_size(self, module: PreTrainedModel) -> int:
        return 2 if self.mixing.enabled else super().min_micro_batch_size(module)

    def loss(
        self, model: nn.Module, batch: Batch, normalizers: Normalizers
    ) -> dict[str, torch.Tensor]:
        pixel_values, targets = self.to_input(batch), batch["labels"]
        if self.mixing_active:
            pixel_values, targets = self.mixing(pixel_values, targets)
        return classification_loss(
            model(pixel_values=pixel_values).logits,
            targets,
            normalizers,
            label_smoothing=self.config.label_smoothing,
            class_weights=self.class_weights_on(pixel_values.device),
        )

    def expected_first_loss(self) -> float:
        return math.log(len(self.classes))

    # predict --------------------
    def predict(self, model: PreTrainedModel, batch: Batch) -> Predictions:
        return evaluate.predict(model, self.to_input(batch))

    def build_metric(self) -> ClassificationMetric:
        return ClassificationMetric(len(self.classes))

    def read_sample(self, path: str | Path) -> Sample:
        return {"pixel_values": self.eval_transform(read_image(path))}

    def describe_predictions(
        self, batch: Batch, predictions: Predictions, names: Sequence[str]
    ) -> list[JsonObject]:
        return evaluate.describe_predictions(predictions, names, self.classes)

    def draw_predictions(
        self, paths: Sequence[Path], rows: Sequence[JsonObject], predictions: Predictions
    ) -> Iterable[NDArray[np.uint8]]:
        return (
            visualize.draw_prediction(read_image_to_draw(path, visualize.PREDICTION_SIDE)[0], row)
            for path, row in zip(paths, rows, strict=True)
        )

    def explain(self, module: PreTrainedModel, batch: Batch, kind: str) -> list[NDArray[np.uint8]]:
        return draw_attention(module, self.to_input(batch), batch["pixel_values"])

    def save_scored_predictions(
        self, metric: ClassificationMetric, dataset: ImageFolderDataset, path: Path
    ) -> None:
        saved_predictions.save_scored_predictions(metric, dataset, path, self.classes)

    @classmethod
    def score_saved_predictions(
        cls, path: str | Path, *, data: str, split: str
    ) -> tuple[ClassificationTask, ClassificationMetric]:
        classes, metric = saved_predictions.score_saved_predictions(path, data=data, split=split)
        return cls(ClassificationConfig(data=str(data)), classes), metric

    # draw and report --------------------
    def draw(self, batch: Batch) -> dict[str, NDArray[np.uint8]]:
        return {"batch": visualize.draw_batch(batch, self.classes)}

    def draw_samples(self, batch: Batch, predictions: Predictions) -> list[NDArray[np.uint8]]:
        return visualize.draw_samples(batch, predictions, self.classes)

    def draw_scores(self, metric: ClassificationMetric) -> dict[str, NDArray[np.uint8]]:
        return {"confusion": draw_confusion(metric.confusion(), self.classes)}

    def sample_scores(
        self, metric: ClassificationMetric
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        return per_image_scores(metric, "losses")

    def per_class_scores(
        self, metric: ClassificationMetric, picks: NDArray[np.int64] | None = None
    ) -> dict[str, dict[str, float]]:
        return class_table(self.classes, metric.per_class(picks))

    def reference_scores(self, metric: ClassificationMetric) -> Scores:
        return {"accuracy of always naming the most frequent class": metric.majority_accuracy()}

    def confusion(
        self, metric: ClassificationMetric
    ) -> tuple[Sequence[str], NDArray[np.int64], str]:
        return self.classes, metric.confusion(), "images"

    # export --------------------
    def export(self, module: PreTrainedModel, folder: Path, *, onnx: bool = False) -> list[str]:
        self.save(module, module.state_dict(), folder)
        write_model_card(folder, self, {}, None)
        return export_classifier(module, folder, self.eval_transform.size) if onnx else []
