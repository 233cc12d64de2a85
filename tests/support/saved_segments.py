"""Predictions for small datasets of segments: the ground truth, changed at random."""

import numpy as np
import torch
from pycocotools import mask as coco_mask
from segments_files import decode

from visionloop.tasks.segmentation.segments.data import scored_ground_truth


def instance_batch(index, seed=0):
    """Return (predictions, batch) of `MaskAveragePrecision.update`, all scores different.

    The masks are those of the ground truth, some of them moved and some of another class, and one
    instance that is none.
    """
    generator = np.random.default_rng(seed)
    predictions = {"rles": [], "labels": [], "scores": []}
    truths, sizes = [], []
    for i in range(len(index)):
        truth, (height, width) = scored_ground_truth(index, i)
        masks = [*decode(truth["rles"], height, width), np.ones((height, width), dtype=bool)]
        moved = [np.roll(mask, generator.integers(0, 3), axis=1) for mask in masks]
        labels = np.concatenate([truth["labels"], [0]])
        is_wrong = generator.random(len(labels)) < 0.2
        labels = np.where(is_wrong, (labels + 1) % len(index.classes), labels)
        predictions["rles"].append([encode_bytes(mask) for mask in moved])
        predictions["labels"].append(torch.from_numpy(labels))
        predictions["scores"].append(torch.from_numpy(generator.random(len(labels), np.float32)))
        truths.append(truth)
        sizes.append((height, width))
    batch = {
        "sample_ids": torch.arange(len(index)),
        "sizes": torch.tensor(sizes),
        "ground_truth": truths,
    }
    return predictions, batch


def encode_bytes(mask):
    """A mask bool [H, W] as COCO's compressed run lengths."""
    return coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]


def panoptic_batch(index, labels_of=lambda labels: labels):
    """Return (predictions, batch) of `PanopticQualityMetric.update`.

    The maps are those of the ground truth, moved by two columns; labels_of: changes the labels.
    """
    truths = [scored_ground_truth(index, i)[0] for i in range(len(index))]
    maps, labels = [], []
    for truth in truths:
        moved = np.roll(truth["segment_map"].numpy(), 2, axis=1)
        numbers, positions = np.unique(moved, return_inverse=True)
        numbers = numbers[numbers > 0]
        offset = 0 if (moved == 0).any() else 1
        maps.append(torch.from_numpy((positions.reshape(moved.shape) + offset).astype(np.int32)))
        labels.append(torch.from_numpy(labels_of(truth["labels"][numbers - 1])))
    scores = [torch.linspace(0.9, 0.6, len(each)) for each in labels]
    batch = {"sample_ids": torch.arange(len(index)), "ground_truth": truths}
    return {"segment_maps": maps, "labels": labels, "scores": scores}, batch
