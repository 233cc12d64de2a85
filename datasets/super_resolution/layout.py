"""Where the images of super-resolution lie: `train/HR/x.png`, and where the data has small ones, `train/LR_x2/x.png`."""

import hashlib
import os
import re
from dataclasses import dataclass, replace
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

HR = "HR"


@dataclass(frozen=True, eq=False)
class SuperResolutionIndex:
    """Which images there are, sorted by path, and the small one of each where the data has it.

    folder: of the large images; scale: large over small, 1 for restoration at the same size;
    lr_folder: of the small ones, None: they are made from the large ones. paths: relative to the
    folder, as bytes one behind the other, row i at starts[i]:stops[i]; sizes: of the files in
    bytes; lr_paths and so on: the same of the small images, None without them; all columns int64
    [N].
    """

    folder: str
    scale: int
    paths: bytes
    starts: np.ndarray
    stops: np.ndarray
    sizes: np.ndarray
    lr_folder: str | None = None
    lr_paths: bytes | None = None
    lr_starts: np.ndarray | None = None
    lr_stops: np.ndarray | None = None
    lr_sizes: np.ndarray | None = None

    def __len__(self):
        return len(self.starts)

    def name(self, i):
        """Path of the large image i relative to its folder."""
        return os.fsdecode(self.paths[self.starts[i] : self.stops[i]])

    def path(self, i):
        return os.path.join(self.folder, self.name(i))

    def lr_name(self, i):
        """Path of the small image i relative to its folder; None where it is made."""
        return (
            os.fsdecode(self.lr_paths[self.lr_starts[i] : self.lr_stops[i]])
            if self.lr_folder
            else None
        )

    def lr_path(self, i):
        return os.path.join(self.lr_folder, self.lr_name(i)) if self.lr_folder else None

    def subset(self, rows):
        """The same kind of index with these images alone, in this order; the paths are shared."""
        rows = np.asarray(rows, dtype=np.int64)
        columns = ("starts", "stops", "sizes") + (
            ("lr_starts", "lr_stops", "lr_sizes") if self.lr_folder else ()
        )
        return replace(self, **{column: getattr(self, column)[rows] for column in columns})

    def fingerprint(self):
        """SHA-256 over the scale, relative paths and file sizes, in order, and those of the small images where they are used.

        Not over contents or the folder's own place: a copy is the same data, an edit that keeps a
        file's size goes unseen.
        """
        digest = hashlib.sha256(f"x{self.scale} {'given' if self.lr_folder else 'made'}".encode())
        places = [(self.paths, self.starts, self.stops, self.sizes)]
        if self.lr_folder:
            places.append((self.lr_paths, self.lr_starts, self.lr_stops, self.lr_sizes))
        for paths, starts, stops, sizes in places:
            for column in (stops - starts, sizes):
                digest.update(column.astype("<i8").tobytes())
            digest.update(
                b"".join(
                    paths[start:stop]
                    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)
                )
            )
        return digest.hexdigest()


def find_super_resolution_split(data, split, scale):
    """The SuperResolutionIndex of a split ("train", "val" or "test"), or None where there is none. Raises DataLayoutError.

    scale: 1 reads the large images alone; any other takes the small ones of `LR_x<scale>/`, if
    there is such a folder.
    """
    folder = find_split(data, split)
    if folder is None:
        return None
    hr_folder, lr_folder = folder / HR, folder / lr_folder_name(scale)
    if not hr_folder.is_dir():
        raise DataLayoutError(folder, f"expected {HR}/x.png in it, found {_listed(folder)}")
    images = files_below(hr_folder, IMAGE_SUFFIXES)
    if not images:
        raise DataLayoutError(hr_folder, f"no images in it; read are {' '.join(IMAGE_SUFFIXES)}")
    index = SuperResolutionIndex(
        folder=os.fspath(hr_folder),
        scale=scale,
        sizes=np.fromiter(images.values(), dtype=np.int64, count=len(images)),
        **join_paths([os.fsencode(name) for name in images]),
    )
    return (
        _with_small_images(index, list(images), os.fspath(lr_folder))
        if scale > 1 and lr_folder.is_dir()
        else index
    )


