"""The interface between the engine and a task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from visionloop.engine.batch import Batch, Normalizers
from visionloop.engine.config.train_config import TaskConfig
from visionloop.engine.metric import Metric, MetricSpec
from visionloop.engine.optim import ParameterGroup, batch_norms, default_parameter_groups
from visionloop.engine.system.kernels import LayerWidths
from visionloop.engine.types import (
    JsonObject,
    Predictions,
    Sample,
    SampleDataset,
    Scores,
    TaskDataset,
    TaskMetric,
    TaskModule,
)


class Task:
    """Base class of all tasks: the hooks that the engine and the commands call.

    A task never touches DDP, FSDP, autocast, checkpoints or ranks, and the engine never reads the
    content of a batch or a prediction.

    Required are four class attributes (`name`, `metrics`, `config_class`, `normalizer_names`) and
    twelve hooks:

    - data: `build_datasets`, `build_eval_dataset`, `collate`
    - model: `build_model`, `save`, `load`, `load_trained`
    - training: `to_input`, `count_normalizers`, `loss`
    - evaluation: `predict`, `build_metric`

    `load_trained` is needed by the commands for trained models alone. All other hooks have a
    default, or belong to one command that a task may leave out; the hooks follow in the order
    data, model, training, predict, draw and report, export.
    """

    name: ClassVar[str]
    # the first metric picks `best/` unless --best-metric names another
    metrics: ClassVar[tuple[MetricSpec, ...]]
    config_class: ClassVar[type[TaskConfig]]  # see engine/config/options.py
    # keys of `count_normalizers`, needed before there is a batch
    normalizer_names: ClassVar[tuple[str, ...]]

    # fraction of its first loss that one batch falls below in the 60 steps of `check_task`
    overfit_loss_share: ClassVar[float] = 0.8
    # (metric key, score to reach or label of a reference score) of `check --overfit`
    overfit_goal: ClassVar[tuple[str, float | str] | None] = None
    # suffix of the file of `save_scored_predictions`; None: the task has none
    saved_predictions_suffix: ClassVar[str | None] = None
    sheet_side: ClassVar[int] = 200  # longer side in pixels of an image on the contact sheet
    sample_score: ClassVar[MetricSpec | None] = None  # of `sample_scores`; None: no ranking
    # `save_best` changes weights, so a sharded run too gives it all of them, in host memory
    converts_best: ClassVar[bool] = False
    # {title: patterns of metric keys that share a chart}; the others get a chart each
    score_charts: ClassVar[dict[str, tuple[str, ...]]] = {}
    class_curves: ClassVar[tuple[str, ...]] = ()  # columns of `per_class_scores` with a curve
    keep_predictions = False  # set where `save_scored_predictions` needs more than the scores do

    def __init__(self, config: TaskConfig) -> None:
        self.config = config

    @classmethod
    def recipe(cls, values: JsonObject) -> JsonObject:
        """Return the defaults that model and preset change, {setting: value}, given all values."""
        return {}

    @classmethod
    def resolve_defaults(cls, values: JsonObject, steps: int) -> JsonObject:
        """Return {setting: value} for settings that are None until the length of the run is known.

        values: all settings resolved so far; steps: of the whole run.
        """
        return {}

    # data --------------------
    def build_datasets(self) -> tuple[SampleDataset, SampleDataset]:
        """Return the training dataset, with augmentation, and the validation dataset, without."""
        raise NotImplementedError

    def build_eval_dataset(self, split: str) -> SampleDataset:
        """Return the split "train", "val" or "test" with the transforms of evaluation."""
        raise NotImplementedError

    def collate(self, samples: Sequence[Sample], step: int, offset: int) -> Batch:
        """Collate samples into a micro-batch.

        Args:
            samples: of the dataset, each with its index under "sample_id" (set by the engine).
            step: the optimizer step of the batch.
            offset: position of its first sample in the global batch.
        """
        raise NotImplementedError

    def collate_eval(self, samples: Sequence[Sample]) -> Batch:
        """Collate samples for evaluation; a batch may keep a list where sizes differ."""
        return self.collate(samples, 0, 0)

    def before_sample(self, step: int, steps: int) -> None:
        """Set the augmentation of step `step` of `steps`, in the worker, before each sample."""

    def check_data(self) -> JsonObject:
        """Check the data folder and list all problems at once.

        Returns:
            {"errors": [{"path", "why"}], "warnings": [{"path", "why"}], "classes": {name: number
            of samples}}, and optionally "lines": [text], which are printed for people and left out
            of --json.
        """
        raise NotImplementedError

    def notes(self) -> list[str]:
        """Return lines about the data to print once at the start, after `build_datasets`."""
        return []

    def overfit_samples(
        self, samples: Sequence[Sample]
    ) -> tuple[Sequence[Sample], Sequence[Sample]]:
        """Choose from samples of `build_eval_dataset("train")` those of `check --overfit`.

        Returns:
            (samples to train on, in the form that `collate` takes; samples to score).

        Raises UserError where these samples cannot show whether the task overfits.
        """
        return samples, samples

    # model --------------------
    def build_model(self) -> TaskModule:
        """Build the model with its weights and a head that fits the classes of the data.

        In train mode, on the CPU, in fp32.
        """
        raise NotImplementedError

    def layer_widths(self) -> LayerWidths:
        """Return the channels of the layers that `--precision auto` measures on a CPU."""
        return LayerWidths()

    def parameter_groups(self, module: TaskModule) -> list[ParameterGroup]:
        """Return the parameter groups of the optimizer, with every trainable parameter once."""
        return default_parameter_groups(module)

    def backbone(self, module: TaskModule) -> nn.Module | None:
        """Return the submodule that `--freeze backbone` freezes, None where there is none."""
        return None

    def grad_checkpointing_blocks(self, module: TaskModule) -> Sequence[nn.Module]:
        """Return submodules whose activations may be recomputed; none may train a BatchNorm."""
        return []

    def sharding_units(self, module: TaskModule) -> Sequence[nn.Module]:
        """Return the blocks that `--shard` gathers one at a time, each called as a module."""
        blocks = self.grad_checkpointing_blocks(module)
        return [block for block in blocks if next(block.parameters(), None) is not None]

    def nondeterministic_ops(self, module: TaskModule) -> tuple[str, ...]:
        """Return operations of this training without a deterministic backward on CUDA."""
        return ()

    def compile(self, module: TaskModule) -> nn.Module:
        """Apply `--compile`: return the compiled model that training calls."""
        compiled: nn.Module = torch.compile(module)  # type: ignore[assignment]  # a module
        return compiled

    def save(self, module: TaskModule, tensors: Mapping[str, torch.Tensor], folder: Path) -> None:
        """Write a Hugging Face folder. A sharded run calls it without tensors and adds them.

        Args:
            module: the model, for its configuration.
            tensors: the weights to write, {name in `module.state_dict()`: tensor}.
            folder: an existing empty folder.
        """
        raise NotImplementedError

    def load(self, module: TaskModule, folder: Path) -> None:
        """Load the weights of a folder of `save` into `module`, bit for bit."""
        raise NotImplementedError

    def save_best(
        self, module: TaskModule, tensors: Mapping[str, torch.Tensor], folder: Path, scores: Scores
    ) -> None:
        """Write `best/`: like `save`, with labels and a model card, as transformers loads it."""
        self.save(module, tensors, folder)

    @classmethod
    def load_trained(
        cls, folder: str | Path, *, data: str | None = None, val_split: float = 0.0
    ) -> tuple[Task, TaskModule]:
        """Load a Hugging Face folder for `evaluate`, `predict`, `check` and `export`.

        Classes, sizes and transforms are those of the folder: nothing is refitted to the data. A
        task may take more keyword arguments, named like settings of its config: those that its
        launcher offers for `evaluate` (`score_options`) and for `predict` (`predict_options`).

        Args:
            folder: the folder with weights and config.json.
            data: data folder of `build_eval_dataset`; labels there are matched by name.
            val_split: share of the training images that `build_eval_dataset` sets aside.

        Returns:
            (task, module in eval mode).

        Raises:
            UserError: the folder is no such model, or the data has a class that the model lacks.
        """
        raise NotImplementedError

    # training --------------------
    def to_input(self, batch: Batch) -> torch.Tensor:
        """Turn the uint8 "pixel_values" of a batch into the model's input, on the device.

        `loss` and `predict` call it first.
        """
        raise NotImplementedError

    def count_normalizers(self, micro_batches: Sequence[Batch]) -> dict[str, float]:
        """Count what the loss divides by, in host batches: {name of `normalizer_names`: number}."""
        raise NotImplementedError

    def loss(
        self, model: nn.Module, batch: Batch, normalizers: Normalizers
    ) -> dict[str, torch.Tensor]:
        """Compute the loss of one micro-batch, in fp32.

        Args:
            model: what training calls, perhaps wrapped by DDP or torch.compile.
            batch: one micro-batch on the device.
            normalizers: of the whole step, by which sums are divided.

        Returns:
            {"loss": total, "loss_<term>": ...}, scalars; only "loss" gets a gradient.
        """
        raise NotImplementedError

    def before_step(self, module: TaskModule, step: int, steps: int) -> None:
        """Set the task's own schedules, as a pure function of the step (0-based).

        The host's generators are seeded by (seed, step) here.
        """

    def has_fixed_size(self) -> bool:
        """Return True where the images of all training batches have one size."""
        return True

    def min_micro_batch_size(self, module: TaskModule) -> int:
        """Return the smallest micro-batch: 2 with a trained BatchNorm or mixed images."""
        return 2 if any(layer.training for layer in batch_norms(module)) else 1

    def reload_best_at(self, steps: int) -> int | None:
        """Return the step before which the best checkpoint so far is loaded whole, or None."""
        return None

    def expected_first_loss(self) -> float | None:
        """Return the loss of an untrained model (ln C for C classes), None where undefined."""
        return None

    def without_targets(self, batch: Batch) -> Batch | None:
        """Return the batch with empty targets, None for a task where that is not legal."""
        return None

    # predict --------------------
    def predict(self, model: TaskModule, batch: Batch) -> Predictions:
        """Compute final predictions in coordinates of the original images.

        They hold what `build_metric` needs, and the loss of each image where the batch has targets.
        """
        raise NotImplementedError

    def build_metric(self) -> Metric:
        """Return an empty metric."""
        raise NotImplementedError

    def read_sample(self, path: str | Path) -> Sample:
        """Read one image as `build_eval_dataset` does, without targets. Raises OSError."""
        raise NotImplementedError

    def describe_predictions(
        self, batch: Batch, predictions: Predictions, names: Sequence[str]
    ) -> list[JsonObject]:
        """Return one row of predictions.jsonl for each image, with its name under "file"."""
        raise NotImplementedError

    def draw_predictions(
        self, paths: Sequence[Path], rows: Sequence[JsonObject], predictions: Predictions
    ) -> Iterable[NDArray[np.uint8]]:
        """Draw the predictions (rows: of `describe_predictions`) into their image files.

        One uint8 array [H, W, 3] for each path; from a generator, for the sake of the memory.
        """
        raise NotImplementedError

    def prediction_images(
        self, paths: Sequence[Path], predictions: Predictions
    ) -> dict[str, Iterable[NDArray[np.uint8] | Image.Image]]:
        """Return predictions that are images, which are written as PNG: {folder: images}.

        An image is a uint8 array [H, W] or [H, W, 3], or a Pillow image whose `info` keeps
        "icc_profile" and "exif"; one for each of `paths`, perhaps from a generator.
        """
        return {}

    def write_predictions(self, folder: Path, rows: Iterable[JsonObject]) -> None:
        """Write files beside predictions.jsonl in formats that other tools read.

        rows: those of predictions.jsonl, read anew at each iteration, never all in memory.
        """

    def explain(self, module: TaskModule, batch: Batch, kind: str) -> Iterable[NDArray[np.uint8]]:
        """Draw an explanation of the prediction, one uint8 array [H, W, 3] for each image.

        kind: a switch of `predict` that the launcher offers, e.g. "attention".
        """
        raise NotImplementedError

    def prediction_notes(self) -> list[str]:
        """Return lines that `predict` prints once, e.g. about the score thresholds in use."""
        return []

    def save_scored_predictions(self, metric: TaskMetric, dataset: TaskDataset, path: Path) -> None:
        """Write the predictions of an evaluation of `dataset`, for `score_saved_predictions`."""
        raise NotImplementedError

    @classmethod
    def score_saved_predictions(
        cls, path: str | Path, *, data: str, split: str
    ) -> tuple[Task, Metric]:
        """Score a file of predictions without a model: those of `predict` or `evaluate`.

        Raises UserError where the file is not readable or does not fit the data.
        """
        raise NotImplementedError

    # draw and report: every default shows nothing --------------------
    def draw(self, batch: Batch) -> dict[str, NDArray[np.uint8]]:
        """Draw a training batch as the model sees it: {tag: uint8 array [H, W, 3]}."""
        return {}

    def draw_samples(self, batch: Batch, predictions: Predictions) -> Sequence[NDArray[np.uint8]]:
        """Draw prediction beside ground truth: one uint8 array [H, W, 3] per image, or none."""
        return []

    def draw_gallery(
        self, images: Sequence[NDArray[np.uint8]], captions: Sequence[Sequence[str]]
    ) -> NDArray[np.uint8] | None:
        """Put images of `draw_samples` (at most 640 px wide) on one sheet with captions below."""
        return None

    def draw_scores(self, metric: TaskMetric) -> dict[str, NDArray[np.uint8]]:
        """Draw a whole evaluation, e.g. a confusion matrix: {tag: uint8 array [H, W, 3]}."""
        return {}

    def sample_scores(self, metric: TaskMetric) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return (sample ids int64 [N], `sample_score` of each float64 [N] or nan)."""
        raise NotImplementedError

    def per_class_scores(
        self, metric: TaskMetric, picks: NDArray[np.int64] | None = None
    ) -> dict[str, dict[str, float]]:
        """Return scores by class, {"cat": {"AP": 0.5, "boxes": 12}}; picks: as in the Metric."""
        return {}

    def reference_scores(self, metric: TaskMetric) -> Scores:
        """Return scores of a trivial predictor on the same images, {label: number}."""
        return {}

    def confusion(self, metric: TaskMetric) -> tuple[Sequence[str], NDArray[np.int64], str] | None:
        """Return (class names, integers [C, C] with the ground truth in rows, the unit) or None.

        The unit is of the integers, e.g. "images".
        """
        return None

    def curves(self, metric: TaskMetric) -> list[JsonObject]:
        """Return curves for the report, e.g. precision against recall.

        [{"title", "x": label, "y": label, "lines": [{"name", "x": [numbers], "y": [numbers]}]}]
        """
        return []

    # export --------------------
    def export(self, module: TaskModule, folder: Path, *, onnx: bool = False) -> list[str]:
        """Write a module of `load_trained` like `save_best`, and as ONNX too if requested.

        Returns lines about the checks of the export, to print.
        """
        raise NotImplementedError
