"""Settings of semantic segmentation, on top of those of every task. No torch here: `--help` must be quick."""

from dataclasses import dataclass
from typing import Literal

from visionloop.engine.config.options import option
from visionloop.engine.config.train_config import TaskConfig


@dataclass(frozen=True)
class SegmentationConfig(TaskConfig):
    """What the task itself needs; the presets of recipes.py change these defaults."""

    mask_annealing: str | None = option(
        None, "auto, off, on, or START-END,... : when each joint block's masks are lifted"
    )
    backbone_rest: int | None = option(
        None, "steps the ViT waits for the heads (default: theirs of warm-up)", at_least=0
    )
    backbone_warmup: int | None = option(
        None, "steps of warm-up of the ViT after that (default: twice the heads')", at_least=0
    )
    decay_all: bool = option(
        True, "weight decay on every parameter; off: not on vectors, queries, positions and tokens"
    )
    init: Literal["library", "mimetic"] = option(
        "library", "how random weights are drawn; mimetic: like a trained ViT's"
    )
    num_queries: int | None = option(
        None, "queries; at least as many as classes in an image (default: the model's)", at_least=1
    )
    num_blocks: int | None = option(
        None, "joint blocks, which see queries and patches (default: the model's)", at_least=1
    )
    points: int = option(
        12544,
        "points a mask is compared at, at most its logits' number; 0: all pixels, no sampling",
        at_least=0,
    )
    share_candidates: bool = option(
        True, "one draw of points for all masks of an image: the same loss in the mean, less time"
    )
    mask_ignore: bool = option(
        False, "ignored pixels count for nothing, instead of being outside of every mask"
    )
    no_object_weight: float = option(0.1, "of queries without a mask in the class loss", at_least=0)
    weight_class: float = option(2.0, "of the class loss", at_least=0)
    weight_mask: float = option(5.0, "of the cross-entropy of masks", at_least=0)
    weight_dice: float = option(5.0, "of the dice loss of masks", at_least=0)
    color: float = option(
        0.5,
        "probability of each of changed brightness, contrast, saturation and hue",
        at_least=0,
        at_most=1,
    )
    scale_min: float = option(
        0.5, "smallest random scale; 1 fits the whole image into the crop", at_least=0.01
    )
    scale_max: float = option(2.0, "largest random scale", at_least=0.01)
    hflip: bool = option(True, "mirror half of the training images")
    cache: Literal["ram", "none"] = option(
        "ram",
        "where decoded images and masks are kept: in memory if all fit, nowhere",
        fixed=False,
    )
    cache_memory: float = option(
        1.0, "GiB of the machine that --cache ram may take for each split", at_least=0, fixed=False
    )
    score_levels: bool = option(
        False, "also the score of every level, not of the last alone", fixed=False
    )

    @property
    def memory_bytes(self):
        return int(self.cache_memory * 2**30) if self.cache == "ram" else 0
