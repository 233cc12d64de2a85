"""Splits and batches of images with segments, for instance and panoptic segmentation."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from visionloop.datasets.io.images import UnreadableImage
from visionloop.datasets.segments.index import Kind, SegmentsIndex
from visionloop.datasets.segments.layers import NO_SEGMENT, segment_masks
from visionloop.datasets.segments.layout import (
    find_segments_split,
    read_instances,
    require_segments_split,
)
from visionloop.datasets.segments.problems import nothing_to_score, nothing_to_train
from visionloop.datasets.segments.reading import GroundTruth, read_ground_truth
from visionloop.engine.batch import Batch, RaggedTensor
from visionloop.engine.errors import UserError
from visionloop.engine.types import Sample
from visionloop.tasks import splits
from visionloop.tasks.segmentation.loss import ImageTargets

LAYOUT = {
    "instance": "train.json with outlines and images in train/",
    "panoptic": "panoptic_train.json, PNGs in panoptic_train/ and images in train/",
}
# share of the segments beyond the queries with which images can still be overfitted
MOST_LOST = 0.1
NO_VALIDATION = {
    "instance": splits.no_validation("val.json and val/"),
    "panoptic": splits.no_validation("panoptic_val.json, panoptic_val/ and val/"),
}


def index_split(
    data: str | None, split: str, kind: Kind, classes: Sequence[str] | None = None
) -> SegmentsIndex:
    """Return the index of a split.

    classes: names in order of id; None: those of the data. Raises UserError for a folder with
    another layout, and for a class of the data that is not in `classes`.
    """
    data = splits.require_data(data, LAYOUT[kind])
    with splits.layout_errors():
        return require_segments_split(data, split, kind, classes)


def scored_split(
    data: str | Path, split: str, kind: Kind, classes: Sequence[str] | None = None
) -> SegmentsIndex:
    """Return the index of a split to compare saved predictions with, whose images may be missing.

    Args:
        data: the data folder; for "instance" also a COCO json, then `split` has no meaning.
        split: "train", "val" or "test".
        kind: "instance" or "panoptic".
        classes: names in order of id; None: those of the data.

    Raises:
        UserError: see `index_split`.
    """
    with splits.layout_errors():
        if kind == "instance" and Path(data).suffix == ".json" and Path(data).is_file():
            return read_instances(data)
        return require_segments_split(data, split, kind, classes, need_images=False)


def scored_ground_truth(index: SegmentsIndex, i: int) -> tuple[GroundTruth, tuple[int, int]]:
    """Return the ground truth of image i, and its height and width. Raises UserError."""
    try:
        return read_ground_truth(index, i)
    except UnreadableImage as error:
        raise UserError(
            str(error), code="unreadable_sample", file=error.path, field="data"
        ) from None


def training_splits(
    data: str | None, val_split: float, kind: Kind, classes: Sequence[str] | None = None
) -> tuple[SegmentsIndex, SegmentsIndex]:
    """Return the training and the validation index.

    Validation is the val split, or a share of the training images that is set aside by the hash of
    the path.

    Raises:
        UserError: also when there is nothing to train on, or to score.
    """

    def refuse(index: SegmentsIndex, why: str | None) -> None:
        if why:
            text = f"{index.source}: {why}"
            raise UserError(text, code="bad_layout", file=index.source, field="data")

    data = splits.require_data(data, LAYOUT[kind])
    train = index_split(data, "train", kind, classes)
    refuse(train, nothing_to_train(train))
    with splits.layout_errors():
        val = find_segments_split(data, "val", kind, train.classes)
    train, val = splits.train_and_val(data, val_split, train, val, missing=NO_VALIDATION[kind])
    refuse(val, nothing_to_score(val))
    return train, val


def targets_per_image(index: SegmentsIndex) -> NDArray[np.int64]:
    """Return the number of segments of each image that are no crowds, int64 [N].

    0 for masks of classes and objects, whose segments are known after reading alone.
    """
    is_target = np.concatenate([[0], (~index.crowd).cumsum()])
    numbers: NDArray[np.int64] = np.diff(is_target[index.offsets])
    return numbers


def collate(samples: Sequence[Sample], step: int = 0, offset: int = 0) -> Batch:
    """Collate training samples, or those of evaluation that have ground truth.

    Masks are made on the device, from layers of numbers; which segments have a pixel left is found
    out here, because on the device that would be a host sync.

    Returns:
        A Batch with pixel_values uint8 [B, 3, S, S], ignored bool [B, S, S], sample_ids int64 [B],
        and as RaggedTensors: layers uint8 [C_b, S, S], the number of the segment of each pixel, 255
        for none; segments int64 [T_b, 2], (layer, number) of those with a pixel; labels int64
        [T_b], their classes.
    """
    present = [present_segments(sample["layers"], sample["segments"]) for sample in samples]
    items: dict[str, object] = {
        "pixel_values": _stack(samples, "pixel_values"),
        "layers": RaggedTensor.cat([sample["layers"] for sample in samples]),
        "segments": RaggedTensor.cat([segments[:, :2] for segments in present]),
        "labels": RaggedTensor.cat([segments[:, 2] for segments in present]),
        "ignored": _stack(samples, "ignored").bool(),
        "sample_ids": _stack(samples, "sample_id"),
    }
    return Batch(items, step=step, offset=offset)


def collate_eval(samples: Sequence[Sample]) -> Batch:
    """Collate images for evaluation or, without targets, for prediction.

    Returns:
        A Batch with pixel_values uint8 [B, 3, S, S], the images padded to squares, sizes int64
        [B, 2], height and width of the files, and sample_ids int64 [B]. With targets also what
        `collate` returns, and ground_truth: a dict for each image, see `read_segments` in
        datasets/segments/reading.py.
    """
    sizes = _stack(samples, "size")
    if "ground_truth" in samples[0]:
        ground_truth = [sample["ground_truth"] for sample in samples]
        return collate(samples).replace(sizes=sizes, ground_truth=ground_truth)
    pixel_values, sample_ids = _stack(samples, "pixel_values"), _stack(samples, "sample_id")
    return Batch({"pixel_values": pixel_values, "sizes": sizes, "sample_ids": sample_ids})


def present_segments(layers: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    """Return the rows of `segments` with a pixel.

    Args:
        layers: uint8 [C, H, W].
        segments: int64 [n, 3], (layer, number, class).
    """
    numbers = NO_SEGMENT + 1
    counts = torch.stack([torch.bincount(ids.flatten(), minlength=numbers) for ids in layers])
    return segments[counts[segments[:, 0], segments[:, 1]] > 0]


def require_learnable(samples: Sequence[Sample], num_queries: int) -> None:
    """Raise UserError for images of `check --overfit` that no model can overfit.

    Args:
        samples: of an evaluation dataset, with ground truth.
        num_queries: segments that the model can predict in an image.
    """
    counts = [len(present_segments(sample["layers"], sample["segments"])) for sample in samples]
    if not any(counts):
        why = "no segment is visible in any of these images; there is nothing to learn"
        raise UserError(f"--overfit {len(samples)}: {why}", field="overfit")
    total, predictable = sum(counts), sum(min(count, num_queries) for count in counts)
    if predictable < (1 - MOST_LOST) * total:
        why = f"{num_queries} queries for each image cannot predict {total - predictable} of the "
        advice = f"{total} segments; set --num-queries {max(counts)}"
        raise UserError(f"--overfit {len(samples)}: {why}{advice}", field="overfit")


def image_targets(batch: Batch) -> Iterator[ImageTargets]:
    """Yield the targets of each image of a batch of `collate`: a mask for each segment."""
    images = zip(batch["layers"], batch["segments"], batch["labels"], batch["ignored"], strict=True)
    for layers, segments, labels, ignored in images:
        yield ImageTargets(segment_masks(layers, segments), labels, ~ignored)


def _stack(samples: Sequence[Sample], key: str) -> torch.Tensor:
    return torch.stack([sample[key] for sample in samples])
