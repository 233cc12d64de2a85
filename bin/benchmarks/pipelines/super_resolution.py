"""Crops of large and small images to float batches, as people make them with Pillow and the library."""

import random
from functools import partial

import torch
from PIL import Image, ImageOps
from torchvision.transforms import functional as F
from transformers import Swin2SRImageProcessor, Swin2SRImageProcessorPil

from visionloop.bin.benchmarks.pipelines.classification import open_image

CROPS = "PIL: decode, crop, bicubic where there is no small image (ours: MATLAB's, exact), flips and a turn; then"
DOES = {
    "torchvision": f"equal work: {CROPS} ToTensor",
    "Swin2SRImageProcessor": f"equal work: {CROPS} rescale of both images of the whole batch by torchvision, padding off",
    "Swin2SRImageProcessorPil": f"equal work: {CROPS} rescale of both images of the whole batch by PIL, padding off",
}


def pipelines(task, dataset):
    """{name: indices -> {"pixel_values": float32 [B, 3, p, p], "hr": float32 [B, 3, s*p, s*p]}}; none where images are degraded."""
    if task.degradation:
        return {}
    crops = partial(random_crops, dataset.pairs.index, task.patch)
    return {
        "torchvision": partial(by_torchvision, crops),
        "Swin2SRImageProcessor": partial(by_processor, crops, Swin2SRImageProcessor(do_pad=False)),
        "Swin2SRImageProcessorPil": partial(
            by_processor, crops, Swin2SRImageProcessorPil(do_pad=False)
        ),
    }


def by_torchvision(crops, indices):
    small, large = crops(indices)
    return {
        "pixel_values": torch.stack(list(map(F.to_tensor, small))),
        "hr": torch.stack(list(map(F.to_tensor, large))),
    }


def by_processor(crops, processor, indices):
    small, large = (
        processor(images=list(images), return_tensors="pt")["pixel_values"]
        for images in crops(indices)
    )
    return {"pixel_values": small, "hr": large}


def random_crops(index, patch, indices):
    """(small images, large images) of Pillow: the same part of both, mirrored and turned alike."""
    return zip(*(random_crop(index, patch, i) for i in indices), strict=True)


def random_crop(index, patch, i):
    large, scale = open_image(index.path(i)), index.scale
    width, height = large.width // scale, large.height // scale
    left, top = random.randint(0, width - patch), random.randint(0, height - patch)
    box = (left, top, left + patch, top + patch)
    large = large.crop([scale * side for side in box])
    small = (
        open_image(index.lr_path(i)).crop(box)
        if index.lr_folder
        else large.resize((patch, patch), Image.Resampling.BICUBIC)
    )
    changes = [
        change
        for change in (ImageOps.mirror, ImageOps.flip, partial(turn, angle=90))
        if random.random() < 0.5
    ]
    for change in changes:
        small, large = change(small), change(large)
    return small, large


def turn(image, angle):
    return image.rotate(angle, expand=True)
