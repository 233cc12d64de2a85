"""The detection task: its hooks call the functions of the other files of this folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from visionloop.datasets.detection.dataset import DetectionDataset
from visionloop.datasets.detection.transforms import DetectionEvalPreset, DetectionTrainPreset
from visionloop.datasets.io.images import read_image
from visionloop.datasets.io.reduced_jpeg import read_image_to_draw
from visionloop.engine.batch import Batch, Normalizers, RaggedTensor
from visionloop.engine.system.kernels import LayerWidths, layout_for_convolutions
from visionloop.engine.task import Task
from visionloop.engine.types import JsonObject, Predictions, Sample, Scores
from visionloop.metrics.detection import DetectionMetric
from visionloop.metrics.detection_confusion import BACKGROUND, count_confusion
from visionloop.tasks import operating_point
from visionloop.tasks.augmentation import user_function
from visionloop.tasks.detection import evaluate, recipes, saved_predictions, visualize
from visionloop.tasks.detection.architectures import ARCHITECTURES, MODEL_NAMES
from visionloop.tasks.detection.checks import check_detection_data
from visionloop.tasks.detection.config import DetectionConfig
from visionloop.tasks.detection.data import (
    TARGETS,
    cap_targets,
    collate,
    draw_size,
    index_split,
    multi_scale_sizes,
    resize_batch,
    targets_of,
    training_splits,
)
from visionloop.tasks.detection.export import (
    export_detector,
    load_folder,
    read_size,
    save_folder,
    write_model_card,
)
from visionloop.tasks.detection.loss import TERMS, DFineCriterion
from visionloop.tasks.detection.model import (
    build_model,
    check_image_size,
    grad_checkpointing_blocks,
    has_trained_norms,
    load_model,
    model_config,
    parameter_groups,
)
from visionloop.tasks.detection.network import DFineForObjectDetection
from visionloop.tasks.detection.scores import METRICS, SAMPLE_SCORE
from visionloop.tasks.drawing.charts import draw_ap_per_class, draw_precision_recall, recall_lines
from visionloop.tasks.drawing.confusion_matrix import draw_confusion
from visionloop.tasks.drawing.contact_sheet import draw_gallery
from visionloop.tasks.huggingface.hub import ModelSource, check_folder
from visionloop.tasks.huggingface.loading import class_names
from visionloop.tasks.image_cache import training_images
from visionloop.tasks.splits import passed_over_notes
from visionloop.tasks.visualize import class_table, per_image_scores

if TYPE_CHECKING:
    from visionloop.datasets.detection.index import DetectionIndex
    from visionloop.engine.optim import ParameterGroup


class DetectionTask(Task):
    """Bounding boxes and their classes, with D-FINE of every size.

    Args:
        config: the settings.
        classes: names in order of label, of a trained model; None: those of the training split.
    """

    config: DetectionConfig

    name = "detection"
    metrics = METRICS
    config_class = DetectionConfig
    normalizer_names = ("boxes",)
    overfit_goal = ("mAP50", 0.9)
    # the entropy of the distributions and the class loss, which grows with the IoU, stay
    overfit_loss_share = 0.95
    saved_predictions_suffix = ".json"
    sample_score = SAMPLE_SCORE
    score_charts: ClassVar = {
        "average precision": ("mAP", "mAP50", "mAP75"),
        "average precision by size": ("mAP_small", "mAP_medium", "mAP_large"),
        "average recall by number of boxes": ("AR1", "AR10", "AR100"),
        "average recall by size": ("AR_small", "AR_medium", "AR_large"),
    }
    class_curves = ("AP", "AP50")
    recipe = staticmethod(recipes.recipe)
    resolve_defaults = staticmethod(recipes.resolve_defaults)
    draw_gallery = staticmethod(draw_gallery)

    def __init__(self, config: DetectionConfig, classes: Sequence[str] | None = None) -> None:
        super().__init__(config)
        evaluate.check_backend(config.metric_backend)
        self.trained_classes = classes
        self.step_size: int | None = None  # side of the images of this step, None: as they come

    # data --------------------
    @cached_property
    def splits(self) -> tuple[DetectionIndex, DetectionIndex]:
        """Return (training index, validation index)."""
        return training_splits(self.config.data, self.config.val_split, self.trained_classes)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Return the class names in order of label."""
        return tuple(self.trained_classes or self.splits[0].classes)

    @cached_property
    def source(self) -> ModelSource:
        """Return the architecture or the folder that `--model` names."""
        return MODEL_NAMES.find(self.config.model, self.config.from_scratch)

    @cached_property
    def image_size(self) -> int:
        """Return the side of the model's input in pixels."""
        if self.config.image_size:
            return self.config.image_size
        if self.source.folder:
            return read_size(self.source.folder)
        return ARCHITECTURES[self.source.name][2]

    @cached_property
    def thresholds(self) -> operating_point.ScoreThresholds:
        """Return the smallest score of a detection that is written, by class."""
        return operating_point.ScoreThresholds((self.config.score,) * len(self.classes))

    @cached_property
    def train_transform(self) -> DetectionTrainPreset:
        """Return the augmentation of training images."""
        return DetectionTrainPreset(
            size=self.image_size,
            photometric=self.config.photometric,
            zoom_out=self.config.zoom_out,
            iou_crop=self.config.iou_crop,
            flip=0.5 if self.config.hflip else 0.0,
        )

    def build_datasets(self) -> tuple[DetectionDataset, DetectionDataset]:
        train, val = self.splits
        transform, own = self.train_transform, user_function(self.config)
        images = training_images(train, self.config, transform.min_side)
        train_dataset = DetectionDataset(train, transform, images=images, user_function=own)
        return train_dataset, self._eval_dataset(val)

    def build_eval_dataset(self, split: str) -> DetectionDataset:
        if self.config.val_split and split != "test":
            return self._eval_dataset(self.splits[split == "val"])
        return self._eval_dataset(index_split(self.config.data, split, self.classes))

    def _eval_dataset(self, index: DetectionIndex) -> DetectionDataset:
        transform = DetectionEvalPreset(size=self.image_size)
        return DetectionDataset(index, transform, with_ground_truth=True)

    def collate(self, samples: Sequence[Sample], step: int, offset: int) -> Batch:
        return collate(samples, step, offset)

    def before_sample(self, step: int, steps: int) -> None:
        self.train_transform.strong = not self._is_final_part(step, steps)

    def notes(self) -> list[str]:
        train, val = self.splits
        notes = {f"warning: {train.source}: train: {why}" for why in train.notes}
        if not self.config.val_split:
            notes |= {f"warning: {val.source}: val: {why}" for why in val.notes}
        return sorted(notes) + passed_over_notes(self.splits)

    def check_data(self) -> JsonObject:
        return check_detection_data(self.config.data, self.config.val_split, self.image_size)

    # model --------------------
    def build_model(self) -> DFineForObjectDetection:
        module = build_model(
            self.source,
            self.classes,
            backbone_bn=self.config.backbone_bn,
            class_prior=self.config.class_prior,
        )
        check_image_size(module.config, self.image_size)
        operating_point.forget_operating_point(module.config)
        decoder = module.model.decoder
        self.criterion = DFineCriterion(
            len(self.classes),
            reg_max=module.config.max_num_bins,
            reg_scale=decoder.reg_scale.item(),
            up=decoder.up.item(),
            weights=self.loss_weights,
        )
        return module

    @cached_property
    def loss_weights(self) -> dict[str, float]:
        """Return {term: weight} of the loss terms vfl, bbox, giou, fgl and ddf."""
        return {name: getattr(self.config, f"weight_{name}") for name in TERMS}

    def layer_widths(self) -> LayerWidths:
        width = model_config(self.source).encoder_hidden_dim
        return LayerWidths(linear=width, conv=width)

    def parameter_groups(self, module: DFineForObjectDetection) -> list[ParameterGroup]:
        return parameter_groups(
            module,
            self.config.backbone_lr_scale,
            decay_biases=not has_trained_norms(module.config),
        )

    def backbone(self, module: DFineForObjectDetection) -> nn.Module:
        backbone: nn.Module = module.model.backbone
        return backbone

    def grad_checkpointing_blocks(self, module: DFineForObjectDetection) -> list[nn.Module]:
        return grad_checkpointing_blocks(module)

    def nondeterministic_ops(self, module: DFineForObjectDetection) -> tuple[str, ...]:
        return ("grid_sample",)  # of the decoder's deformable attention

    def compile(self, module: DFineForObjectDetection) -> nn.Module:
        """Compile the backbone; the rest breaks into dozens of graphs, by the number of boxes."""
        module.model.backbone.model.compile()
        compiled: nn.Module = module
        return compiled

    def save(
        self, module: DFineForObjectDetection, tensors: Mapping[str, torch.Tensor], folder: Path
    ) -> None:
        save_folder(module, tensors, folder, self.image_size)

    def load(self, module: DFineForObjectDetection, folder: Path) -> None:
        load_folder(module, folder)

    def save_best(
        self,
        module: DFineForObjectDetection,
        tensors: Mapping[str, torch.Tensor],
        folder: Path,
        scores: Scores,
    ) -> None:
        self.save(module, tensors, folder)
        trained_on = None if self.trained_classes else [len(index) for index in self.splits]
        write_model_card(folder, self, scores, trained_on)

    @classmethod
    def load_trained(
        cls,
        folder: str | Path,
        *,
        data: str | None = None,
        val_split: float = 0.0,
        score: float | None = None,
    ) -> tuple[Self, DFineForObjectDetection]:
        module = load_model(check_folder(folder))
        generic = [f"LABEL_{i}" for i in range(module.config.num_labels)]
        classes = class_names(module.config) or generic
        config = DetectionConfig(data=data, model=str(folder), val_split=val_split)
        task = cls(config, classes)
        task.thresholds = operating_point.thresholds_of(module.config, classes, score, config.score)
        return task, module.eval()

    # training --------------------
    def to_input(self, batch: Batch) -> torch.Tensor:
        # On a CPU too: a step of `tiny` takes 0.82 times as long. The layout is changed while the
        # pixels are bytes: 4.0 ms instead of 5.6.
        pixels = layout_for_convolutions(batch["pixel_values"], everywhere=True)
        return pixels.float().div_(255)

    def count_normalizers(self, micro_batches: Sequence[Batch]) -> dict[str, float]:
        return {"boxes": sum(sum(batch["boxes"].sizes) for batch in micro_batches)}

    def loss(
        self, model: nn.Module, batch: Batch, normalizers: Normalizers
    ) -> dict[str, torch.Tensor]:
        pixels, targets = self.to_input(batch), targets_of(batch)
        denoising_targets = cap_targets(targets, self.config.denoising)
        pixels = resize_batch(pixels, self.step_size or pixels.shape[-1])
        outputs = model(pixels, labels=denoising_targets)
        return self.criterion(outputs, targets, normalizers, denoising_targets=denoising_targets)

    @cached_property
    def sizes(self) -> list[int]:
        """Return the input sides that multi-scale training draws from, in pixels."""
        return multi_scale_sizes(self.image_size, self.config.multi_scale)

    def _is_final_part(self, step: int, steps: int) -> bool:
        """Return True in the last part of the run: weak augmentation and one size."""
        return step >= round(self.config.strong_share * steps)

    def has_fixed_size(self) -> bool:
        return len(self.sizes) == 1

    def before_step(self, module: DFineForObjectDetection, step: int, steps: int) -> None:
        self.step_size = None if self._is_final_part(step, steps) else draw_size(self.sizes)

    def reload_best_at(self, steps: int) -> int | None:
        return round(self.config.strong_share * steps) if 0 < self.config.strong_share < 1 else None

    def without_targets(self, batch: Batch) -> Batch:
        no_rows = [0] * len(batch)
        return batch.replace(
            **{name: RaggedTensor(batch[name].values[:0], no_rows) for name in TARGETS}
        )

    # predict --------------------
    def predict(self, model: DFineForObjectDetection, batch: Batch) -> Predictions:
        targets = targets_of(batch) if "boxes" in batch else None
        return evaluate.predict(
            model, self.to_input(batch), batch["sizes"], targets, self.loss_weights
        )

    def build_metric(self) -> DetectionMetric:
        return DetectionMetric(len(self.classes), self.config.metric_backend)

    def read_sample(self, path: str | Path) -> Sample:
        image = read_image(path)
        pixels, _, _ = DetectionEvalPreset(size=self.image_size)(image, torch.zeros(0, 4))
        return {"pixel_values": pixels, "size": torch.tensor(image.shape[-2:])}

    def describe_predictions(
        self, batch: Batch, predictions: Predictions, names: Sequence[str]
    ) -> list[JsonObject]:
        return evaluate.describe(predictions, batch["sizes"], names, self.classes, self.thresholds)

    def draw_predictions(
        self, paths: Sequence[Path], rows: Sequence[JsonObject], predictions: Predictions
    ) -> Iterator[NDArray[np.uint8]]:
        for path, row in zip(paths, rows, strict=True):
            image, full_hw = read_image_to_draw(path, visualize.MAX_DRAWING_SIDE)
            yield visualize.draw_prediction(image, full_hw, row, self.thresholds.chosen)

    def prediction_notes(self) -> list[str]:
        return [self.thresholds.note] if self.thresholds.note else []

    def write_predictions(self, folder: Path, rows: Iterable[JsonObject]) -> None:
        saved_predictions.write_predictions(folder, rows)

    def save_scored_predictions(
        self, metric: DetectionMetric, dataset: DetectionDataset, path: Path
    ) -> None:
        saved_predictions.save_scored_predictions(metric, dataset, path)

    @classmethod
    def score_saved_predictions(
        cls, path: str | Path, *, data: str, split: str
    ) -> tuple[Self, DetectionMetric]:
        index, metric = saved_predictions.score_file(path, data=data, split=split)
        return cls(DetectionConfig(data=str(data)), index.classes), metric

    # draw and report --------------------
    def draw(self, batch: Batch) -> dict[str, NDArray[np.uint8]]:
        return {"batch": visualize.draw_batch(batch, self.classes)}

    def draw_samples(self, batch: Batch, predictions: Predictions) -> list[NDArray[np.uint8]]:
        return visualize.draw_samples(batch, predictions, self.classes)

    def draw_scores(self, metric: DetectionMetric) -> dict[str, NDArray[np.uint8]]:
        names, counts, _ = self.confusion(metric)
        return {
            "precision_recall": draw_precision_recall(metric.curves(), self.classes),
            "average_precision": draw_ap_per_class(metric.per_class(), self.classes),
            "confusion": draw_confusion(counts, names),
        }

    def sample_scores(
        self, metric: DetectionMetric
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        return per_image_scores(metric, "losses")

    def per_class_scores(
        self, metric: DetectionMetric, picks: NDArray[np.int64] | None = None
    ) -> dict[str, dict[str, float]]:
        return class_table(self.classes, metric.per_class(picks))

    def confusion(self, metric: DetectionMetric) -> tuple[Sequence[str], NDArray[np.int64], str]:
        counts = count_confusion(metric.state(), len(self.classes))
        return (*self.classes, BACKGROUND), counts, "boxes"

    def curves(self, metric: DetectionMetric) -> list[JsonObject]:
        lines = recall_lines(metric.curves(), self.classes)
        title = "precision and recall at IoU 0.5"
        return [{"title": title, "x": "recall", "y": "precision", "lines": lines}]

    # export --------------------
    def export(
        self, module: DFineForObjectDetection, folder: Path, *, onnx: bool = False
    ) -> list[str]:
        self.save(module, module.state_dict(), folder)
        write_model_card(folder, self, {}, None)
        return export_detector(module, folder, self.image_size) if onnx else []
