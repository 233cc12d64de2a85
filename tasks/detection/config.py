"""Settings of object detection, on top of those of every task. No torch here: `--help` must be quick."""

from dataclasses import dataclass
from typing import Literal

from visionloop.engine.config.options import option
from visionloop.engine.config.train_config import TaskConfig


@dataclass(frozen=True)
class DetectionConfig(TaskConfig):
    """What the task itself needs; the presets of recipes.py change these defaults."""

    backbone_lr_scale: float = option(
        0.5, "learning rate of the backbone as a share of --lr", at_least=0
    )
    backbone_bn: Literal["trained", "frozen"] | None = option(
        None, "the backbone's BatchNorm (default: as the size was trained)"
    )
    class_prior: float | None = option(
        None,
        "score new classes start with (default: 0.01; 0.1 for one)",
        at_least=1e-6,
        at_most=0.9,
    )
    denoising: int = option(
        100,
        "boxes of an image that denoising queries are made of, at most; 0: no denoising",
        at_least=0,
    )
    photometric: float = option(
        0.5,
        "probability of changed brightness, contrast, saturation and hue",
        at_least=0,
        at_most=1,
    )
    zoom_out: float = option(
        0.5,
        "probability that the image is put on a canvas up to four times as wide",
        at_least=0,
        at_most=1,
    )
    iou_crop: float = option(0.8, "probability of a crop around some boxes", at_least=0, at_most=1)
    hflip: bool = option(True, "mirror half of the training images")
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
    multi_scale: int = option(
        0, "base size's share of the drawn sizes, 75 to 125 %; 0: one size", at_least=0
    )
    strong_share: float = option(
        0.9, "share of the run augmented strongly; then the best is reloaded", at_least=0, at_most=1
    )
    metric_backend: Literal["pycocotools", "faster"] = option(
        "pycocotools", "what computes AP; faster: the same numbers", fixed=False
    )
    weight_vfl: float = option(1.0, "of the varifocal loss", at_least=0)
    weight_bbox: float = option(5.0, "of the L1 distance of boxes", at_least=0)
    weight_giou: float = option(2.0, "of the generalized IoU", at_least=0)
    weight_fgl: float = option(0.15, "of the edge distributions", at_least=0)
    weight_ddf: float = option(1.5, "of their distillation from the last layer", at_least=0)
