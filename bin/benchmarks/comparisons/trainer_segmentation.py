"""The Trainer on masks of class ids: the library's EoMT with its own forward and loss, and torchvision's transforms."""

from functools import partial

import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from transformers import EomtForUniversalSegmentation

from visionloop.bin.benchmarks.comparisons.recipes import CROP_AREA, POINTS
from visionloop.bin.benchmarks.comparisons.trainer_run import run_trainer
from visionloop.datasets.segmentation.mask_values import IGNORED
from visionloop.datasets.segmentation.masks import read_mask
from visionloop.tasks.huggingface.loading import name_classes, quiet_transformers
from visionloop.tasks.segmentation.data import index_split
from visionloop.tasks.segmentation.export import IMAGENET_MEAN, IMAGENET_STD, write_processor
from visionloop.tasks.segmentation.model import new_config

CROP_RATIO = (0.75, 1.8)  # width over height, before the crop becomes a square
JITTER = 0.2  # of brightness, contrast and saturation


def train(case, data, output):
    """({figure: value}, function(folder) that saves the model) of a Case."""
    train_set = Masks(index_split(data, "train"), case)
    config = new_config("tiny")
    config.image_size = case.size
    config.train_num_points = POINTS
    name_classes(config, train_set.index.classes)
    model = EomtForUniversalSegmentation(config)
    return run_trainer(case, model, train_set, collate, output), partial(save, model, case.size)


class Masks(Dataset):
    """A random crop squeezed into a square, mirror, colours; one mask of 0 and 1 for each class that is seen."""

    def __init__(self, index, case):
        self.index = index
        self.transform = v2.Compose(
            [
                v2.RandomResizedCrop(
                    case.size, scale=(CROP_AREA["segmentation"], 1.0), ratio=CROP_RATIO
                ),
                *([v2.RandomHorizontalFlip()] if case.hflip else []),
                v2.ColorJitter(JITTER, JITTER, JITTER),
                v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
                v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )

    def __len__(self):
        return len(self.index)

    def __getitem__(self, i):
        image = tv_tensors.Image(
            v2.functional.pil_to_tensor(Image.open(self.index.path(i)).convert("RGB"))
        )
        image, ids = self.transform(
            image, tv_tensors.Mask(read_mask(self.index.mask_path(i), self.index.class_file))
        )
        classes = ids.unique()
        classes = classes[classes != IGNORED].long()
        return {
            "pixel_values": image,
            "mask_labels": (ids == classes[:, None, None]).float(),
            "class_labels": classes,
        }


def collate(samples):
    columns = {name: [sample[name] for sample in samples] for name in samples[0]}
    return columns | {"pixel_values": torch.stack(columns["pixel_values"])}


def save(model, size, folder):
    with quiet_transformers():
        model.save_pretrained(folder)
    write_processor(folder, size)
