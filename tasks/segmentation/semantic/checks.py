"""Checks of a data folder of images with masks: all problems of all splits at once."""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from visionloop.datasets.io.layout import shorten
from visionloop.datasets.segmentation.dataset import SegmentationIndex, mask_mismatch
from visionloop.datasets.segmentation.layout import (
    find_segmentation_split,
    masks_without_image,
    require_segmentation_split,
)
from visionloop.datasets.segmentation.mask_values import IGNORED
from visionloop.datasets.segmentation.masks import UnreadableMask, gray_palette_mismatch, read_mask
from visionloop.datasets.segmentation.transforms import fitting_placement
from visionloop.engine.types import JsonObject
from visionloop.tasks.checks import (
    add_problem,
    add_unmatched_files,
    find_splits,
)
from visionloop.tasks.segmentation.checks import (
    SizesHW,
    check_images,
    check_other_splits,
    percent,
)
from visionloop.tasks.segmentation.semantic.data import NO_VALIDATION, require_data

FEW = 10  # images of a class below which a score for it means little
# share of pixels ignored, or of images that a class vanishes from, that is worth a warning
MOSTLY = 0.5
MAX_LISTED = 20  # classes in a line

Indexes = dict[str, SegmentationIndex]  # {split: index}
PixelCounts = NDArray[np.int64]  # [N, 256], pixels of each class id in each mask


def check_segmentation_data(data: str | None, val_split: float, image_size: int) -> JsonObject:
    """Check a data folder of images with masks. Reads every image and mask, and writes nothing.

    Args:
        data: the data folder.
        val_split: share of the training images that is set aside for validation.
        image_size: side of the network's input in pixels.

    Returns:
        A report, see tasks/checks.py: "classes" is {name: pixels in train}; "lines" are the number
        of classes per image, the share of each class in the pixels of train, and the classes that
        vanish when whole images are resized to `image_size` pixels.
    """
    data = require_data(data)
    report: JsonObject = {"errors": [], "warnings": [], "classes": {}, "lines": []}
    indexes = _find_splits(data, val_split, report)
    sizes_hw = check_images(indexes, report, "masks")
    counts, visible = {}, {}
    total = sum(map(len, indexes.values()))
    with tqdm(total=total, desc="reading masks", unit="mask", disable=None, leave=False) as bar:
        for split, index in indexes.items():
            counts[split], visible[split] = _read_masks(
                index, sizes_hw[split], image_size, report, bar.update
            )
            _check_ignored(split, index, counts[split], report)
    if "train" in indexes:
        train = indexes["train"]
        _describe(train, counts["train"], report)
        _check_rare_classes(train, counts["train"], report)
        present = {
            split: split_counts[:, : len(train.classes)].sum(axis=0)
            for split, split_counts in counts.items()
        }
        check_other_splits(indexes, train.classes, present, "pixel", report)
        _check_vanishing(train, counts["train"], visible["train"], image_size, report)
    return report


def _find_splits(data: str, val_split: float, report: JsonObject) -> Indexes:
    """Return {split: index} of the splits that can be read, and report problems of the layout."""
    indexes = find_splits(
        data,
        val_split,
        report,
        find=partial(find_segmentation_split, data),
        require=partial(require_segmentation_split, data),
        missing=NO_VALIDATION,
    )
    for index in indexes.values():
        unmatched = masks_without_image(index)
        add_unmatched_files(report, index.mask_folder, unmatched, "masks without an image")
    return indexes


def _read_masks(
    index: SegmentationIndex,
    sizes_hw: SizesHW,
    image_size: int,
    report: JsonObject,
    advance: Callable[[], object],
) -> tuple[PixelCounts, NDArray[np.bool_]]:
    """Count the pixels of each class, and report masks that cannot be read or do not fit.

    advance: called once per mask.

    Returns:
        (pixels of each class id in each mask, True where any is left when the whole mask is resized
        to `image_size`: bool [N, 256]).
    """
    counts = np.zeros((len(index), IGNORED + 1), dtype=np.int64)
    visible = np.zeros((len(index), IGNORED + 1), dtype=np.bool_)
    mismatches: list[tuple[str, str]] = []
    for row in range(len(index)):
        advance()
        path = index.mask_path(row)
        try:
            ids = read_mask(path, index.class_file).numpy()
        except UnreadableMask as error:
            add_problem(report, "errors", path, error.why)
            continue
        if row in sizes_hw:
            why = mask_mismatch(sizes_hw[row], ids.shape, index.path(row))
            if why:
                add_problem(report, "errors", path, why)
        if warning := gray_palette_mismatch(path, index.class_file):
            mismatches.append((path, warning))
        counts[row] = np.bincount(ids.ravel(), minlength=IGNORED + 1)
        resized = fitting_placement(ids.shape[0], ids.shape[1], image_size).ids(ids, image_size)
        visible[row, np.unique(resized)] = True
    if mismatches:
        path, why = mismatches[0]
        many = f"{len(mismatches)} of {len(index)} masks, this one first: "
        add_problem(report, "warnings", path, many + why)
    return counts, visible


