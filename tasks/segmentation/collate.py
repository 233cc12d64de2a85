"""Samples to a batch. Pixels and class ids stay uint8: what a network reads, and a mask for each class, are made on the device."""

import torch

from visionloop.datasets.mask_values import IGNORED
from visionloop.engine.batch import Batch


def collate(samples, step=0, offset=0):
    """A Batch with pixel_values uint8 [B, 3, S, S], ids uint8 [B, S, S], 255 ignored, sample_ids int64 [B], and labels.

    labels: the class ids in each picture, sorted, list of int64 [T_b]; here, because looking for them on the device would make the host
    wait for it.
    """
    items = {"pixel_values": _stack(samples, "pixel_values"), "ids": _stack(samples, "ids"), "sample_ids": _stack(samples, "sample_id")}
    items["labels"] = [present_classes(sample["ids"]) for sample in samples]
    return Batch(items, step=step, offset=offset)


def collate_eval(samples):
    """A Batch of pictures of any size for evaluation or, without targets, for prediction.

    pixel_values: list of uint8 [3, h, w]; sizes: int64 [B, 2], height and width of the files; sample_ids: int64 [B]. With targets also
    ids: list of uint8 [H, W], the untouched truth, 255 ignored; fitted: uint8 [B, 3, S, S]; fitted_ids: uint8 [B, S, S]; labels: the class
    ids in the fitted ones, list of int64 [T_b].
    """
    items = {"pixel_values": [sample["pixel_values"] for sample in samples], "sizes": _stack(samples, "size")}
    items["sample_ids"] = _stack(samples, "sample_id")
    if "ids" in samples[0]:
        items |= {"ids": [sample["ids"] for sample in samples]}
        items |= {"fitted": _stack(samples, "fitted"), "fitted_ids": _stack(samples, "fitted_ids")}
        items["labels"] = [present_classes(sample["fitted_ids"]) for sample in samples]
    return Batch(items)


def present_classes(ids):
    """The class ids in a mask uint8 [H, W], sorted, without 255: int64 [T]."""
    return torch.bincount(ids.flatten(), minlength=IGNORED + 1)[:IGNORED].nonzero().flatten()


def _stack(samples, key):
    return torch.stack([sample[key] for sample in samples])
