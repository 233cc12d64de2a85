"""A classification task of a few thousand weights for checks that start other processes: those import this module."""

import os
from dataclasses import replace

from visionloop.tasks.classification.config import ClassificationConfig
from visionloop.tasks.classification.task import ClassificationTask

QUIET = ClassificationConfig(model="tiny", from_scratch=True, image_size=16, drop_path=0.0)


def make_quiet_task():
    """Noise off; the data folder stands in SMALL_CLASSIFICATION_DATA."""
    return ClassificationTask(replace(QUIET, data=os.environ["SMALL_CLASSIFICATION_DATA"]))


def make_task_with_drop_path():
    return ClassificationTask(replace(make_quiet_task().config, drop_path=0.3))


def make_noisy_task():
    """With mixing and stochastic depth."""
    return ClassificationTask(
        replace(make_quiet_task().config, drop_path=0.3, mixup=0.8, cutmix=1.0, rand_augment_ops=2)
    )
