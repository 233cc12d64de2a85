"""The Trainer on boxes: the library's D-FINE with its own loss, and torchvision's transforms."""

from functools import partial

import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from transformers import DFineForObjectDetection

from visionloop.bin.benchmarks.comparisons.trainer_run import run_trainer
from visionloop.tasks.detection.data import index_split
from visionloop.tasks.detection.export import save_folder
from visionloop.tasks.detection.model import new_config
from visionloop.tasks.huggingface.loading import name_classes


def train(case, data, output):
    """({figure: value}, function(folder) that saves the model) of a Case."""
    train_set = Boxes(index_split(data, "train"), case.size, case.hflip)
    config = new_config("tiny")
    config.auxiliary_loss = True
    config.freeze_backbone_batch_norms = False
    config.initializer_bias_prior_prob = 0.01
    name_classes(config, train_set.index.classes)
    model = DFineForObjectDetection(config)
    return run_trainer(case, model, train_set, collate, output), partial(save, model, case.size)


class Boxes(Dataset):
    """Random colours, mirror, squash to a square; boxes as the library wants them, cxcywh in 0..1."""

    def __init__(self, index, size, hflip):
        self.index, self.size = index, size
        self.transform = v2.Compose(
            [
                v2.RandomPhotometricDistort(),
                *([v2.RandomHorizontalFlip()] if hflip else []),
                v2.Resize((size, size)),
                v2.SanitizeBoundingBoxes(min_size=1),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
            ]
        )

    def __len__(self):
        return len(self.index)

    def __getitem__(self, i):
        image = Image.open(self.index.path(i)).convert("RGB")
        boxes, labels, crowd, _ = self.index.boxes_of(i)
        boxes = tv_tensors.BoundingBoxes(
            torch.from_numpy(boxes[~crowd]), format="XYWH", canvas_size=image.size[::-1]
        )
        image, target = self.transform(
            image, {"boxes": boxes, "labels": torch.from_numpy(labels[~crowd]).long()}
        )
        boxes = v2.functional.convert_bounding_box_format(
            target["boxes"], new_format="CXCYWH"
        ).as_subclass(torch.Tensor)
        return {
            "pixel_values": image,
            "labels": {"class_labels": target["labels"], "boxes": boxes.float() / self.size},
        }


def collate(samples):
    return {
        "pixel_values": torch.stack([sample["pixel_values"] for sample in samples]),
        "labels": [sample["labels"] for sample in samples],
    }


def save(model, size, folder):
    save_folder(model, model.state_dict(), folder, size)
