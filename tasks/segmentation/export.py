"""A segmenter as ONNX reads it."""

import json
from pathlib import Path

import torch
from torch import nn

from visionloop.engine.errors import UserError
from visionloop.tasks.huggingface.loading import quiet_transformers
from visionloop.tasks.huggingface.model_card import write_card
from visionloop.tasks.huggingface.onnx import export_onnx
from visionloop.tasks.segmentation.model import load_model, read_config


class LastLevel(nn.Module):
    """pixel_values -> (mask logits [B, Q, h, w], class logits [B, Q, K + 1]) of the last level."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, pixel_values):
        mask_logits, class_logits = self.module(pixel_values)
        return mask_logits[:, -1], class_logits[:, -1]


def export_segmenter(module, folder, size):
    """Write model.onnx: normalised windows [B, 3, size, size] to mask and class logits. Returns lines that say what was done."""
    trial = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    return export_onnx(LastLevel(module), trial, folder, ["mask_logits", "class_logits"])


# The image's way into the network, as `preprocessor_config.json` says it: the shorter side
# resized, square windows, mean and std.

FILE_NAME = "preprocessor_config.json"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


def write_processor(folder, size, mean=IMAGENET_MEAN, std=IMAGENET_STD):
    """preprocessor_config.json for windows of size x size. mean, std: per channel, of 0..1."""
    content = {
        "image_processor_type": "EomtImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size, "longest_edge": None},
        "resample": 2,
        "do_split_image": True,
        "do_pad": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
        "ignore_index": None,  # a number would move all class ids by one
    }
    (Path(folder) / FILE_NAME).write_text(json.dumps(content, indent=2) + "\n")


def read_processor(folder):
    """(side of the images in pixels, mean, std) of a folder of EoMT or of a plain ViT; mean and std of ImageNet where it has none.

    The side is the network's, which reads no other; a plain ViT's own resize and crop are for
    classification. Raises UserError for a processor that we cannot follow.
    """
    size = read_config(folder).image_size
    path = Path(folder) / FILE_NAME
    if not path.exists():
        return size, IMAGENET_MEAN, IMAGENET_STD
    try:
        return size, *_read_colors(json.loads(path.read_text()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: not an image processor that this task can follow ({error})", file=str(path)
        ) from None


def statistics_of(source):
    """(mean, std) of 0..1 per channel that a ModelSource reads its images with."""
    return read_processor(source.folder)[1:] if source.folder else (IMAGENET_MEAN, IMAGENET_STD)


def _read_colors(content):
    """(mean, std) of 0..1, which is what we subtract and divide by."""
    if (
        not content.get("do_rescale", True)
        or abs(content.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-3
    ):
        raise ValueError("expected images scaled to 0..1")
    if not content.get("do_normalize", True):
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    kind = content.get("image_processor_type") or content.get("feature_extractor_type") or ""
    silent = (
        (HALF, HALF) if kind.startswith("ViT") else (IMAGENET_MEAN, IMAGENET_STD)
    )  # what the library's classes assume
    mean, std = (
        tuple(map(float, content.get(f"image_{name}") or own))
        for name, own in zip(("mean", "std"), silent, strict=True)
    )
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError(
            f"image_mean {list(mean)} and image_std {list(std)}: expected three numbers each, std above 0"
        )
    return mean, std


# What the model card says of a segmenter.

SHOWN = (
    "layer_decay", "mask_annealing", "backbone_rest", "backbone_warmup", "points", "share_candidates", "mask_ignore", "no_object_weight",
    "color", "scale_min", "scale_max", "hflip", "freeze",
)  # fmt: skip
USE = """\
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForUniversalSegmentation

processor = AutoImageProcessor.from_pretrained("THIS FOLDER")
model = AutoModelForUniversalSegmentation.from_pretrained("THIS FOLDER").eval()
image = Image.open("image.jpg").convert("RGB")
inputs = processor(image, return_tensors="pt")
with torch.no_grad():
    outputs = model(inputs["pixel_values"], patch_offsets=inputs["patch_offsets"])
size = image.size[::-1]
ids = processor.post_process_semantic_segmentation(outputs, target_sizes=[size])[0]  # [height, width]
for i in ids.unique().tolist():
    print(model.config.id2label[i], round((ids == i).float().mean().item(), 3))
"""


def write_segmenter_card(folder, task, scores, trained_on):
    """README.md in `folder`. scores: {metric key: value}; trained_on: (training, validation) numbers of images, or None if unknown."""
    size = task.image_size
    images = (
        f"The shorter side is resized to {size} px (bilinear, antialiased), overlapping windows of {size} x {size} along the longer side "
        "go through the network, and their scores are averaged, resized to the image and compared."
    )
    write_card(
        folder, kind="Semantic segmenter", pipeline_tag="image-segmentation", task=task, scores=scores, trained_on=trained_on,
        use=USE, images=images, shown=SHOWN,
    )  # fmt: skip


# The Hugging Face folder of an EoMT: written from tensors, read back bit for bit.


def save_folder(module, tensors, folder, size, mean, std):
    """Write config.json, model.safetensors and preprocessor_config.json. tensors: {name in memory: tensor}.

    How much each joint block masks at this moment stands in the module as numbers, and in the
    folder as the library's buffer.
    """
    weights = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    weights["attn_mask_probs"] = torch.tensor(module.mask_probs)
    with quiet_transformers():
        module.save_pretrained(folder, state_dict=weights)
    write_processor(folder, size, mean, std)


def load_folder(module, folder):
    """Copy the weights of a folder that `save_folder` wrote into `module`."""
    stored = load_model(folder)
    module.load_state_dict(stored.state_dict())
    module.mask_probs = stored.mask_probs
