"""Masks that were predicted already: read from a folder of class-id files, scored without a model."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from visionloop.datasets.io.json_columns import show
from visionloop.datasets.io.paths import files_below
from visionloop.datasets.segmentation.class_file import plain_class_file
from visionloop.datasets.segmentation.dataset import mask_mismatch
from visionloop.datasets.segmentation.mask_values import IGNORED
from visionloop.datasets.segmentation.masks import MASK_SUFFIXES, UnreadableMask, read_mask
from visionloop.engine.errors import UserError
from visionloop.metrics.segmentation import SegmentationMetric
from visionloop.tasks.saved_predictions import (
    find_images,
    one_for_each,
    predictions_error,
    read_lines,
)
from visionloop.tasks.segmentation.data import index_split
from visionloop.tasks.segmentation.visualize import color_image

IDS, LINES = "ids", "predictions.jsonl"


def score_saved_predictions(cls, path, *, data, split):
    """(task, SegmentationMetric) of a folder of masks; see `Task.score_saved_predictions`.

    path: what `predict` wrote, its folder ids/, or any folder of masks named like the images but
    for the suffix, one for every image of the split. Ids are those of the data's classes; of what
    `predict` wrote, they go by the names in predictions.jsonl, and a class that the data lacks is a
    wrong answer. So is 255 where the truth is known. There is no validation loss.
    """
    index = index_split(data, split)
    masks, values = find_masks(path, index), read_values(path, index)
    metric = SegmentationMetric(len(index.classes))
    for i, name in enumerate(tqdm(masks, desc="scoring", unit="pic", disable=None, leave=False)):
        found, truth = read_prediction(path, name, values), read_truth(index, i)
        if found.shape != truth.shape:
            raise predictions_error(path, f"{name}: {mask_mismatch(truth.shape, found.shape)}")
        metric.update({"ids": [found]}, {"ids": [truth], "sample_ids": torch.tensor([i])})
    return cls(cls.config_class(data=str(data)), index.classes), metric


def ids_folder(path):
    """Where the masks are: in ids/ of what `predict` wrote, or here."""
    inside = Path(path) / IDS
    return inside if inside.is_dir() else Path(path)


def find_masks(path, index):
    """[relative name of the mask of each image of the index]. Raises UserError unless there is one for each, and no other."""
    folder = ids_folder(path)
    if not folder.is_dir():
        raise predictions_error(path, f"expected a folder of masks ({' '.join(MASK_SUFFIXES)})")
    names = list(files_below(folder, MASK_SUFFIXES))
    stems = [os.path.splitext(index.name(i))[0] for i in range(len(index))]
    images = find_images([os.path.splitext(name)[0] for name in names], stems)
    return one_for_each(path, names, images, index, "mask")


def read_values(path, index):
    """The ClassFile of the masks: values are ids of the data's classes, or of the labels in the predictions.jsonl beside ids/."""
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
    table, known = np.full_like(any_id.table, IGNORED), np.zeros_like(any_id.known)
    table[list(ids)] = list(ids.values())
    known[[*ids, IGNORED]] = True
    return replace(any_id, table=table, known=known)


def read_labels(path):
    """{id: label} of all classes that the lines of `describe` name. Raises UserError for what is none, and where an id has two labels."""
    labels = {}
    for place, line in read_lines(path):
        found = line.get("classes", [])
        for one in found if isinstance(found, list) else [found]:
            label, i = (one.get("label"), one.get("id")) if isinstance(one, dict) else (None, None)
            if not isinstance(label, str) or type(i) is not int or not 0 <= i < IGNORED:
                raise predictions_error(
                    path, f'{place}: classes holds {show(one)}, expected {{"label", "id"}}'
                )
            if labels.setdefault(i, label) != label:
                raise predictions_error(
                    path, f"{place}: id {i} is {show(label)}, in an earlier line {show(labels[i])}"
                )
    return labels


def read_prediction(path, name, values):
    """uint8 [H, W] of the mask `name` below path, in the data's ids. Raises UserError."""
    try:
        return read_mask(ids_folder(path) / name, values)
    except UnreadableMask as error:
        raise predictions_error(path, f"{name}: {error.why}") from None


def read_truth(index, i):
    """uint8 [H, W] of image i. Raises UserError."""
    try:
        return read_mask(index.mask_path(i), index.class_file)
    except UnreadableMask as error:
        raise UserError(
            str(error), code="unreadable_sample", file=error.path, field="data"
        ) from None


# Answers of `predict`: what is said of an image in json, and its class ids as files that other
# tools read.


def describe(predictions, names, classes):
    """[{"file", "width", "height", "classes": [{"label", "id", "share"}, ..]}], one per image: the classes in it, the largest first.

    predictions: {"ids": list of uint8 [H, W]}; names: of the files; share: of the image's pixels.
    """
    rows = []
    for name, ids in zip(names, predictions["ids"], strict=True):
        height, width = ids.shape
        pixels = np.bincount(ids.cpu().numpy().ravel(), minlength=len(classes))
        found = [int(i) for i in np.argsort(-pixels, kind="stable") if pixels[i]]
        shares = [
            {"label": classes[i], "id": i, "share": round(pixels[i].item() / ids.numel(), 6)}
            for i in found
        ]
        rows.append({"file": name, "width": width, "height": height, "classes": shares})
    return rows


def prediction_files(predictions, colors):
    """{"ids": class ids, uint8 [H, W] each, "colors": the same as colours, uint8 [H, W, 3]} of each image, as numpy arrays.

    Colours are made one by one, as they are asked for. predictions: {"ids": list of uint8 [H, W]};
    colors: uint8 [K, 3].
    """
    ids = [one.cpu().numpy() for one in predictions["ids"]]
    return {"ids": ids, "colors": (color_image(one, colors) for one in ids)}
