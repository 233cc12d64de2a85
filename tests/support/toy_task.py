"""A complete small task for the engine's tests: which half of an image is brighter?"""

import os
import signal
import time
from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from visionloop.engine.batch import Batch
from visionloop.engine.config.options import option
from visionloop.engine.config.train_config import TaskConfig
from visionloop.engine.task import MetricSpec, Task


@dataclass(frozen=True)
class ToyConfig(TaskConfig):
    images: int = option(40, "training images")
    dropout: float = option(0.3, "the model's noise")
    batch_norm: bool = option(False, "a trained BatchNorm")
    image_noise: bool = option(True, "noise on the images")
    slow_seconds: float = option(0.0, "time to make one sample", fixed=False)
    slow_evaluation: float = option(0.0, "time to make one validation sample", fixed=False)
    unreadable: str = option("", "comma separated indices that cannot be read", fixed=False)
    deadly: str = option("", "name of the sample whose process is killed", fixed=False)
    poison: str = option("", "comma separated steps whose loss is infinite", fixed=False)


class ToyImages(torch.utils.data.Dataset):
    def __init__(self, number, *, split, augment=False, slow_seconds=0.0, unreadable=(), deadly=""):
        generator = torch.Generator().manual_seed(7 if split == "train" else 8)
        self.images = torch.randint(
            0, 200, (number, 3, 8, 8), generator=generator, dtype=torch.uint8
        )
        self.labels = torch.randint(0, 2, (number,), generator=generator)
        for i, label in enumerate(self.labels):
            self.images[i, :, :, 4 * int(label) : 4 * int(label) + 4] += 55
        self.split, self.augment, self.slow_seconds, self.unreadable, self.deadly = (
            split,
            augment,
            slow_seconds,
            unreadable,
            deadly,
        )

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        time.sleep(self.slow_seconds)
        if index in self.unreadable:
            raise OSError(5, "broken on purpose")
        if self.name(index) == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        image = self.images[index]
        if self.augment:
            image = (
                (image.float() + 10 * torch.randn(image.shape) + np.random.rand())
                .clamp(0, 255)
                .byte()
            )
        return {"pixel_values": image, "label": self.labels[index]}

    def name(self, index):
        return f"{self.split}/{index}.png"

    def fingerprint(self):
        return f"toy-{len(self)}"


class ToyModel(nn.Module):
    def __init__(self, dropout, batch_norm):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.norm = nn.BatchNorm2d(8) if batch_norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.block = nn.Sequential(nn.Linear(32, 32), nn.GELU(), nn.Dropout(dropout))
        self.head = nn.Linear(32, 2)

    def forward(self, pixel_values):
        features = self.dropout(self.norm(self.stem(pixel_values)).flatten(1))
        return self.head(features + self.block(features))


class ToyMetric:
    def __init__(self):
        self.rows = np.zeros((0, 3))  # sample id, correct, cross-entropy

    def update(self, predictions, batch):
        losses = nn.functional.cross_entropy(
            predictions.double(), batch["labels"], reduction="none"
        )
        correct = predictions.argmax(1) == batch["labels"]
        self.rows = np.concatenate(
            [
                self.rows,
                torch.stack([batch["sample_ids"], correct, losses], 1).double().cpu().numpy(),
            ]
        )

    def state(self):
        return {"rows": self.rows}

    def merge(self, states):
        rows = np.concatenate([state["rows"] for state in states])
        self.rows = rows[np.argsort(rows[:, 0], kind="stable")]

    def compute(self, picks=None):
        rows = self.rows if picks is None else self.rows[picks]
        return {"accuracy": float(rows[:, 1].mean()), "val_loss": float(rows[:, 2].mean())}

    def __len__(self):
        return len(self.rows)


class ToyTask(Task):
    name = "toy"
    config_class = ToyConfig
    normalizer_names = ("samples",)
    metrics = (
        MetricSpec("accuracy", "accuracy", "percent", True, "share of right predictions"),
        MetricSpec("val_loss", "loss", "float", False, "cross-entropy"),
    )
    step = 0

    def build_datasets(self):
        config = self.config
        unreadable = {int(part) for part in config.unreadable.split(",") if part}
        train = ToyImages(
            config.images,
            split="train",
            augment=config.image_noise,
            slow_seconds=config.slow_seconds,
            unreadable=unreadable,
            deadly=config.deadly,
        )
        return train, ToyImages(
            23, split="val", slow_seconds=config.slow_evaluation, deadly=config.deadly
        )

    def build_eval_dataset(self, split):
        return ToyImages(self.config.images if split == "train" else 23, split=split)

    def build_model(self):
        return ToyModel(self.config.dropout, self.config.batch_norm).train()

    def collate(self, samples, step, offset):
        return Batch(
            {
                "pixel_values": torch.stack([sample["pixel_values"] for sample in samples]),
                "labels": torch.stack([sample["label"] for sample in samples]),
                "sample_ids": torch.stack([sample["sample_id"] for sample in samples]),
            },
            step=step,
            offset=offset,
        )

    def to_input(self, batch):
        return batch["pixel_values"].float() / 128 - 1

    def count_normalizers(self, micro_batches):
        return {"samples": sum(len(batch) for batch in micro_batches)}

    def before_step(self, module, step, steps):
        self.step = step

    def loss(self, model, batch, normalizers):
        logits = model(self.to_input(batch)).float()
        total = (
            nn.functional.cross_entropy(logits, batch["labels"], reduction="sum")
            / normalizers["samples"]
        )
        if str(self.step) in self.config.poison.split(","):
            total = total * float("inf")
        return {"loss": total, "loss_class": total}

    def predict(self, model, batch):
        return model(self.to_input(batch)).float()

    def build_metric(self):
        return ToyMetric()

    sample_score = MetricSpec("toy_loss", "loss", "float", False, "cross-entropy")

    def draw(self, batch):
        return {"images": batch["pixel_values"][0].permute(1, 2, 0).cpu().numpy()}

    def draw_samples(self, batch, predictions):
        return [image.permute(1, 2, 0).cpu().numpy() for image in batch["pixel_values"]]

    def draw_gallery(self, images, captions):
        return np.concatenate(images, axis=1)

    def sample_scores(self, metric):
        return metric.rows[:, 0].astype(np.int64), metric.rows[:, 2]

    def backbone(self, module):
        return module.stem

    def grad_checkpointing_blocks(self, module):
        return [module.block]

    def save(self, module, tensors, folder):
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            folder / "model.safetensors",
        )

    def load(self, module, folder):
        module.load_state_dict(load_file(folder / "model.safetensors"))


def make_quiet_toy():
    """For check_task, which starts other processes: those import this module."""
    return ToyTask(ToyConfig(dropout=0.0))
