"""The picture's way into the network, as `preprocessor_config.json` says it: the shorter side resized, square windows, mean and std."""

import json
from pathlib import Path

from visionloop.engine.errors import UserError
from visionloop.tasks.segmentation.model import read_config

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
    """(side of the pictures in pixels, mean, std) of a folder of EoMT or of a plain ViT; mean and std of ImageNet where it has none.

    The side is the network's, which reads no other; a plain ViT's own resize and crop are for classification. Raises UserError for a
    processor that we cannot follow.
    """
    size = read_config(folder).image_size
    path = Path(folder) / FILE_NAME
    if not path.exists():
        return size, IMAGENET_MEAN, IMAGENET_STD
    try:
        return size, *_read_colors(json.loads(path.read_text()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not an image processor that this task can follow ({error})", file=str(path)) from None


def statistics_of(source):
    """(mean, std) of 0..1 per channel that a ModelSource reads its pictures with."""
    return read_processor(source.folder)[1:] if source.folder else (IMAGENET_MEAN, IMAGENET_STD)


def _read_colors(content):
    """(mean, std) of 0..1, which is what we subtract and divide by."""
    if not content.get("do_rescale", True) or abs(content.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-3:
        raise ValueError("expected pictures scaled to 0..1")
    if not content.get("do_normalize", True):
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    kind = content.get("image_processor_type") or content.get("feature_extractor_type") or ""
    silent = (HALF, HALF) if kind.startswith("ViT") else (IMAGENET_MEAN, IMAGENET_STD)  # what the library's classes assume
    mean, std = (tuple(map(float, content.get(f"image_{name}") or own)) for name, own in zip(("mean", "std"), silent, strict=True))
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError(f"image_mean {list(mean)} and image_std {list(std)}: expected three numbers each, std above 0")
    return mean, std
