"""Images that were restored already: read from a folder, scored without a model."""

import os
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from visionloop.datasets.io.images import IMAGE_SUFFIXES, UnreadableImage, read_image
from visionloop.datasets.io.json_columns import show
from visionloop.datasets.io.paths import files_below
from visionloop.datasets.super_resolution.dataset import DecodedPairs, SuperResolutionDataset
from visionloop.datasets.super_resolution.layout import other_lr_folders
from visionloop.datasets.super_resolution.transforms import SuperResolutionEvalPreset
from visionloop.engine.errors import UserError
from visionloop.metrics.super_resolution import SuperResolutionMetric
from visionloop.tasks.saved_predictions import (
    find_images,
    one_for_each,
    predictions_error,
    read_lines,
)
from visionloop.tasks.super_resolution.data import index_split
from visionloop.tasks.super_resolution.result_images import RESULTS

LINES = "predictions.jsonl"
BASELINE = ("bicubic_psnr", "bicubic_ssim")


def score_saved_predictions(cls, path, *, data, split):
    """(task, SuperResolutionMetric) of a folder of images; see `Task.score_saved_predictions`.

    path: what `predict` wrote, its folder results/, or any folder of images named like the large
    ones, or like the small ones, but for the suffix, one for every image of the split. The scale
    is that of predictions.jsonl, or of the only LR_x folder of the split; a border as wide is cut
    off, none at x1. There is no validation loss, and at x1 no baseline: what the images were
    restored from is not known.
    """
    scale = read_scale(path, data, split)
    index = index_split(data, split, scale)
    names, dataset = (
        find_results(path, index),
        SuperResolutionDataset(DecodedPairs(index), SuperResolutionEvalPreset(scale=scale)),
    )
    metric = SuperResolutionMetric(scale if scale > 1 else 0)
    for i, name in enumerate(tqdm(names, desc="scoring", unit="pic", disable=None, leave=False)):
        result, sample = read_result(path, name), read_pair(dataset, i)
        if result.shape != sample["hr"].shape:
            sizes = [
                f"{height} x {width}" for _, height, width in (result.shape, sample["hr"].shape)
            ]
            raise predictions_error(
                path,
                f"{name}: is {sizes[0]} (height x width), expected {sizes[1]} for {index.name(i)}",
            )
        batch = {
            "hr": [sample["hr"]],
            "bicubic": [sample["bicubic"]],
            "sample_ids": torch.tensor([i]),
        }
        metric.update({"images": [result]}, batch)
    if scale == 1:
        metric.merge(
            [metric.state() | {column: np.full(len(metric), np.nan) for column in BASELINE}]
        )
    return cls(cls.config_class(data=str(data), scale=scale)), metric


def results_folder(path):
    """Where the images are: in results/ of what `predict` wrote, or here."""
    inside = Path(path) / RESULTS
    return inside if inside.is_dir() else Path(path)


def read_scale(path, data, split):
    """The scale of the images: of the predictions.jsonl beside results/, or of the only LR_x folder of the split. Raises UserError."""
    folder = results_folder(path)
    if not folder.is_dir():
        raise predictions_error(path, f"expected a folder of images ({' '.join(IMAGE_SUFFIXES)})")
    lines = folder.parent / LINES if folder.name == RESULTS else folder / LINES
    if lines.is_file():
        return scale_of_lines(lines)
    names = other_lr_folders(index_split(data, split, 1))
    if len(names) != 1:
        found = f"the data has {', '.join(names)}" if names else "the data has no LR_x folder"
        raise predictions_error(
            path,
            f'of which scale? expected {LINES} with lines {{"file": .., "scale": 2}}, since {found}',
        )
    return int(names[0].removeprefix("LR_x"))


def scale_of_lines(path):
    """The one scale that all lines of a predictions.jsonl give. Raises UserError."""
    scale = None
    for place, row in read_lines(path):
        if "error" in row:
            continue
        if type(row.get("scale")) is not int or not 1 <= row["scale"] <= 8:
            raise predictions_error(
                path, f"{place}: scale is {show(row.get('scale'))}, expected 1 to 8"
            )
        if scale not in (None, row["scale"]):
            raise predictions_error(
                path, f"{place}: scale is {row['scale']}, in an earlier line {scale}"
            )
        scale = row["scale"]
    if scale is None:
        raise predictions_error(path, "no line with a scale")
    return scale


def find_results(path, index):
    """[relative name of the result of each image of the index]. Raises UserError unless there is one for each, and no other."""
    folder = results_folder(path)
    names = list(files_below(folder, IMAGE_SUFFIXES))
    stems = [_stem(name) for name in names]
    owners = find_images(stems, [_stem(index.name(i)) for i in range(len(index))])
    if index.lr_folder:
        small = find_images(stems, [_stem(index.lr_name(i)) for i in range(len(index))])
        owners = np.where(owners < 0, small, owners)
    return one_for_each(path, names, owners, index, "result")


def read_result(path, name):
    """uint8 [3, H, W] of the result `name` below path. Raises UserError."""
    try:
        return read_image(results_folder(path) / name)
    except UnreadableImage as error:
        raise predictions_error(path, f"{name}: {error.why}") from None


def read_pair(dataset, i):
    """The sample of image i. Raises UserError."""
    try:
        return dataset[i]
    except UnreadableImage as error:
        raise UserError(
            str(error), code="unreadable_sample", file=error.path, field="data"
        ) from None


def _stem(name):
    return os.path.splitext(name)[0]
