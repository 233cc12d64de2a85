"""The preflight of images with masks: everything wrong with them at once, over all splits."""

from collections import defaultdict
from functools import partial

import numpy as np
from PIL import Image
from tqdm import tqdm

from visionloop.datasets.io.images import EXIF_ORIENTATION, UPRIGHT
from visionloop.datasets.io.layout import shorten
from visionloop.datasets.segmentation.dataset import mask_mismatch
from visionloop.datasets.segmentation.layout import (
    find_segmentation_split,
    masks_without_image,
    require_segmentation_split,
)
from visionloop.datasets.segmentation.mask_values import IGNORED
from visionloop.datasets.segmentation.masks import UnreadableMask, read_mask
from visionloop.datasets.segmentation.transforms import fitting_placement
from visionloop.tasks.checks import (
    decode_all,
    find_splits,
    note,
    note_unmatched_files,
    report_copies,
)
from visionloop.tasks.segmentation.data import NO_VALIDATION, require_data

FEW = 10  # images of a class below which a score for it means little
# share of pixels ignored, or of images that a class vanishes from, that is worth a warning
MOSTLY = 0.5
LISTED = 20  # classes in a line


def check_segmentation_data(data, val_split, image_size):
    """{"errors": [{"path", "why"}], "warnings": [..], "classes": {name: pixels in training}, "lines": [..]} of a folder with masks.

    Reads every image and mask. lines: how many classes an image holds, the share of each class
    in the training pixels, and which vanish when a whole image is shown at `image_size` pixels.
    Nothing is written.
    """
    require_data(data)
    found = {"errors": [], "warnings": [], "classes": {}, "lines": []}
    indexes = _find_splits(data, val_split, found)
    sizes_hw = _check_images(indexes, found)
    pixels, shown = {}, {}
    with tqdm(
        total=sum(map(len, indexes.values())),
        desc="reading masks",
        unit="mask",
        disable=None,
        leave=False,
    ) as bar:
        for split, index in indexes.items():
            pixels[split], shown[split] = _read_masks(
                index, sizes_hw[split], image_size, found, bar
            )
            _check_ignored(split, index, pixels[split], found)
    if "train" in indexes:
        _describe(indexes["train"], pixels["train"], found)
        _check_classes(indexes, pixels, found)
        _check_vanishing(indexes["train"], pixels["train"], shown["train"], image_size, found)
    return found


def _find_splits(data, val_split, found):
    """{split: index} of the splits that can be read; problems of the layout go into `found`."""
    find, require = (
        partial(function, data)
        for function in (find_segmentation_split, require_segmentation_split)
    )
    indexes = find_splits(data, val_split, found, find=find, require=require, missing=NO_VALIDATION)
    for index in indexes.values():
        note_unmatched_files(
            found, index.mask_folder, masks_without_image(index), "masks without an image"
        )
    return indexes


def _check_images(indexes, found):
    """{split: {row: (height, width)}} of the images that can be read. Says which cannot, and which are there twice."""
    sizes_hw, places, turned = (
        {split: {} for split in indexes},
        defaultdict(list),
        defaultdict(list),
    )
    for split, row, path, size_hw, digest in decode_all(indexes, found):
        sizes_hw[split][row] = size_hw
        places[digest].append((split, "", path))
        if turned_in_place(path, size_hw):
            turned[split].append(indexes[split].name(row))
    for split, names in turned.items():
        why = f"{len(names)} images are turned by EXIF and keep their size: {shorten(names)}"
        note(
            found,
            "warnings",
            indexes[split].folder,
            f"{why}; whether their masks were drawn upright cannot be told, look at them",
        )
    for copies in places.values():
        report_copies(copies, found)
    return sizes_hw


def turned_in_place(path, size_hw):
    """Whether EXIF turns or mirrors an image so that its size (height, width) does not show it."""
    try:
        with Image.open(path) as image:
            orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # a broken block counts as none
        return False
    return orientation in UPRIGHT and (orientation < 5 or size_hw[0] == size_hw[1])


def _read_masks(index, sizes_hw, image_size, found, bar):
    """(pixels of each class id in each mask, int64 [N, 256]; whether it is left when the whole is shown at image_size, bool [N, 256])."""
    pixels, shown = (
        np.zeros((len(index), IGNORED + 1), dtype=np.int64),
        np.zeros((len(index), IGNORED + 1), dtype=bool),
    )
    for row in range(len(index)):
        bar.update()
        path = index.mask_path(row)
        try:
            ids = read_mask(path, index.class_file).numpy()
        except UnreadableMask as error:
            note(found, "errors", path, error.why)
            continue
        why = mask_mismatch(sizes_hw[row], ids.shape) if row in sizes_hw else None
        if why:
            note(found, "errors", path, why)
        pixels[row] = np.bincount(ids.ravel(), minlength=IGNORED + 1)
        fitted = fitting_placement(*ids.shape, image_size).ids(ids, image_size)
        shown[row, np.unique(fitted)] = True
    return pixels, shown


