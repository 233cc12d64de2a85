"""The Trainer on pairs of images: the library's Swin2SR, which has no loss, under the shortest one that trains it."""

import random
from functools import partial

import torch
from torch.nn import functional as F
from torch.utils.data import Dataset
from transformers import Swin2SRForImageSuperResolution, Trainer

from visionloop.bin.benchmarks.comparisons.recipes import SCALE
from visionloop.bin.benchmarks.comparisons.trainer_run import run_trainer
from visionloop.datasets.super_resolution.dataset import open_pairs
from visionloop.tasks.huggingface.loading import quiet_transformers
from visionloop.tasks.super_resolution.data import index_split
from visionloop.tasks.super_resolution.model import new_config


class PixelTrainer(Trainer):
    """L1 between the network's image and the true one."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(pixel_values=inputs["pixel_values"])
        loss = F.l1_loss(outputs.reconstruction, inputs["hr"])
        return (loss, outputs) if return_outputs else loss


def train(case, data, output):
    """({figure: value}, function(folder) that saves the model) of a Case."""
    train_set = Crops(open_pairs(index_split(data, "train", SCALE), "none"), case.size)
    model = Swin2SRForImageSuperResolution(new_config("tiny", SCALE, case.size))
    return run_trainer(case, model, train_set, collate, output, PixelTrainer), partial(save, model)


class Crops(Dataset):
    """A random square of both images in one of its eight turns, 0..1."""

    def __init__(self, pairs, size):
        self.pairs, self.size = pairs, size

    def __len__(self):
        return len(self.pairs.index)

    def __getitem__(self, i):
        small, large = self.pairs.whole(i)
        top, left = (random.randint(0, side - self.size) for side in small.shape[:2])
        turns, mirrored = random.randrange(4), random.random() < 0.5
        sample = {}
        for name, image, scale in (("pixel_values", small, 1), ("hr", large, SCALE)):
            crop = image[
                scale * top : scale * (top + self.size), scale * left : scale * (left + self.size)
            ]
            pixels = torch.from_numpy(crop.copy()).permute(2, 0, 1).rot90(turns, (1, 2))
            sample[name] = (pixels.flip(-1) if mirrored else pixels).float() / 255
        return sample


def collate(samples):
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


def save(model, folder):
    with quiet_transformers():
        model.save_pretrained(folder)
