"""A segmentation task of a few thousand weights for checks that start other processes: those import this module."""

import os
from dataclasses import replace

from visionloop.tasks.segmentation.config import SegmentationConfig
from visionloop.tasks.segmentation.model import new_config, new_model
from visionloop.tasks.segmentation.task import SegmentationTask

SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "num_queries": 8}
# every pixel of the grid instead of random points; masks on, which are drawn only while they are
# lifted
QUIET = SegmentationConfig(
    model="tiny", from_scratch=True, image_size=32, points=0, mask_annealing="on"
)


class SmallTask(SegmentationTask):
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
    """Noise off; the data folder stands in SMALL_SEGMENTATION_DATA."""
    return SmallTask(replace(QUIET, data=os.environ["SMALL_SEGMENTATION_DATA"]))


class SecondHalfEmpty(SmallTask):
    """From the fifth image of a global batch on, nothing has a class: with two ranks, on the second nothing at all."""

    def collate(self, samples, step, offset):
        batch = super().collate(samples, step, offset)
        empty = self.without_targets(batch)
        for i in range(len(batch)):
            if offset + i >= 4:
                batch["ids"][i], batch["labels"][i] = empty["ids"][i], empty["labels"][i]
        return batch


def make_half_empty_task():
    return SecondHalfEmpty(make_quiet_task().config)


def make_noisy_task():
    """With random points, and masks that are lifted during the run."""
    return SmallTask(replace(make_quiet_task().config, points=200, mask_annealing="auto"))
