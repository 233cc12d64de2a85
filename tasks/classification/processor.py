"""The eval transform as numbers, read from and written to `preprocessor_config.json`.

The same weights score 81.3 or 80.3 % depending on the resize alone (transformers#28264), so the
transform travels with the weights.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from visionloop.datasets.classification.transforms import ClassificationEvalPreset
from visionloop.engine.errors import UserError

FILE_NAME = "preprocessor_config.json"
# Pillow's numbers for resampling, which the file uses
RESAMPLING = {2: "bilinear", 3: "bicubic"}
# processors that take a lone number for the shorter edge; for the others it is a square
SHORTER_EDGE = ("Bit", "CLIP", "ConvNext", "Levit", "MobileNet", "MobileViT", "PoolFormer")


@dataclass(frozen=True)
class EvalTransform:
    """Resize, centre crop, scale to 0..1, normalise.

    resize: a side for the shorter edge ("crop"), or (height, width) regardless of the shape
    ("squash"); size: side of the centre crop, which is also what the network reads; interpolation:
    bilinear or bicubic, with antialias; mean, std: per channel, of 0..1.
    """

    size: int = 224
    resize: int | tuple[int, int] = (224, 224)
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __call__(self, image):
        """image: uint8 [3, H, W] -> uint8 [3, size, size]; scaling and normalising happen on the device, in `to_input`."""
        return ClassificationEvalPreset(
            size=self.size, resize=self.resize, interpolation=self.interpolation
        )(image)

    @property
    def crop_pct(self):
        """Share of the resized side that the crop keeps."""
        return self.size / (self.resize if isinstance(self.resize, int) else self.resize[0])

    def at_size(self, size):
        """The same transform for another input size: the resize grows in proportion."""
        if isinstance(self.resize, int):
            return replace(self, size=size, resize=round(self.resize * size / self.size))
        return replace(
            self, size=size, resize=tuple(round(side * size / self.size) for side in self.resize)
        )

    def with_style(self, style, crop_pct):
        """The transform with `style` (squash, crop or None: keep) and `crop_pct` (None: keep) in place of its own."""
        if style is None:
            style = "crop" if isinstance(self.resize, int) else "squash"
        side = self.size / (crop_pct or self.crop_pct)
        return replace(self, resize=round(side) if style == "crop" else (round(side), round(side)))

    def as_json(self):
        """The content of preprocessor_config.json. Every processor of the library on torchvision reads these fields alike."""
        shortest = isinstance(self.resize, int)
        return {
            "image_processor_type": "ViTImageProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"shortest_edge": self.resize}
            if shortest
            else {"height": self.resize[0], "width": self.resize[1]},
            "resample": next(
                number for number, name in RESAMPLING.items() if name == self.interpolation
            ),
            "do_center_crop": self.resize != (self.size, self.size),
            "crop_size": {"height": self.size, "width": self.size},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }

    def write(self, folder):
        (Path(folder) / FILE_NAME).write_text(json.dumps(self.as_json(), indent=2) + "\n")


def read_eval_transform(folder):
    """The EvalTransform of a Hugging Face folder, or None when it holds none. Raises UserError for one we cannot follow."""
    path = Path(folder) / FILE_NAME
    if not path.exists():
        return None
    try:
        return _from_json(json.loads(path.read_text()))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not an image processor that this task can follow ({error})", file=str(path)
        ) from None


def start_transform(folder, own_size, *, size=None, style=None, crop_pct=None):
    """The EvalTransform to train and score with: the start checkpoint's, with what the user changed.

    folder: of the checkpoint or None; own_size: what the model reads if the folder does not say;
    size, style, crop_pct: None keeps.
    """
    stored = (read_eval_transform(folder) if folder else None) or EvalTransform().at_size(own_size)
    return stored.at_size(size or stored.size).with_style(style, crop_pct)


def _from_json(content):
    kind = content.get("image_processor_type") or content.get("feature_extractor_type") or ""
    # what the library's classes assume where the file is silent
    imagenet = kind.startswith(("DeiT", "ConvNext"))
    mean = content.get("image_mean") or ((0.485, 0.456, 0.406) if imagenet else (0.5, 0.5, 0.5))
    std = content.get("image_std") or ((0.229, 0.224, 0.225) if imagenet else (0.5, 0.5, 0.5))
    if not content.get("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    size = content.get("size", 224)
    if isinstance(size, int):  # files of the older library
        size = (
            {"shortest_edge": size}
            if kind.startswith(SHORTER_EDGE)
            else {"height": size, "width": size}
        )
    resize = size["shortest_edge"] if "shortest_edge" in size else (size["height"], size["width"])
    if kind.startswith("ConvNext"):
        # its processor resizes by crop_pct and crops below 384 px, and squashes from there on
        return EvalTransform(resize, *_convnext_resize(resize, content), tuple(mean), tuple(std))
    crop = content.get("crop_size", 224)
    crop = crop["height"] if isinstance(crop, dict) else crop
    cropped = content.get("do_center_crop", kind.startswith(("DeiT", "Bit", "MobileNetV2")))
    if not cropped and isinstance(resize, int):
        raise ValueError(
            "it resizes the shorter edge without a crop, so images would differ in shape"
        )
    size = crop if cropped else resize[0]
    if min(resize if isinstance(resize, tuple) else (resize,)) < size or (
        not cropped and resize[0] != resize[1]
    ):
        raise ValueError(f"it resizes to {resize} for an input of {size} x {size}")
    return EvalTransform(size, resize, _interpolation(content, kind), tuple(mean), tuple(std))


def _convnext_resize(size, content):
    crop_pct = content.get("crop_pct") or 224 / 256
    return (int(size / crop_pct) if size < 384 else (size, size)), _interpolation(
        content, "ConvNext"
    )


def _interpolation(content, kind):
    number = content.get(
        "resample", 3 if kind.startswith(("DeiT", "Bit", "ConvNext", "Beit")) else 2
    )
    if number not in RESAMPLING:
        raise ValueError(f"resample {number}: expected 2 (bilinear) or 3 (bicubic)")
    return RESAMPLING[number]
