"""Panoptic segments in files, scored without a model: COCO's panoptic json with PNGs of ids."""

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from visionloop.datasets.detection.coco_columns import wrong_name
from visionloop.datasets.io.json_columns import column, look_up, show
from visionloop.datasets.segmentation.dataset import mask_mismatch
from visionloop.datasets.segmentation.masks import UnreadableMask
from visionloop.datasets.segments.coco_panoptic import LARGEST_SEGMENT_ID
from visionloop.datasets.segments.id_maps import SegmentMap, match_ids, read_ids
from visionloop.datasets.segments.index import SegmentsIndex
from visionloop.engine.types import JsonObject
from visionloop.metrics.panoptic_quality import PanopticQualityMetric
from visionloop.tasks.saved_predictions import UNMATCHED, match_images, predictions_error
from visionloop.tasks.segmentation.panoptic.saved_predictions import JSON, SEGMENTS
from visionloop.tasks.segmentation.segments.data import scored_ground_truth, scored_split


@dataclass(frozen=True)
class Categories:
    """The classes of a file that names them.

    Attributes:
        names: in the order of the file.
        ids: of these in the file.
        is_thing: of these; None: the file does not say it.
    """

    names: tuple[str, ...]
    ids: tuple[Hashable, ...]
    is_thing: tuple[bool, ...] | None


def score_saved_predictions(
    path: str | Path, *, data: str | Path, split: str
) -> tuple[tuple[str, ...], tuple[bool, ...], PanopticQualityMetric]:
    """Score a panoptic json and its PNGs; see `Task.score_saved_predictions`.

    An image without an entry has no segments: all of its ground truth is missed. There is no
    validation loss.

    Args:
        path: the folder that `predict` wrote, a file in it, or a json in COCO's format with its
            PNGs in the folder of the same name. Images and classes go by their names where "images"
            and "categories" name them, otherwise by the ids of the data.
        data: the data folder.
        split: "train", "val" or "test".

    Returns:
        (class names, whether each is a thing, metric). Classes of the file that the data lacks
        follow its order.

    Raises:
        UserError: the file does not fit the data.
    """
    json_file, folder = find_files(path)
    content = read_json(json_file)
    index, categories = scored_split(data, split, "panoptic"), read_categories(content)
    is_thing = index.is_thing
    if categories and set(index.classes) <= set(categories.names):
        # a segment of a class that the data lacks is a wrong one, as with a model's own classes
        index = scored_split(data, split, "panoptic", categories.names)
        is_thing = categories.is_thing or index.is_thing
    entries = match_annotations(json_file, content, index)
    labels = label_table(categories, index)
    metric = PanopticQualityMetric(is_thing)
    for i in tqdm(range(len(index)), desc="scoring", unit="image", disable=None, leave=False):
        truth, size_hw = scored_ground_truth(index, i)
        if i in entries:
            segments = read_segments(json_file, folder, entries[i], labels, index)
            if why := mask_mismatch(size_hw, segments.numbers.shape):
                raise predictions_error(json_file, f"{entries[i]['file_name']}: {why}")
            numbers, found = torch.from_numpy(segments.numbers), segments.labels
        else:
            numbers, found = torch.zeros(size_hw, dtype=torch.int32), np.zeros(0, dtype=np.int64)
        predictions = {"segment_maps": [numbers], "labels": [torch.from_numpy(found)]}
        metric.update(predictions, {"sample_ids": torch.tensor([i]), "ground_truth": [truth]})
    return index.classes, is_thing, metric


def find_files(path: str | Path) -> tuple[Path, Path]:
    """Return (the json, the folder of its PNGs). Raises UserError.

    path: a json, predictions.jsonl beside one, or the folder of a json or of its PNGs.
    """
    path = Path(path)
    if path.is_dir():
        jsons = [path / JSON, path.with_name(f"{path.name}.json")]
    else:
        jsons = [path.with_name(JSON) if path.suffix == ".jsonl" else path]
    json_file = next((file for file in jsons if file.is_file()), None)
    if json_file is None:
        why = f"expected a json in COCO's panoptic format, such as the {JSON} of predict"
        raise predictions_error(path, why)
    folders = [json_file.with_suffix(""), json_file.parent / SEGMENTS]
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        why = f"expected its PNGs in the folder {folders[0].name} or {SEGMENTS} beside it"
        raise predictions_error(json_file, why)
    return json_file, folder