def require_super_resolution_split(data, split, scale):
    """Like find_super_resolution_split, but a missing split is an error that says what was expected and what is there instead."""
    index = find_super_resolution_split(data, split, scale)
    if index is not None:
        return index
    hint = nearby(
        data, lambda folder: (there := find_split(folder, split)) and (there / HR).is_dir()
    )
    raise DataLayoutError(
        data, f"expected {SPLIT_FOLDERS[split][0]}/{HR}/x.png, found {_listed(data)}{hint}"
    )


def lr_folder_name(scale):
    return f"LR_x{scale}"


def other_lr_folders(index):
    """Names of the folders beside HR/ that hold small images of another scale."""
    names = sorted(
        entry.name for entry in os.scandir(Path(index.folder).parent) if os.path.isdir(entry.path)
    )
    return [
        name
        for name in names
        if re.fullmatch(r"LR_x\d+", name) and name != lr_folder_name(index.scale)
    ]


def small_without_image(index):
    """Paths of the small images of a split that belong to no large one; [] where none are used."""
    if index.lr_folder is None:
        return []
    used = {index.lr_name(i) for i in range(len(index))}
    return [
        os.path.join(index.lr_folder, name)
        for name in files_below(index.lr_folder, IMAGE_SUFFIXES)
        if name not in used
    ]


def _with_small_images(index, names, lr_folder):
    """The index with the small image of every large one; its stem may end in the scale: babyx2.png belongs to baby.png."""
    files, marked = files_below(lr_folder, IMAGE_SUFFIXES), {}
    stems = _by_stem(index.folder, names, "would have one small image")
    exact = _by_stem(lr_folder, files, "belong to one large image")
    for name in files:
        stem = re.sub(rf"[_-]?[xX]{index.scale}$", "", _stem(name))
        # a large image may itself be called ax2.png: then ax2.png is its small one, and not that
        # of a.png
        if _stem(name) not in stems and marked.setdefault(stem, name) != name:
            raise DataLayoutError(
                lr_folder, f"{marked[stem]} and {name} belong to one large image; keep one"
            )
    twice = [
        (exact[stem], marked[stem]) for stem in sorted(stems) if stem in exact and stem in marked
    ]
    if twice:
        raise DataLayoutError(
            lr_folder, f"{twice[0][0]} and {twice[0][1]} belong to one large image; keep one"
        )
    partner = marked | exact
    missing = [name for name in names if _stem(name) not in partner]
    if missing:
        expected = os.path.join(lr_folder, _stem(missing[0]) + ".png")
        few = f"{len(missing)} of {len(names)} images have no small one; the first is {missing[0]}"
        many = few if len(missing) > 1 else f"no small image for {missing[0]}"
        there = f"it holds {shorten(sorted(files), 2)}" if files else "it holds no images"
        raise DataLayoutError(
            lr_folder,
            f"{many}, expected {expected}; {there}. Without the folder small images are made from {HR}/",
        )
    chosen = [partner[_stem(name)] for name in names]
    return replace(
        index,
        lr_folder=lr_folder,
        lr_sizes=np.fromiter((files[name] for name in chosen), dtype=np.int64, count=len(chosen)),
        **{
            f"lr_{column}": value
            for column, value in join_paths([os.fsencode(name) for name in chosen]).items()
        },
    )


def _stem(name):
    return os.path.splitext(name)[0]


def _listed(folder):
    """What lies in a folder, for a message."""
    return (
        shorten(sorted(entry.name for entry in os.scandir(folder) if not is_hidden(entry.name)))
        or "nothing"
    )


def _by_stem(folder, names, why):
    """{stem: name}. Raises DataLayoutError for two files that differ in their suffix alone."""
    first = {}
    for name in names:
        if first.setdefault(_stem(name), name) != name:
            raise DataLayoutError(folder, f"{first[_stem(name)]} and {name} {why}; keep one")
    return first
