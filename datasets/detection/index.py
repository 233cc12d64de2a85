"""Boxes on images as the dataset keeps them in memory, and how they are read from a COCO json.

The index is columnar, like that of the image folders: 860 thousand boxes cost about 50 bytes each,
once in each worker too.
"""

import hashlib
import json
import os
from dataclasses import dataclass, replace

import numpy as np

from visionloop.datasets.detection.coco_columns import read_columns
from visionloop.datasets.detection.problems import index_problems
from visionloop.datasets.io.layout import DataLayoutError
from visionloop.datasets.io.paths import join_paths

PROBED = 20  # file names tried to find out which folder they are relative to


@dataclass(frozen=True, eq=False)
class DetectionIndex:
    """Which images there are, in the order of the annotation file, and the boxes on them.

    source: the json file or YOLO description it was read from; folder: of the images; classes:
    names in order of label; category_ids: the dataset's own id of each label, None for a class
    that this file does not know; paths: all paths relative to the folder, as bytes one behind the
    other, row i at starts[i]:stops[i]; image_ids [N]: int64 or strings; sizes_hw: int64 [N, 2], 0
    where the file gives no size; offsets: int64 [N + 1], the boxes of image i are rows
    offsets[i]:offsets[i + 1] of boxes: float64 [M, 4] xywh in pixels as in the file, labels: int32
    [M], crowd: bool [M], areas: float64 [M] in pixels.
    """

    source: str
    folder: str
    classes: tuple[str, ...]
    category_ids: tuple
    paths: bytes
    starts: np.ndarray
    stops: np.ndarray
    image_ids: np.ndarray
    sizes_hw: np.ndarray
    offsets: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray

    def __len__(self):
        return len(self.starts)

    def name(self, i):
        """Path of image i relative to the folder."""
        return os.fsdecode(self.paths[self.starts[i] : self.stops[i]])

    def path(self, i):
        return os.path.join(self.folder, self.name(i))

    def boxes_of(self, i):
        """(boxes [G, 4] xywh, labels, crowd, areas [G]) of image i, crowds included; views of the columns."""
        rows = slice(self.offsets[i], self.offsets[i + 1])
        return self.boxes[rows], self.labels[rows], self.crowd[rows], self.areas[rows]

    def subset(self, rows):
        """The same kind of index with these images alone, in this order; the paths are shared."""
        rows = np.asarray(rows, dtype=np.int64)
        counts = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], counts.cumsum()])
        # the k-th box of a picked image: its place in the old columns
        old = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], counts)
        picked = {
            column: getattr(self, column)[rows]
            for column in ("starts", "stops", "image_ids", "sizes_hw")
        }
        picked |= {
            column: getattr(self, column)[old] for column in ("boxes", "labels", "crowd", "areas")
        }
        return replace(self, offsets=offsets, **picked)

    def fingerprint(self):
        """SHA-256 over classes, category ids, relative paths, image ids, sizes and all boxes, in order.

        Not over the images themselves or the folder's own place: a copy is the same data, another
        image of the same name goes unseen.
        """
        digest = hashlib.sha256(
            json.dumps([self.classes, self.category_ids, self.image_ids.tolist()]).encode()
        )
        columns = {
            "<i8": (self.stops - self.starts, self.sizes_hw, self.offsets, self.labels, self.crowd),
            "<f8": (self.boxes, self.areas),
        }
        for kind, arrays in columns.items():
            for column in arrays:
                digest.update(column.astype(kind).tobytes())
        digest.update(
            b"".join(
                self.paths[start:stop]
                for start, stop in zip(self.starts.tolist(), self.stops.tolist(), strict=True)
            )
        )
        return digest.hexdigest()


def read_coco(json_file, folder, classes=None, *, need_images=True):
    """The DetectionIndex of a COCO json. Raises DataLayoutError, one line with the first thing that is wrong.

    folder: of the images, or a list of folders of which the one that holds them is taken.
    Category ids may be any numbers or strings; labels are 0, 1, ... in order of id. classes: names
    of the training split, the labels are then theirs, by name. need_images: False reads
    annotations whose images are not there.
    """
    index, problems = inspect_coco(json_file, folder, classes, need_images=need_images)
    raise_first_error(problems)
    return index


def find_problems(json_file, folder, classes=None):
    """[("error" | "warning", path, why)] of a COCO json and its folder of images, everything at once; see read_coco."""
    return inspect_coco(json_file, folder, classes)[1]


def inspect_coco(json_file, folder, classes=None, *, need_images=True):
    """(DetectionIndex or None, problems): the index without what is wrong, None when too little can be read."""
    json_file = os.fspath(json_file)
    columns, problems = read_columns(json_file, classes)
    if columns is None:
        return None, problems
    names, image_rows = columns.pop("names"), columns.pop("rows")
    folders = [
        os.fspath(each) for each in (folder if isinstance(folder, list | tuple) else [folder])
    ]
    order = np.argsort(image_rows, kind="stable")
    for column in ("boxes", "labels", "crowd", "areas"):
        columns[column] = columns[column][order]
    offsets = np.concatenate([[0], np.bincount(image_rows, minlength=len(names)).cumsum()]).astype(
        np.int64
    )
    index = DetectionIndex(
        source=json_file,
        folder=choose_folder(names, folders),
        offsets=offsets,
        **join_paths(names),
        **columns,
    )
    return index, problems + index_problems(index, need_images)


def raise_first_error(problems):
    """Raises DataLayoutError for the first of [(kind, path, why)] that is an error."""
    for kind, path, why in problems:
        if kind == "error":
            raise DataLayoutError(path, why)


def choose_folder(names, folders):
    """The folder that holds most of the first file names; among equals the first one that exists."""

    def hits(folder):
        return sum(
            os.path.exists(os.path.join(folder, os.fsdecode(name))) for name in names[:PROBED]
        ), os.path.isdir(folder)

    return max(folders, key=hits)
