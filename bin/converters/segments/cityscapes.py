"""Reader of Cityscapes as regions: gtFine/*_gtFine_instanceIds.png and leftImg8bit/."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from visionloop.bin.converters.conversion import ConversionReport
from visionloop.bin.converters.outlines import Region
from visionloop.bin.converters.segments.number_maps import VOID, regions_of_maps
from visionloop.bin.converters.segments.split import SegmentSplit, choose_things
from visionloop.datasets.io.layout import DataLayoutError
from visionloop.datasets.io.names import FileFinder
from visionloop.datasets.io.paths import files_below
from visionloop.datasets.segmentation.dataset import mask_mismatch
from visionloop.datasets.segmentation.masks import UnreadableMask
from visionloop.datasets.segments.id_maps import read_ids

SPLITS = ("train", "val")  # the published annotations of test are empty
LABELS, IMAGES = "gtFine", "leftImg8bit"
LABEL_SUFFIX, IMAGE_SUFFIX = "_gtFine_instanceIds.png", "_leftImg8bit.png"
MAX_LABEL = 33
PER_LABEL = 1000  # value = label * 1000 + number of the object; below: label of a group or of stuff

Color: TypeAlias = tuple[int, int, int]

# (label id, name, whether it is a thing, color) of the classes that are evaluated, from
# cityscapesScripts/cityscapesscripts/helpers/labels.py
CLASSES: tuple[tuple[int, str, bool, Color], ...] = (
    (7, "road", False, (128, 64, 128)),
    (8, "sidewalk", False, (244, 35, 232)),
    (11, "building", False, (70, 70, 70)),
    (12, "wall", False, (102, 102, 156)),
    (13, "fence", False, (190, 153, 153)),
    (17, "pole", False, (153, 153, 153)),
    (19, "traffic light", False, (250, 170, 30)),
    (20, "traffic sign", False, (220, 220, 0)),
    (21, "vegetation", False, (107, 142, 35)),
    (22, "terrain", False, (152, 251, 152)),
    (23, "sky", False, (70, 130, 180)),
    (24, "person", True, (220, 20, 60)),
    (25, "rider", True, (255, 0, 0)),
    (26, "car", True, (0, 0, 142)),
    (27, "truck", True, (0, 0, 70)),
    (28, "bus", True, (0, 60, 100)),
    (31, "train", True, (0, 80, 100)),
    (32, "motorcycle", True, (0, 0, 230)),
    (33, "bicycle", True, (119, 11, 32)),
)


def read_cityscapes(
    source: str, report: ConversionReport, *, things: Sequence[str] | None
) -> dict[str, SegmentSplit]:
    """Read the 19 evaluated classes of train and val; category ids are Cityscapes' label ids.

    A group of objects, which has no number, is a crowd; labels that are not evaluated are void.

    Args:
        source: folder with gtFine/ and leftImg8bit/, or gtFine/ itself.
        report: receives the files that cannot be used.
        things: None; Cityscapes says which classes are things.

    Returns:
        {split: SegmentSplit}.

    Raises:
        DataLayoutError: for a folder that is laid out otherwise.
        UserError: see choose_things.
    """
    top = find_top(source)
    if top is None:
        why = f"no Cityscapes; expected {LABELS}/train/*/*{LABEL_SUFFIX} and {IMAGES}/train/"
        raise DataLayoutError(source, why)
    classes = tuple(name for _, name, _, _ in CLASSES)
    is_thing = choose_things(classes, things, source, [thing for _, _, thing, _ in CLASSES])
    splits: dict[str, SegmentSplit] = {}
    for split in SPLITS:
        if not (top / LABELS / split).is_dir():
            continue
        names, entries = _match_files(top, split, report)
        splits[split] = SegmentSplit(
            folder=os.fspath(top / IMAGES / split),
            names=names,
            entries=entries,
            classes=classes,
            read=partial(_read, labels=_label_table(), things=is_thing),
            things=is_thing,
            category_ids=tuple(key for key, _, _, _ in CLASSES),
            colors=tuple(color for _, _, _, color in CLASSES),
        )
    return splits


def find_top(source: str | os.PathLike[str]) -> Path | None:
    """Return the folder that holds gtFine/, None without one that has train/ or val/."""
    folder = Path(os.path.abspath(source))
    top = folder.parent if folder.name == LABELS else folder
    return top if any((top / LABELS / split).is_dir() for split in SPLITS) else None


def _match_files(top: Path, split: str, report: ConversionReport) -> tuple[list[str], list[str]]:
    """Return (images relative to their folder, label files) of a split.

    Raises DataLayoutError without the folder of the images.
    """
    folder = top / IMAGES / split
    if not folder.is_dir():
        raise DataLayoutError(folder, f"no such folder; expected the images of {LABELS}/{split}/")
    finder = FileFinder(folder)
    names, entries = [], []
    for name in files_below(top / LABELS / split, (".png",)):
        if not name.endswith(LABEL_SUFFIX):
            continue
        path = os.fspath(top / LABELS / split / name)
        image = name.removesuffix(LABEL_SUFFIX) + IMAGE_SUFFIX
        if finder.find(image) is None:
            report.add_problem(path, f"its image {image} is not in {folder}")
            continue
        names.append(image)
        entries.append(path)
    return names, entries


def _label_table() -> NDArray[np.int64]:
    """Return the position in CLASSES of each label id, or VOID."""
    table = np.full(MAX_LABEL + 1, VOID, dtype=np.int64)
    for position, (key, _, _, _) in enumerate(CLASSES):
        table[key] = position
    return table


def _read(
    path: str,
    size_hw: tuple[int, int],
    report: ConversionReport,
    *,
    labels: NDArray[np.int64],
    things: Sequence[bool],
) -> list[Region] | None:
    """Return the segments of an image, None after adding a problem. Raises UnreadableMask."""
    values = read_ids(path, allow_gray=True)
    if why := mask_mismatch(size_hw, values.shape):
        report.add_problem(path, why)
        return None
    is_object = values >= PER_LABEL
    keys = np.where(is_object, values // PER_LABEL, values)
    if keys.max(initial=0) > MAX_LABEL:
        value = int(values[keys > MAX_LABEL][0])
        why = (
            f"holds the value {value}, expected labels up to {MAX_LABEL}, or label * 1000 + number"
        )
        raise UnreadableMask(path, why)
    return regions_of_maps(labels[keys], np.where(is_object, values, 0), things, path)
