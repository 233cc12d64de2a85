"""Images sorted into folders by class: `train/<class>/*.jpg`.

The index is columnar: one string of bytes with all paths and a few arrays, so that a million
images cost tens of megabytes, and so does the copy that each worker gets.
"""

import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.utils.data import Dataset

from visionloop.datasets.cache.decoded import DecodedImages
from visionloop.datasets.io.images import IMAGE_SUFFIXES
from visionloop.datasets.io.layout import DataLayoutError, is_hidden, shorten


@dataclass(frozen=True, eq=False)
class ImageFolderIndex:
    """Which images there are, in a fixed order, one row each.

    folder: of the split; classes: names, the label is the position; paths: all paths relative to
    the folder, as bytes one behind the other, row i at starts[i]:stops[i]; labels, starts, stops,
    sizes (file size in bytes): int64 [N].
    """

    folder: str
    classes: tuple[str, ...]
    paths: bytes
    starts: np.ndarray
    stops: np.ndarray
    labels: np.ndarray
    sizes: np.ndarray

    def __len__(self):
        return len(self.labels)

    def name(self, i):
        """Path of row i relative to the split's folder."""
        return os.fsdecode(self.paths[self.starts[i] : self.stops[i]])

    def path(self, i):
        return os.path.join(self.folder, self.name(i))

    def subset(self, rows):
        """The same kind of index with these rows alone, in this order; the paths are shared."""
        rows = np.asarray(rows, dtype=np.int64)
        picked = {
            column: getattr(self, column)[rows] for column in ("starts", "stops", "labels", "sizes")
        }
        return replace(self, **picked)

    def fingerprint(self):
        """SHA-256 over class names, relative paths, labels and file sizes, in order.

        Not over contents, times or the folder's own place: a copy is the same data, an edit that
        keeps a file's size goes unseen.
        """
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        for column in (self.stops - self.starts, self.labels, self.sizes):
            digest.update(column.astype("<i8").tobytes())
        digest.update(
            b"".join(
                self.paths[start:stop]
                for start, stop in zip(self.starts.tolist(), self.stops.tolist(), strict=True)
            )
        )
        return digest.hexdigest()


def scan(folder, classes=None):
    """Index of a split's folder: every image at any depth below a class folder, in the order of torchvision's ImageFolder.

    classes: names from another split, to give the same labels; a folder of another name is then an
    error, a missing or empty one is not. Hidden names are passed over, suffixes match in any case.
    Raises DataLayoutError.
    """
    folder = os.fspath(folder)
    found = _class_folders(folder)
    known = tuple(found) if classes is None else tuple(classes)
    unmatched_files = [name for name in found if name not in set(known)]
    if unmatched_files:
        raise DataLayoutError(
            os.path.join(folder, unmatched_files[0]),
            f"not one of the {len(known)} known classes ({shorten(known)})",
        )

    paths, starts, sizes, labels, empty = bytearray(), [], [], [], []
    for name in found:
        class_paths, class_sizes, passed_over = _images_below(folder, name)
        if not class_paths:
            empty.append((name, passed_over))
        # arrays class by class: Python objects for a million paths would not be small even for a
        # moment
        lengths = np.fromiter(map(len, class_paths), dtype=np.int64, count=len(class_paths))
        starts.append(len(paths) + lengths.cumsum() - lengths)
        sizes.append(np.array(class_sizes, dtype=np.int64))
        labels.append(np.full(len(class_paths), known.index(name), dtype=np.int64))
        paths += b"".join(class_paths)
    if empty and (classes is None or not paths):
        _refuse_empty(folder, empty)
    starts = np.concatenate(starts)
    return ImageFolderIndex(
        folder=folder,
        classes=known,
        paths=bytes(paths),
        starts=starts,
        stops=np.append(starts[1:], len(paths)),
        labels=np.concatenate(labels),
        sizes=np.concatenate(sizes),
    )


def _class_folders(folder):
    """Names of the class folders, sorted as torchvision sorts them: plain string order, "10" before "2"."""
    if not os.path.isdir(folder):
        raise DataLayoutError(folder, "no such folder; expected <class>/*.jpg in it")
    entries = [entry for entry in os.scandir(folder) if not is_hidden(entry.name)]
    found = sorted(
        entry.name for entry in entries if os.path.isdir(entry.path)
    )  # unlike is_dir(), no error for a link to itself
    if not found:
        loose = sum(_is_image(entry.name) for entry in entries)
        what = f"{loose} images lie directly in it" if loose else "no class folder in it"
        raise DataLayoutError(folder, f"{what}; expected one folder per class: <class>/*.jpg")
    return found


def _images_below(folder, class_name):
    """(paths relative to `folder` as bytes, file sizes, suffixes passed over) of one class, sorted by folder, then by name."""
    levels, seen = [], set()
    for level, folders, files in os.walk(os.path.join(folder, class_name), followlinks=True):
        real = os.path.realpath(level)
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        levels.append((level, sorted(name for name in files if not is_hidden(name))))
    paths, sizes, passed_over = [], [], Counter()
    for level, names in sorted(levels):
        relative = os.path.relpath(level, folder)
        for name in names:
            if not _is_image(name):
                passed_over[os.path.splitext(name)[1].lower() or "without suffix"] += 1
                continue
            paths.append(os.fsencode(os.path.join(relative, name)))
            sizes.append(_file_size(os.path.join(level, name)))
    return paths, sizes, passed_over


def _refuse_empty(folder, empty):
    """empty: [(class name, Counter of suffixes that are no images')]."""
    name, passed_over = empty[0]
    held = (
        ", ".join(f"{count} {suffix}" for suffix, count in passed_over.most_common(3)) or "nothing"
    )
    more = (
        f"; so are {len(empty) - 1} more classes: {shorten([name for name, _ in empty[1:]])}"
        if len(empty) > 1
        else ""
    )
    why = f"class without images, it holds {held}{more}; read are {' '.join(IMAGE_SUFFIXES)}"
    raise DataLayoutError(os.path.join(folder, name), why)


def _file_size(path):
    try:
        return os.stat(path).st_size
    except OSError:
        return -1  # a dangling link stays in the index: reading it names it


def _is_image(name):
    return name.lower().endswith(IMAGE_SUFFIXES)


class ImageFolderDataset(Dataset):
    """Samples {"pixel_values": uint8 [3, H, W] after `transform`, "label": int64 scalar} of an index.

    images: where they come from, see training_images.py; None: from their files, whole.
    """

    def __init__(self, index, transform, images=None):
        self.index, self.transform, self.images = (
            index,
            transform,
            images or DecodedImages(index),
        )

    def __len__(self):
        return len(self.index)

    def __getitem__(self, i):
        """Raises UnreadableImage, an OSError, that names the file."""
        pixel_values = self.transform(*self.images(i))
        return {"pixel_values": pixel_values, "label": torch.tensor(self.index.labels[i])}

    @property
    def classes(self):
        return self.index.classes

    @property
    def labels(self):
        """int64 [N], as numpy."""
        return self.index.labels

    def name(self, i):
        """Path of image i, for messages."""
        return self.index.path(i)

    def kept_bytes(self):
        """(bytes of images that this process keeps now, and once all were read)."""
        return self.images.kept_bytes()

    def fingerprint(self):
        return self.index.fingerprint()

    def subset(self, indices):
        """A dataset of these images alone, in this order, with the same transform."""
        return ImageFolderDataset(
            self.index.subset(indices), self.transform, self.images.subset(indices)
        )
