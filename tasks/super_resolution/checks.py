"""The preflight of large and small images: everything wrong with them at once, over all splits."""

from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from visionloop.datasets.cache.store import GIB, free_bytes, missing_bytes
from visionloop.datasets.cache.store_files import OTHER_WAYS, cache_folder
from visionloop.datasets.io.images import JPEG_START
from visionloop.datasets.io.layout import shorten
from visionloop.datasets.super_resolution.dataset import DecodedPairs, pair_contents
from visionloop.datasets.super_resolution.downscale import pair_mismatch, shrink, too_small
from visionloop.datasets.super_resolution.layout import (
    SuperResolutionIndex,
    find_super_resolution_split,
    lr_folder_name,
    other_lr_folders,
    require_super_resolution_split,
    small_without_image,
)
from visionloop.tasks.checks import (
    decode_all,
    find_splits,
    note,
    note_unmatched_files,
    report_copies,
)
from visionloop.tasks.super_resolution.data import NO_VALIDATION, require_data

FEW = 20  # training images below which a network learns them overfitted
# pixels of a side below which a score says little: the borders are cut off, and SSIM looks at 11 x
# 11 pixels
TINY = 64
# pairs of a split whose small image is made again and compared: 0.2 s each for 2K images
COMPARED = 50
# Mean difference of a small image to the bicubic one, of 255, that is worth a warning. Pillow's
# and torch's antialiased bicubic are 0.2 away on Set5, bicubic without antialias 2.6 to 6.
UNLIKE = 1.0


class SmallImages(NamedTuple):
    """The small images of an index, as `decode_all` reads them."""

    index: SuperResolutionIndex

    def __len__(self):
        return len(self.index)

    def path(self, i):
        return self.index.lr_path(i)


def check_super_resolution_data(data, val_split, scale, patch):
    """{"errors": [{"path", "why"}], "warnings": [..], "classes": {}, "lines": [..]} of a folder with large and perhaps small images.

    Reads every image. scale: 1 for restoration at the same size; patch: side of the training
    crops in pixels of the small images, with the margin of a degradation. lines: how much there
    is to train on, where the small images come from, what the cache takes. Nothing is written.
    """
    require_data(data)
    found = {"errors": [], "warnings": [], "classes": {}, "lines": []}
    indexes = _find_splits(data, val_split, scale, found)
    large_hw = _check_images(indexes, found)
    _check_pairs(indexes, large_hw, found)
    for split, index in indexes.items():
        _check_sizes(split, index, large_hw[split], patch, found)
    if "train" in indexes:
        _describe(indexes["train"], large_hw["train"], patch, found)
        _describe_cache([index for split, index in indexes.items() if split != "test"], found)
    return found


def _find_splits(data, val_split, scale, found):
    """{split: index} of the splits that can be read; problems of the layout go into `found`."""
    find, require = (
        partial(function, data, scale=scale)
        for function in (find_super_resolution_split, require_super_resolution_split)
    )
    indexes = find_splits(data, val_split, found, find=find, require=require, missing=NO_VALIDATION)
    for index in indexes.values():
        note_unmatched_files(
            found,
            index.lr_folder,
            small_without_image(index),
            "small images without a large one",
        )
    return indexes


def _check_images(indexes, found):
    """{split: {row: (height, width)}} of the large images that can be read. Says which cannot, which are JPEG, which are there twice."""
    large_hw, places, jpegs = {split: {} for split in indexes}, defaultdict(list), defaultdict(list)
    for split, row, path, size_hw, digest in decode_all(indexes, found):
        large_hw[split][row] = size_hw
        places[digest].append((split, "", path))
        with open(path, "rb") as file:
            if file.read(len(JPEG_START)) == JPEG_START:
                jpegs[split].append(indexes[split].name(row))
    for split, names in jpegs.items():
        what = (
            "their traces of compression are learned"
            if split == "train"
            else "their traces of compression count as the truth"
        )
        note(
            found,
            "warnings",
            indexes[split].folder,
            f"{len(names)} of {len(indexes[split])} images are JPEG, {what}: {shorten(names)}",
        )
    for copies in places.values():
        report_copies(copies, found)
    return large_hw


def _check_pairs(indexes, large_hw, found):
    """Small images that cannot be read, are of another size or do not show what the large one shows."""
    given = {split: SmallImages(index) for split, index in indexes.items() if index.lr_folder}
    matching = {split: [] for split in given}
    for split, row, path, small_hw, _ in decode_all(given, found):
        index = indexes[split]
        if row not in large_hw[split]:
            continue
        why = pair_mismatch(small_hw, large_hw[split][row], index.scale, index.path(row))
        if why:
            note(found, "errors", path, why)
        else:
            matching[split].append(row)
    for split, rows in matching.items():
        _compare(indexes[split], rows, found)


