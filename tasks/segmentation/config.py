"""Settings that the tasks of EoMT share, in addition to those of every task.

Imports no torch, so that `--help` starts quickly.
"""

from dataclasses import dataclass
from typing import Literal

from visionloop.engine.config.options import option
from visionloop.engine.config.train_config import TaskConfig


@dataclass(frozen=True)
class EomtConfig(TaskConfig):
    """Settings of the model, the loss and the augmentation; the presets in recipes.py change them.

    A query block is one of the last blocks of the ViT, in which queries and patches attend to each
    other.
    """

    mask_annealing: str | None = option(
        None,
        "Mask annealing: auto, off, on, or START-END of each query block, comma-separated, as"
        " shares of the run or as steps",
        group="Optimization",
    )
    backbone_rest: int | None = option(
        None,
        "Steps before the ViT starts to train (default: the warm-up steps of the heads)",
        group="Optimization",
        at_least=0,
    )
    backbone_warmup: int | None = option(
        None,
        "Warm-up steps of the ViT, after --backbone-rest (default: twice those of the heads)",
        group="Optimization",
        at_least=0,
    )
    decay_all: bool = option(
        True,
        "Apply weight decay to every parameter; off: not to vectors, queries, position embeddings"
        " and tokens",
        group="Optimization",
    )
    init: Literal["transformers", "mimetic"] = option(
        "transformers",
        "Initialization of random weights: as transformers does, or mimetic (arXiv:2305.09828)",
        group="Model",
    )
    num_queries: int | None = option(
        None,
        "Number of queries, at least the number of masks in an image (default: that of the model)",
        group="Model",
        at_least=1,
    )
    num_blocks: int | None = option(
        None, "Number of query blocks (default: that of the model)", group="Model", at_least=1
    )
    points: int = option(
        12544,
        "Points at which masks are compared, at most the pixels of the mask logits; 0: all pixels",
        group="Loss",
        at_least=0,
    )
    share_candidates: bool = option(
        True,
        "Draw the points of all masks of an image from one set: the same mean loss in less time",
        group="Loss",
    )
    mask_ignore: bool = option(
        False,
        "Leave ignored pixels out of the mask losses instead of counting them as outside of every"
        " mask",
        group="Loss",
    )
    no_object_weight: float = option(
        0.1, "Weight of queries without a mask in the class loss", group="Loss", at_least=0
    )
    weight_class: float = option(2.0, "Weight of the class loss", group="Loss", at_least=0)
    weight_mask: float = option(
        5.0, "Weight of the cross-entropy of masks", group="Loss", at_least=0
    )
    weight_dice: float = option(5.0, "Weight of the dice loss of masks", group="Loss", at_least=0)
    color: float = option(
        0.5,
        "Probability of each of the changes of brightness, contrast, saturation and hue",
        group="Augmentation",
        at_least=0,
        at_most=1,
    )
    scale_min: float = option(
        0.5,
        "Smallest random scale; 1 fits the whole image into the crop",
        group="Augmentation",
        at_least=0.01,
    )
    scale_max: float = option(2.0, "Largest random scale", group="Augmentation", at_least=0.01)
    hflip: bool = option(
        True, "Flip training images horizontally with probability 0.5", group="Augmentation"
    )
    cache: Literal["ram", "none"] = option(
        "ram",
        "Cache of decoded images and masks: in memory if all of them fit, or none",
        group="Data",
        fixed=False,
    )
    cache_memory: float = option(
        1.0,
        "Memory limit of --cache ram for each split on the whole machine, in GiB",
        group="Data",
        at_least=0,
        fixed=False,
    )

    @property
    def memory_bytes(self) -> int:
        """Memory for the decoded images of a split, in bytes."""
        return int(self.cache_memory * 2**30) if self.cache == "ram" else 0
