"""Saved predictions of super-resolution: images in a folder, scored without a model."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from visionloop.datasets.io.folders import IMAGE_SUFFIXES
from visionloop.datasets.io.images import UnreadableImage, read_image
from visionloop.datasets.io.json_columns import show
from visionloop.datasets.io.paths import files_below
from visionloop.datasets.super_resolution.dataset import DecodedPairs, SuperResolutionDataset
from visionloop.datasets.super_resolution.layout import SuperResolutionIndex, unused_lr_folders
from visionloop.datasets.super_resolution.transforms import SuperResolutionEvalPreset
from visionloop.engine.batch import Batch
from visionloop.engine.errors import UserError
from visionloop.engine.types import Sample
from visionloop.metrics.super_resolution import SuperResolutionMetric
from visionloop.tasks.saved_predictions import (
    match_images,
    predictions_error,
    read_lines,
    require_one_file_per_image,
)
from visionloop.tasks.super_resolution.data import index_split
from visionloop.tasks.super_resolution.result_images import RESULTS

LINES = "predictions.jsonl"
BASELINE = ("bicubic_psnr", "bicubic_ssim")


def score_saved_predictions(
    path: str | Path, *, data: str, split: str
) -> tuple[int, SuperResolutionMetric]:
    """Score a folder of images; see `Task.score_saved_predictions`.

    The scale is that of predictions.jsonl, or of the only LR_x folder of the split. A border as
    wide is cut off, none at x1. There is no validation loss, and at x1 no baseline: the images
    that were restored are unknown.

    Args:
        path: the output of `predict`, its folder results/, or any folder of images that are named
            like the large ones, or like the small ones, but for the suffix; one for every image of
            the split.

    Returns:
        (scale, metric).

    Raises:
        UserError: an image is missing, unreadable or of the wrong size.
    """
    scale = read_scale(path, data, split)
    index = index_split(data, split, scale)
    names = find_results(path, index)
    dataset = SuperResolutionDataset(DecodedPairs(index), SuperResolutionEvalPreset(scale=scale))
    metric = SuperResolutionMetric(scale if scale > 1 else 0)
    for i, name in enumerate(tqdm(names, desc="scoring", unit="image", disable=None, leave=False)):
        result, sample = read_result(path, name), read_pair(dataset, i)
        if result.shape != sample["hr"].shape:
            size, expected = (
                f"{height} x {width}" for _, height, width in (result.shape, sample["hr"].shape)
            )
            raise predictions_error(
                path,
                f"{name}: is {size} (height x width), expected {expected} for {index.name(i)}",
            )
        batch = Batch(
            {
                "hr": [sample["hr"]],
                "bicubic": [sample["bicubic"]],
                "sample_ids": torch.tensor([i]),
            }
        )
        metric.update({"images": [result]}, batch)
    if scale == 1:
        unknown = {column: np.full(len(metric), np.nan) for column in BASELINE}
        metric.merge([metric.state() | unknown])
    return scale, metric


def results_folder(path: str | Path) -> Path:
    """Return the folder of the images: results/ of an output of `predict`, or the path itself."""
    inside = Path(path) / RESULTS
    return inside if inside.is_dir() else Path(path)


def read_scale(path: str | Path, data: str, split: str) -> int:
    """Return the scale of the images.

    It is that of predictions.jsonl next to results/, or of the only LR_x folder of the split.

    Raises:
        UserError: the path is no folder, or neither has the scale.
    """
    folder = results_folder(path)
    if not folder.is_dir():
        raise predictions_error(path, f"expected a folder of images ({' '.join(IMAGE_SUFFIXES)})")
    lines = folder.parent / LINES if folder.name == RESULTS else folder / LINES
    if lines.is_file():
        return scale_of_lines(lines)
    lr_folders = unused_lr_folders(index_split(data, split, 1))
    scales = {folder.scale for folder in lr_folders if folder.scale is not None}
    if len(scales) != 1:
        names = ", ".join(folder.name for folder in lr_folders)
        folders = f"the data has {names}" if names else "the data has no LR_x folder"
        raise predictions_error(
            path,
            f'unknown scale: expected {LINES} with lines {{"file": .., "scale": 2}}, since'
            f" {folders}",
        )
    return scales.pop()


def scale_of_lines(path: Path) -> int:
    """Return the one scale of all lines of a predictions.jsonl; raise UserError otherwise."""
    scale: int | None = None
    for position, row in read_lines(path):
        if "error" in row:
            continue
        if type(row.get("scale")) is not int or not 1 <= row["scale"] <= 8:
            raise predictions_error(
                path, f"{position}: scale is {show(row.get('scale'))}, expected 1 to 8"
            )
        if scale not in (None, row["scale"]):
            raise predictions_error(
                path, f"{position}: scale is {row['scale']}, in an earlier line {scale}"
            )
        scale = row["scale"]
    if scale is None:
        raise predictions_error(path, "no line with a scale")
    return scale


def find_results(path: str | Path, index: SuperResolutionIndex) -> list[str]:
    """Return the file of each image of the index, relative to the folder of the images.

    Raises:
        UserError: an image has no file or two, or a file belongs to no image.
    """
    folder = results_folder(path)
    names = list(files_below(folder, IMAGE_SUFFIXES))
    stems = [_stem(name) for name in names]
    images = match_images(stems, [_stem(index.name(i)) for i in range(len(index))])
    if index.lr_folder:
        by_lr_name = match_images(stems, [_stem(index.lr_name(i)) for i in range(len(index))])
        images = np.where(images < 0, by_lr_name, images)
    return require_one_file_per_image(path, names, images, index, "result")


def read_result(path: str | Path, name: str) -> torch.Tensor:
    """Read an image of the folder, uint8 [3, H, W]; raise UserError if it is unreadable."""
    try:
        return read_image(results_folder(path) / name)
    except UnreadableImage as error:
        raise predictions_error(path, f"{name}: {error.why}") from None


def read_pair(dataset: SuperResolutionDataset, i: int) -> Sample:
    """Read sample i of the data; raise UserError if it is unreadable."""
    try:
        return dataset[i]
    except UnreadableImage as error:
        raise UserError(
            str(error), code="unreadable_sample", file=error.path, field="data"
        ) from None


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]
