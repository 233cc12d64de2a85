"""Masks in the form of Pascal VOC's segmentation: coloured `SegmentationClass/*.png`, `JPEGImages/`, `ImageSets/Segmentation/*.txt`."""

import os
from dataclasses import replace
from functools import partial

import numpy as np
from PIL import Image

from visionloop.bin.converters.masks import IGNORED, MaskSplit, place_background
from visionloop.bin.converters.voc import (
    IMAGES,
    find_voc_root,
    list_images,
    list_splits,
    wrong_files,
)
from visionloop.datasets.io.layout import DataLayoutError
from visionloop.datasets.segmentation.class_file import plain_class_file, read_class_file
from visionloop.datasets.segmentation.dataset import mask_mismatch
from visionloop.datasets.segmentation.masks import UnreadableMask, read_mask

MASKS, LISTS = "SegmentationClass", "ImageSets/Segmentation"
COLOUR_MAP = "labelmap.txt"
BACKGROUND = "background"
BORDER = (224, 224, 192)  # around VOC's objects; the value 255 in its palette
VOC_CLASSES = (
    BACKGROUND, "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def read_voc_masks(source, findings, *, background, classes_file=None):
    """{split: MaskSplit} of a folder with SegmentationClass/, or of the one such folder below `source`.

    findings: takes what is broken; background: name for the class called "background", which
    becomes class 0, or "ignore"; where there is no such class it has no effect; classes_file:
    classes.json or CVAT's labelmap.txt; None: the folder's labelmap.txt, or else the 21 classes of
    VOC, if the masks have their colours. Raises DataLayoutError.
    """
    root = find_voc_root(source, MASKS, ".png")
    if classes_file is None and (root / COLOUR_MAP).is_file():
        classes_file = root / COLOUR_MAP
    class_file = read_names(classes_file)
    classes, rest = _place(class_file.classes, background)
    new_ids = np.full(256, IGNORED, dtype=np.uint8)
    for value, name in enumerate(class_file.classes):
        if name in classes:
            new_ids[value] = classes.index(name)
        elif rest != IGNORED:  # the background, under its new name
            new_ids[value] = rest
    colors = None
    if class_file.colors is not None:
        colors = {
            classes[new_ids[value]]: colour.tolist()
            for value, colour in enumerate(class_file.colors)
            if new_ids[value] != IGNORED
        }
    files = list_images(root)
    draw = partial(
        _draw,
        root=root,
        class_file=class_file,
        new_ids=new_ids,
        grey_is_named=classes_file is not None,
    )
    splits = {}
    for split, stems in list_splits(root, LISTS, MASKS, ".png").items():
        good = []
        for stem in stems:
            if why := wrong_files(files.get(stem, [])):
                findings.problem(root / MASKS / f"{stem}.png", why)
            else:
                good.append(stem)
        splits[split] = MaskSplit(
            os.fspath(root / IMAGES),
            [files[stem][0] for stem in good],
            good,
            draw,
            classes,
            rest,
            colors,
        )
    return splits


def _place(names, background):
    """(classes, rest): the class of unlabelled pixels first, under the name given, or left out for "ignore"."""
    unlabelled = next((name for name in names if name in (background, BACKGROUND)), None)
    if unlabelled is None:
        return tuple(names), IGNORED
    return place_background([name for name in names if name != unlabelled], background)


def read_names(path):
    """The ClassFile of a classes.json or a labelmap.txt; None: that of VOC."""
    if path is None:
        return _coloured("VOC's palette", VOC_CLASSES, voc_colours(len(VOC_CLASSES)))
    if str(path).lower().endswith(".json"):
        return read_class_file(path)
    return _coloured(path, *_read_colour_map(path))


def _coloured(path, names, colours):
    """The ClassFile of masks whose colours count, whether they are palette files or RGB."""
    try:
        plain = plain_class_file(names, path)
    except ValueError as error:
        raise DataLayoutError(path, str(error)) from None
    ids = {BORDER: IGNORED} | {tuple(colour): value for value, colour in enumerate(colours)}
    return replace(plain, colors=np.array(colours, dtype=np.uint8), color_ids=ids, palette="colors")


def voc_colours(count):
    """The colours of VOC's palette: the bits of the value dealt out to red, green and blue, the highest first. [(r, g, b)]."""
    colours = []
    for value in range(count):
        parts = [0, 0, 0]
        for place in range(8):
            for channel in range(3):
                parts[channel] |= (value >> 3 * place + channel & 1) << 7 - place
        colours.append(tuple(parts))
    return colours


def _read_colour_map(path):
    """(names, colours) of CVAT's labelmap.txt: `name:r,g,b:parts:actions` on each line, `#` before comments."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.strip() for line in file.read().splitlines()]
    except UnicodeDecodeError as error:
        raise DataLayoutError(path, f"not UTF-8 at byte {error.start}") from None
    except OSError as error:
        raise DataLayoutError(path, error.strerror) from None
    colour_of = {}
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        name, _, rest = (part.strip() for part in line.partition(":"))
        parts = [part.strip() for part in rest.split(":")[0].split(",")]
        if (
            not name
            or len(parts) != 3
            or not all(part.isascii() and part.isdigit() and int(part) < 256 for part in parts)
        ):
            raise DataLayoutError(
                path, f"line {number}: {line[:60]!r}, expected name:red,green,blue with 0 to 255"
            )
        colour = tuple(map(int, parts))
        if name in colour_of or colour in colour_of.values():
            raise DataLayoutError(
                path, f"line {number}: the name or the colour of {name!r} is there twice"
            )
        colour_of[name] = colour
    return tuple(colour_of), list(colour_of.values())


def _draw(stem, size_hw, findings, *, root, class_file, new_ids, grey_is_named):
    """The mask of an image in the new ids. Raises UnreadableMask."""
    path = root / MASKS / f"{stem}.png"
    ids = read_mask(path, class_file).numpy()
    if not grey_is_named and not _has_colours(path):
        raise UnreadableMask(
            path, "is grey, and nothing names the classes of its values; give --classes"
        )
    if why := mask_mismatch(size_hw, ids.shape):
        raise UnreadableMask(path, why)
    return new_ids[ids]


def _has_colours(path):
    with Image.open(path) as image:
        return image.mode in ("P", "RGB", "RGBA")
