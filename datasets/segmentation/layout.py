"""Where the images and masks of a split lie: `images/train/x.jpg`, `masks/train/x.png`, and one `classes.json` for all splits."""

import os
from pathlib import Path

import numpy as np

from visionloop.datasets.io.images import IMAGE_SUFFIXES
from visionloop.datasets.io.layout import (
    SPLIT_FOLDERS,
    DataLayoutError,
    find_split,
    is_hidden,
    nearby,
    shorten,
)
from visionloop.datasets.io.paths import files_below, join_paths
from visionloop.datasets.segmentation.class_file import read_class_file
from visionloop.datasets.segmentation.dataset import SegmentationIndex
from visionloop.datasets.segmentation.masks import MASK_SUFFIXES

IMAGES, MASKS, CLASSES = "images", "masks", "classes.json"


def find_segmentation_split(data, split, classes=None):
    """The SegmentationIndex of a split ("train", "val" or "test"), or None where there is none. Raises DataLayoutError.

    classes: names of a trained model, the ids are then its ids, by name.
    """
    data = Path(data)
    if not data.is_dir():
        raise DataLayoutError(data, "not a folder" if data.exists() else "no such folder")
    folder = find_split(data / IMAGES, split) if (data / IMAGES).is_dir() else None
    if folder is None:
        return None
    mask_folder = find_split(data / MASKS, split) if (data / MASKS).is_dir() else None
    if mask_folder is None:
        raise DataLayoutError(
            data / MASKS / folder.name,
            f"no such folder; expected a mask x.png for every image of {folder}",
        )
    class_file = read_class_file(data / CLASSES)
    if classes is not None:
        class_file = class_file.with_classes(classes)
    return _pair_up(folder, mask_folder, class_file)


def require_segmentation_split(data, split, classes=None):
    """Like find_segmentation_split, but a missing split is an error that says what was expected and what is there instead."""
    index = find_segmentation_split(data, split, classes)
    if index is not None:
        return index
    name, images = SPLIT_FOLDERS[split][0], Path(data) / IMAGES
    there = sorted(
        entry.name
        for entry in os.scandir(images if images.is_dir() else data)
        if not is_hidden(entry.name)
    )
    where = f" in {IMAGES}/" if images.is_dir() else ""
    expected = f"{IMAGES}/{name}/x.jpg with {MASKS}/{name}/x.png and {CLASSES}"
    hint = (
        "" if images.is_dir() else nearby(data, lambda folder: find_split(folder / IMAGES, split))
    )
    raise DataLayoutError(
        data, f"expected {expected}; found{where} {shorten(there) or 'nothing'}{hint}"
    )


def masks_without_image(index):
    """Paths of the masks of a split that belong to no image of it."""
    stems = {_stem(index.name(i)) for i in range(len(index))}
    files = files_below(index.mask_folder, MASK_SUFFIXES)
    return [os.path.join(index.mask_folder, name) for name in files if _stem(name) not in stems]


def _pair_up(folder, mask_folder, class_file):
    """The SegmentationIndex of two folders. A mask has the path of its image but for the suffix."""
    images, masks = files_below(folder, IMAGE_SUFFIXES), files_below(mask_folder, MASK_SUFFIXES)
    if not images:
        raise DataLayoutError(folder, f"no images in it; read are {' '.join(IMAGE_SUFFIXES)}")
    _refuse_twins(folder, images, "have one mask")
    _refuse_twins(mask_folder, masks, "are masks of one image")
    mask_of = {_stem(name): name for name in masks}
    missing = [name for name in images if _stem(name) not in mask_of]
    if missing:
        expected = os.path.join(mask_folder, _stem(missing[0]) + ".png")
        there = (
            f"; it holds {shorten(sorted(masks), 2)}"
            if masks
            else f"; it holds no {' '.join(MASK_SUFFIXES)}"
        )
        many = (
            f"{len(missing)} of {len(images)} images have no mask; the first is"
            if len(missing) > 1
            else "no mask for the image"
        )
        raise DataLayoutError(mask_folder, f"{many} {missing[0]}, expected {expected}{there}")
    chosen = [mask_of[_stem(name)] for name in images]
    mask_columns = join_paths([os.fsencode(name) for name in chosen])
    return SegmentationIndex(
        folder=os.fspath(folder),
        mask_folder=os.fspath(mask_folder),
        class_file=class_file,
        sizes=np.fromiter(images.values(), dtype=np.int64, count=len(images)),
        mask_sizes=np.fromiter((masks[name] for name in chosen), dtype=np.int64, count=len(chosen)),
        **join_paths([os.fsencode(name) for name in images]),
        **{f"mask_{column}": value for column, value in mask_columns.items()},
    )


def _stem(name):
    return os.path.splitext(name)[0]


def _refuse_twins(folder, names, why):
    """Raises DataLayoutError for two files that differ in their suffix alone."""
    first = {}
    for name in names:
        if first.setdefault(_stem(name), name) != name:
            raise DataLayoutError(folder, f"{first[_stem(name)]} and {name} {why}; keep one")
