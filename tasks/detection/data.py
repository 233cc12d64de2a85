"""Which images are trained on and which are evaluated on."""

import random

import numpy as np
import torch
from torch.nn import functional as F

from visionloop.datasets.detection.layout import find_detection_split, require_detection_split
from visionloop.engine.batch import Batch
from visionloop.tasks import splits

NO_VALIDATION = splits.no_validation("val.json and val/")


def index_split(data, split, classes=None):
    """The DetectionIndex of a split. classes: names in order of label, None: the split's own. Raises UserError."""
    require_data(data)
    with splits.layout_errors():
        return require_detection_split(data, split, classes)


def require_data(data):
    """UserError when no data folder is given."""
    splits.require_data(data, "train.json (COCO) and train/")


def training_splits(data, val_split, classes=None):
    """(training index, validation index): the val split, or a share of the training images set aside by hash of the path.

    The share is taken within images whose rarest class is the same, so that rare classes are on
    both sides.
    """
    train = index_split(data, "train", classes)
    with splits.layout_errors():
        val = find_detection_split(data, "val", train.classes)
    return splits.train_and_val(
        data, val_split, train, val, missing=NO_VALIDATION, strata=rarest_classes
    )


def rarest_classes(index):
    """The label of each image's rarest class in the whole index, -1 for an image without boxes: int64 [N]."""
    counts = np.bincount(index.labels, minlength=len(index.classes))
    rank = np.argsort(np.argsort(counts, kind="stable"), kind="stable")  # 0: the rarest
    of_rank = np.argsort(rank)
    found = np.full(len(index), -1, dtype=np.int64)
    for i in range(len(index)):
        labels = index.boxes_of(i)[1]
        if len(labels):
            found[i] = of_rank[rank[labels].min()]
    return found


# How many boxes the denoising queries are made of.


def cap_targets(targets, most):
    """The targets with at most `most` boxes in each image, chosen at random from torch's default generator.

    The library makes 2 * (boxes of the fullest image) queries at least: with 600 boxes 1200 more,
    and attention over 1500 of them. Chosen on the host, which the engine seeds by (seed, step,
    offset). Returns None where nothing would be left to denoise.
    """
    if most == 0 or not any(len(target["class_labels"]) for target in targets):
        return None
    capped = []
    for target in targets:
        number = len(target["class_labels"])
        if number > most:
            picks = torch.randperm(number)[:most].sort().values.to(target["boxes"].device)
            target = {name: values[picks] for name, values in target.items()}
        capped.append(target)
    return capped


# Samples to a batch. Pixels stay uint8: a quarter of the bytes on the way to the device.


def collate(samples, step=0, offset=0):
    """A Batch with pixel_values uint8 [B, 3, S, S], sample_ids int64 [B], sizes int64 [B, 2] (height and width of the files).

    Where the samples have them: targets, [{"class_labels": int64 [G], "boxes": float32 [G, 4]}],
    and truth, what evaluation compares with, as numpy arrays, which stay on the host.
    """
    columns = {"pixel_values": "pixel_values", "sample_id": "sample_ids", "size": "sizes"}
    items = {
        name: torch.stack([sample[key] for sample in samples]) for key, name in columns.items()
    }
    if "boxes" in samples[0]:
        items["targets"] = [
            {"class_labels": sample["class_labels"], "boxes": sample["boxes"]} for sample in samples
        ]
    if "truth" in samples[0]:
        items["truth"] = [sample["truth"] for sample in samples]
    return Batch(items, step=step, offset=offset)


# Training at several sizes: which one a step has, and the batch brought to it.

STEP = 32  # sides stay multiples of the network's coarsest stride


def sizes_around(base, repeats):
    """The sides that training draws from: 75 to 125 % of `base` in steps of 32, and `base` itself `repeats` times; [base] for 0.

    As configs/dfine/include/dataloader.yml and src/data/dataloader.py of `Peterande/D-FINE`: 480 ..
    800 around 640.
    """
    if not repeats:
        return [base]
    lowest, highest = -(-base * 3 // 4 // STEP) * STEP, base * 5 // 4 // STEP * STEP
    return [side for side in range(lowest, highest + 1, STEP) if side != base] + [base] * repeats


def draw_size(sizes):
    """One of the sides, from `random`, which the engine seeds by (seed, step): one size on all ranks."""
    return random.choice(sizes)


def resize_batch(pixels, size):
    """pixels: float [B, 3, S, S] -> [B, 3, size, size], bilinear; boxes are shares of the sides and stay as they are."""
    if pixels.shape[-1] == size:
        return pixels
    return F.interpolate(pixels, size=(size, size), mode="bilinear", align_corners=False)
