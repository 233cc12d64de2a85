"""Evaluation transform, read from and written to `preprocessor_config.json`.

The same weights score 81.3 or 80.3 % depending on the resize alone (transformers#28264), so the
transform is stored with the weights.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from visionloop.datasets.classification.transforms import ClassificationEvalPreset
from visionloop.engine.errors import UserError
from visionloop.engine.types import JsonObject

FILE_NAME = "preprocessor_config.json"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Pillow's numbers for resampling, which the file uses
RESAMPLING = {2: "bilinear", 3: "bicubic"}
# processors for which a single number is the shorter edge; for the others it is a square
SHORTER_EDGE = ("Bit", "CLIP", "ConvNext", "Levit", "MobileNet", "MobileViT", "PoolFormer")
# processors with these values where the file has no entry
IMAGENET_STATISTICS = ("DeiT", "ConvNext")
CENTER_CROP = ("DeiT", "Bit", "MobileNetV2")
BICUBIC = ("DeiT", "Bit", "ConvNext", "Beit")

ResizeStyle = Literal["squash", "crop"]
Triple = tuple[float, float, float]  # one number for each channel


@dataclass(frozen=True)
class EvalTransform:
    """Resize, center-crop, scale to 0..1 and normalize.

    Attributes:
        size: side of the center crop in pixels, which is the input size of the network.
        resize: length of the shorter edge ("crop"), or (height, width) whatever the aspect ratio
            of the image ("squash").
        interpolation: "bilinear" or "bicubic", with antialiasing.
        mean: mean of each channel in 0..1.
        std: standard deviation of each channel in 0..1.
    """

    size: int = 224
    resize: int | tuple[int, int] = (224, 224)
    interpolation: str = "bilinear"
    mean: Triple = (0.5, 0.5, 0.5)
    std: Triple = (0.5, 0.5, 0.5)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Resize and crop an image, uint8 [3, H, W], to uint8 [3, size, size].

        Scaling and normalization happen on the device, in `ClassificationTask.to_input`.
        """
        preset = ClassificationEvalPreset(
            size=self.size, resize=self.resize, interpolation=self.interpolation
        )
        return preset(image)

    @property
    def crop_pct(self) -> float:
        """Return the side of the crop as a share of the resized side."""
        return self.size / (self.resize if isinstance(self.resize, int) else self.resize[0])

    def at_size(self, size: int) -> "EvalTransform":
        """Return the same transform for another input size; the resize grows in proportion."""
        if isinstance(self.resize, int):
            return replace(self, size=size, resize=round(self.resize * size / self.size))
        height, width = (round(side * size / self.size) for side in self.resize)
        return replace(self, size=size, resize=(height, width))

    def with_style(self, style: ResizeStyle | None, crop_pct: float | None) -> "EvalTransform":
        """Return the transform with another resize style and crop; None keeps its own."""
        if style is None:
            style = "crop" if isinstance(self.resize, int) else "squash"
        side = self.size / (crop_pct or self.crop_pct)
        return replace(self, resize=round(side) if style == "crop" else (round(side), round(side)))

    def as_json(self) -> JsonObject:
        """Return the content of preprocessor_config.json.

        Every torchvision processor of transformers reads these fields alike.
        """
        if isinstance(self.resize, int):
            size = {"shortest_edge": self.resize}
        else:
            size = {"height": self.resize[0], "width": self.resize[1]}
        numbers = {name: number for number, name in RESAMPLING.items()}
        return {
            "image_processor_type": "ViTImageProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": size,
            "resample": numbers[self.interpolation],
            "do_center_crop": self.resize != (self.size, self.size),
            "crop_size": {"height": self.size, "width": self.size},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }

    def write(self, folder: str | Path) -> None:
        """Write preprocessor_config.json into a folder."""
        (Path(folder) / FILE_NAME).write_text(json.dumps(self.as_json(), indent=2) + "\n")


