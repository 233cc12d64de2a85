"""Settings of object detection, in addition to those of every task.

Imports no torch, so that `--help` starts quickly.
"""

from dataclasses import dataclass
from typing import Literal

from visionloop.engine.config.options import option
from visionloop.engine.config.train_config import TaskConfig


@dataclass(frozen=True)
class DetectionConfig(TaskConfig):
    """Settings of the model, the loss and the augmentation; recipes.py changes their defaults."""

    backbone_lr_scale: float = option(
        0.5,
        "Learning rate of the backbone, as a share of --lr",
        group="Optimization",
        at_least=0,
    )
    backbone_bn: Literal["trained", "frozen"] | None = option(
        None,
        "BatchNorm statistics of the backbone (default: as the authors train a model of this size)",
        group="Model",
    )
    class_prior: float | None = option(
        None,
        "Score that classes without trained weights start with (default: 0.01, and 0.1 for a "
        "single class)",
        group="Model",
        at_least=1e-6,
        at_most=0.9,
    )
    denoising: int = option(
        100,
        "Most boxes of an image that denoising queries are made from; 0 turns denoising off",
        group="Loss",
        at_least=0,
    )
    photometric: float = option(
        0.5,
        "Probability of each change of brightness, contrast, saturation and hue",
        group="Augmentation",
        at_least=0,
        at_most=1,
    )
    zoom_out: float = option(
        0.5,
        "Probability that an image is placed on a canvas of up to four times its width and height",
        group="Augmentation",
        at_least=0,
        at_most=1,
    )
    iou_crop: float = option(
        0.8,
        "Probability of a random crop with a minimum IoU with some box",
        group="Augmentation",
        at_least=0,
        at_most=1,
    )
    hflip: bool = option(
        True, "Flip training images horizontally with probability 0.5", group="Augmentation"
    )
    cache: Literal["ram", "disk", "none"] = option(
        "ram",
        "Cache of decoded training images: in memory if all of them fit, in the user's cache "
        "folder, or none",
        group="Data",
        fixed=False,
    )
    cache_memory: float = option(
        1.0,
        "Memory in GiB of this machine that --cache ram may use",
        group="Data",
        at_least=0,
        fixed=False,
    )
    scaled_decode: bool = option(
        True,
        "Decode large JPEGs at 1/2, 1/4 or 1/8 of their size, where the smallest crop still has as "
        "many pixels as the input of the model",
        group="Data",
    )
    multi_scale: int = option(
        0,
        "Train at sizes from 75 to 125 % of --image-size: how often that size itself is among the "
        "sizes drawn from; 0: one size",
        group="Augmentation",
        at_least=0,
    )
    strong_share: float = option(
        0.9,
        "Share of the run with strong augmentation; the best checkpoint is reloaded after it",
        group="Augmentation",
        at_least=0,
        at_most=1,
    )
    metric_backend: Literal["pycocotools", "faster"] = option(
        "pycocotools",
        "Package that computes AP; faster: faster-coco-eval, with equal numbers",
        group="Evaluation",
        fixed=False,
    )
    # lower ones hardly count: on BCCD (3 classes) 0.02 leaves AP as it is, 0.1 costs 0.0001, 0.4
    # costs 0.02
    score: float = option(
        0.01,
        "Smallest score of the boxes that predict writes, for all classes (without it: those of "
        "evaluate --operating-point, if config.json has them); an evaluation counts the best 300 "
        "of each image",
        group="Evaluation",
        at_least=0,
        at_most=1,
        fixed=False,
    )
    # none of these weights changes the cost of the Hungarian matcher
    weight_vfl: float = option(1.0, "Weight of the varifocal loss", group="Loss", at_least=0)
    weight_bbox: float = option(5.0, "Weight of the L1 loss of boxes", group="Loss", at_least=0)
    weight_giou: float = option(
        2.0, "Weight of the generalized IoU loss of boxes", group="Loss", at_least=0
    )
    weight_fgl: float = option(
        0.15, "Weight of the fine-grained localization (FGL) loss", group="Loss", at_least=0
    )
    weight_ddf: float = option(
        1.5,
        "Weight of the decoupled distillation focal (DDF) loss; no --weight option changes the "
        "cost of the Hungarian matcher",
        group="Loss",
        at_least=0,
    )
