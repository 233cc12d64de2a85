"""A small detection task with a function of the user, for checks that start other processes."""

import os
from dataclasses import replace

from small_detection import FrozenNorms, make_task_without_union


def make_augmented_task():
    """Without noise; SMALL_AUGMENT is FILE.py:NAME."""
    config = replace(make_task_without_union().config, augment=os.environ["SMALL_AUGMENT"])
    return FrozenNorms(config)
