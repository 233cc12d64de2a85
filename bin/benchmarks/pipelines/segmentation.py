"""Images with masks to normalised batches, as torchvision and the library do it."""

from functools import partial

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2
from transformers import EomtImageProcessor, EomtImageProcessorPil

from visionloop.bin.benchmarks.pipelines.classification import open_image
from visionloop.datasets.segmentation.mask_values import IGNORED

DOES = {
    "torchvision": "about equal work, a crop instead of scale, crop and padding: PIL, then v2 with the mask: RandomResizedCrop, flip,"
    " ColorJitter by chance, Normalize",
    "EomtImageProcessor": "no augmentation, and a mask for each class, which ours makes on the device: PIL, then resize, pad, rescale,"
    " normalize by torchvision",
    "EomtImageProcessorPil": "the same by PIL",
}
BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.125, 0.5, 0.5, 0.05  # as EoMT's recipe


def pipelines(task, dataset):
    """{name: indices -> batch}: "pixel_values" float32 [B, 3, S, S], and "ids" uint8 [B, S, S] or "mask_labels" and "class_labels"."""
    config, side = task.config, task.image_size
    mean, std = (list(numbers) for numbers in task.pixel_statistics)
    changes = {"brightness": BRIGHTNESS, "contrast": CONTRAST, "saturation": SATURATION, "hue": HUE}
    transform = v2.Compose([
        v2.RandomResizedCrop(side, scale=(min(1, 1 / config.scale_max**2), 1)),
        v2.RandomHorizontalFlip(0.5 if config.hflip else 0),
        *(v2.RandomApply([v2.ColorJitter(**{name: width})], p=config.color) for name, width in changes.items()),
        v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
        v2.Normalize(mean, std),
    ])  # fmt: skip
    options = {
        "size": {"shortest_edge": side, "longest_edge": side},
        "do_pad": True,
        "image_mean": mean,
        "image_std": std,
    }
    return {
        "torchvision": partial(by_torchvision, dataset.index, transform),
        "EomtImageProcessor": partial(
            by_processor, dataset.index, EomtImageProcessor(**options, ignore_index=IGNORED)
        ),
        "EomtImageProcessorPil": partial(
            by_processor, dataset.index, EomtImageProcessorPil(**options, ignore_index=IGNORED)
        ),
    }


def by_torchvision(index, transform, indices):
    samples = []
    for i in indices:
        image, ids = (
            v2.functional.to_image(open_image(index.path(i))),
            tv_tensors.Mask(read_ids(index, i)),
        )
        samples.append(transform({"image": image, "mask": ids}))
    pixels = torch.stack([sample["image"].as_subclass(torch.Tensor) for sample in samples])
    return {
        "pixel_values": pixels,
        "ids": torch.stack([sample["mask"].as_subclass(torch.Tensor) for sample in samples]),
    }


def by_processor(index, processor, indices):
    images = [open_image(index.path(i)) for i in indices]
    return processor(
        images=images,
        segmentation_maps=[read_ids(index, i) for i in indices],
        return_tensors="pt",
    )


def read_ids(index, i):
    """uint8 [H, W]: the values of a mask file, taken for class ids as they stand, which ours looks up."""
    with Image.open(index.mask_path(i)) as image:
        return np.array(image)
