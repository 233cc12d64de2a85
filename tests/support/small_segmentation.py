"""A segmentation task of a few thousand weights, importable by the processes that tests start."""

import os
from dataclasses import replace

import torch

from visionloop.datasets.segmentation.mask_values import IGNORED
from visionloop.tasks.segmentation.model import new_config, new_model
from visionloop.tasks.segmentation.semantic.config import SemanticConfig
from visionloop.tasks.segmentation.semantic.task import SemanticTask

SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "num_queries": 8}
# every pixel of the grid instead of random points; all queries masked, so that no mask is drawn
QUIET = SemanticConfig(
    model="tiny", from_scratch=True, image_size=32, points=0, mask_annealing="on"
)


class SmallTask(SemanticTask):
    """`tiny`, smaller."""

    @property
    def model_config(self):
        config = new_config("tiny")
        for name, value in (SMALL | {"image_size": self.config.image_size}).items():
            setattr(config, name, value)
        return config

    def build_model(self):
        super().build_model()
        return new_model(self.model_config, self.classes).train()


def make_quiet_task():
    """Return a task without randomness; its data folder is in SMALL_SEGMENTATION_DATA."""
    return SmallTask(replace(QUIET, data=os.environ["SMALL_SEGMENTATION_DATA"]))


class SecondHalfEmpty(SmallTask):
    """No class from the fifth image of a global batch on: the second of two ranks has none."""

    def collate(self, samples, step, offset):
        samples = [
            sample | {"ids": torch.full_like(sample["ids"], IGNORED)} if offset + i >= 4 else sample
            for i, sample in enumerate(samples)
        ]
        return super().collate(samples, step, offset)


def make_half_empty_task():
    return SecondHalfEmpty(make_quiet_task().config)


def make_noisy_task():
    """Return a task with random points and with masks that are annealed during the run."""
    return SmallTask(replace(make_quiet_task().config, points=200, mask_annealing="auto"))
