"""Boxes on images as columns in memory, and their reader for COCO json files.

860 thousand boxes take about 50 bytes each, once in each worker too.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from visionloop.datasets.detection.coco_columns import read_columns
from visionloop.datasets.detection.problems import Problem, index_problems
from visionloop.datasets.io.layout import DataLayoutError
from visionloop.datasets.io.names import FileFinder, with_slashes
from visionloop.datasets.io.paths import PathIndex, Rows, hash_columns, hash_paths, join_paths

NUM_PROBES = 20  # file names that are looked up to choose the folder they are relative to

Folder: TypeAlias = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class DetectionIndex(PathIndex):
    """The images of a split, in the order of the annotation file, and their boxes.

    Attributes:
        source: the json file or YOLO description it was read from.
        classes: names in order of label.
        category_ids: the dataset's own id of each label, None for a class that is not in the file.
        image_ids: int64 or strings [N].
        sizes_hw: int64 [N, 2], 0 where the file gives no size.
        offsets: int64 [N + 1]; the boxes of image i are rows offsets[i]:offsets[i + 1].
        boxes: float64 [M, 4] xywh in pixels as in the file.
        labels: int32 [M].
        crowd: bool [M].
        areas: float64 [M] in pixels.
        notes: what a training run says about the annotations at its start.
    """

    source: str
    classes: tuple[str, ...]
    category_ids: tuple[int | str | None, ...]
    image_ids: NDArray[np.int64] | NDArray[np.str_]
    sizes_hw: NDArray[np.int64]
    offsets: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int32]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    notes: tuple[str, ...] = ()

    def boxes_of(
        self, i: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.bool_], NDArray[np.float64]]:
        """Return (boxes [G, 4] xywh, labels, crowd, areas [G]) of image i, as views."""
        rows = slice(self.offsets[i], self.offsets[i + 1])
        return self.boxes[rows], self.labels[rows], self.crowd[rows], self.areas[rows]

    def subset(self, rows: Rows) -> "DetectionIndex":
        """Return the index of these images alone, in this order; the paths are shared."""
        rows = np.asarray(rows, dtype=np.int64)
        counts = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], counts.cumsum()])
        # the old row of every box of the selected images
        box_rows = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], counts)
        images = self.select(rows, ("starts", "stops", "image_ids", "sizes_hw"))
        return replace(
            images.select(box_rows, ("boxes", "labels", "crowd", "areas")), offsets=offsets
        )

    def fingerprint(self) -> str:
        """Return the SHA-256 of classes, ids, relative paths, sizes and all boxes, in order.

        The images themselves and the folder's own path are left out: a copy is the same data,
        another image of the same name is not noticed.
        """
        digest = hashlib.sha256(
            json.dumps([self.classes, self.category_ids, self.image_ids.tolist()]).encode()
        )
        lengths = self.stops - self.starts
        hash_columns(digest, (lengths, self.sizes_hw, self.offsets, self.labels, self.crowd))
        hash_columns(digest, (self.boxes, self.areas), "<f8")
        hash_paths(digest, self.paths, self.starts, self.stops)
        return digest.hexdigest()


def read_coco(
    json_file: str | os.PathLike[str],
    folder: Folder | Sequence[Folder],
    classes: Sequence[str] | None = None,
    *,
    need_images: bool = True,
) -> DetectionIndex:
    """Read the DetectionIndex of a COCO json.

    Args:
        json_file: the annotations. Category ids may be any numbers or strings; labels are 0, 1, ...
            in order of id.
        folder: of the images, or a list of folders of which the one that holds them is taken.
        classes: names of the training split, which then give the labels.
        need_images: False reads annotations whose images are not there.

    Raises:
        DataLayoutError: one line with the first error.
    """
    index, problems = inspect_coco(json_file, folder, classes, need_images=need_images)
    return require_index(index, problems)


def find_problems(
    json_file: str | os.PathLike[str],
    folder: Folder | Sequence[Folder],
    classes: Sequence[str] | None = None,
) -> list[Problem]:
    """Return all [("error" | "warning" | "note", path, why)] of a COCO json; see read_coco."""
    return inspect_coco(json_file, folder, classes)[1]


def inspect_coco(
    json_file: str | os.PathLike[str],
    folder: Folder | Sequence[Folder],
    classes: Sequence[str] | None = None,
    *,
    need_images: bool = True,
) -> tuple[DetectionIndex | None, list[Problem]]:
    """Return (DetectionIndex, problems) of a COCO json; see read_coco.

    The index holds the valid entries; it is None when too little can be read.
    """
    json_file = os.fspath(json_file)
    columns, problems = read_columns(json_file, classes)
    if columns is None:
        return None, problems
    paths = [folder] if isinstance(folder, str | os.PathLike) else folder
    folders = [os.fspath(path) for path in paths]
    image_folder, names = locate_images(columns.images["names"], folders)
    boxes = columns.annotations
    order = np.argsort(boxes["rows"], kind="stable")
    counts = np.bincount(boxes["rows"], minlength=len(names))
    index = DetectionIndex(
        source=json_file,
        folder=image_folder,
        classes=columns.classes,
        category_ids=columns.category_ids,
        image_ids=columns.images["image_ids"],
        sizes_hw=columns.images["sizes_hw"],
        offsets=np.concatenate([[0], counts.cumsum()]).astype(np.int64),
        boxes=boxes["boxes"][order],
        labels=boxes["labels"][order],
        crowd=boxes["crowd"][order],
        areas=boxes["areas"][order],
        **join_paths(names),
    )
    return index, problems + index_problems(index, need_images)


def require_index(index: DetectionIndex | None, problems: Sequence[Problem]) -> DetectionIndex:
    """Return the index with the notes among its problems.

    Raises:
        DataLayoutError: for the first of the problems that is an error.
    """
    for kind, path, why in problems:
        if kind == "error":
            raise DataLayoutError(path, why)
    assert index is not None, "no index and no error"
    return replace(index, notes=tuple(why for kind, _, why in problems if kind == "note"))


def locate_images(names: Sequence[bytes], folders: Sequence[str]) -> tuple[str, list[bytes]]:
    """Return (folder, names) of images as they are on disk.

    The folder is the one with most of the first files; among equals the first that exists. The name
    of a file that is not there remains as written, with slashes.
    """
    texts = [os.fsdecode(name) for name in names]

    def score(finder: FileFinder) -> tuple[int, bool]:
        count = sum(finder.find(text) is not None for text in texts[:NUM_PROBES])
        return count, os.path.isdir(finder.folder)

    finder = max(map(FileFinder, folders), key=score)
    return finder.folder, [
        os.fsencode(finder.find(text) or os.path.normpath(with_slashes(text))) for text in texts
    ]
