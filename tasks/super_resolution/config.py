"""Settings of super-resolution, on top of those of every task. No torch here: `--help` must be quick."""

from dataclasses import dataclass
from typing import Literal

from visionloop.engine.config.options import option
from visionloop.engine.config.train_config import TaskConfig

MODES = ("classical", "lightweight", "real-world", "compressed", "denoise", "jpeg")
RESTORATION = ("denoise", "jpeg")  # the size stays


@dataclass(frozen=True)
class SuperResolutionConfig(TaskConfig):
    """What the task itself needs; the presets of recipes.py change these defaults."""

    mode: Literal[MODES] | None = option(None, "what is restored (default: what the model is for)")
    scale: int | None = option(
        None,
        "how many times larger a side becomes, 1 to 8 (default: the model's own)",
        at_least=1,
        at_most=8,
    )
    patch_size: int | None = option(
        None,
        "side of the training crops in pixels of the input (default: the model's own)",
        at_least=8,
    )
    cache: Literal["disk", "none"] = option(
        "disk", "decoded images in the user's cache folder, or decoded for each crop", fixed=False
    )
    init: Literal["authors", "library"] = option(
        "authors", "how random convolutions are drawn; library: half as wide, for short runs"
    )
    flips: bool = option(True, "mirror and turn training crops, eight ways")
    noise: str = option("25", "denoise: deviation of the noise in grey levels, or a range: 15-50")
    quality: str = option(
        "10-40", "jpeg and compressed: quality of the file that the input is read from, or a range"
    )
    loss: Literal["l1", "charbonnier"] = option("l1", "between the result and the true image")
    weight_aux: float = option(
        0.1,
        "compressed: of the auxiliary output's distance to the true image at the input's size",
        at_least=0,
    )
    weight_frequency: float = option(
        0.05, "compressed: of the distance of what a Gaussian takes away", at_least=0
    )
    official_heads: bool = option(
        True, "heads as the authors' network has them, where the library's differ"
    )
    tile: int | None = option(
        None,
        "side of the tiles that large images are cut into, input pixels; 0: never",
        at_least=0,
        fixed=False,
    )
    halo: int | None = option(
        None,
        "pixels around a tile that are seen and cut off (default: by the model)",
        at_least=0,
        fixed=False,
    )
    ensemble: int = option(
        1, "8: mean over the eight flips and turns of the input", at_least=1, at_most=8, fixed=False
    )
    lpips_weights: str | None = option(
        None, "safetensors file made by bin/convert.py lpips: LPIPS is scored too", fixed=False
    )
