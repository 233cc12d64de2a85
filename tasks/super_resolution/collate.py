"""Samples to a batch. Pixels stay uint8: a quarter of the bytes on the way to the device."""

import torch

from visionloop.engine.batch import Batch

PICTURES = ("pixel_values", "hr", "bicubic")


def collate(samples, step=0, offset=0):
    """A Batch with pixel_values uint8 [B, 3, p, p], hr uint8 [B, 3, s*p, s*p], sample_ids int64 [B]."""
    items = {name: torch.stack([sample[name] for sample in samples]) for name in ("pixel_values", "hr")}
    items["sample_ids"] = torch.stack([sample["sample_id"] for sample in samples])
    return Batch(items, step=step, offset=offset)


def collate_eval(samples):
    """A Batch of pictures of any size: lists of uint8 [3, h, w] under pixel_values, and with targets under hr and bicubic; sample_ids."""
    items = {name: [sample[name] for sample in samples] for name in PICTURES if name in samples[0]}
    return Batch(items | {"sample_ids": torch.stack([sample["sample_id"] for sample in samples])})