def _check_ignored(
    split: str, index: SegmentationIndex, counts: PixelCounts, report: JsonObject
) -> None:
    """Report masks, and splits, of which all or most pixels are ignored."""
    total, valid = counts.sum(axis=1), counts[:, :IGNORED].sum(axis=1)
    empty = np.flatnonzero((total > 0) & (valid == 0)).tolist()
    if empty:
        names = shorten([index.name(row) for row in empty])
        why = f"{len(empty)} masks have ignored pixels alone: {names}"
        add_problem(report, "warnings", index.mask_folder, why)
    if not total.sum():
        return
    ignored = 1 - valid.sum() / total.sum()
    if not valid.sum():
        why = f"no mask of {split} has a pixel of any class; nothing can be learned or scored"
        add_problem(report, "errors", index.mask_folder, why)
    elif ignored > MOSTLY:
        why = f"{100 * ignored:.0f} % of the pixels are ignored"
        question = f"are the values in {index.class_file.path} right?"
        add_problem(report, "warnings", index.mask_folder, f"{why}; {question}")


def _describe(train: SegmentationIndex, counts: PixelCounts, report: JsonObject) -> None:
    """Add the pixels of each class, and lines about them."""
    pixels = counts[:, : len(train.classes)].sum(axis=0)
    report["classes"] = dict(zip(train.classes, pixels.tolist(), strict=True))
    per_image = (counts[:, :IGNORED] > 0).sum(axis=1)
    report["lines"].append(
        f"{len(train)} images in train, {per_image.mean():.1f} classes per image, "
        f"{per_image.max()} at most"
    )
    if pixels.any():
        ignored = int(counts[:, IGNORED].sum())
        shares = [
            f"{train.classes[label]} {percent(pixels[label] / pixels.sum())}"
            for label in np.argsort(-pixels, kind="stable")
        ]
        ignored_share = percent(ignored / (ignored + pixels.sum()))
        report["lines"].append(
            f"pixels in train: {shorten(shares, MAX_LISTED)}; {ignored_share} of all are ignored"
        )


def _check_rare_classes(train: SegmentationIndex, counts: PixelCounts, report: JsonObject) -> None:
    """Report classes that no image of train has, or few."""
    num_images = (counts[:, : len(train.classes)] > 0).sum(axis=0).tolist()
    absent = [name for name, count in zip(train.classes, num_images, strict=True) if not count]
    if absent:
        # when values count from 1, the first class alone is left over
        counts_from_one = absent == [train.classes[0]] and train.class_file.table[0] == 0
        hint = '; if the files count from 1, set "ids": "shift"' if counts_from_one else ""
        why = f"{len(absent)} of {len(train.classes)} classes are never in train"
        names = shorten(absent, MAX_LISTED)
        add_problem(report, "warnings", train.class_file.path, f"{why}: {names}{hint}")
    few = [
        f"{count} with {name}"
        for name, count in zip(train.classes, num_images, strict=True)
        if 0 < count < FEW
    ]
    if few:
        why = f"few images: {shorten(few)}; a class needs at least {FEW}"
        add_problem(report, "warnings", train.folder, why)


def _check_vanishing(
    train: SegmentationIndex,
    counts: PixelCounts,
    visible: NDArray[np.bool_],
    image_size: int,
    report: JsonObject,
) -> None:
    """Report classes that are too small or thin at image_size.

    visible: bool [N, 256], see `_read_masks`.
    """
    before, after = (counts > 0).sum(axis=0), (visible & (counts > 0)).sum(axis=0)
    lost = {
        name: 1 - after[label] / before[label]
        for label, name in enumerate(train.classes)
        if before[label] > after[label]
    }
    if not lost:
        return
    rows = [
        f"{name} from {100 * share:.0f} %"
        for name, share in sorted(lost.items(), key=lambda item: -item[1])
    ]
    report["lines"].append(
        f"classes that vanish when whole images are resized to {image_size} px: "
        f"{shorten(rows, MAX_LISTED)} of the images with them"
    )
    mostly_lost = [name for name, share in lost.items() if share > MOSTLY]
    if mostly_lost:
        why = f"mostly too small to be visible at {image_size} px: {shorten(mostly_lost)}"
        advice = "consider a larger --image-size, or smaller images"
        add_problem(report, "warnings", train.folder, f"{why}; {advice}")
