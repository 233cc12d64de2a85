"""Segments of images as columns in memory: the index of a split for instance and panoptic tasks."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from visionloop.datasets.io.paths import PathIndex, Rows, hash_columns, hash_paths, join_paths
from visionloop.datasets.segmentation.class_file import ClassFile
from visionloop.datasets.segments.outlines import Outlines

# of the task: objects that may overlap, or one segment for each pixel
Kind: TypeAlias = Literal["instance", "panoptic"]

SEGMENT_COLUMNS = ("ids", "labels", "crowd", "areas")


@dataclass(frozen=True, eq=False)
class MaskFiles(PathIndex):
    """The mask file of each image, see PathIndex.

    Attributes:
        sizes: of the files in bytes, int64 [N], -1 for a file that is not there.
    """

    sizes: NDArray[np.int64]

    def subset(self, rows: Rows) -> "MaskFiles":
        """Return the files of these images alone, in this order; the paths are shared."""
        return self.select(rows, ("starts", "stops", "sizes"))


@dataclass(frozen=True, eq=False)
class SegmentsIndex(PathIndex):
    """The images of a split and their segments.

    Segments are in one of three forms, see layout.py: outlines (`outlines` is not None), PNGs of
    segment ids (`masks` without `class_file`), or PNGs of class ids and of object numbers (`masks`,
    `objects` and `class_file`). In the last, which segments there are is known after reading alone:
    the columns of segments are empty.

    Attributes:
        source: the json it was read from, or the `classes.json`.
        kind: "instance" or "panoptic".
        classes: names in order of label; for "instance" without stuff.
        is_thing: for each class, whether its segments are single objects.
        category_ids: the dataset's own id of each label, None for a class that is not in the file.
        image_ids: int64 or strings [N].
        sizes_hw: int64 [N, 2], 0 where the file gives no size.
        offsets: int64 [N + 1]; the segments of image i are rows offsets[i]:offsets[i + 1].
        ids: int64 [M], of each segment in the PNG, 0 for outlines.
        labels: int32 [M].
        crowd: bool [M].
        areas: float64 [M] in pixels, 0 where the file gives none.
        stuff_offsets, stuff_ids: int64 [N + 1] and [L]; for "instance", the ids in the PNGs of
            segments that are no objects.
        outlines: of the segments, or None.
        masks, objects: PNGs, or None.
        class_file: meaning of the values in `masks`, or None.
        notes: what a training run says about the annotations at its start.
    """

    source: str
    kind: Kind
    classes: tuple[str, ...]
    is_thing: tuple[bool, ...]
    category_ids: tuple[int | str | None, ...]
    image_ids: NDArray[np.int64] | NDArray[np.str_]
    sizes_hw: NDArray[np.int64]
    offsets: NDArray[np.int64]
    ids: NDArray[np.int64]
    labels: NDArray[np.int32]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    stuff_offsets: NDArray[np.int64]
    stuff_ids: NDArray[np.int64]
    outlines: Outlines | None = None
    masks: MaskFiles | None = None
    objects: MaskFiles | None = None
    class_file: ClassFile | None = None
    notes: tuple[str, ...] = ()

    def rows_of(self, i: int) -> tuple[int, int]:
        """Return the first row of the segments of image i, and the row after their last."""
        return int(self.offsets[i]), int(self.offsets[i + 1])

    def subset(self, rows: Rows) -> "SegmentsIndex":
        """Return the index of these images alone, in this order.

        Paths, polygons and encodings are shared.
        """
        rows = np.asarray(rows, dtype=np.int64)
        offsets, segments = select_ragged(self.offsets, rows)
        stuff_offsets, stuff = select_ragged(self.stuff_offsets, rows)
        images = self.select(rows, ("starts", "stops", "image_ids", "sizes_hw"))
        return replace(
            images.select(segments, SEGMENT_COLUMNS),
            offsets=offsets,
            stuff_offsets=stuff_offsets,
            stuff_ids=self.stuff_ids[stuff],
            outlines=self.outlines.select(segments) if self.outlines is not None else None,
            masks=self.masks.subset(rows) if self.masks is not None else None,
            objects=self.objects.subset(rows) if self.objects is not None else None,
        )

    def fingerprint(self) -> str:
        """Return the SHA-256 of classes, ids, relative paths, sizes and all segments, in order.

        Of PNGs only the size of the files counts. The images themselves and the folder's own path
        are left out: a copy is the same data.
        """
        names = [self.kind, self.classes, self.is_thing, self.category_ids, self.image_ids.tolist()]
        digest = hashlib.sha256(json.dumps(names).encode())
        columns = (self.sizes_hw, self.offsets, self.ids, self.labels, self.crowd)
        hash_columns(digest, (*columns, self.stuff_offsets, self.stuff_ids))
        hash_columns(digest, (self.areas,), "<f8")
        hash_columns(digest, (self.stops - self.starts,))
        hash_paths(digest, self.paths, self.starts, self.stops)
        for part in self._parts():
            digest.update(part)
        return digest.hexdigest()

    def _parts(self) -> Iterator[bytes]:
        """Yield bytes that differ with the segments."""
        if self.outlines is not None:
            yield self.outlines.is_rle.tobytes()
            for k in range(len(self.outlines)):
                yield self.outlines.content(k)
        for files in (self.masks, self.objects):
            if files is not None:
                names = [files.name(i) for i in range(len(files))]
                yield json.dumps([names, files.sizes.tolist()]).encode()
        if self.class_file is not None:
            yield self.class_file.digest().encode()


class SegmentColumns(TypedDict):
    """The fields of a SegmentsIndex that say which segments and classes there are."""

    classes: tuple[str, ...]
    is_thing: tuple[bool, ...]
    category_ids: tuple[int | str | None, ...]
    offsets: NDArray[np.int64]
    ids: NDArray[np.int64]
    labels: NDArray[np.int32]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    stuff_offsets: NDArray[np.int64]
    stuff_ids: NDArray[np.int64]


def select_ragged(
    offsets: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the offsets of selected rows, and the old position of each of their items.

    Args:
        offsets: int64 [N + 1]; the items of row i are offsets[i]:offsets[i + 1].
        rows: int64 [n].
    """
    counts = np.diff(offsets)[rows]
    new_offsets = np.concatenate([[0], counts.cumsum()]).astype(np.int64)
    items = np.arange(new_offsets[-1]) + np.repeat(offsets[rows] - new_offsets[:-1], counts)
    return new_offsets, items


def group_by_row(
    rows: NDArray[np.int64], number: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (offsets int64 [number + 1], order int64 [M]) that sort items by their row."""
    counts = np.bincount(rows, minlength=number)
    offsets = np.concatenate([[0], counts.cumsum()]).astype(np.int64)
    return offsets, np.argsort(rows, kind="stable")


def mask_files(folder: str, names: list[bytes]) -> MaskFiles:
    """Return the MaskFiles of paths relative to a folder, with the sizes that they have."""
    sizes = [file_size(os.path.join(folder, os.fsdecode(name))) for name in names]
    return MaskFiles(folder=folder, sizes=np.array(sizes, dtype=np.int64), **join_paths(names))


def file_size(path: str) -> int:
    """Return the size of a file in bytes, -1 where there is none."""
    try:
        return os.stat(path).st_size
    except OSError:
        return -1
