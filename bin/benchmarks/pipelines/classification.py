"""Images of classes to normalised batches, as the examples of torchvision and of the library do it."""

from functools import partial

import torch
from PIL import Image
from torchvision import transforms as T
from torchvision.transforms import InterpolationMode
from transformers import ViTImageProcessor, ViTImageProcessorPil

DOES = {
    "torchvision": "equal work: PIL, then RandomResizedCrop, flip, ToTensor, Normalize on each image",
    "ViTImageProcessor": "less than ours, no crop and no flip: PIL, then resize, rescale, normalize of the whole batch by torchvision",
    "ViTImageProcessorPil": "less than ours, no crop and no flip: PIL, then resize, rescale, normalize of the whole batch by PIL",
}


def pipelines(task, dataset):
    """{name: indices -> {"pixel_values": float32 [B, 3, S, S], "labels": int64 [B]}}; augmentation as the task's settings say."""
    index, own, config = dataset.index, task.eval_transform, task.config
    steps = [
        T.RandomResizedCrop(
            own.size,
            scale=(config.crop_scale_min, 1),
            interpolation=InterpolationMode(own.interpolation),
        ),
        T.RandomHorizontalFlip(0.5 if config.hflip else 0),
    ]
    if config.rand_augment_ops:
        steps.append(T.RandAugment(config.rand_augment_ops, config.rand_augment_magnitude))
    steps += [T.ToTensor(), T.Normalize(own.mean, own.std)]
    if config.random_erasing:
        steps.append(T.RandomErasing(config.random_erasing, scale=(0.02, 1 / 3), value="random"))
    size = {"height": own.size, "width": own.size}
    options = {"size": size, "image_mean": list(own.mean), "image_std": list(own.std)}
    return {
        "torchvision": partial(by_torchvision, index, T.Compose(steps)),
        "ViTImageProcessor": partial(by_processor, index, ViTImageProcessor(**options)),
        "ViTImageProcessorPil": partial(by_processor, index, ViTImageProcessorPil(**options)),
    }


def by_torchvision(index, transform, indices):
    pixels = torch.stack([transform(open_image(index.path(i))) for i in indices])
    return {"pixel_values": pixels, "labels": labels_of(index, indices)}


def by_processor(index, processor, indices):
    found = processor(images=[open_image(index.path(i)) for i in indices], return_tensors="pt")
    return {"pixel_values": found["pixel_values"], "labels": labels_of(index, indices)}


def labels_of(index, indices):
    return torch.tensor([int(index.labels[i]) for i in indices])


def open_image(path):
    """A decoded RGB image of Pillow."""
    with Image.open(path) as image:
        return image.convert("RGB")
