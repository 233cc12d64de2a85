"""Checks of a super-resolution data folder: all problems of large and small images at once."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from visionloop.datasets.cache.store import GIB, free_bytes, missing_bytes
from visionloop.datasets.cache.store_files import STORAGE_HINT, cache_folder
from visionloop.datasets.io.headers import JPEG_START
from visionloop.datasets.io.layout import shorten
from visionloop.datasets.super_resolution.dataset import DecodedPairs, pair_store_specs
from visionloop.datasets.super_resolution.downscale import shrink, too_small
from visionloop.datasets.super_resolution.layout import (
    SuperResolutionIndex,
    find_super_resolution_split,
    lr_without_hr,
    other_folders,
    pair_mismatch,
    require_super_resolution_split,
    unused_lr_folders,
)
from visionloop.datasets.super_resolution.lr_folders import lr_folder_name
from visionloop.engine.types import JsonObject
from visionloop.tasks.checks import (
    add_problem,
    add_unmatched_files,
    decode_all,
    find_splits,
    report_copies,
)
from visionloop.tasks.super_resolution.data import NO_VALIDATION, require_data

MIN_IMAGES = 20  # training images below which a network overfits them
# pixels of a side below which a score says little: the borders are cut off, and SSIM reads 11 x 11
# pixels
MIN_SIDE = 64
# pairs of a split whose small image is made again and compared: 0.2 s each for 2K images
MAX_COMPARED = 50
# Mean difference between a small image and the bicubic one, of 255, that is worth a warning.
# Pillow's and torch's antialiased bicubic differ by 0.2 on Set5, bicubic without antialiasing by
# 2.6 to 6.
MAX_DIFFERENCE = 1.0

Indexes = Mapping[str, SuperResolutionIndex]  # {split: index}
Sizes = dict[int, tuple[int, int]]  # {row: (height, width)} of large images


@dataclass(frozen=True)
class LrImages:
    """The small images of an index, as `decode_all` reads them."""

    index: SuperResolutionIndex

    @property
    def folder(self) -> str:
        """Return the folder of the small images."""
        return str(self.index.lr_folder)

    def __len__(self) -> int:
        return len(self.index)

    def name(self, i: int) -> str:
        """Return the name of small image i."""
        return self.index.lr_name(i)

    def path(self, i: int) -> str:
        """Return the path of small image i."""
        return self.index.lr_path(i)

    def subset(self, rows: NDArray[np.int64]) -> "LrImages":
        """Return the small images of these rows."""
        return LrImages(self.index.subset(rows))


def check_super_resolution_data(
    data: str | None, val_split: float, scale: int, patch: int, cache: str
) -> JsonObject:
    """Check a folder with large and, optionally, small images.

    It reads every image and writes nothing.

    Args:
        data: the data folder.
        val_split: share of the training images that is set aside for validation.
        scale: upscaling factor; 1 for restoration at the same size.
        patch: side of the training crops in input pixels, with the margin of a degradation.
        cache: "disk", whose size is then reported, or "none".

    Returns:
        {"errors": [{"path", "why"}], "warnings": [{"path", "why"}], "classes": {}, "lines": [..]}.
        The lines are the amount of training data, the source of the small images and the size of
        the cache.
    """
    folder = require_data(data)
    report: JsonObject = {"errors": [], "warnings": [], "classes": {}, "lines": []}
    indexes = _find_splits(folder, val_split, scale, report)
    sizes = _check_images(indexes, report)
    _check_pairs(indexes, sizes, report)
    for split, index in indexes.items():
        _check_sizes(split, index, sizes[split], patch, report)
    if "train" in indexes:
        _describe(indexes["train"], sizes["train"], patch, report)
        if cache == "disk":
            _describe_cache([index for split, index in indexes.items() if split != "test"], report)
    return report


def _find_splits(
    data: str, val_split: float, scale: int, report: JsonObject
) -> dict[str, SuperResolutionIndex]:
    find = partial(find_super_resolution_split, data, scale=scale)
    require = partial(require_super_resolution_split, data, scale=scale)
    indexes = find_splits(
        data,
        val_split,
        report,
        find=find,
        require=require,
        missing=NO_VALIDATION,
        convert_to=".png",
    )
    for index in indexes.values():
        if "train" in indexes and (why := compare_lr_sources(indexes["train"], index)):
            add_problem(report, "warnings", index.folder, why)
        if index.lr_folder is not None:
            unmatched = lr_without_hr(index)
            add_unmatched_files(
                report, index.lr_folder, unmatched, "small images without a large one"
            )
    return indexes


def _check_images(indexes: Indexes, report: JsonObject) -> dict[str, Sizes]:
    """Report large images that are unreadable, JPEG files or duplicates; return their sizes."""
    sizes: dict[str, Sizes] = {split: {} for split in indexes}
    copies, jpegs = defaultdict(list), defaultdict(list)
    for split, row, path, size_hw, digest in decode_all(indexes, report):
        sizes[split][row] = size_hw
        copies[digest].append((split, "", path))
        with open(path, "rb") as file:
            if file.read(len(JPEG_START)) == JPEG_START:
                jpegs[split].append(indexes[split].name(row))
    for split, names in jpegs.items():
        effect = (
            "their compression artifacts are learned"
            if split == "train"
            else "their compression artifacts are part of the ground truth"
        )
        add_problem(
            report,
            "warnings",
            indexes[split].folder,
            f"{len(names)} of {len(indexes[split])} images are JPEG, {effect}: {shorten(names)}",
        )
    for same in copies.values():
        report_copies(same, report)
    return sizes


def _check_pairs(indexes: Indexes, sizes: Mapping[str, Sizes], report: JsonObject) -> None:
    """Report small images that are unreadable, of a wrong size or of another image."""
    small = {split: LrImages(index) for split, index in indexes.items() if index.lr_folder}
    matching: dict[str, list[int]] = {split: [] for split in small}
    for split, row, path, lr_hw, _ in decode_all(small, report):
        index = indexes[split]
        if row not in sizes[split]:
            continue
        why = pair_mismatch(lr_hw, sizes[split][row], index.scale, index.path(row))
        if why:
            add_problem(report, "errors", path, why)
        else:
            matching[split].append(row)
    for split, rows in matching.items():
        _compare(indexes[split], rows, report)


def _compare(index: SuperResolutionIndex, rows: Sequence[int], report: JsonObject) -> None:
    """Report small images that are not the bicubic of their large ones.

    rows: pairs of matching sizes, of which up to MAX_COMPARED are compared.
    """
    assert index.lr_folder is not None, "pairs have small images"
    positions = np.linspace(0, len(rows) - 1, min(MAX_COMPARED, len(rows))).round().astype(int)
    compared = [rows[i] for i in np.unique(positions)]
    differences: dict[str, float] = {}
    gray = []
    for row in tqdm(compared, desc="comparing pairs", unit="pair", disable=None, leave=False):
        small, large = DecodedPairs(index).whole(row)
        difference = np.abs(shrink(large, index.scale).astype(np.float32) - small).mean()
        if is_gray(small) and not is_gray(large):
            gray.append(index.lr_name(row))
        elif difference > MAX_DIFFERENCE:
            differences[index.lr_name(row)] = float(difference)
    if gray:
        why = (
            f"{len(gray)} of {len(compared)} small images are gray, their large images are not:"
            f" {shorten(gray)}"
        )
        add_problem(report, "warnings", index.lr_folder, why)
    if differences:
        names = sorted(differences, key=differences.__getitem__, reverse=True)
        why = (
            f"{len(differences)} of {len(compared)} small images differ from the bicubic of their"
            " large images, by a mean in gray levels:"
            f" {shorten([f'{name} by {differences[name]:.1f}' for name in names])}; made with"
            " another kernel, not aligned, or compressed?"
        )
        add_problem(report, "warnings", index.lr_folder, why)


def is_gray(image: NDArray[np.uint8]) -> bool:
    """Return True when the three channels of an image, uint8 [H, W, 3], are equal."""
    return bool((image[..., :1] == image[..., 1:]).all())


def _check_sizes(
    split: str, index: SuperResolutionIndex, sizes: Sizes, patch: int, report: JsonObject
) -> None:
    """Report images that are too small for a training crop, or for a score."""
    small = []
    for row, (height, width) in sizes.items():
        lr_height, lr_width = height // index.scale, width // index.scale
        if min(lr_height, lr_width) < (patch if split == "train" else 1):
            why = (
                too_small(lr_height, lr_width, patch, index.scale)
                if split == "train"
                else f"is {height} x {width}, too small for x{index.scale}"
            )
            add_problem(report, "errors", index.path(row), why)
        elif split != "train" and min(height, width) < MIN_SIDE:
            small.append(index.name(row))
    if small:
        why = (
            f"{len(small)} images have a side below {MIN_SIDE} pixels, so their scores say little:"
            f" {shorten(small)}"
        )
        add_problem(report, "warnings", index.folder, why)


def _describe(train: SuperResolutionIndex, sizes: Sizes, patch: int, report: JsonObject) -> None:
    """Report how much there is to train on, and where the small images come from."""
    if len(train) < MIN_IMAGES:
        why = f"{len(train)} images are few: a network soon overfits them; start with a hundred"
        add_problem(report, "warnings", train.folder, why)
    pixels = sum(height * width for height, width in sizes.values())
    side = train.scale * patch
    report["lines"].append(
        f"{len(train)} images in train with {pixels / 1e6:.1f} million pixels,"
        f" {pixels / side**2:.0f} crops of {side} x {side} side by side"
    )
    report["lines"] += describe_lr_source(train)


def describe_lr_source(index: SuperResolutionIndex) -> list[str]:
    """Return a line about the source of the small images of a split; [] at x1 without any."""
    unused = [
        folder.name
        for folder in unused_lr_folders(index)
        if index.scale > 1 or folder.scale in (None, 1)
    ] + other_folders(index)
    beside = f"{', '.join(unused)} beside it {'is' if len(unused) == 1 else 'are'} not used"
    if index.scale == 1:
        return [f"large images alone are read, the scale is 1; {beside}"] if unused else []
    if index.lr_folder:
        name = os.path.relpath(index.lr_folder, Path(index.folder).parent)
        return [f"small images are read from {name}/" + (f"; {beside}" if unused else "")]
    absent = f"there is no {lr_folder_name(index.scale)}/ beside it"
    return [
        f"small images are made from {Path(index.folder).name}/ with MATLAB's bicubic,"
        f" x{index.scale}; {beside if unused else absent}"
    ]


def compare_lr_sources(train: SuperResolutionIndex, other: SuperResolutionIndex) -> str | None:
    """Return the warning for a split whose small images have another source than those of train."""
    if (train.lr_folder is None) == (other.lr_folder is None):
        return None
    return (
        f"its small images are {_made(other)}, those that are trained on are {_made(train)}: "
        "scores are of another task"
    )


def _made(index: SuperResolutionIndex) -> str:
    """Return where the small images of a split come from, for a message."""
    return f"read from {index.lr_folder}" if index.lr_folder else f"made from {index.folder}"


def _describe_cache(indexes: Sequence[SuperResolutionIndex], report: JsonObject) -> None:
    """Report how much `--cache disk` would write, and whether there is room for it."""
    needed = sum(missing_bytes(spec) for index in indexes for spec in pair_store_specs(index))
    free = free_bytes()
    amount = f"{needed / GIB:.2f} GiB" if needed else "nothing more"
    report["lines"].append(
        f"decoded images take {amount} in {cache_folder()}, {free / GIB:.0f} GiB are free;"
        " --cache none writes nothing"
    )
    if needed > free:
        why = f"{needed / GIB:.2f} GiB of decoded images do not fit; {STORAGE_HINT}"
        add_problem(report, "warnings", cache_folder(), why)
