"""Hugging Face folder of a segmenter: weights, image processor, model card and ONNX."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from visionloop.engine.errors import UserError
from visionloop.engine.types import JsonObject, Scores
from visionloop.tasks.huggingface.hub import ModelSource
from visionloop.tasks.huggingface.loading import quiet_transformers
from visionloop.tasks.huggingface.model_card import CardTask, write_card
from visionloop.tasks.huggingface.onnx import export_onnx
from visionloop.tasks.segmentation.model import load_model, read_config

PROCESSOR_FILE = "preprocessor_config.json"
MeanStd = tuple[tuple[float, ...], tuple[float, ...]]  # of each channel, in 0..1
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
# settings in the model card
CARD_SETTINGS = (
    "layer_decay",
    "mask_annealing",
    "backbone_rest",
    "backbone_warmup",
    "points",
    "share_candidates",
    "mask_ignore",
    "no_object_weight",
    "color",
    "scale_min",
    "scale_max",
    "hflip",
    "freeze",
)


def save_folder(
    module: PreTrainedModel,
    tensors: Mapping[str, torch.Tensor],
    folder: str | Path,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    whole_images: bool = False,
) -> None:
    """Write config.json, model.safetensors and preprocessor_config.json.

    The probabilities of masks are numbers in the module, and in the folder the buffer of
    transformers.

    Args:
        module: the EoMT.
        tensors: its weights, {name in `module.state_dict()`: tensor}.
        folder: is created if needed.
        size: side of the network's input in pixels.
        mean: of each channel, in 0..1.
        std: of each channel, in 0..1.
        whole_images: see `write_processor`.
    """
    weights = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    weights["attn_mask_probs"] = torch.tensor(module.mask_probs)
    with quiet_transformers():
        module.save_pretrained(folder, state_dict=weights)
    write_processor(folder, size, mean, std, whole_images=whole_images)


def load_folder(module: PreTrainedModel, folder: str | Path) -> None:
    """Load the weights of a folder of `save_folder` into `module`, bit for bit."""
    stored = load_model(folder)
    module.load_state_dict(stored.state_dict())
    module.mask_probs = stored.mask_probs


def write_processor(
    folder: str | Path,
    size: int,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    *,
    whole_images: bool = False,
) -> None:
    """Write preprocessor_config.json for inputs of size x size pixels.

    Args:
        folder: the Hugging Face folder.
        size: side of the network's input in pixels.
        mean, std: of each channel, in 0..1.
        whole_images: the longer side of an image is resized to `size` and the rest is padded, for
            instance and panoptic segmentation; False: the shorter side is, for windows.
    """
    # a number as ignore_index would move all class ids by one
    content = {
        "image_processor_type": "EomtImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size, "longest_edge": size if whole_images else None},
        "resample": 2,
        "do_split_image": not whole_images,
        "do_pad": whole_images,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
        "ignore_index": None,
    }
    (Path(folder) / PROCESSOR_FILE).write_text(json.dumps(content, indent=2) + "\n")


def read_processor(folder: str | Path) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """Return (side of the images in pixels, mean, std) of a folder of EoMT or of a plain ViT.

    The side is that of the network, which reads no other; a plain ViT's own resize and crop are for
    classification. Mean and std are ImageNet's where the folder has none. Raises UserError for a
    processor that this task cannot reproduce.
    """
    size = read_config(folder).image_size
    path = Path(folder) / PROCESSOR_FILE
    if not path.exists():
        return size, IMAGENET_MEAN, IMAGENET_STD
    try:
        return size, *_read_mean_std(json.loads(path.read_text()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: not an image processor that this task can follow ({error})", file=str(path)
        ) from None


def require_input(folder: str | Path, *, whole_images: bool) -> None:
    """Raise UserError for a trained model of another task, by what its network reads.

    A folder without an image processor passes.

    Args:
        folder: of the model.
        whole_images: whole padded images are expected, of an instance or panoptic segmenter; False:
            windows of images, of a semantic one.
    """
    path = Path(folder) / PROCESSOR_FILE
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return
    if not isinstance(content, dict):
        return
    if whole_images and content.get("do_split_image"):
        kind, mark, expected = "a semantic segmenter", "do_split_image", "a model of segments"
    elif not whole_images and content.get("do_pad") and not content.get("do_split_image"):
        kind, mark, expected = "a model of segments", "do_pad", "a semantic segmenter"
    else:
        return
    raise UserError(
        f"--model {folder}: {kind} ({PROCESSOR_FILE} has {mark}), expected {expected}; `train` "
        "starts from such a folder",
        field="model",
        file=str(folder),
    )


def pixel_statistics(source: ModelSource) -> MeanStd:
    """Return the mean and std of the images that a ModelSource was trained with."""
    if source.folder is None:
        return IMAGENET_MEAN, IMAGENET_STD
    _, mean, std = read_processor(source.folder)
    return mean, std


def _read_mean_std(content: JsonObject) -> MeanStd:
    """Return the mean and std of an image processor. Raises ValueError."""
    scale = content.get("rescale_factor", 1 / 255) * 255
    if not content.get("do_rescale", True) or abs(scale - 1) > 1e-3:
        raise ValueError("expected images scaled to 0..1")
    if not content.get("do_normalize", True):
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    kind = content.get("image_processor_type") or content.get("feature_extractor_type") or ""
    # the defaults of the classes in transformers
    default_mean, default_std = (
        (HALF, HALF) if kind.startswith("ViT") else (IMAGENET_MEAN, IMAGENET_STD)
    )
    mean = tuple(map(float, content.get("image_mean") or default_mean))
    std = tuple(map(float, content.get("image_std") or default_std))
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError(
            f"image_mean {list(mean)} and image_std {list(std)}: expected three numbers each, std "
            "above 0"
        )
    return mean, std


class CardText(NamedTuple):
    """The text of a model card that differs by task.

    kind: start of the title; code: Python code that loads and applies the model; images: how images
    are resized and scaled.
    """

    kind: str
    code: str
    images: str


def write_segmenter_card(
    folder: str | Path,
    task: CardTask,
    text: CardText,
    classes: Sequence[str],
    scores: Scores,
    trained_on: Sequence[int] | None,
) -> None:
    """Write README.md into the folder.

    Args:
        folder: the Hugging Face folder.
        task: for its metrics and settings.
        text: of the task.
        classes: names in order of id.
        scores: {metric key: value}.
        trained_on: numbers of (training, validation) images; None: unknown.
    """
    write_card(
        folder,
        kind=text.kind,
        pipeline_tag="image-segmentation",
        task=task,
        scores=scores,
        trained_on=trained_on,
        use=text.code,
        images=text.images,
        settings=CARD_SETTINGS,
        classes=classes,
    )


class LastLevel(nn.Module):
    """The predictions of the last level: mask logits [B, Q, h, w], class logits [B, Q, K + 1]."""

    def __init__(self, module: PreTrainedModel) -> None:
        super().__init__()
        self.module = module

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict from pixel_values [B, 3, H, W]."""
        mask_logits, class_logits = self.module(pixel_values)
        return mask_logits[:, -1], class_logits[:, -1]


def export_segmenter(module: PreTrainedModel, folder: str | Path, size: int) -> list[str]:
    """Write model.onnx: normalized windows [B, 3, size, size] to mask and class logits.

    Returns lines about the check, for the user.
    """
    example = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    return export_onnx(LastLevel(module), example, folder, ["mask_logits", "class_logits"])
