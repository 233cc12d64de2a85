"""What the preflights of all tasks share: notes by file, one reading of every image, and images that are there twice."""

import hashlib
import os
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from visionloop.datasets.io.images import read_image
from visionloop.datasets.io.layout import DataLayoutError, shorten


def note(found, kind, path, why):
    """Add {"path", "why"} to found[kind]; kind: "errors" or "warnings"."""
    found[kind].append({"path": str(path), "why": why})


def find_splits(data, val_split, found, *, find, require, missing):
    """{split: index} of the splits of a data folder that can be read; problems of the layout go into `found`.

    find(split) gives an index or None, require(split) an index; both raise DataLayoutError.
    missing: said without a validation split.
    """
    indexes, absent, is_elsewhere = {}, [], False
    for split in ("train", "val", "test"):
        try:
            index = (require if split == "train" else find)(split)
        except DataLayoutError as error:
            if {"path": error.path, "why": error.why} not in found[
                "errors"
            ]:  # a file that describes all splits is wrong once
                note(found, "errors", error.path, error.why)
            if not Path(data).is_dir():
                return {}
            is_elsewhere |= split == "train" and Path(error.path) == Path(
                data
            )  # then a missing val/ says nothing new
            continue
        if index is None:
            absent.append(split)
        else:
            indexes[split] = index
    if "val" in absent and not val_split and not is_elsewhere:
        note(found, "errors", data, missing)
    return indexes


def note_unmatched_files(found, folder, paths, what):
    """A warning about files in `folder` that belong to nothing, if there are any. what: they are."""
    if paths:
        note(
            found,
            "warnings",
            folder,
            f"{len(paths)} {what}: {shorten([Path(path).name for path in paths])}",
        )


def decode_all(indexes, found, *, skip_missing=False):
    """Decode every image once: yields (split, row, path, (height, width), digest of the file) for those that can be read.

    indexes: {split: anything with a length and `path(i)`}. The others become errors in `found`,
    each by its path; skip_missing: not those that are no file, which were told before. A path that
    a split names twice comes once.
    """
    with tqdm(
        total=sum(map(len, indexes.values())),
        desc="reading images",
        unit="pic",
        disable=None,
        leave=False,
    ) as bar:
        for split, index in indexes.items():
            seen = set()
            for row in range(len(index)):
                path = index.path(row)
                bar.update()
                if path in seen or (skip_missing and not os.path.exists(path)):
                    continue
                seen.add(path)
                try:
                    size_hw = tuple(read_image(path).shape[-2:])
                    digest = hashlib.blake2b(Path(path).read_bytes(), digest_size=16).digest()
                except OSError as error:
                    note(
                        found,
                        "errors",
                        path,
                        getattr(error, "why", None) or error.strerror or str(error),
                    )
                    continue
                yield split, row, path, size_hw, digest


def report_copies(copies, found):
    """Warnings about files of the same content. copies: [(split, class, path)]; where images have no class, it is ""."""
    if len(copies) < 2:
        return
    first_split, first_class, first_path = copies[0]
    classes, splits = {label for _, label, _ in copies}, Counter(split for split, _, _ in copies)
    for split, label, path in copies[1:]:
        if label != first_class:
            note(
                found,
                "warnings",
                path,
                f"the same image as {first_path}, there of class {first_class}",
            )
        elif split != first_split:
            same = (
                f"is in {first_split} too"
                if path == first_path
                else f"the same image as {first_path}"
            )
            note(found, "warnings", path, f"{same}: {split} is not independent of {first_split}")
    if len(classes) == len(splits) == 1:
        others = shorten([Path(path).name for _, _, path in copies[1:]])
        note(
            found,
            "warnings",
            first_path,
            f"{len(copies)} files with the same content in {first_split}/{first_class}: {others} too",
        )
