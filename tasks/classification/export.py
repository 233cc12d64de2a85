"""Hugging Face folder of a classifier, with its model card and, if requested, as ONNX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import PreTrainedModel

from visionloop.engine.types import Scores
from visionloop.tasks.classification.model import load_model
from visionloop.tasks.classification.processor import EvalTransform
from visionloop.tasks.huggingface.loading import quiet_transformers
from visionloop.tasks.huggingface.model_card import write_card
from visionloop.tasks.huggingface.onnx import export_onnx

if TYPE_CHECKING:
    from visionloop.tasks.classification.task import ClassificationTask

# settings that the model card lists
CARD_SETTINGS = (
    "init", "label_smoothing", "class_weights", "mixup", "cutmix", "crop_scale_min", "hflip",
    "rand_augment_ops", "rand_augment_magnitude", "random_erasing", "drop_path", "layer_decay",
    "freeze",
)  # fmt: skip
USAGE = """\
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, AutoModelForImageClassification

processor = AutoImageProcessor.from_pretrained("THIS FOLDER")
model = AutoModelForImageClassification.from_pretrained("THIS FOLDER")
image = ImageOps.exif_transpose(Image.open("image.jpg")).convert("RGB")
logits = model(**processor(image, return_tensors="pt")).logits
print(model.config.id2label[logits.argmax().item()])
"""


def save_folder(
    module: PreTrainedModel,
    tensors: Mapping[str, torch.Tensor],
    folder: str | Path,
    transform: EvalTransform,
) -> None:
    """Write config.json, model.safetensors and preprocessor_config.json.

    Args:
        tensors: {name in memory: tensor}; transformers writes them under names that its older
            versions read too.
        transform: the evaluation transform.
    """
    weights = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    with quiet_transformers():
        module.save_pretrained(folder, state_dict=weights)
    transform.write(folder)


def load_folder(module: PreTrainedModel, folder: str | Path) -> None:
    """Load the weights of a folder of `save_folder` into `module`, bit for bit."""
    module.load_state_dict(load_model(folder).state_dict())


def write_model_card(
    folder: str | Path,
    task: ClassificationTask,
    scores: Scores,
    trained_on: Sequence[int] | None,
) -> None:
    """Write README.md.

    Args:
        scores: {metric key: value}.
        trained_on: (training images, validation images), None if unknown.
    """
    transform = task.eval_transform
    resize = (
        transform.resize
        if isinstance(transform.resize, tuple)
        else f"shorter side {transform.resize}"
    )
    images = (
        f"Resized to {resize} ({transform.interpolation}, antialiased),"
        f" {transform.size} x {transform.size} from the center, scaled to 0..1,"
        f" mean {list(transform.mean)}, std {list(transform.std)}."
    )
    write_card(
        folder,
        kind="Image classifier",
        pipeline_tag="image-classification",
        task=task,
        scores=scores,
        trained_on=trained_on,
        use=USAGE,
        images=images,
        settings=CARD_SETTINGS,
        classes=task.classes,
    )


class LogitsOutput(nn.Module):
    """Return (logits,) for pixel_values: tensors instead of the output object of transformers."""

    def __init__(self, module: PreTrainedModel) -> None:
        super().__init__()
        self.module = module

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor]:
        """Compute the logits [B, C] of images [B, 3, S, S]."""
        return (self.module(pixel_values=pixel_values).logits,)


def export_classifier(module: PreTrainedModel, folder: str | Path, size: int) -> list[str]:
    """Write model.onnx: normalized pixel_values [batch, 3, size, size] to logits.

    Returns:
        Lines about the check of the file.
    """
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    return export_onnx(LogitsOutput(module), images, folder, ["logits"])
