"""Training and evaluation splits of a data folder, collate functions and overfit samples."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from visionloop.datasets.super_resolution.dataset import DecodedPairs, StoredPairs, open_pairs
from visionloop.datasets.super_resolution.downscale import too_small
from visionloop.datasets.super_resolution.layout import (
    SuperResolutionIndex,
    find_super_resolution_split,
    require_super_resolution_split,
)
from visionloop.engine.batch import Batch
from visionloop.engine.errors import UserError
from visionloop.engine.types import Sample
from visionloop.metrics.image_quality import psnr
from visionloop.tasks import splits
from visionloop.tasks.image_cache import cache_errors

LAYOUT = "train/HR/ and val/HR/"
NO_VALIDATION = splits.no_validation("val/HR/")
IMAGES = ("pixel_values", "hr", "bicubic")  # names of images in a sample
IntSlice: TypeAlias = "slice[int, int, int]"
Part: TypeAlias = "tuple[IntSlice, IntSlice]"  # rows and columns of an image


def index_split(data: str | None, split: str, scale: int) -> SuperResolutionIndex:
    """Index the image pairs of a split.

    Args:
        data: the data folder.
        split: "train", "val" or "test".
        scale: upscaling factor; 1 for restoration at the same size.

    Raises:
        UserError: there is no data folder, or its layout is wrong.
    """
    folder = require_data(data)
    with splits.layout_errors():
        return require_super_resolution_split(folder, split, scale)


def require_data(data: str | None) -> str:
    """Return the data folder; raise UserError when none is given."""
    splits.require_data(data, LAYOUT)
    return str(data)


def training_splits(
    data: str | None, val_split: float, scale: int
) -> tuple[SuperResolutionIndex, SuperResolutionIndex]:
    """Return (training index, validation index).

    The validation images are those of the val split, or a share `val_split` of the training images
    that is set aside by a hash of the path.
    """
    train = index_split(data, "train", scale)
    folder = require_data(data)
    with splits.layout_errors():
        val = find_super_resolution_split(folder, "val", scale)
    return splits.train_and_val(folder, val_split, train, val, missing=NO_VALIDATION)


def open_images(
    index: SuperResolutionIndex, cache: str, side: int | None = None
) -> DecodedPairs | StoredPairs:
    """Open the image pairs of an index; see datasets/super_resolution/dataset.py.

    Args:
        cache: "disk" or "none".
        side: side of the training crops in input pixels. An image that is smaller is reported
            here, not in the middle of a run. None opens whole images.

    Raises:
        UserError: the cache cannot be written, or an image is too small.
    """
    with cache_errors():
        pairs = open_pairs(index, cache)
    if side is not None:
        _require_size(pairs, side)
    return pairs


def _require_size(pairs: DecodedPairs | StoredPairs, side: int) -> None:
    """Raise UserError when a crop of `side` x `side` input pixels does not fit into an image."""
    small = []
    rows = tqdm(
        range(len(pairs.index)), desc="reading sizes", unit="image", disable=None, leave=False
    )
    for row in rows:
        try:
            height, width = pairs.lr_size(row)
        except OSError:
            continue  # reported when the sample is read: --skip-unreadable skips it there
        if min(height, width) < side:
            small.append((pairs.index.path(row), too_small(height, width, side, pairs.index.scale)))
    if small:
        path, why = small[0]
        more = (
            f" ({len(small)} of {len(pairs.index)} images are too small)" if len(small) > 1 else ""
        )
        raise UserError(
            f"{path}: {why}, or remove the image{more}",
            code="too_small",
            file=path,
            field="patch_size",
        )


def collate(samples: Sequence[Sample], step: int = 0, offset: int = 0) -> Batch:
    """Stack training samples into a Batch.

    Pixels stay uint8, which is a quarter of the bytes on the way to the device.

    Returns:
        A Batch with pixel_values uint8 [B, 3, p, p], hr uint8 [B, 3, s*p, s*p] and sample_ids
        int64 [B].
    """
    items = {
        name: torch.stack([sample[name] for sample in samples]) for name in ("pixel_values", "hr")
    }
    items["sample_ids"] = torch.stack([sample["sample_id"] for sample in samples])
    return Batch(items, step=step, offset=offset)


def collate_eval(samples: Sequence[Sample]) -> Batch:
    """Collect evaluation samples of any size into a Batch of lists.

    Returns:
        A Batch with lists of uint8 [3, h, w] under pixel_values and, if the samples have targets,
        hr and bicubic; and sample_ids int64 [B].
    """
    items: dict[str, object] = {
        name: [sample[name] for sample in samples] for name in IMAGES if name in samples[0]
    }
    items["sample_ids"] = torch.stack([sample["sample_id"] for sample in samples])
    return Batch(items)


def cut_overfit_sample(sample: Sample, side: int, scale: int) -> Sample:
    """Cut an evaluation sample to its part with most detail, [3, side, side] input pixels.

    Whole photographs would take hours, and the network has the capacity for a few crops.
    """
    rows, columns = busiest_part(to_array(sample["hr"]), scale, side * scale)
    large = tuple(slice(scale * part.start, scale * part.stop) for part in (rows, columns))
    parts = {name: sample[name][:, *large].contiguous() for name in ("hr", "bicubic")}
    return sample | parts | {"pixel_values": sample["pixel_values"][:, rows, columns].contiguous()}


def require_pairs(samples: Sequence[Sample], border: int) -> None:
    """Raise UserError when a small image resembles its large one less than a single color does.

    A network overfits a few wrong pairs too, a little later, and beats the bicubic image of wrong
    pairs at once (measured): its score would say nothing about the pairs.

    Args:
        samples: evaluation samples, whole images.
        border: pixels that PSNR leaves out at each side.
    """
    mismatches = []
    for sample in samples:
        large, enlarged = to_array(sample["hr"]), to_array(sample["bicubic"])
        mean = large.mean(axis=(0, 1), keepdims=True).round().astype(np.uint8)
        plain = np.broadcast_to(mean, large.shape)
        scores = [psnr(image, large, border=border) for image in (enlarged, plain)]
        if scores[0] < scores[1]:
            mismatches.append(scores)
    if mismatches:
        enlarged_psnr, plain_psnr = mismatches[0]
        raise UserError(
            f"{len(mismatches)} of {len(samples)} small images, enlarged, differ more from their"
            f" large images than a single color does (the first: PSNR {enlarged_psnr:.2f}, a"
            f" single color {plain_psnr:.2f}); check that they belong to the same images"
        )


def busiest_part(image: NDArray[np.uint8], scale: int, side: int) -> Part:
    """Find the part of an image with most detail.

    Squared differences of neighboring gray values are summed over every position; the first of
    equal ones is taken.

    Args:
        image: uint8 [s*h, s*w, 3].
        scale: upscaling factor s.
        side: longest side of the part in pixels of the image.

    Returns:
        (rows, columns) in input pixels.
    """
    height, width = image.shape[0] // scale, image.shape[1] // scale
    rows, columns = min(height, max(1, side // scale)), min(width, max(1, side // scale))
    gray = image[: scale * height, : scale * width].mean(axis=2, dtype=np.float32)
    energy = np.zeros(gray.shape)
    energy[:-1] += np.square(np.diff(gray, axis=0))
    energy[:, :-1] += np.square(np.diff(gray, axis=1))
    energy = energy.reshape(height, scale, width, scale).sum(axis=(1, 3))
    sums = np.zeros((height + 1, width + 1))
    sums[1:, 1:] = energy.cumsum(axis=0).cumsum(axis=1)
    inside = (
        sums[rows:, columns:]
        - sums[:-rows, columns:]
        - sums[rows:, :-columns]
        + sums[:-rows, :-columns]
    )
    top, left = np.unravel_index(inside.argmax(), inside.shape)
    return slice(int(top), int(top) + rows), slice(int(left), int(left) + columns)


def to_array(image: torch.Tensor) -> NDArray[np.uint8]:
    """Convert a uint8 tensor [3, H, W] to a numpy array [H, W, 3]."""
    array: NDArray[np.uint8] = image.permute(1, 2, 0).cpu().numpy()
    return array
