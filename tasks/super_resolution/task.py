"""The super-resolution task: its hooks call the functions of the other files of this folder."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from transformers import PreTrainedConfig

from visionloop.datasets.io.images import read_image
from visionloop.datasets.super_resolution.dataset import SuperResolutionDataset
from visionloop.datasets.super_resolution.degradations import GaussianNoise, Jpeg
from visionloop.datasets.super_resolution.layout import SuperResolutionIndex
from visionloop.datasets.super_resolution.transforms import (
    SuperResolutionEvalPreset,
    SuperResolutionTrainPreset,
)
from visionloop.engine.batch import Batch, Normalizers
from visionloop.engine.errors import UserError
from visionloop.engine.system.kernels import LayerWidths, layout_for_convolutions
from visionloop.engine.task import Task
from visionloop.engine.types import JsonObject, Predictions, Sample, Scores
from visionloop.metrics.lpips import Lpips
from visionloop.metrics.super_resolution import SuperResolutionMetric
from visionloop.tasks.augmentation import user_function
from visionloop.tasks.drawing.contact_sheet import draw_gallery
from visionloop.tasks.huggingface.hub import ModelSource, check_folder
from visionloop.tasks.splits import passed_over_notes
from visionloop.tasks.super_resolution import (
    evaluate,
    recipes,
    result_images,
    saved_predictions,
    visualize,
)
from visionloop.tasks.super_resolution.architectures import MODEL_NAMES, pretrained_name
from visionloop.tasks.super_resolution.checks import (
    check_super_resolution_data,
    compare_lr_sources,
    describe_lr_source,
)
from visionloop.tasks.super_resolution.config import RESTORATION, SuperResolutionConfig
from visionloop.tasks.super_resolution.data import (
    collate,
    collate_eval,
    cut_overfit_sample,
    index_split,
    open_images,
    require_pairs,
    training_splits,
)
from visionloop.tasks.super_resolution.export import (
    export_super_resolution,
    load_folder,
    make_plain,
    save_folder,
    save_plain_folder,
    write_model_card,
)
from visionloop.tasks.super_resolution.loss import SuperResolutionCriterion
from visionloop.tasks.super_resolution.model import build_model, load_model, source_config
from visionloop.tasks.super_resolution.modes import (
    border_of,
    build_degradation,
    read_degradation,
    write_mode,
)
from visionloop.tasks.super_resolution.network import (
    Swin2SRForImageSuperResolution,
    grad_checkpointing_blocks,
)
from visionloop.tasks.super_resolution.scores import METRICS, SAMPLE_SCORE
from visionloop.tasks.visualize import per_image_scores

log = logging.getLogger(__name__)


class SuperResolutionTask(Task):
    """Super-resolution and restoration with Swin2SR, in all its modes."""

    config: SuperResolutionConfig
    name = "super_resolution"
    metrics = METRICS
    config_class = SuperResolutionConfig
    normalizer_names = ("pixels",)
    sheet_side = visualize.STRIP
    overfit_goal = ("psnr", "bicubic PSNR")
    sample_score = SAMPLE_SCORE
    score_charts: ClassVar[dict[str, tuple[str, ...]]] = {
        "PSNR": ("psnr", "psnr_rgb"),
        "SSIM": ("ssim", "ssim_rgb"),
    }
    recipe = staticmethod(recipes.recipe)
    resolve_defaults = staticmethod(recipes.resolve_defaults)
    collate = staticmethod(collate)
    collate_eval = staticmethod(collate_eval)
    draw_gallery = staticmethod(draw_gallery)

    def __init__(self, config: SuperResolutionConfig) -> None:
        super().__init__(config)
        if config.ensemble not in (1, 8):
            raise UserError(f"--ensemble: expected 1 or 8, got {config.ensemble}", field="ensemble")

    # data --------------------
    @cached_property
    def splits(self) -> tuple[SuperResolutionIndex, SuperResolutionIndex]:
        """Return (training index, validation index)."""
        # the network's own scale: one without a head is reported before any image is decoded
        return training_splits(self.config.data, self.config.val_split, self.model_config.upscale)

    @property
    def scale(self) -> int:
        """Return the upscaling factor of each side."""
        return self.config.scale or int(self.model_config.upscale)

    @property
    def patch(self) -> int:
        """Return the side of the training crops in input pixels."""
        return self.config.patch_size or int(self.model_config.image_size)

    @property
    def border(self) -> int:
        """Return the pixels that scores leave out at each side."""
        return border_of(self.config.mode, self.scale)

    @cached_property
    def degradation(self) -> GaussianNoise | Jpeg | None:
        """Return the degradation of the input, None for clean input."""
        return build_degradation(self.config)

    @cached_property
    def train_transform(self) -> SuperResolutionTrainPreset:
        """Return the augmentation of training crops."""
        return SuperResolutionTrainPreset(
            patch=self.patch,
            scale=self.scale,
            degradation=self.degradation,
            augment=self.config.flips,
        )

    def build_datasets(self) -> tuple[SuperResolutionDataset, SuperResolutionDataset]:
        if self.config.lpips_weights:
            self.build_metric()  # a wrong file is reported now, not at the first evaluation
        train, val = self.splits
        pairs = open_images(train, self.config.cache, self.train_transform.side)
        train_set = SuperResolutionDataset(pairs, self.train_transform, user_function(self.config))
        return train_set, self._eval_dataset(val)

    def build_eval_dataset(self, split: str) -> SuperResolutionDataset:
        if self.config.val_split and split != "test":
            return self._eval_dataset(self.splits[split == "val"])
        return self._eval_dataset(index_split(self.config.data, split, self.scale))

    def _eval_dataset(self, index: SuperResolutionIndex) -> SuperResolutionDataset:
        transform = SuperResolutionEvalPreset(scale=self.scale, degradation=self.degradation)
        return SuperResolutionDataset(open_images(index, self.config.cache), transform)

    def notes(self) -> list[str]:
        train, val = self.splits
        lines = describe_lr_source(train)
        if why := compare_lr_sources(train, val):
            lines.append(f"warning: {val.folder}: {why}")
        return lines + passed_over_notes(self.splits, ".png")

    def check_data(self) -> JsonObject:
        config, side = self.config, self.train_transform.side
        assert side is not None, "training takes crops"
        return check_super_resolution_data(
            config.data, config.val_split, self.scale, side, config.cache
        )

    def overfit_samples(self, samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
        require_pairs(samples, self.border)
        parts = [cut_overfit_sample(sample, self.patch, self.scale) for sample in samples]
        return parts, parts

    # model --------------------
    @cached_property
    def source(self) -> ModelSource:
        """Return the architecture or the folder that `--model` names."""
        config, name = self.config, self.config.model
        if name is not None and not config.from_scratch:
            name = pretrained_name(name, config.scale)
        return MODEL_NAMES.find(name, config.from_scratch)

    @cached_property
    def model_config(self) -> PreTrainedConfig:
        """Return the config of the network to build."""
        return source_config(
            self.source, scale=self.config.scale, image_size=self.config.patch_size
        )

    def build_model(self) -> Swin2SRForImageSuperResolution:
        module = build_model(
            self.source,
            self.model_config,
            official_heads=self.config.official_heads,
            init=self.config.init,
        )
        write_mode(module.config, self.config)
        return module

    def layer_widths(self) -> LayerWidths:
        width = self.model_config.embed_dim
        return LayerWidths(linear=width, conv=width)

    def backbone(self, module: Swin2SRForImageSuperResolution) -> nn.Module:
        backbone: nn.Module = module.swin2sr
        return backbone

    def grad_checkpointing_blocks(self, module: Swin2SRForImageSuperResolution) -> list[nn.Module]:
        return grad_checkpointing_blocks(module)

    def save(
        self,
        module: Swin2SRForImageSuperResolution,
        tensors: Mapping[str, torch.Tensor],
        folder: Path,
    ) -> None:
        save_folder(module, tensors, folder)

    def load(self, module: Swin2SRForImageSuperResolution, folder: Path) -> None:
        load_folder(module, folder)

    converts_best = True  # for plain transformers

    def save_best(
        self,
        module: Swin2SRForImageSuperResolution,
        tensors: Mapping[str, torch.Tensor],
        folder: Path,
        scores: Scores,
    ) -> None:
        save_plain_folder(module, tensors, folder)
        write_model_card(folder, self, scores, [len(index) for index in self.splits])

    @classmethod
    def load_trained(
        cls,
        folder: str | Path,
        *,
        data: str | None = None,
        val_split: float = 0.0,
        **settings: object,
    ) -> tuple[SuperResolutionTask, Swin2SRForImageSuperResolution]:
        module = load_model(check_folder(folder))
        values: JsonObject = {**read_degradation(module.config), **settings}
        mode = values.pop("mode", None) or recipes.mode_of(str(folder))
        if module.scale > 1 and mode in RESTORATION:
            raise UserError(
                f"--mode {mode}: keeps the image size, but {folder} is for x{module.scale}",
                field="mode",
            )
        config = SuperResolutionConfig(
            data=data,
            model=str(folder),
            val_split=val_split,
            mode=mode,
            scale=module.scale,
            **values,
        )
        module.eval()
        return cls(config), module

    # training --------------------
    @cached_property
    def criterion(self) -> SuperResolutionCriterion:
        """Return the loss."""
        config = self.config
        compressed = config.mode == "compressed"
        return SuperResolutionCriterion(
            config.loss,
            scale=self.scale,
            aux_weight=config.weight_aux if compressed else 0.0,
            frequency_weight=config.weight_frequency if compressed else 0.0,
        )

    def to_input(self, batch: Batch) -> torch.Tensor:
        return layout_for_convolutions(batch["pixel_values"]).float() / 255

    def count_normalizers(self, micro_batches: Sequence[Batch]) -> dict[str, float]:
        pixels = sum(
            len(batch) * batch["hr"].shape[-2] * batch["hr"].shape[-1] for batch in micro_batches
        )
        return {"pixels": pixels}

    def loss(
        self, model: nn.Module, batch: Batch, normalizers: Normalizers
    ) -> dict[str, torch.Tensor]:
        hr = batch["hr"].float() / 255
        return self.criterion(model(self.to_input(batch)), hr, normalizers)

    # predict --------------------
    def predict(self, model: Swin2SRForImageSuperResolution, batch: Batch) -> Predictions:
        config = self.config
        return evaluate.predict(
            model,
            batch,
            criterion=self.criterion,
            tile=config.tile,
            halo=config.halo,
            ensemble=config.ensemble,
        )

    @cached_property
    def lpips(self) -> Lpips | None:
        """Return the LPIPS network, None without --lpips-weights."""
        path = self.config.lpips_weights
        if path is None:
            log.warning(
                "LPIPS is not scored: --lpips-weights names no file (bin/convert.py lpips makes it)"
            )
            return None
        try:
            return Lpips.load(path)
        except ValueError as error:
            raise UserError(f"--lpips-weights: {error}", field="lpips_weights", file=path) from None

    def build_metric(self) -> SuperResolutionMetric:
        return SuperResolutionMetric(self.border, self.lpips)

    def read_sample(self, path: str | Path) -> Sample:
        image = read_image(path).permute(1, 2, 0).numpy()
        return SuperResolutionEvalPreset(scale=self.scale)(image)

    def describe_predictions(
        self, batch: Batch, predictions: Predictions, names: Sequence[str]
    ) -> list[JsonObject]:
        return result_images.describe_predictions(predictions, batch, names)

    def prediction_images(
        self, paths: Sequence[Path], predictions: Predictions
    ) -> dict[str, Iterable[NDArray[np.uint8] | Image.Image]]:
        return {**result_images.prediction_images(paths, predictions, self.scale)}

    def draw_predictions(
        self, paths: Sequence[Path], rows: Sequence[JsonObject], predictions: Predictions
    ) -> Iterable[NDArray[np.uint8]]:
        return (
            visualize.draw_prediction(read_image(path), image)
            for path, image in zip(paths, predictions["images"], strict=True)
        )

    @classmethod
    def score_saved_predictions(
        cls, path: str | Path, *, data: str, split: str
    ) -> tuple[SuperResolutionTask, SuperResolutionMetric]:
        scale, metric = saved_predictions.score_saved_predictions(path, data=data, split=split)
        return cls(SuperResolutionConfig(data=str(data), scale=scale)), metric

    # draw and report --------------------
    def draw(self, batch: Batch) -> dict[str, NDArray[np.uint8]]:
        return {"batch": visualize.draw_batch(batch)}

    def draw_samples(self, batch: Batch, predictions: Predictions) -> list[NDArray[np.uint8]]:
        return visualize.draw_samples(batch, predictions, self.scale, self.border)

    def sample_scores(
        self, metric: SuperResolutionMetric
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        return per_image_scores(metric, "psnr")

    def reference_scores(self, metric: SuperResolutionMetric) -> Scores:
        # for saved predictions at x1 the input is unknown, and its scores are nan
        scores = metric.bicubic_scores()
        return {name: score for name, score in scores.items() if not math.isnan(score)}

    # export --------------------
    def export(
        self, module: Swin2SRForImageSuperResolution, folder: Path, *, onnx: bool = False
    ) -> list[str]:
        lines = make_plain(module)
        save_plain_folder(module, module.state_dict(), folder)
        write_model_card(folder, self, {}, None)
        return lines + (export_super_resolution(module, folder, self.patch) if onnx else [])
