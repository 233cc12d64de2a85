"""The part that semantic, instance and panoptic segmentation share: model, training and folder.

The three tasks are in semantic/, instance/ and panoptic/: each adds its data, its predictions and
its scores.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from visionloop.engine.batch import Batch, Normalizers
from visionloop.engine.optim import ParameterGroup
from visionloop.engine.system.kernels import LayerWidths
from visionloop.engine.task import Task
from visionloop.engine.types import Scores
from visionloop.tasks.drawing.contact_sheet import draw_gallery
from visionloop.tasks.huggingface.hub import ModelSource, check_folder
from visionloop.tasks.huggingface.loading import class_names
from visionloop.tasks.normalize import Normalize
from visionloop.tasks.operating_point import forget_operating_point
from visionloop.tasks.segmentation.config import EomtConfig
from visionloop.tasks.segmentation.export import (
    CardText,
    MeanStd,
    export_segmenter,
    load_folder,
    pixel_statistics,
    require_input,
    save_folder,
    write_segmenter_card,
)
from visionloop.tasks.segmentation.loss import EomtCriterion, ImageTargets, per_image_losses
from visionloop.tasks.segmentation.mask_annealing import parse_mask_annealing
from visionloop.tasks.segmentation.model import (
    build_model,
    load_model,
    parameter_groups,
    source_config,
)
from visionloop.tasks.segmentation.recipes import EomtRecipe
from visionloop.tasks.splits import SplitIndex, passed_over_notes


class EomtTask(Task):
    """A task of EoMT, of every size, on a ViT or on DINOv3.

    A subclass adds to the required attributes of Task:

    - `recipe_of`, and `recipe` and `resolve_defaults` from it
    - `new_sizes` and `whole_images`, of a new model and of the image processor
    - the hooks of data, `image_targets`, `predict`, the metric, drawings and `card_text`

    Args:
        config: the settings.
        classes: names in order of id, of a trained model; None: those of the data.
    """

    config: EomtConfig
    config_class: ClassVar[type[EomtConfig]]
    normalizer_names = ("masks", "class_weight")
    recipe_of: ClassVar[EomtRecipe]
    # (image size, queries) of a new model, None: those of the architecture
    new_sizes: ClassVar[tuple[int, int] | None] = None
    # the network reads whole padded images, not windows
    whole_images: ClassVar[bool] = False
    draw_gallery = staticmethod(draw_gallery)

    def __init__(self, config: EomtConfig, classes: Sequence[str] | None = None) -> None:
        super().__init__(config)
        self.model_classes = classes

    # data --------------------
    @property
    @abstractmethod
    def splits(self) -> tuple[SplitIndex, SplitIndex]:
        """Return (training index, validation index)."""

    @cached_property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Return the class names in order of id."""

    def notes(self) -> list[str]:
        return passed_over_notes(self.splits)

    # model --------------------
    @cached_property
    def source(self) -> ModelSource:
        """Return the architecture or the folder that `--model` names."""
        return self.recipe_of.names.find(self.config.model, self.config.from_scratch)

    @cached_property
    def model_config(self) -> PretrainedConfig:
        """Return the config of the model to build, without the classes."""
        config = self.config
        return source_config(
            self.source,
            image_size=config.image_size,
            num_queries=config.num_queries,
            num_blocks=config.num_blocks,
            new_sizes=self.new_sizes,
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
        module = build_model(self.source, self.classes, self.model_config, self.config.init)
        forget_operating_point(module.config)
        return module

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
        save_folder(
            module,
            tensors,
            folder,
            self.image_size,
            *self.pixel_statistics,
            whole_images=self.whole_images,
        )

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
        write_segmenter_card(folder, self, self.card_text(), self.classes, scores, trained_on)

    def card_text(self) -> CardText:
        """Return the task's own text of the model card."""
        raise NotImplementedError

    @classmethod
    def load_trained(  # type: ignore[explicit-any]  # settings have the types of their fields
        cls,
        folder: str | Path,
        *,
        data: str | None = None,
        val_split: float = 0.0,
        **settings: Any,
    ) -> tuple[Self, PreTrainedModel]:
        """See `Task.load_trained`. settings: of `config_class`, by name."""
        module = load_model(check_folder(folder))
        classes = class_names(module.config) or [
            f"LABEL_{i}" for i in range(module.config.num_labels)
        ]
        config = cls.config_class(data=data, model=str(folder), val_split=val_split)
        return cls.of_model(replace(config, **settings), classes, module.config), module.eval()

    @classmethod
    def of_model(
        cls, config: EomtConfig, classes: Sequence[str], model_config: PretrainedConfig
    ) -> Self:
        """Return the task of a trained model: its classes, and what else its config.json says.

        Raises UserError for a model of another task.
        """
        require_input(str(config.model), whole_images=cls.whole_images)
        return cls(config, classes)

    # training --------------------
    @cached_property
    def normalize(self) -> Normalize:
        """Return the normalization of uint8 pixels."""
        return Normalize(*self.pixel_statistics)

    def to_input(self, batch: Batch) -> torch.Tensor:
        return self.normalize(batch["pixel_values"])

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

    def image_targets(self, batch: Batch) -> Iterable[ImageTargets]:
        """Return the targets of each image of a training or evaluation batch, on its device."""
        raise NotImplementedError

    def loss(
        self, model: nn.Module, batch: Batch, normalizers: Normalizers
    ) -> dict[str, torch.Tensor]:
        mask_logits, class_logits = model(self.to_input(batch))
        masks, labels, valid = zip(*self.image_targets(batch), strict=True)
        return self.criterion(
            mask_logits, class_logits, masks, labels, normalizers, valid=torch.stack(valid)
        )

    def per_image_losses(
        self, mask_logits: torch.Tensor, class_logits: torch.Tensor, batch: Batch
    ) -> torch.Tensor:
        """Return the validation loss of each image of an evaluation batch, float32 [B]."""
        sample_ids = batch["sample_ids"].tolist()
        targets = self.image_targets(batch)
        return per_image_losses(self.criterion, mask_logits, class_logits, targets, sample_ids)

    def before_step(self, module: PreTrainedModel, step: int, steps: int) -> None:
        module.mask_probs = self.annealing.probabilities(step, steps)

    # export --------------------
    def export(self, module: PreTrainedModel, folder: Path, *, onnx: bool = False) -> list[str]:
        self.save(module, module.state_dict(), folder)
        write_segmenter_card(folder, self, self.card_text(), self.classes, {}, None)
        return export_segmenter(module, folder, self.image_size) if onnx else []
