"""Predicted masks as files: written by `predict`, and scored without a model by `evaluate`."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from visionloop.datasets.io.json_columns import show
from visionloop.datasets.io.paths import files_below
from visionloop.datasets.segmentation.class_file import ClassFile, plain_class_file
from visionloop.datasets.segmentation.dataset import SegmentationIndex, mask_mismatch
from visionloop.datasets.segmentation.mask_values import IGNORED
from visionloop.datasets.segmentation.masks import MASK_SUFFIXES, UnreadableMask, read_mask
from visionloop.engine.errors import UserError
from visionloop.engine.types import JsonObject, Predictions
from visionloop.metrics.segmentation import SegmentationMetric
from visionloop.tasks.saved_predictions import (
    match_images,
    predictions_error,
    read_lines,
    require_one_file_per_image,
)
from visionloop.tasks.segmentation.semantic.data import index_split
from visionloop.tasks.segmentation.semantic.visualize import color_image

IDS, LINES = "ids", "predictions.jsonl"


def describe(
    predictions: Predictions, names: Sequence[str], classes: Sequence[str]
) -> list[JsonObject]:
    """Return the rows of predictions.jsonl: the classes in each image, the largest first.

    Args:
        predictions: {"ids": uint8 [H, W] of each image}.
        names: of the files.
        classes: names in order of id.

    Returns:
        [{"file", "width", "height", "classes": [{"label", "id", "share"}, ...]}]; share is of the
        image's pixels.
    """
    rows = []
    for name, ids in zip(names, predictions["ids"], strict=True):
        height, width = ids.shape
        counts = np.bincount(ids.cpu().numpy().ravel(), minlength=len(classes))
        present = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
        shares = [
            {"label": classes[i], "id": i, "share": round(counts[i].item() / ids.numel(), 6)}
            for i in present
        ]
        rows.append({"file": name, "width": width, "height": height, "classes": shares})
    return rows


def prediction_files(
    predictions: Predictions, colors: NDArray[np.uint8]
) -> dict[str, Iterable[NDArray[np.uint8] | Image.Image]]:
    """Return the images that `predict` writes: class ids, and the same in colors.

    Args:
        predictions: {"ids": uint8 [H, W] of each image}.
        colors: uint8 [K, 3].

    Returns:
        {"ids": arrays uint8 [H, W], "colors": arrays uint8 [H, W, 3], made one by one}.
    """
    masks: list[NDArray[np.uint8]] = [ids.cpu().numpy() for ids in predictions["ids"]]
    return {IDS: masks, "colors": (color_image(ids, colors) for ids in masks)}


def score_saved_predictions(
    path: str | Path, *, data: str, split: str
) -> tuple[tuple[str, ...], SegmentationMetric]:
    """Score a folder of masks; see `Task.score_saved_predictions`.

    A class that the data lacks is a wrong prediction, and so is 255 where the ground truth has a
    class. There is no validation loss.

    Args:
        path: what `predict` wrote, its folder ids/, or any folder of masks named like the images
            but for the suffix, one for every image of the split. Ids are those of the data's
            classes; of what `predict` wrote, they go by the names in predictions.jsonl.
        data: the data folder.
        split: "train", "val" or "test".

    Returns:
        (class names of the data, metric).

    Raises:
        UserError: the folder does not fit the data, or a mask cannot be read.
    """
    index = index_split(data, split)
    names, values = find_masks(path, index), read_values(path, index)
    metric = SegmentationMetric(len(index.classes))
    progress = tqdm(names, desc="scoring", unit="image", disable=None, leave=False)
    for i, name in enumerate(progress):
        predicted, ground_truth = read_prediction(path, name, values), read_ground_truth(index, i)
        if predicted.shape != ground_truth.shape:
            why = mask_mismatch(ground_truth.shape, predicted.shape)
            raise predictions_error(path, f"{name}: {why}")
        targets = {"ids": [ground_truth], "sample_ids": torch.tensor([i])}
        metric.update({"ids": [predicted]}, targets)
    return tuple(index.classes), metric


def ids_folder(path: str | Path) -> Path:
    """Return the folder of the masks: ids/ of what `predict` wrote, or `path` itself."""
    inside = Path(path) / IDS
    return inside if inside.is_dir() else Path(path)


def find_masks(path: str | Path, index: SegmentationIndex) -> list[str]:
    """Return the relative name of the mask of each image of the index.

    Raises UserError unless there is one for each, and no other.
    """
    folder = ids_folder(path)
    if not folder.is_dir():
        raise predictions_error(path, f"expected a folder of masks ({' '.join(MASK_SUFFIXES)})")
    names = list(files_below(folder, MASK_SUFFIXES))
    stems = [os.path.splitext(index.name(i))[0] for i in range(len(index))]
    images = match_images([os.path.splitext(name)[0] for name in names], stems)
    return require_one_file_per_image(path, names, images, index, "mask")


def read_values(path: str | Path, index: SegmentationIndex) -> ClassFile:
    """Return the meaning of the masks' values.

    They are ids of the data's classes, or of the labels in the predictions.jsonl next to ids/.
    """
    folder = ids_folder(path)
    lines = folder.parent / LINES
    if folder.name != IDS or not lines.is_file():
        ids = {i: i for i in range(len(index.classes))}
    else:
        labels = read_labels(lines)
        ids = {
            i: index.classes.index(label) if label in index.classes else IGNORED
            for i, label in labels.items()
        }
        if labels and set(ids.values()) == {IGNORED}:
            first = show(next(iter(labels.values())))
            raise predictions_error(
                path,
                f"{LINES}: the label {first} and all others there are no classes of {index.folder}",
            )
    any_id = plain_class_file([str(i) for i in range(IGNORED)], path="a mask of class ids")
    table, is_valid = np.full_like(any_id.table, IGNORED), np.zeros_like(any_id.is_valid)
    table[list(ids)] = list(ids.values())
    is_valid[[*ids, IGNORED]] = True
    return replace(any_id, table=table, is_valid=is_valid)


def read_labels(path: str | Path) -> dict[int, str]:
    """Return {id: label} of all classes in a file of `describe`'s rows.

    Raises UserError for an entry that is no class, and for an id with two labels.
    """
    labels: dict[int, str] = {}
    for position, row in read_lines(path):
        entries = row.get("classes", [])
        for entry in entries if isinstance(entries, list) else [entries]:
            is_object = isinstance(entry, dict)
            label, i = (entry.get("label"), entry.get("id")) if is_object else (None, None)
            if not isinstance(label, str) or type(i) is not int or not 0 <= i < IGNORED:
                raise predictions_error(
                    path, f'{position}: classes holds {show(entry)}, expected {{"label", "id"}}'
                )
            if labels.setdefault(i, label) != label:
                earlier = show(labels[i])
                raise predictions_error(
                    path, f"{position}: id {i} is {show(label)}, in an earlier line {earlier}"
                )
    return labels


def read_prediction(path: str | Path, name: str, values: ClassFile) -> torch.Tensor:
    """Read the mask `name` below `path` in the data's ids: uint8 [H, W]. Raises UserError."""
    try:
        return read_mask(ids_folder(path) / name, values)
    except UnreadableMask as error:
        raise predictions_error(path, f"{name}: {error.why}") from None


def read_ground_truth(index: SegmentationIndex, i: int) -> torch.Tensor:
    """Read the mask of image i of the data: uint8 [H, W]. Raises UserError."""
    try:
        return read_mask(index.mask_path(i), index.class_file)
    except UnreadableMask as error:
        raise UserError(
            str(error), code="unreadable_sample", file=error.path, field="data"
        ) from None
