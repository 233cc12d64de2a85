"""Decoded images on disk, so that a training crop costs a hundredth of a millisecond instead of a decoded file.

Each image is one raw file, uint8 [H, W, 3], with a json beside it that says what it was made
from. They lie in the user's cache folder, `$XDG_CACHE_HOME/visionloop/images` or
`~/.cache/visionloop/images`, in a folder of their own for each source folder and kind of image;
any of it may be deleted at any time, it is made anew. All workers and all ranks of a
machine share one copy in memory of the files, which the system drops when memory is short.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np
from tqdm import tqdm

from visionloop.datasets.cache.store_files import (
    OTHER_WAYS,
    CacheError,
    cache_folder,
    current_entry,
    digest,
    locked,
    make_entry,
)
from visionloop.datasets.io.images import UnreadableImage

# kept open by a store: each holds a file descriptor, of which a process often has 1024; a new one
# takes 20 us
MOST_MAPS = 200
GIB = 2**30


@dataclass(frozen=True)
class Contents:
    """What a store is to hold, one image for each of some files.

    kind: a word for what is made of a file, part of the store's folder name; folder, names: of the
    files; make(path): the image, uint8 [H, W, 3], raises OSError where it cannot be read;
    measure(path): its (height, width), quickly, raises OSError too; whole(path): the (height,
    width) of the image that it is a smaller copy of, None: it is no smaller copy.
    """

    kind: str
    folder: str
    names: list[str]
    make: Callable
    measure: Callable
    whole: Callable | None = None

    @property
    def store_folder(self):
        """Where the images of this kind of this source folder are kept."""
        return cache_folder() / f"{digest(os.path.realpath(self.folder))}-{self.kind}"

    def path(self, name):
        return os.path.join(self.folder, name)


@dataclass(frozen=True, eq=False)
class ImageStore:
    """Images to read.

    raw_files: bytes [N], names in the folder; sizes_hw: int64 [N, 2], 0 of an image that could not
    be read; whole_hw: int64 [N, 2] of the images that they are smaller copies of, the same where
    they are none.
    """

    folder: Path
    raw_files: np.ndarray
    sizes_hw: np.ndarray
    whole_hw: np.ndarray
    _maps: dict = field(default_factory=dict)  # row -> image; each process opens its own

    def __getstate__(self):
        return self.__dict__ | {"_maps": {}}

    def __contains__(self, i):
        return bool(self.sizes_hw[i, 0])

    def size_hw(self, i):
        height, width = self.sizes_hw[i]
        return int(height), int(width)

    def image(self, i):
        """uint8 [H, W, 3], read-only and on disk until it is touched. Raises UnreadableImage when its file is gone."""
        if i not in self._maps:
            if len(self._maps) >= MOST_MAPS:
                del self._maps[next(iter(self._maps))]
            self._maps[i] = self._open(i, partial(_map, (*self.size_hw(i), 3)))
        return self._maps[i]

    def read(self, i):
        """A copy of image i in memory, uint8 [H, W, 3]: quicker than a new map where most of an image is looked at."""
        image = np.empty((*self.size_hw(i), 3), dtype=np.uint8)
        self._open(i, partial(_read_into, image))
        return image

    def _open(self, i, use):
        """use(the open file of image i), which raises OSError or ValueError; UnreadableImage names the file then."""
        path = os.path.join(self.folder, os.fsdecode(self.raw_files[i]))
        try:
            with open(path, "rb", buffering=0) as file:
                return use(file)
        except (OSError, ValueError) as error:
            raise UnreadableImage(
                path,
                f"the copy in the cache cannot be read ({error}); start again and it is made anew",
            ) from None

    def subset(self, rows):
        """A store of these images alone, in this order."""
        rows = np.asarray(rows, dtype=np.int64)
        picked = {
            column: getattr(self, column)[rows] for column in ("raw_files", "sizes_hw", "whole_hw")
        }
        return replace(self, **picked, _maps={})


def _map(shape, file):
    return np.frombuffer(mmap(file.fileno(), 0, access=ACCESS_READ), np.uint8).reshape(shape)


def _read_into(array, file):
    if file.readinto(array) != array.nbytes:
        raise ValueError("it is cut short")


def open_stores(all_contents):
    """[ImageStore] of a list of Contents, after making what is missing or was made of a file that has changed since.

    Only the sizes and modification times of files are compared. Room on the disk is asked for
    before anything is written. An image that cannot be read is left out. Several processes may
    call this at once: one makes the images, the others wait. Raises CacheError.
    """
    needed = sum(missing_bytes(contents) for contents in all_contents)
    free = free_bytes()
    if needed > free:
        why = f"{needed / GIB:.2f} GiB of decoded images do not fit, {free / GIB:.2f} GiB are free"
        raise CacheError(cache_folder(), f"{why}; {OTHER_WAYS}")
    return [_fill(contents) for contents in all_contents]


def missing_bytes(contents):
    """How much `open_stores` would write for these Contents; images that cannot be read count nothing."""
    total, folder = 0, contents.store_folder
    for name in contents.names:
        if current_entry(folder, name, contents.path(name)) is None:
            try:
                height, width = contents.measure(contents.path(name))
            except OSError:
                continue
            total += 3 * height * width
    return total


def free_bytes():
    """Room on the disk of the cache folder."""
    folder = cache_folder()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _fill(contents):
    """The ImageStore of these Contents, complete but for what cannot be read."""
    folder = contents.store_folder
    entries = [current_entry(folder, name, contents.path(name)) for name in contents.names]
    stale = [i for i, entry in enumerate(entries) if entry is None]
    if stale:
        with (
            locked(folder),
            tqdm(stale, desc=f"decoding {contents.kind}", unit="image", disable=None) as bar,
        ):
            for i in bar:
                source = folder, contents.names[i], contents.path(contents.names[i])
                # another process may have made it by now
                entries[i] = current_entry(*source) or make_entry(
                    *source, contents.make, contents.whole
                )
    sizes = [(entry["height"], entry["width"]) if entry else (0, 0) for entry in entries]
    wholes = [
        entry.get("whole", size) if entry else size
        for entry, size in zip(entries, sizes, strict=True)
    ]
    return ImageStore(
        folder,
        np.array(
            [os.fsencode(entry["raw"]) if entry else b"" for entry in entries], dtype=np.bytes_
        ),
        np.array(sizes, dtype=np.int64).reshape(-1, 2),
        np.array(wholes, dtype=np.int64).reshape(-1, 2),
    )
