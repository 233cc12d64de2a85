"""The Trainer on folders of images, as the library's own example has it."""

from functools import partial

import torch
from torchvision import transforms

from datasets import load_dataset
from visionloop.bin.benchmarks.comparisons.recipes import CROP_AREA
from visionloop.bin.benchmarks.comparisons.trainer_run import run_trainer
from visionloop.tasks.classification.export import save_folder
from visionloop.tasks.classification.model import build_model
from visionloop.tasks.classification.processor import start_transform
from visionloop.tasks.huggingface.hub import ModelSource


def train(case, data, output):
    """({figure: value}, function(folder) that saves the model) of a Case."""
    train_set = load_dataset("imagefolder", data_dir=data, split="train")
    model, processor = new_classifier(train_set.features["label"].names, case.size)
    augment = transforms.Compose(
        [
            transforms.RandomResizedCrop(case.size, scale=(CROP_AREA["classification"], 1.0)),
            *([transforms.RandomHorizontalFlip()] if case.hflip else []),
            transforms.ToTensor(),
            transforms.Normalize(processor.mean, processor.std),
        ]
    )

    def prepare(rows):
        return {
            "pixel_values": [augment(image.convert("RGB")) for image in rows["image"]],
            "label": rows["label"],
        }

    train_set.set_transform(prepare)
    return run_trainer(case, model, train_set, collate, output), partial(save, model, processor)


def new_classifier(classes, size):
    """(the library's ViT of `tiny` with random weights, how it is to be given images)."""
    model = build_model(ModelSource("tiny", None, weights=False), classes, image_size=size)
    model.set_attn_implementation("sdpa")  # its own default: our attention is for our side alone
    return model, start_transform(None, size)


def collate(samples):
    return {
        "pixel_values": torch.stack([sample["pixel_values"] for sample in samples]),
        "labels": torch.tensor([sample["label"] for sample in samples]),
    }


def save(model, processor, folder):
    save_folder(model, model.state_dict(), folder, processor)
