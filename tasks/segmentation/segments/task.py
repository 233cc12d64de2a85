"""The part that instance and panoptic segmentation share: data, targets and whole images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from transformers import PretrainedConfig, PreTrainedModel

from visionloop.datasets.io.images import read_image
from visionloop.datasets.io.reduced_jpeg import read_image_to_draw
from visionloop.datasets.segments.dataset import SegmentsDataset
from visionloop.datasets.segments.index import Kind, SegmentsIndex
from visionloop.datasets.segments.transforms import SegmentsEvalPreset, SegmentsTrainPreset
from visionloop.engine.batch import Batch
from visionloop.engine.types import JsonObject, Predictions, Sample
from visionloop.tasks.augmentation import user_function
from visionloop.tasks.segmentation.architectures import SEGMENTS_QUERIES, SEGMENTS_SIDE
from visionloop.tasks.segmentation.config import EomtConfig
from visionloop.tasks.segmentation.drawing import MAX_DRAWING_SIDE, class_colors, to_array
from visionloop.tasks.segmentation.export import require_input
from visionloop.tasks.segmentation.segments import visualize
from visionloop.tasks.segmentation.segments.checks import ModelInput, check_segments_data
from visionloop.tasks.segmentation.segments.data import (
    collate,
    collate_eval,
    image_targets,
    index_split,
    require_learnable,
    targets_per_image,
    training_splits,
)
from visionloop.tasks.segmentation.segments.things import write_is_thing
from visionloop.tasks.segmentation.task import EomtTask


class SegmentsTask(EomtTask):
    """A mask for each segment, by a network that reads whole padded images.

    A subclass adds to the required attributes of EomtTask:

    - `kind`, of the annotations

    Args:
        config: the settings.
        classes: names in order of id, of a trained model; None: those of the data.
        is_thing: for each of these classes, True for things.
    """

    kind: ClassVar[Kind]
    new_sizes = (SEGMENTS_SIDE, SEGMENTS_QUERIES)
    whole_images = True
    collate = staticmethod(collate)
    collate_eval = staticmethod(collate_eval)
    image_targets = staticmethod(image_targets)

    def __init__(
        self,
        config: EomtConfig,
        classes: Sequence[str] | None = None,
        is_thing: Sequence[bool] | None = None,
    ) -> None:
        super().__init__(config, classes)
        self.model_is_thing = is_thing

    # data --------------------
    @cached_property
    def splits(self) -> tuple[SegmentsIndex, SegmentsIndex]:
        """Return (training index, validation index)."""
        config = self.config
        return training_splits(config.data, config.val_split, self.kind, self.model_classes)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Return the class names in order of id."""
        return tuple(self.model_classes or self.splits[0].classes)

    @cached_property
    def is_thing(self) -> tuple[bool, ...]:
        """Return whether each class is of things, [K]."""
        return tuple(self.model_is_thing or self.splits[0].is_thing)

    def build_datasets(self) -> tuple[SegmentsDataset, SegmentsDataset]:
        config, (train, val) = self.config, self.splits
        transform = SegmentsTrainPreset(
            size=self.image_size,
            color=config.color,
            scale=(config.scale_min, config.scale_max),
            flip=0.5 if config.hflip else 0.0,
        )
        train_dataset = SegmentsDataset(
            train, transform, memory=config.memory_bytes, user_function=user_function(config)
        )
        return train_dataset, self._eval_dataset(val)

    def build_eval_dataset(self, split: str) -> SegmentsDataset:
        if self.config.val_split and split != "test":
            return self._eval_dataset(self.splits[split == "val"])
        return self._eval_dataset(index_split(self.config.data, split, self.kind, self.classes))

    def _eval_dataset(self, index: SegmentsIndex) -> SegmentsDataset:
        transform = SegmentsEvalPreset(size=self.image_size)
        return SegmentsDataset(
            index, transform, with_ground_truth=True, memory=self.config.memory_bytes
        )

    def check_data(self) -> JsonObject:
        config, model = self.config, self.model_config
        model_input = ModelInput(self.image_size, model.patch_size, model.num_queries)
        return check_segments_data(config.data, config.val_split, self.kind, model_input)

    def overfit_samples(
        self, samples: Sequence[Sample]
    ) -> tuple[Sequence[Sample], Sequence[Sample]]:
        require_learnable(samples, self.model_config.num_queries)
        return samples, samples

    def notes(self) -> list[str]:
        train, val = self.splits
        notes = {f"warning: {train.source}: train: {why}" for why in train.notes}
        if not self.config.val_split:
            notes |= {f"warning: {val.source}: val: {why}" for why in val.notes}
        return [*sorted(notes), *self._query_notes(), *super().notes()]

    def _query_notes(self) -> list[str]:
        """Return a line about images with more segments than queries, where there are any."""
        train, num_queries = self.splits[0], self.model_config.num_queries
        numbers = targets_per_image(train)
        count = int((numbers > num_queries).sum())
        if not count:
            return []
        return [
            f"warning: {train.source}: {count} of {len(train)} training images have more segments "
            f"than the {num_queries} queries, up to {numbers.max()}: some are not learned there; "
            "set --num-queries"
        ]

    # model --------------------
    def build_model(self) -> PreTrainedModel:
        module = super().build_model()
        write_is_thing(module.config, self.is_thing)
        return module

    @classmethod
    def of_model(
        cls, config: EomtConfig, classes: Sequence[str], model_config: PretrainedConfig
    ) -> Self:
        require_input(str(config.model), whole_images=cls.whole_images)
        return cls(config, classes, cls.things_of(model_config, str(config.model)))

    @classmethod
    def things_of(cls, model_config: PretrainedConfig, folder: str) -> tuple[bool, ...] | None:
        """Return whether each class of a trained model is of things, [K]; None: of no use."""
        return None

    # training --------------------
    def without_targets(self, batch: Batch) -> Batch:
        return batch.replace(
            segments=[segments[:0] for segments in batch["segments"]],
            labels=[labels[:0] for labels in batch["labels"]],
        )

    # predict --------------------
    def read_sample(self, path: str | Path) -> Sample:
        sample: Sample = SegmentsEvalPreset(size=self.image_size)(read_image(path))
        return sample

    def draw_predictions(
        self, paths: Sequence[Path], rows: Sequence[JsonObject], predictions: Predictions
    ) -> Iterator[NDArray[np.uint8]]:
        for path, one in zip(paths, visualize.split_predictions(predictions), strict=True):
            image, size_hw = read_image_to_draw(path, MAX_DRAWING_SIDE)
            yield visualize.draw_prediction(
                to_array(image), size_hw, one, self.classes, self.colors, self.is_thing
            )

    # draw and report --------------------
    @cached_property
    def colors(self) -> NDArray[np.uint8]:
        """Return the class colors, uint8 [K, 3]."""
        return class_colors(self.classes)

    def draw(self, batch: Batch) -> dict[str, NDArray[np.uint8]]:
        return {"batch": visualize.draw_batch(batch, self.classes, self.colors, self.is_thing)}

    def draw_samples(self, batch: Batch, predictions: Predictions) -> list[NDArray[np.uint8]]:
        return visualize.draw_samples(batch, predictions, self.classes, self.colors)
