"""Data of object detection: splits, batches, denoising targets and input sizes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from visionloop.datasets.detection.layout import find_detection_split, require_detection_split
from visionloop.datasets.detection.problems import nothing_to_score, nothing_to_train
from visionloop.engine.batch import Batch, RaggedTensor
from visionloop.engine.errors import UserError
from visionloop.tasks import splits
from visionloop.tasks.detection.model import STRIDE

if TYPE_CHECKING:
    from visionloop.datasets.detection.index import DetectionIndex
    from visionloop.engine.types import Sample

TARGETS = ("class_labels", "boxes")  # keys of samples and of batches
NO_VALIDATION = splits.no_validation("val.json and val/")


def index_split(
    data: str | None, split: str, classes: Sequence[str] | None = None
) -> DetectionIndex:
    """Read the annotations of a split.

    Args:
        data: the data folder.
        split: "train", "val" or "test".
        classes: names in order of label; None: those of the split.

    Raises:
        UserError: the folder has no such split, or something in it is wrong.
    """
    data = require_data(data)
    with splits.layout_errors():
        return require_detection_split(data, split, classes)


def require_data(data: str | None) -> str:
    """Return the data folder. Raises UserError when none is given."""
    splits.require_data(data, "train.json (COCO) and train/")
    assert data is not None
    return data


def training_splits(
    data: str | None, val_split: float, classes: Sequence[str] | None = None
) -> tuple[DetectionIndex, DetectionIndex]:
    """Return the training and the validation index.

    Without a validation split, a share `val_split` of the training images is set aside by the hash
    of their path. The share is taken within images whose rarest class is the same, so that rare
    classes are on both sides.

    Raises:
        UserError: also when there is nothing to train on, or to score.
    """

    def refuse(index: DetectionIndex, why: str | None) -> None:
        if why:
            text = f"{index.source}: {why}"
            raise UserError(text, code="bad_layout", file=index.source, field="data")

    train = index_split(data, "train", classes)
    refuse(train, nothing_to_train(train))
    data = require_data(data)
    with splits.layout_errors():
        val = find_detection_split(data, "val", train.classes)
    train, val = splits.train_and_val(
        data, val_split, train, val, missing=NO_VALIDATION, strata=rarest_classes
    )
    refuse(val, nothing_to_score(val))
    return train, val


def rarest_classes(index: DetectionIndex) -> NDArray[np.int64]:
    """Return the label of each image's class that is rarest in the whole index, int64 [N].

    It is -1 for an image without boxes.
    """
    counts = np.bincount(index.labels, minlength=len(index.classes))
    rank = np.argsort(np.argsort(counts, kind="stable"), kind="stable")  # 0: the rarest
    label_of_rank = np.argsort(rank)
    rarest = np.full(len(index), -1, dtype=np.int64)
    for i in range(len(index)):
        labels = index.boxes_of(i)[1]
        if len(labels):
            rarest[i] = label_of_rank[rank[labels].min()]
    return rarest


def cap_targets(
    targets: Sequence[dict[str, torch.Tensor]], most: int
) -> list[dict[str, torch.Tensor]] | None:
    """Choose at most `most` boxes of each image to make denoising queries from.

    transformers makes at least 2 * (boxes of the fullest image) queries: with 600 boxes 1200 more,
    and attention over 1500 of them. Boxes are chosen at random on the host, from torch's default
    generator, which the engine seeds by (seed, step, offset).

    Args:
        targets: {"class_labels": int64 [G], "boxes": float32 [G, 4]} per image.
        most: 0 turns denoising off.

    Returns:
        The targets, None when there is nothing to denoise.
    """
    if most == 0 or not any(len(target["class_labels"]) for target in targets):
        return None
    capped = []
    for target in targets:
        number = len(target["class_labels"])
        if number > most:
            chosen = torch.randperm(number)[:most].sort().values
            chosen = chosen.to(target["boxes"].device, non_blocking=target["boxes"].is_cuda)
            target = {name: rows[chosen] for name, rows in target.items()}
        capped.append(target)
    return capped


def collate(samples: Sequence[Sample], step: int = 0, offset: int = 0) -> Batch:
    """Collate samples of `DetectionDataset`. Pixels stay uint8: a quarter of the bytes to copy.

    Args:
        samples: of one micro-batch.
        step: its optimizer step.
        offset: position of its first sample in the global batch.

    Returns:
        {"pixel_values": uint8 [B, 3, S, S], "sample_ids": int64 [B], "sizes": int64 [B, 2], height
        and width of the files}. Where the samples have them, also "class_labels": int64 [G] and
        "boxes": float32 [G, 4] cxcywh in 0..1 of each image, both a RaggedTensor, and
        "ground_truth" of the evaluation as numpy arrays, which stay on the host.
    """
    columns = {"pixel_values": "pixel_values", "sample_id": "sample_ids", "size": "sizes"}
    items: dict[str, object] = {
        name: torch.stack([sample[key] for sample in samples]) for key, name in columns.items()
    }
    if "boxes" in samples[0]:
        for name in TARGETS:
            items[name] = RaggedTensor.cat([sample[name] for sample in samples])
    if "ground_truth" in samples[0]:
        items["ground_truth"] = [sample["ground_truth"] for sample in samples]
    return Batch(items, step=step, offset=offset)


def targets_of(batch: Batch) -> list[dict[str, torch.Tensor]]:
    """Return {"class_labels": int64 [G], "boxes": float32 [G, 4]} of each image of a batch."""
    columns = (batch[name] for name in TARGETS)
    return [dict(zip(TARGETS, rows, strict=True)) for rows in zip(*columns, strict=True)]


def multi_scale_sizes(base: int, repeats: int) -> list[int]:
    """Return the sides that multi-scale training draws from, in pixels.

    These are 75 to 125 % of `base` in steps of the model's stride, and `base` itself `repeats`
    times; [base] for 0 repeats. Source: configs/dfine/include/dataloader.yml and
    src/data/dataloader.py of `Peterande/D-FINE`, 480 to 800 around 640.
    """
    if not repeats:
        return [base]
    smallest, largest = -(-base * 3 // 4 // STRIDE) * STRIDE, base * 5 // 4 // STRIDE * STRIDE
    return [side for side in range(smallest, largest + 1, STRIDE) if side != base] + [
        base
    ] * repeats


def draw_size(sizes: Sequence[int]) -> int:
    """Draw a side from `random`, which the engine seeds by (seed, step): one side on all ranks."""
    return random.choice(sizes)


def resize_batch(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """Resize float [B, 3, S, S] to [B, 3, size, size], bilinearly.

    Boxes are in 0..1 of the sides and do not change.
    """
    if pixels.shape[-1] == size:
        return pixels
    return F.interpolate(pixels, size=(size, size), mode="bilinear", align_corners=False)
