"""Hugging Face folder of a Swin2SR, with its model card and, if requested, as ONNX.

A folder holds training weights, which are read back bit for bit, or weights for plain transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedConfig

from visionloop.engine.types import Scores
from visionloop.tasks.huggingface.model_card import write_card
from visionloop.tasks.huggingface.onnx import export_onnx
from visionloop.tasks.super_resolution.model import copy_of, load_model
from visionloop.tasks.super_resolution.network import Swin2SRForImageSuperResolution
from visionloop.tasks.super_resolution.weight_conversion import mark_heads, to_plain

if TYPE_CHECKING:
    from visionloop.tasks.super_resolution.task import SuperResolutionTask

WEIGHTS, PROCESSOR = "model.safetensors", "preprocessor_config.json"
# settings that the model card lists
CARD_SETTINGS = (
    "mode", "scale", "patch_size", "flips", "noise", "quality", "loss", "weight_aux",
    "weight_frequency", "official_heads",
)  # fmt: skip
USAGE = """\
import torch
from PIL import Image
from transformers import AutoImageProcessor, Swin2SRForImageSuperResolution

processor = AutoImageProcessor.from_pretrained("THIS FOLDER")
model = Swin2SRForImageSuperResolution.from_pretrained("THIS FOLDER").eval()
image = Image.open("image.png").convert("RGB")
inputs = processor(image, return_tensors="pt")
with torch.no_grad():
    result = model(**inputs).reconstruction[0]
width, height = (side * {scale} for side in image.size)
result = result[:, :height, :width].clamp(0, 1) * 255  # without what the processor padded
Image.fromarray(result.round().byte().permute(1, 2, 0).numpy()).save("result.png")
"""
IMAGES = (
    "RGB, bytes divided by 255, nothing subtracted: the model does that itself. Sides are padded at"
    " the bottom and the right to multiples of {window}, and the result is cropped. Our scores were"
    " computed with the fewest mirrored pixels; the processor of this folder always adds 1 to"
    " {window} pixels, which changes the last rows and columns and hardly the scores."
)
HEADS = (
    "\n\nPlain transformers adds {difference}, unlike the authors' network. The weights here are"
    " corrected so that it computes what was trained{but}; `visionloop_heads` in config.json says"
    " so."
)
CORRECTIONS = {
    "": HEADS.format(difference="the mean color to the input once more", but=""),
    "pixelshuffle_aux": HEADS.format(
        difference="the bicubic image of raw pixels",
        but=", but for the outer 2 pixels of an image",
    ),
}
KINDS = {"denoise": "Denoiser", "jpeg": "JPEG artifact remover"}
PURPOSES = {
    "real-world": "Upscales photographs with unknown blur, noise and compression",
    "compressed": "Upscales images that were downscaled with a bicubic filter and stored as JPEG",
    "denoise": "Removes Gaussian noise",
    "jpeg": "Removes JPEG compression artifacts",
}
BICUBIC = "Upscales images that were downscaled with a bicubic filter"


def save_folder(
    module: Swin2SRForImageSuperResolution,
    tensors: Mapping[str, torch.Tensor],
    folder: str | Path,
) -> None:
    """Write config.json, model.safetensors and preprocessor_config.json with training weights.

    Plain transformers reads them too, but computes another image with the x1 and the auxiliary
    head.

    Args:
        tensors: {name in memory: tensor}.
    """
    config = copy_of(module.config)
    mark_heads(config, official=module.official_heads)
    _write(module, config, tensors, folder)


def save_plain_folder(
    module: Swin2SRForImageSuperResolution,
    tensors: Mapping[str, torch.Tensor],
    folder: str | Path,
) -> list[str]:
    """Write a folder with which plain transformers computes the same as `module`.

    `load_model` reads it as it is, with the heads of transformers; `build_model` converts the
    weights back before it trains on.

    Returns:
        Lines about the changes.
    """
    config = copy_of(module.config)
    lines: list[str] = []
    if module.official_heads:
        config, tensors, lines = to_plain(config, tensors)
    else:
        mark_heads(config, official=False)
    _write(module, config, tensors, folder)
    return lines


def make_plain(module: Swin2SRForImageSuperResolution) -> list[str]:
    """Convert a network in place so that plain transformers computes the same with its weights.

    Returns:
        Lines about the changes.
    """
    if not module.official_heads:
        return []
    config, weights, lines = to_plain(copy_of(module.config), module.state_dict())
    if lines:
        module.load_state_dict(weights)
        module.config, module.swin2sr.img_range = config, config.img_range
        module.official_heads = False
    return lines


def load_folder(module: Swin2SRForImageSuperResolution, folder: str | Path) -> None:
    """Load weights and kind of heads of a folder of `save_folder` into `module`, bit for bit."""
    stored = load_model(folder)
    module.load_state_dict(stored.state_dict())
    module.official_heads = stored.official_heads


def _write(
    module: Swin2SRForImageSuperResolution,
    config: PreTrainedConfig,
    tensors: Mapping[str, torch.Tensor],
    folder: str | Path,
) -> None:
    """Write the three files.

    The processor of transformers adds a whole window where nothing is missing, and repeats the
    edge when it mirrors; we do not use it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config.architectures = [type(module).__name__]
    config.save_pretrained(folder)
    weights = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    content = {
        "image_processor_type": "Swin2SRImageProcessor",
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_pad": True,
        "size_divisor": config.window_size,
    }
    (folder / PROCESSOR).write_text(json.dumps(content, indent=2) + "\n")


def write_model_card(
    folder: str | Path,
    task: SuperResolutionTask,
    scores: Scores,
    trained_on: Sequence[int] | None,
) -> None:
    """Write README.md next to config.json, which holds the scale, the window and the kind of heads.

    Args:
        scores: {metric key: value}.
        trained_on: (training images, validation images), None if unknown.
    """
    config, mode = json.loads((Path(folder) / "config.json").read_text()), task.config.mode
    scale = config["upscale"]
    size = f"{scale} times as wide and as high" if scale > 1 else "of the same size"
    images = IMAGES.format(window=config["window_size"])
    if config.get("visionloop_heads") == "plain":
        images += CORRECTIONS[config["upsampler"]]
    write_card(
        folder,
        kind=KINDS.get(mode or "", f"Super-resolution x{scale}"),
        pipeline_tag="image-to-image",
        task=task,
        scores=scores,
        trained_on=trained_on,
        use=USAGE.replace("{scale}", str(scale)),
        images=images,
        settings=CARD_SETTINGS,
        purpose=f"{PURPOSES.get(mode or '', BICUBIC)}; the result is {size}.",
    )


class ImageOutput(nn.Module):
    """Return (image,) for pixel_values, without the auxiliary image."""

    def __init__(self, module: Swin2SRForImageSuperResolution) -> None:
        super().__init__()
        self.module = module

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor]:
        """Compute images [B, 3, s*H, s*W] of [B, 3, H, W] in 0..1."""
        return (self.module(pixel_values)["sr"],)


def export_super_resolution(
    module: Swin2SRForImageSuperResolution, folder: str | Path, size: int
) -> list[str]:
    """Write model.onnx: tiles [B, 3, size, size] in 0..1 to images [B, 3, s*size, s*size].

    Returns:
        Lines about the check of the file.
    """
    images = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    return export_onnx(ImageOutput(module), images, folder, ["reconstruction"])
