"""Settings of super-resolution, in addition to those of every task.

Imports no torch, so that `--help` starts quickly.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from visionloop.engine.config.options import option
from visionloop.engine.config.train_config import TaskConfig

Mode = Literal["classical", "lightweight", "real-world", "compressed", "denoise", "jpeg"]
MODES: tuple[Mode, ...] = get_args(Mode)
RESTORATION = ("denoise", "jpeg")  # modes that keep the image size


@dataclass(frozen=True)
class SuperResolutionConfig(TaskConfig):
    """Settings of the model, the input and the loss; recipes.py changes their defaults."""

    mode: Mode | None = option(
        None,
        "Degradation that the model reverts (default: the one that --model is for)",
        group="Model",
    )
    scale: int | None = option(
        None,
        "Upscaling factor of each side, 1 to 8 (default: the model's own)",
        group="Model",
        at_least=1,
        at_most=8,
    )
    patch_size: int | None = option(
        None,
        "Side of the training crops in input pixels (default: the model's own)",
        group="Data",
        at_least=8,
    )
    cache: Literal["disk", "none"] = option(
        "disk",
        "Cache of decoded images: in the user's cache folder, or none (decode for each crop)",
        group="Data",
        fixed=False,
    )
    init: Literal["authors", "transformers"] = option(
        "authors",
        "Initialization of random convolutions: as the authors of Swin2SR draw them, or as"
        " transformers does (half as wide for 24 channels), for short runs",
        group="Model",
    )
    flips: bool = option(
        True, "Augment training crops with flips and rotations, eight in all", group="Augmentation"
    )
    noise: str = option(
        "25",
        "Mode denoise: standard deviation of the noise in gray levels (0 to 255), or a range"
        " such as 15-50",
        group="Data",
    )
    quality: str = option(
        "10-40",
        "Modes jpeg and compressed: JPEG quality of the input (1 to 100), or a range",
        group="Data",
    )
    loss: Literal["l1", "charbonnier"] = option("l1", "Pixel loss of the output", group="Loss")
    weight_aux: float = option(
        0.1,
        "Mode compressed: loss weight of the auxiliary output, compared at the input size",
        group="Loss",
        at_least=0,
    )
    weight_frequency: float = option(
        0.05, "Mode compressed: loss weight of the high frequencies", group="Loss", at_least=0
    )
    official_heads: bool = option(
        True,
        "Compute the heads as the authors' network does where transformers differs from it",
        group="Model",
    )
    tile: int | None = option(
        None,
        "Side in input pixels of the tiles of a large image; 0 never tiles (default: tiles of up"
        " to 384 x 384 with their halo for images above 512 x 512)",
        group="Evaluation",
        at_least=0,
        fixed=False,
    )
    halo: int | None = option(
        None,
        "Input pixels around a tile that the network reads and that are cut off (default: the"
        " reach of the model, at most 64)",
        group="Evaluation",
        at_least=0,
        fixed=False,
    )
    ensemble: int = option(
        1,
        "Self-ensemble: 8 averages the outputs for eight flips and rotations of the input",
        group="Evaluation",
        at_least=1,
        at_most=8,
        fixed=False,
    )
    lpips_weights: str | None = option(
        None,
        "Safetensors file with LPIPS weights, written by bin/convert.py lpips; turns LPIPS on",
        group="Evaluation",
        is_path=True,
        fixed=False,
    )
