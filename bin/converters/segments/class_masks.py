"""Reader of masks of class ids with masks of object numbers as regions.

These are `images/<split>/`, `masks/<split>/`, `instances/<split>/` and `classes.json`, see
datasets/segments/class_masks.py.
"""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

from visionloop.bin.converters.conversion import ConversionReport
from visionloop.bin.converters.outlines import Region
from visionloop.bin.converters.segments.number_maps import UNCOVERED, VOID, regions_of_maps
from visionloop.bin.converters.segments.split import SegmentSplit, choose_things, numbered
from visionloop.datasets.io.layout import DataLayoutError
from visionloop.datasets.segmentation.class_file import ClassFile, read_class_file
from visionloop.datasets.segmentation.dataset import mask_mismatch
from visionloop.datasets.segmentation.layout import CLASSES, IMAGES, MASKS
from visionloop.datasets.segmentation.mask_values import IGNORED
from visionloop.datasets.segmentation.masks import read_mask
from visionloop.datasets.segments.annotation_files import OBJECTS
from visionloop.datasets.segments.class_masks import find_mask_split
from visionloop.datasets.segments.id_maps import read_ids

SPLITS = ("train", "val", "test")

MaskPaths: TypeAlias = tuple[str, str]  # files of class ids and of object numbers


def holds_class_masks(source: str | os.PathLike[str]) -> bool:
    """Return whether a folder has the three folders and the file of this layout."""
    top = Path(source)
    folders = all((top / name).is_dir() for name in (IMAGES, MASKS, OBJECTS))
    return folders and (top / CLASSES).is_file()


def read_class_masks(
    source: str, report: ConversionReport, *, things: Sequence[str] | None
) -> dict[str, SegmentSplit]:
    """Read all splits. Pixels of a thing without a number are a crowd.

    Where neither `classes.json` nor the command line names things, they are no annotation: such a
    class may well be stuff.

    Args:
        source: folder.
        report: receives the files that cannot be used.
        things: names of the classes that are things; None: those of `classes.json`, or all.

    Returns:
        {split: SegmentSplit}.

    Raises:
        DataLayoutError: for a folder that is laid out otherwise.
        UserError: see choose_things.
    """
    class_file = read_class_file(Path(source) / CLASSES)
    classes, own = class_file.classes, class_file.things
    stated = None if own is None else [name in own for name in classes]
    is_thing = choose_things(classes, things, source, stated)
    read = partial(_read, class_file=class_file, things=is_thing, has_crowds=bool(things or stated))
    colors = None if class_file.colors is None else class_file.colors.tolist()
    splits: dict[str, SegmentSplit] = {}
    for split in SPLITS:
        index = find_mask_split(source, split, "panoptic" if stated else "instance")
        if index is None:
            continue
        assert index.masks is not None and index.objects is not None
        rows = range(len(index))
        splits[split] = SegmentSplit(
            folder=index.folder,
            names=[index.name(i) for i in rows],
            entries=[(index.masks.path(i), index.objects.path(i)) for i in rows],
            classes=classes,
            read=read,
            things=is_thing,
            category_ids=numbered(classes),
            colors=colors and tuple((red, green, blue) for red, green, blue in colors),
        )
    if not splits:
        raise DataLayoutError(source, f"no images in {IMAGES}/train/; expected also {MASKS}/train/")
    return splits


def _read(
    paths: MaskPaths,
    size_hw: tuple[int, int],
    report: ConversionReport,
    *,
    class_file: ClassFile,
    things: Sequence[bool],
    has_crowds: bool,
) -> list[Region] | None:
    """Return the segments of an image, None after adding a problem. Raises UnreadableMask.

    has_crowds: whether pixels of a thing without a number are a crowd, not without annotation.
    """
    ids = read_mask(paths[0], class_file).numpy()
    objects = read_ids(paths[1], allow_gray=True, allow_palette=True)
    for path, shape in zip(paths, (ids.shape, objects.shape), strict=True):
        if why := mask_mismatch(size_hw, shape):
            report.add_problem(path, why)
            return None
    labels = np.where(ids == IGNORED, VOID, ids.astype(np.int64))
    if not has_crowds:
        labels[(ids != IGNORED) & (objects == 0)] = UNCOVERED
    return regions_of_maps(labels, objects, things, paths[1])
