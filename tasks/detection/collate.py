"""Samples to a batch. Pixels stay uint8: a quarter of the bytes on the way to the device."""

import torch

from visionloop.engine.batch import Batch


def collate(samples, step=0, offset=0):
    """A Batch with pixel_values uint8 [B, 3, S, S], sample_ids int64 [B], sizes int64 [B, 2] (height and width of the files).

    Where the samples have them: targets, [{"class_labels": int64 [G], "boxes": float32 [G, 4]}], and truth, what evaluation
    compares with, as numpy arrays, which stay on the host.
    """
    columns = {"pixel_values": "pixel_values", "sample_id": "sample_ids", "size": "sizes"}
    items = {name: torch.stack([sample[key] for sample in samples]) for key, name in columns.items()}
    if "boxes" in samples[0]:
        items["targets"] = [{"class_labels": sample["class_labels"], "boxes": sample["boxes"]} for sample in samples]
    if "truth" in samples[0]:
        items["truth"] = [sample["truth"] for sample in samples]
    return Batch(items, step=step, offset=offset)
