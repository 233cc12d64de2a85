"""Sheets of training images with their targets: for `check --sheet FILE.png` beside the same without augmentation, and for `replay`."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from visionloop.engine.errors import UserError
from visionloop.engine.seeding import COLLATE, SAMPLE, seed_host
from visionloop.engine.train import evenly_spaced
from visionloop.tasks.drawing.canvas import grid, with_caption

IMAGES = 12
SHEET_MOST = 48  # images on one of the sheets of a batch
NARROWEST = 160  # pixels below an image that its caption needs
HEADINGS = (
    "as the network sees them in the first steps of training",
    "the same images as evaluation sees them",
)


def require_png(path):
    """UserError unless an image can be written there under this name."""
    if Path(path).suffix.lower() != ".png" or Path(path).is_dir():
        raise UserError(
            f"--sheet {path}: expected the name of a .png file", field="sheet", file=str(path)
        )


def write_sheet(task, train, config, path):
    """Writes one image: what `task.draw` makes of a training batch, and of the same samples of `build_eval_dataset("train")`.

    train: the training dataset. Raises UserError for a task that draws nothing.
    """
    picks = evenly_spaced(len(train), IMAGES).tolist()
    task.before_sample(0, config.steps or 1)
    columns = []
    sources = (
        (train, lambda samples: task.collate(samples, 0, 0)),
        (task.build_eval_dataset("train"), task.collate_eval),
    )
    for (dataset, collate), heading in zip(sources, HEADINGS, strict=True):
        samples = []
        for index in picks:
            seed_host(SAMPLE, config.seed, 0, index)
            samples.append(dataset[index] | {"sample_id": torch.tensor(index)})
        seed_host(COLLATE, config.seed, 0, 0)
        drawn = task.draw(collate(samples))
        columns.append([with_caption(image, [heading], size=16) for image in drawn.values()])
    if not columns[0]:
        raise UserError(f"--sheet: {task.name} draws no training images", field="sheet")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(
        grid([image for row in zip(*columns, strict=True) for image in row], columns=2)
    ).save(path)


def write_samples(task, samples, captions, folder):
    """Writes images_1.png, images_2.png, .. into the folder: what `task.draw` makes of each sample alone. Returns their names.

    samples: [(sample, the Batch that it is a part of)]; captions: lines of text, for each sample.
    No sheets for a task that draws nothing.
    """
    tiles = [
        with_caption(_widened(image), lines)
        for (sample, batch), lines in zip(samples, captions, strict=True)
        for image in task.draw(task.collate([sample], batch.step, batch.offset)).values()
    ]
    names = []
    for start in range(0, len(tiles), SHEET_MOST):
        names.append(f"images_{len(names) + 1}.png")
        Image.fromarray(grid(tiles[start : start + SHEET_MOST])).save(folder / names[-1])
    return names


def _widened(image):
    """On white paper as wide as a caption."""
    return np.pad(
        image, ((0, 0), (0, max(0, NARROWEST - image.shape[1])), (0, 0)), constant_values=255
    )
