"""A tiny classification task, for checks whose processes import this module."""

import os
from dataclasses import replace

from visionloop.tasks.classification.config import ClassificationConfig
from visionloop.tasks.classification.task import ClassificationTask

QUIET = ClassificationConfig(model="tiny", from_scratch=True, image_size=16, drop_path=0.0)


def make_quiet_task():
    """Without noise; SMALL_CLASSIFICATION_DATA is the data folder."""
    return ClassificationTask(replace(QUIET, data=os.environ["SMALL_CLASSIFICATION_DATA"]))


def make_task_with_drop_path():
    """With stochastic depth."""
    return ClassificationTask(replace(make_quiet_task().config, drop_path=0.3))


def make_noisy_task():
    """With mixing, RandAugment and stochastic depth."""
    return ClassificationTask(
        replace(make_quiet_task().config, drop_path=0.3, mixup=0.8, cutmix=1.0, rand_augment_ops=2)
    )