def read_json(path: Path) -> JsonObject:
    """Read an object with the list "annotations". Raises UserError."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise predictions_error(path, error.strerror or str(error)) from None
    except (ValueError, RecursionError) as error:
        raise predictions_error(path, f"not json ({error})") from None
    annotations = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(annotations, list):
        raise predictions_error(
            path, f'holds {show(content)}, expected an object with the list "annotations"'
        )
    for position, entry in enumerate(annotations):
        infos = entry.get("segments_info") if isinstance(entry, dict) else None
        if not isinstance(infos, list) or not all(isinstance(info, dict) for info in infos):
            expected = '{"image_id", "file_name", "segments_info": [objects]}'
            raise predictions_error(
                path, f"annotation {position}: is {show(entry)}, expected {expected}"
            )
    checked: JsonObject = content
    return checked


def read_categories(content: JsonObject) -> Categories | None:
    """Return the classes of a file, None where it does not name all of them differently."""
    rows = content.get("categories")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        return None
    names, ids = column(rows, "name"), column(rows, "id")
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        return None
    if not all(isinstance(key, int | str) for key in ids) or len(set(ids)) < len(ids):
        return None
    flags = column(rows, "isthing")
    is_thing = tuple(map(bool, flags)) if all(flag in (0, 1) for flag in flags) else None
    return Categories(tuple(names), tuple(ids), is_thing)


def label_table(categories: Categories | None, index: SegmentsIndex) -> dict[Hashable, int]:
    """Return {category id of the file: label in the index} of the classes that both have."""
    if categories is None:
        return {key: label for label, key in enumerate(index.category_ids) if key is not None}
    return {
        key: index.classes.index(name)
        for name, key in zip(categories.names, categories.ids, strict=True)
        if name in index.classes
    }


def match_annotations(
    path: Path, content: JsonObject, index: SegmentsIndex
) -> dict[int, JsonObject]:
    """Return {image of the index: its annotation}.

    Raises UserError for an annotation of no image, and for two of the same.
    """
    annotations: Sequence[JsonObject] = content["annotations"]
    keys = column(annotations, "image_id")
    images = content.get("images")
    rows = [row for row in images if isinstance(row, dict)] if isinstance(images, list) else []
    is_key = [isinstance(row.get("id"), int | str) for row in rows]
    file_of = {
        row["id"]: row.get("file_name") for row, valid in zip(rows, is_key, strict=True) if valid
    }
    if rows and all(isinstance(key, int | str) and key in file_of for key in keys):
        names = [index.name(i) for i in range(len(index))]
        matched = match_images([file_of[key] for key in keys], names)
    else:
        row_of: dict[Hashable, int] = {key: row for row, key in enumerate(index.image_ids.tolist())}
        matched = look_up(row_of, keys)
    entry_of: dict[int, JsonObject] = {}
    for position, (entry, image) in enumerate(zip(annotations, matched.tolist(), strict=True)):
        where = f"annotation {position}: image_id {show(entry.get('image_id'))}"
        if image < 0:
            count = "no image" if image == UNMATCHED else "more than one image"
            file = show(entry.get("file_name"))  # ids alone say little of other images
            why = f"{where}, {file}, is {count} of the data ({index.source})"
            raise predictions_error(path, f"{why}, which has {index.name(0)} and others")
        if entry_of.setdefault(image, entry) is not entry:
            raise predictions_error(path, f"{where}: {index.name(image)} has an earlier one")
        if wrong := wrong_name(entry.get("file_name")):
            raise predictions_error(path, f"{where}: {wrong}, expected that of a PNG")
    return entry_of


def read_segments(
    path: Path,
    folder: Path,
    entry: JsonObject,
    labels: Mapping[Hashable, int],
    index: SegmentsIndex,
) -> SegmentMap:
    """Read the segments of an annotation and its PNG.

    Args:
        path: the json, for messages.
        folder: of the PNGs.
        entry: the annotation.
        labels: {category id: label}.
        index: the data, for messages.

    Raises:
        UserError: a wrong id or class, an id in the PNG without an entry, or one that it lacks.
    """
    infos, name = entry["segments_info"], entry["file_name"]
    ids, categories = column(infos, "id"), column(infos, "category_id")
    for key, category in zip(ids, categories, strict=True):
        if type(key) is not int or not 0 < key <= LARGEST_SEGMENT_ID:
            expected = f"expected a whole number 1 to {LARGEST_SEGMENT_ID}"
            raise predictions_error(path, f"{name}: segment id {show(key)}, {expected}")
        if not isinstance(category, int | str) or category not in labels:
            why = f"category_id {show(category)} of segment {key}, no class of {index.source}"
            raise predictions_error(path, f"{name}: {why}")
    if len(set(ids)) < len(ids):
        raise predictions_error(path, f"{name}: a segment id is there twice")
    number = len(ids)
    found = np.array([labels[key] for key in categories], dtype=np.int32)
    nothing: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
    try:
        segments = match_ids(
            read_ids(folder / name),
            np.array(ids, dtype=np.int64),
            nothing,
            found,
            np.zeros(number, dtype=np.bool_),
            np.zeros(number),
        )
    except UnreadableMask as error:
        raise predictions_error(path, f"{name}: {error.why}") from None
    except ValueError as error:
        raise predictions_error(path, f"{name}: {error}") from None
    if len(segments.labels) < number:
        missing = number - len(segments.labels)
        raise predictions_error(path, f"{name}: {missing} segments of its entry have no pixel")
    return segments
