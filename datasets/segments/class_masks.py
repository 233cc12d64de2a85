"""Segments from two files of an image: a mask of class ids and one of object numbers.

    images/train/a.jpg   masks/train/a.png   instances/train/a.png   classes.json

The mask and `classes.json` are those of semantic segmentation, with "things" there: the classes
whose objects are counted. Each pair of a thing class and an object number above 0 is a segment, and
so is each stuff class that an image has. Pixels of a thing class with the number 0 are a crowd.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visionloop.datasets.io.layout import DataLayoutError, find_split, shorten
from visionloop.datasets.io.names import FileFinder, path_stem
from visionloop.datasets.segmentation.class_file import ClassFile
from visionloop.datasets.segmentation.dataset import SegmentationIndex, mask_mismatch
from visionloop.datasets.segmentation.layout import find_segmentation_split
from visionloop.datasets.segmentation.mask_values import IGNORED
from visionloop.datasets.segmentation.masks import UnreadableMask, read_mask
from visionloop.datasets.segments.annotation_files import OBJECTS
from visionloop.datasets.segments.id_maps import SegmentMap, read_ids, renumber
from visionloop.datasets.segments.index import Kind, MaskFiles, SegmentsIndex, mask_files

MOST_OBJECTS = 2**24  # numbers of RGB files
NO_CLASS = -1  # of a class id that is ignored, or that is stuff in an instance task


def find_mask_split(
    data: str | os.PathLike[str], split: str, kind: Kind, classes: Sequence[str] | None = None
) -> SegmentsIndex | None:
    """Read the SegmentsIndex of a split; arguments as for find_segments_split.

    Raises:
        DataLayoutError: one line with the first error.
    """
    data = Path(data)
    index = find_segmentation_split(data, split)
    if index is None:
        return None
    names, is_thing = _classes(index.class_file, kind, classes)
    number = len(index)
    own = index.class_file.classes
    return SegmentsIndex(
        source=index.class_file.path,
        kind=kind,
        folder=index.folder,
        paths=index.paths,
        starts=index.starts,
        stops=index.stops,
        passed_over=index.passed_over,
        classes=names,
        is_thing=is_thing,
        category_ids=tuple(own.index(name) if name in own else None for name in names),
        image_ids=np.arange(1, number + 1),
        sizes_hw=np.zeros((number, 2), dtype=np.int64),
        offsets=np.zeros(number + 1, dtype=np.int64),
        ids=np.zeros(0, dtype=np.int64),
        labels=np.zeros(0, dtype=np.int32),
        crowd=np.zeros(0, dtype=np.bool_),
        areas=np.zeros(0),
        stuff_offsets=np.zeros(number + 1, dtype=np.int64),
        stuff_ids=np.zeros(0, dtype=np.int64),
        masks=MaskFiles(
            folder=index.mask_folder,
            paths=index.mask_paths,
            starts=index.mask_starts,
            stops=index.mask_stops,
            sizes=index.mask_sizes,
        ),
        objects=_object_files(data, split, index),
        class_file=index.class_file,
    )


def _classes(
    class_file: ClassFile, kind: Kind, classes: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[bool, ...]]:
    """Return (names of the classes in order of label, whether each is a thing)."""
    things = class_file.things
    if things is None and kind == "panoptic":
        raise DataLayoutError(
            class_file.path,
            'no "things"; add the list of the classes whose objects are counted, '
            f'such as "things": ["{class_file.classes[0]}"]',
        )
    if things is None:
        things = class_file.classes
    if not things and kind == "instance":
        raise DataLayoutError(
            class_file.path,
            '"things" is empty; instance segmentation needs classes whose objects are counted',
        )
    own = tuple(name for name in class_file.classes if kind == "panoptic" or name in things)
    names = own if classes is None else tuple(classes)
    for name in own:
        if name not in names:
            raise DataLayoutError(
                class_file.path,
                f"class {name!r} is not one of the {len(names)} known classes ({shorten(names)})",
            )
    return names, tuple(name in things or name not in own for name in names)


def _object_files(data: Path, split: str, index: SegmentationIndex) -> MaskFiles:
    """Return the file of object numbers of each image of a split."""
    base = data / OBJECTS
    folder = find_split(base, split) if base.is_dir() else None
    example = path_stem(index.name(0)) + ".png"
    expected = f"expected a PNG with the object of each pixel, 0 for none, such as {example}"
    if folder is None:
        raise DataLayoutError(base / Path(index.folder).name, f"no such folder; {expected}")
    finder = FileFinder(folder)
    names = [path_stem(index.name(i)) + ".png" for i in range(len(index))]
    matched = [finder.find(name) for name in names]
    missing = [name for name, match in zip(names, matched, strict=True) if match is None]
    if missing:
        stems = {path_stem(name) for name in finder.names("")}
        others = stems.intersection(map(path_stem, missing))
        hint = "; other formats than PNG are there, which may not keep numbers" if others else ""
        raise DataLayoutError(
            folder, f"{len(missing)} of {len(names)} files are missing: {shorten(missing)}{hint}"
        )
    return mask_files(os.fspath(folder), [os.fsencode(name) for name in matched if name])


def read_class_segments(index: SegmentsIndex, i: int) -> SegmentMap:
    """Read the segments of image i.

    Raises:
        UnreadableMask: with the mask, or with the file of object numbers.
    """
    assert index.masks is not None and index.objects is not None and index.class_file is not None
    class_ids = read_mask(index.masks.path(i), index.class_file).numpy()
    path = index.objects.path(i)
    objects = read_ids(path, allow_gray=True, allow_palette=True)
    if why := mask_mismatch(class_ids.shape, objects.shape):
        raise UnreadableMask(path, why.replace("its image", "the mask of its classes"))
    labels, is_thing = _label_tables(index)
    # of pixels with the class id: objects count in things alone
    keys = class_ids.astype(np.int64) * MOST_OBJECTS
    keys += np.where(is_thing[class_ids], objects, 0)
    values, positions = renumber(keys)
    class_of, object_of = np.divmod(values, MOST_OBJECTS)
    is_crowd = is_thing[class_of] & (object_of == 0)
    # without "things" it is not known whether pixels of no object are a crowd: background
    is_segment = (labels[class_of] != NO_CLASS) & ~(is_crowd & (index.class_file.things is None))
    numbers = np.where(is_segment, is_segment.cumsum(), 0).astype(np.int32)
    counts = np.bincount(positions.ravel(), minlength=len(values))
    return SegmentMap(
        numbers=numbers[positions],
        labels=labels[class_of[is_segment]],
        crowd=is_crowd[is_segment],
        areas=counts[is_segment],
        is_void=class_ids == IGNORED,
    )


def _label_tables(index: SegmentsIndex) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return (label of each class id or NO_CLASS int64 [256], whether it is a thing bool [256])."""
    assert index.class_file is not None
    labels = np.full(IGNORED + 1, NO_CLASS, dtype=np.int64)
    is_thing = np.zeros(IGNORED + 1, dtype=np.bool_)
    for class_id, name in enumerate(index.class_file.classes):
        if name in index.classes:
            labels[class_id] = index.classes.index(name)
            is_thing[class_id] = index.is_thing[labels[class_id]]
    return labels, is_thing