def initial_transform(
    folder: str | Path | None,
    own_size: int,
    *,
    size: int | None = None,
    style: ResizeStyle | None = None,
    crop_pct: float | None = None,
) -> EvalTransform:
    """Return the transform to train and evaluate with: the checkpoint's, with the user's changes.

    Args:
        folder: the checkpoint's folder, or None.
        own_size: input size of the model in pixels, used if the folder does not contain one.
        size: input size in pixels; None keeps the checkpoint's, as in the two that follow.
        style: resize style.
        crop_pct: side of the crop as a share of the resized side.
    """
    stored = (read_eval_transform(folder) if folder else None) or EvalTransform().at_size(own_size)
    return stored.at_size(size or stored.size).with_style(style, crop_pct)


def read_eval_transform(folder: str | Path) -> EvalTransform | None:
    """Read the transform of a Hugging Face folder; None when it has no preprocessor_config.json.

    Raises:
        UserError: the file is broken, or describes an image processor that EvalTransform cannot
            represent.
    """
    path = Path(folder) / FILE_NAME
    if not path.exists():
        return None
    try:
        return _from_json(json.loads(path.read_text()))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not a supported image processor ({error})", file=str(path)
        ) from None


def _from_json(content: JsonObject) -> EvalTransform:
    """Build the transform from the file; a missing entry means the default of transformers."""
    kind = content.get("image_processor_type") or content.get("feature_extractor_type") or ""
    imagenet = kind.startswith(IMAGENET_STATISTICS)
    mean = tuple(content.get("image_mean") or (IMAGENET_MEAN if imagenet else (0.5, 0.5, 0.5)))
    std = tuple(content.get("image_std") or (IMAGENET_STD if imagenet else (0.5, 0.5, 0.5)))
    if not content.get("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if kind.startswith("ConvNext"):
        return _convnext_transform(content, mean, std)
    resize = _resize(content.get("size", 224), kind)
    crop = content.get("crop_size", 224)
    crop = crop["height"] if isinstance(crop, dict) else crop
    cropped = content.get("do_center_crop", kind.startswith(CENTER_CROP))
    if not cropped and isinstance(resize, int):
        raise ValueError(
            "it resizes the shorter edge without a crop, so images would differ in shape"
        )
    resize_hw = (resize, resize) if isinstance(resize, int) else resize
    size = crop if cropped else resize_hw[0]
    if min(resize_hw) < size or (not cropped and resize_hw[0] != resize_hw[1]):
        raise ValueError(f"it resizes to {resize} for an input of {size} x {size}")
    return EvalTransform(size, resize, _interpolation(content, kind), mean, std)


def _resize(size: int | dict[str, int], kind: str) -> int | tuple[int, int]:
    """Return the shorter edge, or (height, width), of the file's "size"."""
    if isinstance(size, int):  # files of older versions of transformers
        return size if kind.startswith(SHORTER_EDGE) else (size, size)
    if "shortest_edge" in size:
        return size["shortest_edge"]
    return size["height"], size["width"]


def _convnext_transform(content: JsonObject, mean: Triple, std: Triple) -> EvalTransform:
    """Build the transform of a ConvNext processor: a crop below 384 px, a square from there on."""
    size = content.get("size", 224)
    size = size if isinstance(size, int) else size["shortest_edge"]
    crop_pct = content.get("crop_pct") or 224 / 256
    resize = int(size / crop_pct) if size < 384 else (size, size)
    return EvalTransform(size, resize, _interpolation(content, "ConvNext"), mean, std)


def _interpolation(content: JsonObject, kind: str) -> str:
    """Return the interpolation; raise ValueError for one that is neither bilinear nor bicubic."""
    number = content.get("resample", 3 if kind.startswith(BICUBIC) else 2)
    if number not in RESAMPLING:
        raise ValueError(f"resample {number}: expected 2 (bilinear) or 3 (bicubic)")
    return RESAMPLING[number]