def _compare(index, rows, found):
    """A warning about small images that are not the bicubic of their large ones. rows: of pairs of the right sizes."""
    picked = [
        rows[i]
        for i in np.unique(
            np.linspace(0, len(rows) - 1, min(COMPARED, len(rows))).round().astype(int)
        )
    ]
    unlike, grey = {}, []
    for row in tqdm(picked, desc="comparing pairs", unit="pair", disable=None, leave=False):
        small, large = DecodedPairs(index).whole(row)
        difference = np.abs(shrink(large, index.scale).astype(np.float32) - small).mean()
        if is_grey(small) and not is_grey(large):
            grey.append(index.lr_name(row))
        elif difference > UNLIKE:
            unlike[index.lr_name(row)] = difference
    if grey:
        why = f"{len(grey)} of {len(picked)} small images are grey, their large ones are not: {shorten(grey)}"
        note(found, "warnings", index.lr_folder, why)
    if unlike:
        names = sorted(unlike, key=unlike.get, reverse=True)
        rows = shorten([f"{name} by {unlike[name]:.1f}" for name in names])
        why = f"{len(unlike)} of {len(picked)} small images differ from the bicubic of their large ones, of 255 and on average: {rows}"
        note(
            found,
            "warnings",
            index.lr_folder,
            f"{why}; made with another kernel, not aligned, or compressed?",
        )


def is_grey(image):
    """Whether an image uint8 [H, W, 3] has no colour at all."""
    return bool((image[..., :1] == image[..., 1:]).all())


def _check_sizes(split, index, sizes_hw, patch, found):
    """Images that a training crop does not fit into, and those too small to be scored."""
    tiny = []
    for row, (height, width) in sizes_hw.items():
        small_hw = height // index.scale, width // index.scale
        if min(small_hw) < (patch if split == "train" else 1):
            why = (
                too_small(*small_hw, patch, index.scale)
                if split == "train"
                else f"is {height} x {width}, too small for x{index.scale}"
            )
            note(found, "errors", index.path(row), why)
        elif split != "train" and min(height, width) < TINY:
            tiny.append(index.name(row))
    if tiny:
        why = f"{len(tiny)} images have a side below {TINY} pixels, scores of them say little: {shorten(tiny)}"
        note(found, "warnings", index.folder, why)


def _describe(train, sizes_hw, patch, found):
    """How much there is to train on, and where the small images come from."""
    if len(train) < FEW:
        note(
            found,
            "warnings",
            train.folder,
            f"{len(train)} images are few: a network soon knows them overfitted; a hundred are a start",
        )
    pixels = sum(height * width for height, width in sizes_hw.values())
    crops = pixels / (train.scale * patch) ** 2
    area = f"{pixels / 1e6:.1f} million pixels, {crops:.0f} crops of {train.scale * patch} x {train.scale * patch} side by side"
    found["lines"].append(f"{len(train)} images in train with {area}")
    found["lines"] += small_images(train)


def small_images(index):
    """[a line that says where the small images of a split come from]; [] where there are none."""
    if index.scale == 1:
        return []
    if index.lr_folder:
        return [f"small images are read from {lr_folder_name(index.scale)}/"]
    others = other_lr_folders(index)
    unused = f"{', '.join(others)} beside it {'is' if len(others) == 1 else 'are'} not used"
    beside = unused if others else f"there is no {lr_folder_name(index.scale)}/ beside it"
    return [
        f"small images are made from {Path(index.folder).name}/ by MATLAB's bicubic rule, x{index.scale}; {beside}"
    ]


def _describe_cache(indexes, found):
    """What `--cache disk` would write, and whether there is room for it."""
    needed = sum(missing_bytes(contents) for index in indexes for contents in pair_contents(index))
    free = free_bytes()
    amount = f"{needed / GIB:.2f} GiB" if needed else "nothing more"
    found["lines"].append(
        f"decoded images take {amount} in {cache_folder()}, {free / GIB:.0f} GiB are free; --cache none does without"
    )
    if needed > free:
        note(
            found,
            "warnings",
            cache_folder(),
            f"{needed / GIB:.2f} GiB of decoded images do not fit; {OTHER_WAYS}",
        )
