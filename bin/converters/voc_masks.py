"""Reader of Pascal VOC segmentation.

The folder holds colored `SegmentationClass/*.png`, `JPEGImages/` and
`ImageSets/Segmentation/*.txt`.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visionloop.bin.converters.conversion import ConversionReport, PathLike
from visionloop.bin.converters.image_files import ImageFiles
from visionloop.bin.converters.masks import IGNORED, Mask, MaskSplit, add_background
from visionloop.bin.converters.voc_layout import (
    find_voc_folders,
    image_problem,
    list_splits,
)
from visionloop.datasets.io.layout import DataLayoutError
from visionloop.datasets.io.text import NotText, read_text
from visionloop.datasets.segmentation.class_file import (
    ClassFile,
    plain_class_file,
    read_class_file,
)
from visionloop.datasets.segmentation.dataset import mask_mismatch
from visionloop.datasets.segmentation.masks import UnreadableMask, read_mask

MASKS, LISTS = "SegmentationClass", "ImageSets/Segmentation"
COLOR_MAP = "labelmap.txt"
BACKGROUND = "background"
BORDER = (224, 224, 192)  # around VOC's objects; the value 255 in its palette
VOC_CLASSES = (
    BACKGROUND,
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)

Color: TypeAlias = tuple[int, int, int]  # red, green, blue


def read_voc_masks(
    source: str,
    report: ConversionReport,
    *,
    background: str,
    classes_file: PathLike | None = None,
) -> dict[str, MaskSplit]:
    """Read a folder with SegmentationClass/, or the only such folder below `source`.

    Args:
        source: folder.
        report: receives the images without exactly one file.
        background: new name of the class called "background", which becomes class 0; "ignore": its
            pixels are ignored. Without such a class it has no effect.
        classes_file: classes.json or CVAT's labelmap.txt. None: the labelmap.txt of the folder, or
            else the 21 classes of VOC, if the masks have their colors.

    Returns:
        {split: MaskSplit}.

    Raises:
        DataLayoutError: for a folder that is laid out otherwise.
    """
    masks, folder = find_voc_folders(source, MASKS, ".png")
    color_map = masks.parent / COLOR_MAP
    if classes_file is None and color_map.is_file():
        classes_file = color_map
    class_file = read_class_names(classes_file)
    classes, background_id = _with_background_first(class_file.classes, background)
    new_ids = _new_ids(class_file.classes, classes, background_id)
    files = ImageFiles(folder)
    draw = partial(
        _draw,
        masks=masks,
        class_file=class_file,
        new_ids=new_ids,
        allow_gray=classes_file is not None,
    )
    splits = {}
    for split, stems in list_splits(masks, LISTS, ".png").items():
        valid_stems = []
        for stem in stems:
            if why := image_problem(files.find(stem), folder):
                report.add_problem(masks / f"{stem}.png", why)
            else:
                valid_stems.append(stem)
        splits[split] = MaskSplit(
            folder=os.fspath(folder),
            names=[files.find(stem)[0] for stem in valid_stems],
            entries=valid_stems,
            draw=draw,
            classes=classes,
            background_id=background_id,
            colors=_new_colors(class_file, classes, new_ids),
        )
    return splits


def _with_background_first(names: Sequence[str], background: str) -> tuple[tuple[str, ...], int]:
    """Return (class names, background id) with the background first, under its new name.

    Left out for "ignore".
    """
    old_name = next((name for name in names if name in (background, BACKGROUND)), None)
    if old_name is None:
        return tuple(names), IGNORED
    return add_background([name for name in names if name != old_name], background)


def _new_ids(old_classes: Sequence[str], classes: Sequence[str], background_id: int) -> Mask:
    """Return the table of new class ids, uint8 [256], indexed by the old ones."""
    new_ids = np.full(256, IGNORED, dtype=np.uint8)
    for value, name in enumerate(old_classes):
        if name in classes:
            new_ids[value] = classes.index(name)
        elif background_id != IGNORED:  # the background, under its new name
            new_ids[value] = background_id
    return new_ids


def _new_colors(
    class_file: ClassFile, classes: Sequence[str], new_ids: Mask
) -> dict[str, list[int]] | None:
    """Return {class: color} under the new names, None without colors."""
    if class_file.colors is None:
        return None
    return {
        classes[new_ids[value]]: color.tolist()
        for value, color in enumerate(class_file.colors)
        if new_ids[value] != IGNORED
    }


def read_class_names(path: PathLike | None) -> ClassFile:
    """Read a classes.json or a labelmap.txt; None returns the classes of VOC."""
    if path is None:
        return _color_class_file("VOC's palette", VOC_CLASSES, voc_colors(len(VOC_CLASSES)))
    if str(path).lower().endswith(".json"):
        return read_class_file(path)
    return _color_class_file(path, *_read_color_map(path))


def _color_class_file(path: PathLike, names: Sequence[str], colors: Sequence[Color]) -> ClassFile:
    """Return the ClassFile of masks whose colors count, whether they are palette files or RGB."""
    try:
        plain = plain_class_file(names, path)
    except ValueError as error:
        raise DataLayoutError(path, str(error)) from None
    ids = {BORDER: IGNORED} | {color: value for value, color in enumerate(colors)}
    return replace(plain, colors=np.array(colors, dtype=np.uint8), color_ids=ids, palette="colors")


def voc_colors(count: int) -> list[Color]:
    """Return the first colors of VOC's palette.

    The bits of the value are distributed to red, green and blue in turn, the highest bits of the
    channels first.
    """
    colors = []
    for value in range(count):
        channels = [0, 0, 0]
        for place in range(8):
            for channel in range(3):
                channels[channel] |= (value >> 3 * place + channel & 1) << 7 - place
        red, green, blue = channels
        colors.append((red, green, blue))
    return colors


def _read_color_map(path: PathLike) -> tuple[tuple[str, ...], list[Color]]:
    """Return (names, colors) of CVAT's labelmap.txt.

    Each line is `name:r,g,b:parts:actions`; comments begin with `#`.
    """
    try:
        lines = [line.strip() for line in read_text(path).split("\n")]
    except NotText as error:
        raise DataLayoutError(path, str(error)) from None
    except OSError as error:
        raise DataLayoutError(path, error.strerror or str(error)) from None
    color_of: dict[str, Color] = {}
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        name, _, rest = (part.strip() for part in line.partition(":"))
        color = _parse_color(rest.split(":")[0])
        if not name or color is None:
            why = f"line {number}: {line[:60]!r}, expected name:red,green,blue with 0 to 255"
            raise DataLayoutError(path, why)
        if name in color_of or color in color_of.values():
            why = f"line {number}: the name or the color of {name!r} is used twice"
            raise DataLayoutError(path, why)
        color_of[name] = color
    return tuple(color_of), list(color_of.values())


def _parse_color(text: str) -> Color | None:
    """Return the color of `r,g,b`, or None for other text."""
    channels = [channel.strip() for channel in text.split(",")]
    valid = [int(c) for c in channels if c.isascii() and c.isdigit() and int(c) < 256]
    if len(channels) != 3 or len(valid) != 3:
        return None
    red, green, blue = valid
    return red, green, blue


def _draw(
    stem: str,
    size_hw: tuple[int, int],
    report: ConversionReport,
    *,
    masks: Path,
    class_file: ClassFile,
    new_ids: NDArray[np.uint8],
    allow_gray: bool,
) -> Mask:
    """Return the mask of an image in the new ids. Raises UnreadableMask.

    allow_gray: whether values of gray files have names.
    """
    path = masks / f"{stem}.png"
    ids = read_mask(path, class_file).numpy()
    if not allow_gray and not _has_colors(path):
        why = "is gray, and its values have no class names; give --classes"
        raise UnreadableMask(path, why)
    if why_not := mask_mismatch(size_hw, ids.shape):
        raise UnreadableMask(path, why_not)
    mask: Mask = new_ids[ids]
    return mask


def _has_colors(path: Path) -> bool:
    """Return whether an image file has colors."""
    with Image.open(path) as image:
        return image.mode in ("P", "RGB", "RGBA")
