"""Which images are trained on and which are evaluated on, and how they are read."""

import torch
from tqdm import tqdm

from visionloop.datasets.super_resolution.dataset import open_pairs
from visionloop.datasets.super_resolution.downscale import too_small
from visionloop.datasets.super_resolution.layout import (
    find_super_resolution_split,
    require_super_resolution_split,
)
from visionloop.engine.batch import Batch
from visionloop.engine.errors import UserError
from visionloop.metrics.image_quality import psnr
from visionloop.tasks import splits
from visionloop.tasks.image_cache import cache_errors
from visionloop.tasks.super_resolution.visualize import busiest_part, to_array

NO_VALIDATION = splits.no_validation("val/HR/")


def index_split(data, split, scale):
    """The SuperResolutionIndex of a split. scale: 1 for restoration at the same size. Raises UserError."""
    require_data(data)
    with splits.layout_errors():
        return require_super_resolution_split(data, split, scale)


def require_data(data):
    """UserError when no data folder is given."""
    splits.require_data(data, "train/HR/ and val/HR/")


def training_splits(data, val_split, scale):
    """(training index, validation index): the val split, or a share of the training images set aside by hash of the path."""
    train = index_split(data, "train", scale)
    with splits.layout_errors():
        val = find_super_resolution_split(data, "val", scale)
    return splits.train_and_val(data, val_split, train, val, missing=NO_VALIDATION)


def open_images(index, cache, side=None):
    """The pairs of an index, see datasets/super_resolution/dataset.py. Raises UserError where the cache cannot be written.

    cache: "disk" or "none". side: of the training crops in pixels of the small images; an image
    that holds none is an error here already, and not in the middle of a run. None: whole images.
    """
    with cache_errors():
        pairs = open_pairs(index, cache)
    if side is not None:
        _refuse_small(pairs, side)
    return pairs


def _refuse_small(pairs, side):
    """UserError when a crop of so many pixels a side does not fit into some image."""
    small = []
    for row in tqdm(
        range(len(pairs.index)), desc="sizes of images", unit="image", disable=None, leave=False
    ):
        try:
            height, width = pairs.lr_size(row)
        except (
            OSError
        ):  # what cannot be read is told when its turn comes: --skip-unreadable passes over it
            continue
        if min(height, width) < side:
            small.append((pairs.index.path(row), too_small(height, width, side, pairs.index.scale)))
    if small:
        path, why = small[0]
        more = (
            f" ({len(small)} of {len(pairs.index)} images are too small)" if len(small) > 1 else ""
        )
        raise UserError(
            f"{path}: {why}, or take the image out{more}",
            code="too_small",
            file=path,
            field="patch_size",
        )


# Images to overfit: of each the part with most detail, as large as a training crop.


def cut_overfit_sample(sample, side, scale):
    """A sample of evaluation -> its part with most detail, with "pixel_values" [3, side, side] and what belongs to it.

    Whole images of a camera would take hours, and the network has room for a few crops.
    """
    rows, columns = busiest_part(to_array(sample["hr"]), scale, side * scale)
    large = tuple(slice(scale * one.start, scale * one.stop) for one in (rows, columns))
    parts = {name: sample[name][:, *large].contiguous() for name in ("hr", "bicubic")}
    return sample | parts | {"pixel_values": sample["pixel_values"][:, rows, columns].contiguous()}


def require_pairs(samples, border):
    """UserError where a small image tells less of its large one than a single colour would. samples: of evaluation, whole images.

    A network learns a few wrong pairs overfitted too, a little later, and beats the bicubic of wrong
    images at once (measured): what it reaches would say nothing about the pairs.
    """
    strange = []
    for sample in samples:
        large, enlarged = to_array(sample["hr"]), to_array(sample["bicubic"])
        plain = (
            large.mean(axis=(0, 1), keepdims=True)
            .round()
            .astype(large.dtype)
            .repeat(large.shape[0], 0)
            .repeat(large.shape[1], 1)
        )
        scores = [psnr(image, large, border=border) for image in (enlarged, plain)]
        if scores[0] < scores[1]:
            strange.append(scores)
    if strange:
        enlarged, plain = strange[0]
        raise UserError(
            f"{len(strange)} of {len(samples)} small images, enlarged, are further from their large ones than a single colour is "
            f"(the first: PSNR {enlarged:.2f}, a single colour {plain:.2f}); do they belong to other images?"
        )


# Samples to a batch. Pixels stay uint8: a quarter of the bytes on the way to the device.

IMAGES = ("pixel_values", "hr", "bicubic")


def collate(samples, step=0, offset=0):
    """A Batch with pixel_values uint8 [B, 3, p, p], hr uint8 [B, 3, s*p, s*p], sample_ids int64 [B]."""
    items = {
        name: torch.stack([sample[name] for sample in samples]) for name in ("pixel_values", "hr")
    }
    items["sample_ids"] = torch.stack([sample["sample_id"] for sample in samples])
    return Batch(items, step=step, offset=offset)


def collate_eval(samples):
    """A Batch of images of any size: lists of uint8 [3, h, w] under pixel_values, and with targets under hr and bicubic; sample_ids."""
    items = {name: [sample[name] for sample in samples] for name in IMAGES if name in samples[0]}
    return Batch(items | {"sample_ids": torch.stack([sample["sample_id"] for sample in samples])})
