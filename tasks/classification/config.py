"""Settings of image classification, in addition to those of every task.

Imports no torch, so that `--help` starts quickly.
"""

from dataclasses import dataclass
from typing import Literal

from visionloop.engine.config.options import option
from visionloop.engine.config.train_config import TaskConfig


@dataclass(frozen=True)
class ClassificationConfig(TaskConfig):
    """Settings of the model, the loss and the augmentation; recipes.py changes their defaults."""

    label_smoothing: float = option(
        0.0,
        "Label smoothing: share of the target that is spread evenly over all classes",
        group="Loss",
        at_least=0,
        at_most=0.9,
    )
    class_weights: Literal["none", "balanced"] = option(
        "none",
        "Class weights of the loss; balanced: images / (classes * images of the class)",
        group="Loss",
    )
    mixup: float = option(0.0, "Alpha of mixup; 0 turns it off", group="Augmentation", at_least=0)
    cutmix: float = option(0.0, "Alpha of CutMix; 0 turns it off", group="Augmentation", at_least=0)
    mixup_prob: float = option(
        1.0,
        "Probability that a micro-batch is mixed, by mixup or CutMix",
        group="Augmentation",
        at_least=0,
        at_most=1,
    )
    mixup_switch: float = option(
        0.5,
        "Probability of CutMix instead of mixup when both are on",
        group="Augmentation",
        at_least=0,
        at_most=1,
    )
    mixup_off: float = option(
        0.1,
        "Share of the steps, at the end of the run, without mixing",
        group="Augmentation",
        at_least=0,
        at_most=1,
    )
    crop_scale_min: float = option(
        0.35,
        "Smallest area of the random crop, as a share of the image; 1 turns cropping off",
        group="Augmentation",
        at_least=0.01,
        at_most=1,
    )
    hflip: bool = option(
        True, "Flip training images horizontally with probability 0.5", group="Augmentation"
    )
    rand_augment_ops: int = option(
        0,
        "Number of RandAugment operations per image; 0 turns it off",
        group="Augmentation",
        at_least=0,
    )
    rand_augment_magnitude: int = option(
        9,
        "Magnitude of the RandAugment operations, 0 to 30",
        group="Augmentation",
        at_least=0,
        at_most=30,
    )
    random_erasing: float = option(
        0.0, "Probability of random erasing per image", group="Augmentation", at_least=0, at_most=1
    )
    cache: Literal["ram", "disk", "none"] = option(
        "ram",
        "Cache of decoded training images: in memory if all of them fit, in the user's cache"
        " folder, or none",
        group="Data",
        fixed=False,
    )
    cache_memory: float = option(
        1.0,
        "Memory limit of --cache ram for the whole machine, in GiB",
        group="Data",
        at_least=0,
        fixed=False,
    )
    scaled_decode: bool = option(
        True,
        "Decode training JPEGs at 1/2, 1/4 or 1/8 where the smallest crop keeps enough pixels",
        group="Data",
    )
    init: Literal["transformers", "mimetic"] = option(
        "transformers",
        "Initialization of random weights: as transformers does, or mimetic (arXiv:2305.09828)",
        group="Model",
    )
    drop_path: float = option(
        0.0,
        "Stochastic depth: drop probability of the last layer, rising linearly from 0 at the first",
        group="Model",
        at_least=0,
        at_most=0.95,
    )
    zero_head: bool = option(
        False, "Initialize a new classification head with zeros, as in the ViT paper", group="Model"
    )
    eval_resize: Literal["squash", "crop"] | None = option(
        None,
        "Resize of evaluation images: squash them to a square, or resize the shorter side and"
        " center-crop (default: the checkpoint's)",
        group="Evaluation",
    )
    crop_pct: float | None = option(
        None,
        "Side of the evaluation crop as a share of the resized side (default: the checkpoint's)",
        group="Evaluation",
        at_least=0.1,
        at_most=1,
    )
