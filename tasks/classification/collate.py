"""Samples to a batch. Pixels stay uint8: a quarter of the bytes on the way to the device."""

import torch

from visionloop.engine.batch import Batch


def collate(samples, step=0, offset=0):
    """A Batch with pixel_values uint8 [B, 3, S, S], sample_ids int64 [B] and, unless the pictures come without, labels int64 [B]."""
    columns = {"pixel_values": "pixel_values", "label": "labels", "sample_id": "sample_ids"}
    present = {key: name for key, name in columns.items() if key in samples[0]}
    return Batch({name: torch.stack([sample[key] for sample in samples]) for key, name in present.items()}, step=step, offset=offset)