def _check_ignored(split, index, pixels, found):
    total, valid = pixels.sum(axis=1), pixels[:, :IGNORED].sum(axis=1)
    empty = np.flatnonzero((total > 0) & (valid == 0)).tolist()
    if empty:
        why = f"{len(empty)} masks hold ignored pixels alone: {shorten([index.name(row) for row in empty])}"
        note(found, "warnings", index.mask_folder, why)
    if total.sum() and not valid.sum():
        note(
            found,
            "errors",
            index.mask_folder,
            f"no mask of {split} has a pixel of any class; nothing can be learned or scored",
        )
    elif total.sum() and 1 - valid.sum() / total.sum() > MOSTLY:
        why = f"{100 * (1 - valid.sum() / total.sum()):.0f} % of the pixels are ignored"
        note(
            found,
            "warnings",
            index.mask_folder,
            f"{why}; are the values in {index.class_file.path} right?",
        )


def _describe(train, pixels, found):
    """The counts of classes and lines about them."""
    counts, ignored = pixels[:, : len(train.classes)].sum(axis=0), int(pixels[:, IGNORED].sum())
    found["classes"] = dict(zip(train.classes, counts.tolist(), strict=True))
    a_image = (pixels[:, :IGNORED] > 0).sum(axis=1)
    found["lines"].append(
        f"{len(train)} images in train, {a_image.mean():.1f} classes an image, {a_image.max()} at most"
    )
    if counts.any():
        shares = [
            f"{train.classes[label]} {100 * counts[label] / counts.sum():.2g} %"
            for label in np.argsort(-counts, kind="stable")
        ]
        share = 100 * ignored / (ignored + counts.sum())
        found["lines"].append(
            f"pixels in train: {shorten(shares, LISTED)}; {share:.2g} % of all are ignored"
        )


def _check_classes(indexes, pixels, found):
    """Classes that are not there, or hardly."""
    train = indexes["train"]
    images = {
        split: (counts[:, : len(train.classes)] > 0).sum(axis=0) for split, counts in pixels.items()
    }
    unseen = [name for name, count in zip(train.classes, images["train"], strict=True) if not count]
    if unseen:
        # the first class alone is what is left over when values count from 1
        hint = (
            '; if the files count from 1, say "ids": "shift"'
            if unseen == [train.classes[0]] and train.class_file.table[0] == 0
            else ""
        )
        why = f"{len(unseen)} of {len(train.classes)} classes are never seen in train: {shorten(unseen, LISTED)}{hint}"
        note(found, "warnings", train.class_file.path, why)
    few = [
        f"{count} with {name}"
        for name, count in zip(train.classes, images["train"], strict=True)
        if 0 < count < FEW
    ]
    if few:
        note(
            found,
            "warnings",
            train.folder,
            f"few images: {shorten(few)}; a class wants at least {FEW}",
        )
    for split in [split for split in indexes if split != "train"]:
        pairs = list(zip(train.classes, images["train"] > 0, images[split] > 0, strict=True))
        unlearned = [name for name, known, there in pairs if there and not known]
        unscored = [name for name, known, there in pairs if known and not there]
        if unlearned:
            note(
                found,
                "warnings",
                indexes[split].folder,
                f"{split} holds classes that train never shows: {shorten(unlearned)}",
            )
        if unscored:
            note(
                found,
                "warnings",
                indexes[split].folder,
                f"{split} has no pixel of {shorten(unscored)}; they get no score",
            )


def _check_vanishing(train, pixels, shown, image_size, found):
    """What is too small or thin to be seen when a whole image is shown at image_size."""
    there, left = (pixels > 0).sum(axis=0), (shown & (pixels > 0)).sum(axis=0)
    lost = {
        name: 1 - left[label] / there[label]
        for label, name in enumerate(train.classes)
        if there[label] > left[label]
    }
    if not lost:
        return
    rows = [
        f"{name} from {100 * share:.0f} %"
        for name, share in sorted(lost.items(), key=lambda item: -item[1])
    ]
    found["lines"].append(
        f"classes that vanish from images shown whole at {image_size} px: {shorten(rows, LISTED)} of those with them"
    )
    worst = [name for name, share in lost.items() if share > MOSTLY]
    if worst:
        why = f"mostly too small to be seen at {image_size} px: {shorten(worst)}; consider a larger --image-size, or smaller images"
        note(found, "warnings", train.folder, why)
