"""Settings of image classification, on top of those of every task. No torch here: `--help` must be quick."""

from dataclasses import dataclass
from typing import Literal

from visionloop.engine.config.options import option
from visionloop.engine.config.train_config import TaskConfig


@dataclass(frozen=True)
class ClassificationConfig(TaskConfig):
    """What the task itself needs; the presets of recipes.py change these defaults."""

    label_smoothing: float = option(
        0.0, "share of each target spread over all classes", at_least=0, at_most=0.9
    )
    class_weights: Literal["none", "balanced"] = option(
        "none", "balanced: weigh a class by n / (classes * its images)"
    )
    mixup: float = option(0.0, "alpha of mixup; 0: off", at_least=0)
    cutmix: float = option(0.0, "alpha of cutmix; 0: off", at_least=0)
    mixup_prob: float = option(1.0, "share of micro-batches that are mixed", at_least=0, at_most=1)
    mixup_switch: float = option(0.5, "share of cutmix where both are on", at_least=0, at_most=1)
    mixup_off: float = option(0.1, "last share of the run without mixing", at_least=0, at_most=1)
    crop_scale_min: float = option(
        0.35,
        "smallest area of a random crop, as a share of the image; 1: no crop",
        at_least=0.01,
        at_most=1,
    )
    hflip: bool = option(True, "mirror half of the training images")
    rand_augment_ops: int = option(0, "operations of RandAugment per image; 0: off", at_least=0)
    rand_augment_magnitude: int = option(9, "their strength", at_least=0, at_most=30)
    random_erasing: float = option(
        0.0, "probability that a rectangle is wiped out", at_least=0, at_most=1
    )
    cache: Literal["ram", "disk", "none"] = option(
        "ram",
        "where decoded training images are kept: in memory if all fit, in the user's cache folder, nowhere",
        fixed=False,
    )
    cache_memory: float = option(
        1.0, "GiB of the machine that --cache ram may take", at_least=0, fixed=False
    )
    scaled_decode: bool = option(
        True,
        "decode JPEGs at 1/2, 1/4 or 1/8 where the smallest crop still has the result's pixels",
    )
    init: Literal["library", "mimetic"] = option(
        "library", "of random weights; mimetic: the structure that trained ViTs have"
    )
    drop_path: float = option(
        0.0,
        "stochastic depth of the last layer, rising linearly from 0 at the first",
        at_least=0,
        at_most=0.95,
    )
    zero_head: bool = option(False, "start a new head at zero, as the ViT paper fine-tunes")
    eval_resize: Literal["squash", "crop"] | None = option(
        None, "squash to the square, or resize and centre-crop (default: checkpoint's)"
    )
    crop_pct: float | None = option(
        None,
        "share of the resized side that the crop keeps (default: checkpoint's)",
        at_least=0.1,
        at_most=1,
    )
