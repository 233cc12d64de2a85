"""Sheets of training images with their targets, for `check --sheet FILE.png` and for `replay`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from visionloop.engine.batch import Batch
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.data.subsets import evenly_spaced
from visionloop.engine.errors import UserError
from visionloop.engine.seeding import COLLATE, SAMPLE, seed_host
from visionloop.engine.task import Task
from visionloop.engine.types import Sample, SampleDataset
from visionloop.tasks.drawing.canvas import grid, with_caption

NUM_IMAGES = 12
MAX_BATCH_SHEET = 48  # images on one of the sheets of a batch
MIN_CAPTION_WIDTH = 160  # pixels below an image that its caption needs
HEADINGS = (
    "training images as the network gets them{own}",
    "the same images in evaluation",
)


def require_png(path: str | Path) -> None:
    """Raise a UserError unless the path is the name of a .png file."""
    if Path(path).suffix.lower() != ".png" or Path(path).is_dir():
        why = "expected the name of a .png file"
        raise UserError(f"--sheet {path}: {why}", field="sheet", file=str(path))


def write_sheet(
    task: Task, train_set: SampleDataset, config: TrainConfig, path: str | Path
) -> None:
    """Write one image: training samples as `Task.draw` draws them, beside the same in evaluation.

    Raises UserError for a task that draws nothing.
    """
    own = f", after --augment {task.config.augment}" if task.config.augment else ""
    indices = evenly_spaced(len(train_set), NUM_IMAGES).tolist()
    task.before_sample(0, config.steps or 1)
    columns = []
    sources = (
        (train_set, lambda samples: task.collate(samples, 0, 0)),
        (task.build_eval_dataset("train"), task.collate_eval),
    )
    for (dataset, collate), heading in zip(sources, HEADINGS, strict=True):
        samples = []
        for index in indices:
            seed_host(SAMPLE, config.seed, 0, index)
            samples.append(dataset[index] | {"sample_id": torch.tensor(index)})
        seed_host(COLLATE, config.seed, 0, 0)
        images = task.draw(collate(samples))
        columns.append(
            [with_caption(image, [heading.format(own=own)], size=16) for image in images.values()]
        )
    if not columns[0]:
        raise UserError(f"--sheet: {task.name} draws no training images", field="sheet")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    rows = zip(*columns, strict=True)
    Image.fromarray(grid([image for row in rows for image in row], columns=2)).save(path)


def write_samples(
    task: Task,
    samples: Sequence[tuple[Sample, Batch]],
    captions: Sequence[Sequence[str]],
    folder: Path,
) -> list[str]:
    """Write images_1.png, images_2.png, .. with `Task.draw` of each sample, and return their names.

    samples: each with the micro-batch that it belongs to; captions: lines of text of each sample.
    A task that draws nothing has no sheets.
    """
    tiles = [
        with_caption(_widen(image), lines)
        for (sample, batch), lines in zip(samples, captions, strict=True)
        for image in task.draw(task.collate([sample], batch.step, batch.offset)).values()
    ]
    names: list[str] = []
    for start in range(0, len(tiles), MAX_BATCH_SHEET):
        names.append(f"images_{len(names) + 1}.png")
        Image.fromarray(grid(tiles[start : start + MAX_BATCH_SHEET])).save(folder / names[-1])
    return names


def _widen(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pad the image [H, W, 3] with white to the width of a caption."""
    padding = max(0, MIN_CAPTION_WIDTH - image.shape[1])
    return np.pad(image, ((0, 0), (0, padding), (0, 0)), constant_values=255)
