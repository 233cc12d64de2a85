"""Reader of Pascal VOC's objects as regions: SegmentationClass/ and SegmentationObject/."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visionloop.bin.converters.conversion import ConversionReport, PathLike
from visionloop.bin.converters.masks import IGNORED, DrawMask
from visionloop.bin.converters.outlines import Region
from visionloop.bin.converters.segments.number_maps import (
    UNCOVERED,
    VOID,
    regions_of_maps,
)
from visionloop.bin.converters.segments.split import SegmentSplit, choose_things, numbered
from visionloop.bin.converters.voc_layout import child_folder, find_voc_folders
from visionloop.bin.converters.voc_masks import BACKGROUND, MASKS, read_voc_masks
from visionloop.datasets.io.layout import DataLayoutError
from visionloop.datasets.segmentation.dataset import mask_mismatch
from visionloop.datasets.segments.id_maps import read_ids

OBJECTS = "SegmentationObject"


def read_voc_objects(
    source: str,
    report: ConversionReport,
    *,
    things: Sequence[str] | None,
    classes_file: PathLike | None,
) -> dict[str, SegmentSplit]:
    """Read a folder with SegmentationClass/ and SegmentationObject/.

    The class of a pixel is read as in read_voc_masks; the class "background" is no annotation, and
    ignored pixels are void.

    Args:
        source: folder.
        report: receives the images without exactly one file.
        things: names of the classes that are things; None: all.
        classes_file: see read_voc_masks.

    Returns:
        {split: SegmentSplit}.

    Raises:
        DataLayoutError: for a folder that is laid out otherwise.
        UserError: see choose_things.
    """
    masks, _ = find_voc_folders(source, MASKS, ".png")
    objects = child_folder(masks.parent, OBJECTS)
    if objects is None:
        raise DataLayoutError(masks.parent, f"{OBJECTS}/ is missing; {MASKS}/ has no objects")
    splits = read_voc_masks(source, report, background=BACKGROUND, classes_file=classes_file)
    converted: dict[str, SegmentSplit] = {}
    for split, index in splits.items():
        has_background = index.background_id != IGNORED
        classes = index.classes[has_background:]  # the background is the first
        is_thing = choose_things(classes, things, source)
        labels = np.full(IGNORED + 1, VOID, dtype=np.int64)
        labels[: len(index.classes)] = np.arange(len(index.classes)) - has_background
        if has_background:
            labels[0] = UNCOVERED
        converted[split] = SegmentSplit(
            folder=index.folder,
            names=index.names,
            entries=index.entries,
            classes=classes,
            read=partial(_read, draw=index.draw, objects=objects, labels=labels, things=is_thing),
            things=is_thing,
            category_ids=numbered(classes),
        )
    return converted


def _read(
    stem: str,
    size_hw: tuple[int, int],
    report: ConversionReport,
    *,
    draw: DrawMask,
    objects: Path,
    labels: NDArray[np.int64],
    things: Sequence[bool],
) -> list[Region] | None:
    """Return the objects of an image, None after adding a problem. Raises UnreadableMask.

    labels: int64 [256], of each class id.
    """
    ids = draw(stem, size_hw, report)
    path = objects / f"{stem}.png"
    numbers = read_ids(path, allow_gray=True, allow_palette=True)
    if why := mask_mismatch(size_hw, numbers.shape):
        report.add_problem(path, why)
        return None
    return None if ids is None else regions_of_maps(labels[ids], numbers, things, str(path))
