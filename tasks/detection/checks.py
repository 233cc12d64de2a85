"""The preflight of a detection data folder: everything wrong with it at once, over all splits."""

from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np

from visionloop.datasets.detection.dataset import size_mismatch
from visionloop.datasets.detection.layout import (
    DESCRIPTIONS,
    inspect_detection_split,
    require_detection_split,
)
from visionloop.datasets.io.layout import DataLayoutError, shorten
from visionloop.tasks.checks import decode_all, note, report_copies
from visionloop.tasks.detection.data import NO_VALIDATION, require_data

FEW = 10  # boxes of a class below which a score for it means little
COCO_EDGES = (32, 96)  # COCO's small, medium and large, by the side of a square of the same area
EDGES = (8, 16, 32, 96)
FINEST_GRID = 8  # pixels of the network's input between two places of its finest grid
MANY = 0.2  # share of boxes below it from which on more pixels are worth their time
LARGEST_ZOOM = 1.5  # enlarged further than this, images show nothing new


def check_detection_data(data, val_split, image_size):
    """{"errors": [{"path", "why"}], "warnings": [..], "classes": {name: boxes in training}, "lines": [..]} of a folder with boxes.

    Reads every image. lines: about ids and the sizes of the boxes, in their images and at
    `image_size`. Nothing is written.
    """
    require_data(data)
    found = {"errors": [], "warnings": [], "classes": {}, "lines": []}
    indexes = _inspect_splits(data, val_split, found)
    sizes_hw = _check_images(indexes, found)
    if "train" in indexes:
        train = indexes["train"]
        _check_counts(train, found)
        _check_categories(indexes, found)
        _check_sizes(train, sizes_hw["train"], image_size, found)
    return found


def _inspect_splits(data, val_split, found):
    """{split: index} of the splits that can be read, with the labels of the training split; problems go into `found`."""
    indexes, absent = {}, []
    for split in ("train", "val", "test"):
        classes = indexes["train"].classes if "train" in indexes else None
        try:
            inspected = inspect_detection_split(data, split, classes)
            if inspected is None:
                absent.append(split)
                if split == "train":
                    require_detection_split(data, split)  # says what was expected
                continue
        except DataLayoutError as error:
            note(found, "errors", error.path, error.why)
            if not Path(data).is_dir():
                return {}
            continue
        index, problems = inspected
        for kind, path, why in problems:
            # the description of a YOLO dataset is one for all splits
            note(
                found,
                f"{kind}s",
                path,
                f"{split}: {why}" if Path(path).name in DESCRIPTIONS else why,
            )
        if index is not None:
            indexes[split] = index
    if "train" in indexes and "val" in absent and not val_split:
        note(found, "errors", data, NO_VALIDATION)
    return indexes


def _check_images(indexes, found):
    """{split: sizes as decoded, int64 [N, 2]}, 0 where an image cannot be read. Says which are, are of another size or there twice."""
    sizes_hw = {
        split: np.zeros((len(index), 2), dtype=np.int64) for split, index in indexes.items()
    }
    places = defaultdict(list)  # digest -> [(split, class, path)]
    for split, row, path, size_hw, digest in decode_all(indexes, found, skip_missing=True):
        sizes_hw[split][row] = size_hw
        places[digest].append((split, "", path))
        why = size_mismatch(indexes[split], row, size_hw)
        if why:
            note(found, "errors", path, why)
    for copies in places.values():
        report_copies(copies, found)
    return sizes_hw


def _check_counts(train, found):
    counts = np.bincount(train.labels[~train.crowd], minlength=len(train.classes)).tolist()
    found["classes"] = dict(zip(train.classes, counts, strict=True))
    if not any(counts):
        note(found, "errors", train.source, "no boxes at all; there is nothing to find")
        return
    few = [f"{count} of {name}" for name, count in found["classes"].items() if 0 < count < FEW]
    if few:
        note(
            found,
            "warnings",
            train.source,
            f"few boxes: {shorten(few)}; a class wants at least {FEW}",
        )
    a_image = np.diff(train.offsets)
    line = f"{len(train)} images, {int((a_image == 0).sum())} of them without boxes; {len(train.labels)} boxes in train"
    found["lines"].append(
        f"{line}, {a_image.mean():.1f} an image, {a_image.max()} at most, {int(train.crowd.sum())} of crowds"
    )


def _check_categories(indexes, found):
    """What differs between splits; a name that the training split does not know is an error of its own, told before."""
    train = indexes["train"]
    for split, index in indexes.items():
        unlisted = [
            name for name, key in zip(index.classes, index.category_ids, strict=True) if key is None
        ]
        if unlisted:
            note(
                found,
                "warnings",
                index.source,
                f"does not list {len(unlisted)} categories of train: {shorten(unlisted)}",
            )
        pairs = zip(index.category_ids, train.category_ids, strict=True)
        if any(own != known for own, known in pairs if own is not None):
            found["lines"].append(
                f"category ids of {split} differ from those of train; the classes are matched by name"
            )
    ids = train.category_ids
    if all(isinstance(key, int) for key in ids) and ids[-1] - ids[0] >= len(ids):
        skipped = ids[-1] - ids[0] + 1 - len(ids)
        found["lines"].append(
            f"category ids run from {ids[0]} to {ids[-1]} without {skipped} of them; labels are 0 to {len(ids) - 1}"
        )


def _check_sizes(train, sizes_hw, image_size, found):
    """How large the boxes are, in their own images and in what the network sees of them; a warning when most of that is tiny."""
    sizes_hw = np.where(train.sizes_hw > 0, train.sizes_hw, sizes_hw)
    of_boxes = sizes_hw[np.repeat(np.arange(len(train)), np.diff(train.offsets))]
    used = ~train.crowd & (train.boxes[:, 2:] > 0).all(axis=1) & of_boxes.all(axis=1)
    if not used.any():
        return
    sides = np.sqrt(train.boxes[used, 2:].prod(axis=1))
    found["lines"].append(f"boxes in their images: {describe_sides(sides, COCO_EDGES)}")
    sides *= image_size / np.sqrt(of_boxes[used].prod(axis=1))
    found["lines"].append(f"boxes at {image_size} px: {describe_sides(sides, EDGES)}")
    share = (sides < FINEST_GRID).mean()
    if share > MANY:
        wanted = 32 * int(np.ceil(image_size * FINEST_GRID / np.quantile(sides, MANY) / 32))
        advice = "cut the images into smaller ones"
        if wanted <= LARGEST_ZOOM * np.median(sizes_hw[sizes_hw.all(axis=1)].max(axis=1)):
            advice = f"consider --image-size {wanted}"
        why = f"{100 * share:.0f} % of the boxes are smaller than {FINEST_GRID} x {FINEST_GRID} px at {image_size} px"
        note(
            found, "warnings", train.source, f"{why}, hard to find on the network's grids; {advice}"
        )


def describe_sides(sides, edges):
    """One line with the shares of sides [N] below, between and above the edges, all in pixels."""
    shares = np.histogram(sides, [0, *edges, np.inf])[0] / len(sides)
    words = [
        f"smaller than {edges[0]} px",
        *(f"{low} to {high}" for low, high in pairwise(edges)),
        "larger",
    ]
    return ", ".join(
        f"{100 * share:.0f} % {word}" for share, word in zip(shares, words, strict=True)
    )
