"""A fifth task, complete: one number for each image, as an age or a weight.

`CONTRIBUTING.md` walks through it.

Data: `train/*.png` and `train.json` with {file: number}, the same for val.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.transforms.v2 import functional as F

from visionloop.bin.commands.cli import run_commands, task_commands
from visionloop.datasets.io.images import read_image
from visionloop.engine.batch import Batch
from visionloop.engine.config.options import option
from visionloop.engine.config.train_config import TaskConfig
from visionloop.engine.errors import UserError
from visionloop.engine.metric import MetricSpec
from visionloop.engine.task import Task


# config.py
@dataclass(frozen=True)
class RegressionConfig(TaskConfig):
    width: int = option(16, "channels of the network", at_least=1)
    huber_delta: float = option(1.0, "errors above it count linearly", at_least=0)


# data: datasets/
class NumberedImages(torch.utils.data.Dataset):
    def __init__(self, folder, split, side):
        self.folder, self.side = Path(folder) / split, side
        listed = Path(folder) / f"{split}.json"
        try:
            self.numbers = {
                name: float(number)
                for name, number in sorted(json.loads(listed.read_text()).items())
            }
        except (OSError, ValueError, TypeError, AttributeError) as error:
            why = f"{listed}: expected an object of file names and numbers ({error})"
            raise UserError(why, code="bad_layout", file=str(listed)) from None
        self.names = list(self.numbers)

    def __len__(self):
        return len(self.names)

    def __getitem__(self, i):
        return read_square(self.name(i), self.side) | {
            "number": torch.tensor(self.numbers[self.names[i]])
        }

    def name(self, i):
        return str(self.folder / self.names[i])

    def fingerprint(self):
        return json.dumps(self.numbers)


def read_square(path, side):
    return {"pixel_values": F.resize(read_image(path), [side, side], antialias=True)}


# model.py
class Network(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, stride=4)
        self.body = nn.Sequential(nn.GELU(), nn.Conv2d(width, width, 3, padding=1), nn.GELU())
        self.head = nn.Linear(width, 1)

    def forward(self, pixel_values):
        features = self.stem(pixel_values)
        return self.head((features + self.body(features)).mean((2, 3)))[:, 0]


# evaluate.py: evidence about each image, which merges exactly
class ErrorMetric:
    def __init__(self):
        self.rows = np.zeros((0, 3))  # sample id, absolute error, loss

    def update(self, predictions, batch):
        errors = (predictions["numbers"] - batch["numbers"]).abs()
        rows = torch.stack([batch["sample_ids"], errors, predictions["losses"]], 1)
        self.rows = np.concatenate([self.rows, rows.double().cpu().numpy()])

    def state(self):
        return {"rows": self.rows}

    def merge(self, states):
        rows = np.concatenate([state["rows"] for state in states])
        self.rows = rows[np.argsort(rows[:, 0], kind="stable")]

    def compute(self, picks=None):
        rows = self.rows if picks is None else self.rows[picks]
        return {"mae": float(rows[:, 1].mean()), "val_loss": float(rows[:, 2].mean())}

    def __len__(self):
        return len(self.rows)


# task.py: only wires
class RegressionTask(Task):
    name = "regression"
    config_class = RegressionConfig
    normalizer_names = ("samples",)
    metrics = (
        MetricSpec("mae", "mean absolute error", "float", False, "in the units of the data"),
        MetricSpec("val_loss", "validation loss", "float", False, "Huber loss"),
    )

    @property
    def side(self):
        return self.config.image_size or 32

    def build_datasets(self):
        return self.build_eval_dataset("train"), self.build_eval_dataset("val")

    def build_eval_dataset(self, split):
        return NumberedImages(self.config.data, split, self.side)

    def build_model(self):
        return Network(self.config.width).train()

    # data.py
    def collate(self, samples, step, offset):
        names = {"pixel_values": "pixel_values", "number": "numbers", "sample_id": "sample_ids"}
        items = {
            plural: torch.stack([sample[one] for sample in samples])
            for one, plural in names.items()
            if one in samples[0]
        }
        return Batch(items, step=step, offset=offset)

    def to_input(self, batch):
        return batch["pixel_values"].float() / 128 - 1

    def count_normalizers(self, micro_batches):
        return {"samples": sum(len(batch) for batch in micro_batches)}

    # loss.py: a sum, divided by the normalizer of the whole step
    def loss(self, model, batch, normalizers):
        total = self.losses(model(self.to_input(batch)), batch).sum() / normalizers["samples"]
        return {"loss": total, "loss_huber": total}

    def losses(self, numbers, batch):
        return nn.functional.huber_loss(
            numbers.float(), batch["numbers"], reduction="none", delta=self.config.huber_delta
        )

    def predict(self, model, batch):
        numbers = model(self.to_input(batch)).float()
        return {
            "numbers": numbers,
            "losses": self.losses(numbers, batch) if "numbers" in batch else None,
        }

    def build_metric(self):
        return ErrorMetric()

    def grad_checkpointing_blocks(self, module):
        return [module.body]

    def check_data(self):
        for split in ("train", "val"):
            NumberedImages(self.config.data, split, self.side)
        return {"errors": [], "warnings": [], "classes": {}}

    # weights
    def save(self, module, tensors, folder):
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            folder / "model.safetensors",
        )
        (folder / "config.json").write_text(
            json.dumps({"width": self.config.width, "image_size": self.side})
        )

    def load(self, module, folder):
        module.load_state_dict(load_file(folder / "model.safetensors"))

    @classmethod
    def load_trained(cls, folder, *, data=None, val_split=0.0):
        task = cls(
            RegressionConfig(data=data, **json.loads((Path(folder) / "config.json").read_text()))
        )
        module = task.build_model().eval()
        task.load(module, Path(folder))
        return task, module

    # predictions, and visualize.py
    def read_sample(self, path):
        return read_square(path, self.side)

    def describe_predictions(self, batch, predictions, names):
        return [
            {"file": name, "number": float(number)}
            for name, number in zip(names, predictions["numbers"], strict=True)
        ]

    def draw_predictions(self, paths, rows, predictions):
        return [read_image(path).permute(1, 2, 0).numpy() for path in paths]


# the launcher
commands = task_commands("regression", RegressionConfig, lambda: RegressionTask)


def write_numbered(folder, images):
    """Write sample data: squares on gray; the number is the share of the image that they cover.

    images: {split: number of images}.
    """
    from PIL import Image

    for seed, (split, number) in enumerate(images.items()):
        (folder / split).mkdir(parents=True)
        generator, numbers = np.random.default_rng(seed), {}
        for i in range(number):
            side, scene = (
                int(generator.integers(4, 32)),
                generator.integers(60, 120, (32, 32, 3)).astype(np.uint8),
            )
            scene[:side, :side] = 230
            Image.fromarray(scene).save(folder / split / f"{i:03}.png")
            numbers[f"{i:03}.png"] = side * side / 32**2
        (folder / f"{split}.json").write_text(json.dumps(numbers))
    return folder


def make_regression():
    """For check_task, whose processes import this module; FIFTH_TASK_DATA names the data."""
    import os

    return RegressionTask(RegressionConfig(data=os.environ["FIFTH_TASK_DATA"], width=8))


if __name__ == "__main__":
    run_commands(commands)
